"""Converts an estimator or pipeline to what ModelPred fits: features, a family, sample weights."""

import copy
import logging
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.black_box import BlackBox, Trainable, black_box
from modelpred.estimators.known_rows import KnownRows
from modelpred.estimators.mapping import (
    Estimator,
    Mapped,
    NoFamily,
    has_family,
    mapped,
    unfitted,
)
from modelpred.estimators.preprocessing import Preprocessing, Table, numbers, prepared, split
from modelpred.estimators.subset_fits import Kind
from modelpred.targets.points import Points

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Boxed:
    """An estimator without a family, which is trained as it is on every subset.

    Attributes:
        estimator: unfitted, the last step of a pipeline, with a seed.
        known: the training rows by position, then others.
        regression: whether it predicts a number; None if its labels decide.
        sample_weight: factor of each training row; None is 1 for all.
    """

    estimator: Estimator
    known: KnownRows
    regression: bool | None
    sample_weight: NDArray[np.float64] | None
    notes: str = ""
    divisor: float = 1.0  # as Mapped

    def family(self, classes: NDArray[Any], points: Points, *scored: Points) -> BlackBox:
        """The family of target models.

        Args:
            classes: as the caller names them; empty for numbers.
            points: the training rows.
            scored: other rows that models score.
        """
        kind: Kind = "classes" if len(classes) else "numbers"
        if len(classes) and hasattr(self.estimator, "predict_proba"):
            kind = "probabilities"
        elif len(classes) and hasattr(self.estimator, "decision_function"):
            kind = "scores"
        return black_box(Trainable(self.estimator, kind, self.known, classes), points, *scored)


@runtime_checkable
class RowFeatures(Protocol):
    """Maps rows to features."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        ...

    def __call__(self, table: Table, *, what: str) -> NDArray[np.float64]:
        """Features [rows, features]; InvalidInput for rows that are not like those of the fit."""
        ...


@dataclass(frozen=True)
class AdaptedTorch:
    """A torch module as what ModelPred fits, with the attributes of `Adapted`."""

    preprocessing: RowFeatures

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of `features`."""
        return self.preprocessing.names

    def features(self, table: Table, *, what: str) -> NDArray[np.float64]:
        """Features [rows, features]; InvalidInput as `preprocessing`."""
        return self.preprocessing(table, what=what)


