"""Converts tables and labels to points with the encoding and scaling of the fit."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modelpred.api.frames import require_same_rows, row_names
from modelpred.api.inputs import ArrayLike, frame_of
from modelpred.api.labels import Labels
from modelpred.dataset import Dataset
from modelpred.dataset.cells import column_of, names_of
from modelpred.dataset.encoding import CategoryColumn, Encoding, fit_encoding
from modelpred.dataset.preparation import content_fingerprint
from modelpred.dataset.scaling import Scaling, scaled_features
from modelpred.errors import InvalidInput
from modelpred.estimators import Adapted, AdaptedModule, AdaptedTarget
from modelpred.targets import Points, points_of

LEVELS = 20  # of a category; the others share one feature
SHOWN_LEVELS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """Encoding, scaling and labels of a fit, applied to a caller's tables.

    Attributes:
        encoding: what the columns of the fit became.
        named: whether the table of the fit named its columns itself.
        scaling: from cells to features, with the constants of the fit's rows.
        labels: how labels are written.
        levels: of each category, what the rows of the fit held.
        adapted: the estimator or module that makes the columns; None where there is none.
    """

    encoding: Encoding
    named: bool
    scaling: Scaling
    labels: Labels
    levels: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    adapted: Adapted | AdaptedModule | AdaptedTarget | None = None

    def features(self, table: ArrayLike, *, what: str) -> Tensor:
        """Scaled features [rows, features]; InvalidInput as `rows` and `cells`."""
        rows = self.rows(table, what=what)
        cells = self.cells(rows, what=what)
        for line in self._never_seen(rows):
            log.warning("%s: %s", what, line)
        return self.scaled(cells, what=what)

    def _never_seen(self, rows: pl.DataFrame) -> list[str]:
        """Levels that were in no row of the fit, one line per column."""
        lines: list[str] = []
        for column in self.encoding.columns:
            cells = column_of(rows, column.name)
            if isinstance(column, CategoryColumn) and column.name in self.levels:
                names = names_of(cells)
                new = names.filter(names.is_not_null() & ~names.is_in(self.levels[column.name]))
                if len(new):
                    shown = new.unique(maintain_order=True).to_list()
                    levels = ", ".join(map(repr, shown[:SHOWN_LEVELS]))
                    levels += ", ..." if len(shown) > SHOWN_LEVELS else ""
                    counts_as = "(other)" if column.other else "none of its levels"
                    lines.append(
                        f"{_rows(len(new))} of column {column.name!r} no row of the fit had "
                        f"({levels}); they count as {counts_as}"
                    )
        return lines

    def rows(self, table: ArrayLike, *, what: str) -> pl.DataFrame:
        """The columns of the fit; they go by name where both sides name them, else by position.

        Raises:
            InvalidInput: other columns than those of the fit.
        """
        names = self.encoding.column_names
        if self.adapted is not None:
            table = self.adapted.features(table, what=what)
        frame, named = frame_of(table, what=what)
        if named and not self.named and set(frame.columns) == set(map(str, range(len(names)))):
            frame = frame.rename({name: f"x{name}" for name in frame.columns})
        missing = [name for name in names if name not in frame.columns]
        if named and not missing:
            return frame[list(names)]
        if named and self.named:
            raise InvalidInput(f"{what} has no column {missing[0]!r}; pass the columns of the fit")
        if frame.width != len(names):
            raise InvalidInput(
                f"{what} has {frame.width} columns but the fit had {len(names)}; "
                "pass the same columns"
            )
        return frame.rename(dict(zip(frame.columns, names, strict=True)))

    def cells(self, rows: pl.DataFrame, *, what: str) -> Tensor:
        """Unscaled features; InvalidInput where a cell is not what its column was in the fit."""
        return encoded_cells(self.encoding, rows, what=what)

    def scaled(self, cells: Tensor, *, what: str) -> Tensor:
        """Features from cells; InvalidInput where one is too large to compute with."""
        names = self.encoding.feature_names
        return scaled_features(self.scaling, cells, columns=names, what=what)

    def points(self, table: ArrayLike, labels: ArrayLike, *, what: str) -> Points:
        """Points with their labels; InvalidInput as `features` and `Labels.encode`."""
        require_same_rows(table, labels, what=f"y{what}", of=f"X{what}")
        features = self.features(table, what=f"X{what}")
        encoded = self.labels.encode(labels, what=f"y{what}", rows=len(features))
        return points_of(features, encoded, len(self.labels.classes))


def _rows(count: int) -> str:
    return f"{count:,} cell{'s'[: count != 1]}"


def levels_of(encoding: Encoding, rows: pl.DataFrame) -> dict[str, frozenset[str]]:
    """Levels of each category in these rows."""
    return {
        column.name: frozenset(names_of(column_of(rows, column.name)).drop_nulls())
        for column in encoding.columns
        if isinstance(column, CategoryColumn)
    }


def encoding_of(rows: pl.DataFrame, *, what: str) -> Encoding:
    """Fit the encoding of these rows; InvalidInput for a column that has none."""
    try:
        return fit_encoding(rows, rows.columns, levels=LEVELS)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error


def encoded_cells(encoding: Encoding, rows: pl.DataFrame, *, what: str) -> Tensor:
    """Unscaled features of rows; InvalidInput if a cell does not have the type of its column."""
    try:
        return torch.from_numpy(encoding.encode(rows))
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error


def _test_ids(
    test: tuple[ArrayLike, ArrayLike] | None, row_ids: tuple[str, ...], *, rows: int
) -> tuple[str, ...]:
    """The ids of the test table's rows, if they differ from each other and from those of training rows."""
    named = None if test is None else row_names(test[0], what="X_test")
    if named is not None and len({*row_ids, *named}) == len(row_ids) + rows:
        return named
    return tuple(f"test-{row}" for row in range(rows))


