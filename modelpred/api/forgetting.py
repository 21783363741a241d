"""Removes rows from a fit for good, and lists what else may still contain them.

Rows are in more than the table: in the constants of the scaling, the levels of categories, the
trained models and the predictor. So nothing is cut out of these: the same settings are fitted to
the rows that remain, as if the others had never been there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelpred.api.files import Fitted
from modelpred.api.frames import Table
from modelpred.api.inputs import RowNames, listed, positions_of
from modelpred.api.labels import Labels, learn_labels
from modelpred.errors import InvalidInput
from modelpred.wording import Printed

ELSEWHERE = (
    ("objects in memory", "models of `without` and `with_points` made before", "delete them"),
    ("folders saved before", "dataset/, targets/, predictor/", "delete them"),
    ("the source", "the file or table that the rows came from", "remove the rows, then make run"),
    ("shards", ".modelpred/shards, or the store that MODELPRED_STORE names", "delete the folder"),
    (
        "DVC's cache",
        ".dvc/cache and its remotes",
        "dvc gc --workspace --cloud, once git forgot them",
    ),
    (
        "the registry",
        "every version that was fitted to them",
        "delete the versions, then mlflow gc",
    ),
)


@dataclass(frozen=True)
class Given:
    """What the fit of an estimator was given: its preprocessing is fitted again to the rows that remain.

    Attributes:
        table: the rows, before preprocessing.
        labels: of the rows.
        sample_weight: of the rows, or None.
        ids: of the rows, or None.
        test: rows with labels, or None.
        test_ids: of the test rows, or None.
    """

    table: Table
    labels: Table
    sample_weight: Table
    ids: RowNames | None
    test: tuple[Table, Table] | None
    test_ids: tuple[str, ...] | None = None

    def take(self, places: Sequence[int], left: "Remaining") -> "Given":
        """What remains of it: training rows by position, and the test rows that are left."""
        factors = None if self.sample_weight is None else _taken(self.sample_weight, places)
        test, test_ids = None, None
        if self.test is not None and left.test is not None:
            test_ids = left.test.ids
            test = (_taken(self.test[0], left.test.places), _taken(self.test[1], left.test.places))
        rows, labels = _taken(self.table, places), _taken(self.labels, places)
        return Given(rows, labels, factors, left.training.ids, test, test_ids)


def _taken(values: Table, places: Sequence[int]) -> Table:
    """Some rows of a table or column of any library."""
    if isinstance(values, Mapping):
        return {name: _taken(each, places) for name, each in values.items()}
    if hasattr(values, "iloc"):
        return values.iloc[list(places)]
    if hasattr(values, "take") and hasattr(values, "schema"):
        return values.take(list(places))  # pyarrow
    if hasattr(values, "collect"):
        values = values.collect()
    if isinstance(values, (list, tuple)):
        return [values[place] for place in places]
    return values[list(places)]


@dataclass(frozen=True)
class Forgotten(Printed):
    """The rows that a fit has forgotten; `print` it to read what still holds them.

    Attributes:
        rows: their ids.
        left: how many training rows remain.
    """

    rows: tuple[str, ...]
    left: int

    def __str__(self) -> str:
        """A summary, with the list of what may still contain the rows."""
        count = len(self.rows)
        lines = [
            f"{count} row{'s'[: count != 1]} forgotten; fitted again to the {self.left} that remain.",
            "What is saved from now on does not hold them. Look also at:",
            *(f"  {name:<22} {what}: {how}" for name, what, how in ELSEWHERE),
            "docs/erasure.md has the commands.",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Part:
    """Remaining rows, in the form of a caller's arguments."""

    rows: pl.DataFrame
    labels: NDArray[Any]
    ids: tuple[str, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Remaining:
    """What remains: training rows, how their labels are written, and test rows if there are any."""

    training: Part
    labels: Labels
    test: Part | None
    forgotten: Forgotten


def remaining(fitted: Fitted, rows: RowNames) -> Remaining:
    """The fit's rows without these, which may be training rows or, by id, test rows.

    Raises:
        InvalidInput: unknown or repeated rows, or too few that remain.
    """
    dataset = fitted.dataset
    tests = set(dataset.test_row_ids) - set(dataset.row_ids)
    named = [] if isinstance(rows, str) else listed(rows)
    held_out = [row for row in named if isinstance(row, str) and row in tests]
    others = [row for row in named if row not in held_out]
    if len(set(held_out)) < len(held_out):
        raise InvalidInput(f"a test row is named more than once in {held_out}; name each row once")
    gone = positions_of(others if named else rows, dataset.row_ids) if others or not named else []
    training = _without(fitted, np.array(gone, dtype=np.int64), test=False)
    if not training.ids:
        raise InvalidInput(
            "no row would remain; delete the ModelPred and its folders in place of it"
        )
    places = {row_id: place for place, row_id in enumerate(dataset.test_row_ids)}
    test = _without(fitted, np.array([places[row] for row in held_out], dtype=np.int64), test=True)
    forgotten = (*(dataset.row_ids[place] for place in gone), *held_out)
    return Remaining(
        training,
        learn_labels(training.labels, what="y", regression=not dataset.classes),
        test if test.ids else None,
        Forgotten(forgotten, len(training.ids)),
    )


def _without(fitted: Fitted, gone: NDArray[np.int64], *, test: bool) -> Part:
    dataset, labels = fitted.dataset, fitted.reading.labels
    rows, encoded, ids = (
        (dataset.test_rows, dataset.test_labels, dataset.test_row_ids)
        if test
        else (dataset.rows, dataset.labels, dataset.row_ids)
    )
    remaining = np.ones(len(ids), dtype=np.bool_)
    remaining[gone] = False
    return Part(
        rows[list(dataset.column_names)].filter(pl.Series(remaining)),
        labels.decode(encoded.numpy()[remaining]),
        tuple(row_id for row_id, left in zip(ids, remaining, strict=True) if left),
        tuple(np.flatnonzero(remaining).tolist()),
    )
