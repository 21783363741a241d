"""Parameters back as fitted estimators, and as coefficients in the units of the original columns."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
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
    if preprocessing.steps is None and preprocessing.columns is not None:
        final.feature_names_in_ = np.array(preprocessing.columns, dtype=object)
    return with_preprocessing(adapted, final)


def with_preprocessing(adapted: Adapted, final: Estimator) -> Estimator:
    """A fitted estimator after the fitted steps of the pipeline that was given, if there are any."""
    preprocessing = adapted.preprocessing
    if preprocessing.steps is None:
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


@dataclass(frozen=True)
class Coefficients:
    """A linear model in the units of the original columns.

    Attributes:
        columns: names of the features.
        coefficients: [outputs, features].
        intercepts: [outputs].
    """

    columns: tuple[str, ...]
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    @classmethod
    def of_scaled(
        cls,
        columns: Sequence[str],
        coefficients: NDArray[np.float64],
        intercepts: NDArray[np.float64],
        *,
        offsets: NDArray[np.float64],
        divisors: NDArray[np.float64],
    ) -> "Coefficients":
        """The same model for unscaled features; scaled ones are (x - offset) / divisor."""
        original = coefficients / divisors
        return cls(tuple(columns), original, intercepts - original @ offsets)


def adapted_coefficients(adapted: Adapted, parameters: NDArray[np.float64]) -> Coefficients:
    """The coefficients of an estimator's model."""
    units = original_units(adapted.preprocessing)
    scaled = split_parameters(adapted.mapped, parameters, features=len(adapted.preprocessing.names))
    return Coefficients.of_scaled(
        [unit.name for unit in units],
        *scaled,
        offsets=np.array([unit.offset for unit in units]),
        divisors=np.array([unit.divisor for unit in units]),
    )


def coefficient_table(models: dict[str, Coefficients], classes: NDArray[Any]) -> pl.DataFrame:
    """Coefficients of models, a row for each.

    Columns: `class` (of several outputs the class, of two classes the second), `column` (the last
    row of a class is `intercept`), and one column for each model. `classes` is empty for numbers.
    """
    columns: list[str] = []
    outputs = 1
    tables: dict[str, NDArray[np.float64]] = {}
    for name, model in models.items():
        outputs = len(model.coefficients)
        columns = [*model.columns, "intercept"]
        joined = np.concatenate([model.coefficients, model.intercepts[:, None]], 1)
        tables[name] = joined.ravel()
    table = pl.DataFrame({"column": columns * outputs, **tables})
    if not len(classes):
        return table
    own = classes if outputs > 1 else classes[-1:]
    return table.insert_column(0, pl.Series("class", np.repeat(own, len(columns))))