def dataset_of(
    reading: Reading,
    rows: pl.DataFrame,
    points: tuple[Tensor, Tensor],
    row_ids: tuple[str, ...],
    *,
    test: tuple[ArrayLike, ArrayLike] | None,
    test_ids: tuple[str, ...] | None = None,
) -> Dataset:
    """The rows as the pipeline's stages take them; `points` are their features and labels."""
    features, labels = points
    label_name = "label"
    while label_name in rows.columns:
        label_name += "_"
    if "row_id" in rows.columns:
        raise InvalidInput("X has a column 'row_id'; rename or drop it, and pass it as ids=")
    test_rows, test_features, test_labels = rows[:0], features[:0], labels[:0]
    if test is not None:
        held_out = reading.points(*test, what="_test")
        test_rows = reading.rows(test[0], what="X_test")
        test_features, test_labels = held_out.features, held_out.labels
    classes = reading.labels.classes
    test_row_ids = test_ids or _test_ids(test, row_ids, rows=len(test_labels))

    def with_labels(ids: tuple[str, ...], cells: pl.DataFrame, labelled: Tensor) -> pl.DataFrame:
        named = np.array(classes)[labelled.numpy()] if classes else labelled.numpy()
        return cells.select(
            pl.Series("row_id", ids, dtype=pl.String), pl.all(), pl.Series(label_name, named)
        )

    dataset = Dataset(
        name="notebook",
        features=features,
        labels=labels,
        test_features=test_features,
        test_labels=test_labels,
        row_ids=row_ids,
        test_row_ids=test_row_ids,
        encoding=reading.encoding,
        classes=classes,
        rows=with_labels(row_ids, rows, labels),
        test_rows=with_labels(test_row_ids, test_rows, test_labels),
        fingerprint="",
        label_name=label_name,
        scaling=reading.scaling,
        attribution="",
    )
    return replace(dataset, fingerprint=content_fingerprint(dataset))
