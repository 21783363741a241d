"""The predictor: a neural set function from subset weights to trained parameters."""

from modelpred.predictor.config import PredictorConfig
from modelpred.predictor.fidelity import break_even_queries, fidelity, with_break_even
from modelpred.predictor.files import predictor_fingerprint, read_predictor, write_predictor
from modelpred.predictor.fit import fit_predictor
from modelpred.predictor.predictor import Predictor
from modelpred.predictor.variants import (
    Refined,
    Stopped,
    answer_curve,
    early_answers,
    refinement_curve,
)

__all__ = [
    "Predictor",
    "PredictorConfig",
    "Refined",
    "Stopped",
    "answer_curve",
    "break_even_queries",
    "early_answers",
    "fidelity",
    "fit_predictor",
    "predictor_fingerprint",
    "read_predictor",
    "refinement_curve",
    "with_break_even",
    "write_predictor",
]
