"""scikit-learn's estimators as families of target models, and fitted estimators from parameters.

scikit-learn is imported only when an estimator is passed.
"""

from modelpred.estimators.adapted import Adapted, adapted, weight_column
from modelpred.estimators.export import (
    Coefficients,
    adapted_coefficients,
    coefficient_table,
    fitted_estimator,
)
from modelpred.estimators.mapping import Estimator

__all__ = [
    "Adapted",
    "Coefficients",
    "Estimator",
    "adapted",
    "adapted_coefficients",
    "coefficient_table",
    "fitted_estimator",
    "weight_column",
]
