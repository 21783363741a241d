"""ModelPred for a notebook: the same steps as the pipeline's stages, in memory."""

from modelpred.api.attribution import Attribution, Explanation, FlippingRows
from modelpred.api.comparison import Comparison
from modelpred.api.edited import EditedModel
from modelpred.api.estimator import ModelPred
from modelpred.api.suspects import Suspects
from modelpred.api.uncertainty import MemorizedRows, PredictiveDistribution

__all__ = [
    "Attribution",
    "Comparison",
    "EditedModel",
    "Explanation",
    "FlippingRows",
    "MemorizedRows",
    "ModelPred",
    "PredictiveDistribution",
    "Suspects",
]