@dataclass(frozen=True)
class Adapted:
    """An estimator, its family of target models, and its preprocessing, fitted on all rows.

    Attributes:
        given: the estimator or pipeline, as the caller gave it.
        target: its last step as a family, or as a black box.
        preprocessing: its other steps.
    """

    given: Estimator
    target: Mapped | Boxed
    preprocessing: Preprocessing

    @property
    def mapped(self) -> Mapped:
        """The last step as a family.

        Raises:
            InvalidInput: it is a black box.
        """
        if isinstance(self.target, Mapped):
            return self.target
        name = type(self.target.estimator).__name__
        raise InvalidInput(
            f"{name} is a black box, whose coefficients are not known; use to_sklearn() and read "
            "what the fitted estimator has"
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of `features`."""
        return self.preprocessing.names if isinstance(self.target, Mapped) else ("position",)

    def features(self, table: Table, *, what: str) -> NDArray[np.float64]:
        """Features [rows, features]; of a black box the positions of the rows, [rows, 1].

        Raises:
            InvalidInput: other columns than those of the fit, or cells that are no numbers.
        """
        if isinstance(self.target, Mapped):
            return self.preprocessing(table, what=what)
        found = self.preprocessing.transformed(table, what=what)
        return self.target.known.positions(found, what=what)[:, None].astype(np.float64)

    def __str__(self) -> str:
        """The class, and what was decided once for all subsets."""
        target = self.target
        how = target.family if isinstance(target, Mapped) else "a black box"
        parts = [f"{type(target.estimator).__name__} as {how}"]
        if self.preprocessing.steps is not None:
            names = (type(step).__name__ for _, step in self.preprocessing.steps.steps)
            parts.append(f"{', '.join(names)} fitted once on all rows")
        if target.notes:
            parts.append(target.notes)
        return "; ".join(parts)


def adapted(
    estimator: Estimator,
    table: Table,
    labels: Any,  # noqa: ANN401 - a column of any library
    *,
    sample_weight: Any,  # noqa: ANN401 - a column of any library, or None
    seed: int = 0,
    what: str,
) -> tuple[Adapted, NDArray[np.float64]]:
    """The estimator as a family or a black box, and the features of the rows.

    Args:
        estimator: or a pipeline.
        table: the training rows.
        labels: [rows].
        sample_weight: [rows], or None.
        seed: of a black box that has none of its own.
        what: name of the table in messages.

    Raises:
        InvalidInput: rows that cannot be used, or an estimator that cannot be trained on subsets.
    """
    column = label_column(labels)
    before, last = split(estimator)
    preprocessing, rows = prepared(before, table, column, what=what)
    factors = weight_column(sample_weight, rows=len(column))
    require_label_each(column, rows, what=what)
    if has_family(last):
        described = what if preprocessing.steps is None else f"{what} after preprocessing"
        features = numbers(rows, what=described)
        try:
            found = mapped(last, features, column, sample_weight=factors)
            return Adapted(estimator, found, preprocessing), features
        except NoFamily as error:
            log.warning("%s; every subset is trained by %s", error, type(last).__name__)
    boxed = _boxed(last, rows, factors, seed=seed)
    own = Adapted(estimator, boxed, preprocessing)
    return own, np.arange(len(column), dtype=np.float64)[:, None]


def _boxed(
    estimator: Estimator, rows: Table, factors: NDArray[np.float64] | None, *, seed: int
) -> Boxed:
    """The estimator as a black box; InvalidInput where it lacks what training on subsets needs."""
    name = type(estimator).__name__
    if not (hasattr(estimator, "fit") and hasattr(estimator, "predict")):
        raise InvalidInput(f"{name} has no fit or no predict; expected an estimator that has both")
    if factors is not None:
        from sklearn.utils.validation import has_fit_parameter  # noqa: PLC0415 - the caller has it

        if not has_fit_parameter(estimator, "sample_weight"):
            raise InvalidInput(f"{name}.fit takes no sample_weight; leave it out")
    seeded, notes = _seeded(estimator, seed)
    kind = estimator_kind(estimator)
    regression = None if kind is None else kind == "regressor"
    return Boxed(seeded, KnownRows(rows), regression, factors, notes)


def _seeded(estimator: Estimator, seed: int) -> tuple[Estimator, str]:
    """An unfitted copy whose training draws the same numbers for every subset, and a note."""
    if not hasattr(estimator, "get_params"):
        return copy.deepcopy(estimator), ""
    own = unfitted(estimator)
    missing = {
        key: seed % 2**32
        for key, value in own.get_params().items()
        if key.rpartition("__")[2] == "random_state" and value is None
    }
    return own.set_params(**missing), f"random_state {seed} in every subset" if missing else ""


def estimator_kind(estimator: Estimator) -> str | None:
    """`classifier` or `regressor`; None if the estimator does not say."""
    from sklearn.utils import get_tags  # noqa: PLC0415 - the caller has it

    try:
        kind = get_tags(estimator).estimator_type
    except AttributeError:  # a class of the caller's own
        kind = None
    if kind in ("classifier", "regressor"):
        return kind
    scores = hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function")
    return "classifier" if scores else None


def label_column(labels: Any) -> NDArray[Any]:  # noqa: ANN401 - a column of any library
    """Labels [rows] as scikit-learn takes them."""
    values = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise InvalidInput(f"y has shape {list(array.shape)}, expected one label a row")
    return array


def require_label_each(labels: NDArray[Any], rows: Table, *, what: str) -> None:
    """Check that there is one label for each row.

    Raises:
        InvalidInput: there are more or fewer, or the rows are one value.
    """
    shape = np.shape(rows)  # a sparse matrix has no len()
    if not shape:
        raise InvalidInput(f"{what} is one value, expected a table with a row for each label")
    if shape[0] != len(labels):
        raise InvalidInput(f"y has {len(labels)} labels for {shape[0]} rows; pass one a row")


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
