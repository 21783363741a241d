"""An estimator or pipeline as what ModelPred fits: features, a family, sample weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.mapping import Estimator, Mapped, mapped
from modelpred.estimators.preprocessing import Preprocessing, Table, prepared


@dataclass(frozen=True)
class Adapted:
    """An estimator, the family that stands for it, and its preprocessing, fitted on all rows.

    Attributes:
        given: the estimator or pipeline, as the caller gave it.
        mapped: its last step as a family.
        preprocessing: its other steps.
    """

    given: Estimator
    mapped: Mapped
    preprocessing: Preprocessing

    def __str__(self) -> str:
        """The class, and what was decided once for all subsets."""
        told = [f"{type(self.mapped.estimator).__name__} as {self.mapped.family}"]
        if self.preprocessing.steps is not None:
            names = (type(step).__name__ for _, step in self.preprocessing.steps.steps)
            told.append(f"{', '.join(names)} fitted once on all rows")
        if self.mapped.notes:
            told.append(self.mapped.notes)
        return "; ".join(told)


def adapted(
    estimator: Estimator,
    table: Table,
    labels: Any,  # noqa: ANN401 - a column of any library
    *,
    sample_weight: Any,  # noqa: ANN401 - a column of any library, or None
    what: str,
) -> tuple[Adapted, NDArray[np.float64]]:
    """The estimator as a family, and the features of the rows.

    Raises:
        InvalidInput: rows that cannot be used, or an estimator that no family stands for.
    """
    column = label_column(labels)
    preprocessing, features, last = prepared(estimator, table, column, what=what)
    if len(column) != len(features):
        raise InvalidInput(f"y has {len(column)} labels for {len(features)} rows; pass one a row")
    factors = weight_column(sample_weight, rows=len(features))
    found = mapped(last, features, column, sample_weight=factors)
    return Adapted(estimator, found, preprocessing), features


def label_column(labels: Any) -> NDArray[Any]:  # noqa: ANN401 - a column of any library
    """Labels [rows] as scikit-learn takes them."""
    values = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise InvalidInput(f"y has shape {list(array.shape)}, expected one label a row")
    return array


def weight_column(
    sample_weight: Any,  # noqa: ANN401 - a column of any library, or None
    *,
    rows: int,
) -> NDArray[np.float64] | None:
    """Sample weights [rows], finite and above zero; None for None.

    Raises:
        InvalidInput: other numbers.
    """
    if sample_weight is None:
        return None
    try:
        factors = np.array(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"sample_weight holds no numbers ({error}); pass one a row") from error
    if factors.shape != (rows,):
        raise InvalidInput(
            f"sample_weight has shape {list(factors.shape)}, expected one number for each of {rows} rows"
        )
    if not ((factors > 0) & np.isfinite(factors)).all():
        raise InvalidInput(
            "sample_weight has values that are not finite and above zero; leave out rows of weight 0"
        )
    return factors
