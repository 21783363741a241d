"""Methods of ModelPred by the question that they answer; each class builds on the state of a fit."""
