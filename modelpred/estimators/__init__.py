"""scikit-learn's estimators and torch modules as families of target models, and back.

scikit-learn is imported only when an estimator is passed.
"""

from modelpred.estimators.adapted import (
    Adapted,
    AdaptedTorch,
    Boxed,
    adapted,
    estimator_kind,
    weight_column,
)
from modelpred.estimators.black_box import BlackBox
from modelpred.estimators.export import (
    Coefficients,
    adapted_coefficients,
    coefficient_table,
    fitted_estimator,
    with_preprocessing,
)
from modelpred.estimators.files import adapted_document, read_adapted
from modelpred.estimators.mapping import Estimator
from modelpred.estimators.source import estimator_source
from modelpred.estimators.torch_head import AdaptedModule, TorchHead, adapted_module
from modelpred.estimators.torch_network import AdaptedTarget, adapted_target

__all__ = [
    "Adapted",
    "AdaptedModule",
    "AdaptedTarget",
    "AdaptedTorch",
    "BlackBox",
    "Boxed",
    "Coefficients",
    "Estimator",
    "TorchHead",
    "adapted",
    "adapted_coefficients",
    "adapted_document",
    "adapted_module",
    "adapted_target",
    "coefficient_table",
    "estimator_kind",
    "estimator_source",
    "fitted_estimator",
    "read_adapted",
    "weight_column",
    "with_preprocessing",
]
