"""Settings of estimators that say the same to every supported scikit-learn, and that none warns of."""

import inspect
from typing import Any

from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder


def _default(estimator: type, name: str) -> object:
    found = inspect.signature(estimator).parameters.get(name)
    return None if found is None else found.default


# Of LogisticRegressionCV, where the names are known (from 1.8 on).
_NEW = {"l1_ratios": (0,), "use_legacy_attributes": False}
SEARCH: dict[str, Any] = {"scoring": "accuracy"} | (
    {} if _default(LogisticRegressionCV, "use_legacy_attributes") is None else _NEW
)
# Folds of TargetEncoder in the order of the rows. A splitter is known from 1.9 on.
FOLDS: dict[str, Any] = (
    {"cv": KFold(5)} if _default(TargetEncoder, "shuffle") == "deprecated" else {"shuffle": False}
)
