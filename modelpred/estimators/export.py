"""Parameters back as fitted estimators, and as coefficients in the units of the original columns."""

import copy
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelpred.estimators.adapted import Adapted
from modelpred.estimators.mapping import Estimator, Mapped, unfitted
from modelpred.estimators.units import original_units


def fitted_estimator(
    adapted: Adapted, parameters: NDArray[np.float64], classes: NDArray[Any]
) -> Estimator:
    """A fitted estimator of the class that was given, with these parameters.

    Args:
        adapted: the estimator of the fit.
        parameters: [parameters], for the features of the family.
        classes: the classes' names; empty for numbers.
    """
    mapped, preprocessing = adapted.mapped, adapted.preprocessing
    final = _final(mapped, parameters, classes, features=len(preprocessing.names))
    if preprocessing.steps is None:
        if preprocessing.columns is not None:
            final.feature_names_in_ = np.array(preprocessing.columns, dtype=object)
        return final
    from sklearn.pipeline import Pipeline  # noqa: PLC0415 - the caller has it

    steps = copy.deepcopy(preprocessing.steps).steps
    name = adapted.given.steps[-1][0]
    while name in dict(steps):
        name += "_"
    return Pipeline([*steps, (name, final)])


def _final(
    mapped: Mapped, parameters: NDArray[np.float64], classes: NDArray[Any], *, features: int
) -> Estimator:
    final = unfitted(mapped.estimator)
    coefficients, intercepts = split_parameters(mapped, parameters, features=features)
    final.n_features_in_ = features
    if mapped.regression:
        final.coef_ = coefficients[0]
        final.intercept_ = float(intercepts[0])
    else:
        final.coef_, final.intercept_ = coefficients, intercepts
        one = getattr(final, "solver", "") == "liblinear" or not hasattr(final, "predict_proba")
        if one and not final.fit_intercept:
            final.intercept_ = 0.0  # what these classes have
        if mapped.family == "ridge_classifier":
            from sklearn.preprocessing import LabelBinarizer  # noqa: PLC0415 - the caller has it

            final._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(classes)
        if not hasattr(type(final), "classes_"):  # RidgeClassifier of before 1.9 derives it
            final.classes_ = classes
    for name, value in (mapped.chosen or {}).items():
        setattr(final, name, value)
    return final


def split_parameters(
    mapped: Mapped, parameters: NDArray[np.float64], *, features: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients [outputs, features] of undivided features, and intercepts [outputs]."""
    table = parameters.reshape(-1, features + 1)
    without = mapped.settings.get("intercept") == "none"
    intercepts = np.zeros(len(table)) if without else table[:, -1].copy()
    return table[:, :-1] / mapped.divisor, intercepts


def coefficient_table(
    adapted: Adapted, models: dict[str, NDArray[np.float64]], classes: NDArray[Any]
) -> pl.DataFrame:
    """Coefficients of models in the units of the original columns, a row for each.

    Columns: `class` (of several outputs the class, of two classes the second), `column` (the last
    row of a class is `intercept`), and one column for each model.
    """
    mapped, preprocessing = adapted.mapped, adapted.preprocessing
    features = len(preprocessing.names)
    units = original_units(preprocessing)
    divisors = np.array([unit.divisor for unit in units])
    offsets = np.array([unit.offset for unit in units])
    tables: dict[str, NDArray[np.float64]] = {}
    outputs = 1
    for name, parameters in models.items():
        coefficients, intercepts = split_parameters(mapped, parameters, features=features)
        outputs = len(coefficients)
        original = coefficients / divisors
        moved = intercepts - original @ offsets
        tables[name] = np.concatenate([original, moved[:, None]], 1).ravel()
    columns = [*(unit.name for unit in units), "intercept"] * outputs
    table = pl.DataFrame({"column": columns, **tables})
    if mapped.regression:
        return table
    own = classes if outputs > 1 else classes[-1:]
    return table.insert_column(0, pl.Series("class", np.repeat(own, features + 1)))
