"""Studies: what predicted models are for. Each asks any refit and is judged by exact retraining."""
