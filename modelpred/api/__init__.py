"""ModelPred for a notebook: the same steps as the pipeline's stages, in memory."""

from modelpred.api.edited import Comparison, EditedModel
from modelpred.api.estimator import ModelPred

__all__ = ["Comparison", "EditedModel", "ModelPred"]
