"""Tables and labels as points: columns by name, encoded and scaled with the constants of the fit's rows."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modelpred.api.inputs import ArrayLike, frame_of
from modelpred.api.labels import Labels
from modelpred.dataset import Dataset
from modelpred.dataset.encoding import Encoding, fit_encoding
from modelpred.dataset.preparation import content_fingerprint
from modelpred.dataset.scaling import Scaling, scaled_features
from modelpred.errors import InvalidInput
from modelpred.targets import Points, points_of

LEVELS = 20  # of a category; the others share one feature


@dataclass(frozen=True)
class Reading:
    """How a caller's tables become points: encoding, scaling, labels.

    Attributes:
        encoding: what the columns of the fit became.
        named: whether the table of the fit named its columns itself.
        scaling: from cells to features, with the constants of the fit's rows.
        labels: how labels are written.
    """

    encoding: Encoding
    named: bool
    scaling: Scaling
    labels: Labels

    def features(self, table: ArrayLike, *, what: str) -> Tensor:
        """Scaled features [rows, features]; InvalidInput as `rows` and `cells`."""
        return self.scaled(self.cells(self.rows(table, what=what), what=what), what=what)

    def rows(self, table: ArrayLike, *, what: str) -> pl.DataFrame:
        """The columns of the fit; they go by name where both sides name them, else by position.

        Raises:
            InvalidInput: other columns than those of the fit.
        """
        names = self.encoding.column_names
        frame, named = frame_of(table, what=what)
        if named and self.named:
            missing = [name for name in names if name not in frame.columns]
            if missing:
                raise InvalidInput(
                    f"{what} has no column {missing[0]!r}; pass the columns of the fit"
                )
            return frame.select(names)
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
        features = self.features(table, what=f"X{what}")
        encoded = self.labels.encode(labels, what=f"y{what}", rows=len(features))
        return points_of(features, encoded, len(self.labels.classes))


def encoding_of(rows: pl.DataFrame, *, what: str) -> Encoding:
    """What the columns of these rows become; InvalidInput for a column that has no encoding."""
    try:
        return fit_encoding(rows, rows.columns, levels=LEVELS)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error


def encoded_cells(encoding: Encoding, rows: pl.DataFrame, *, what: str) -> Tensor:
    """Unscaled features of rows; InvalidInput where a cell is not what its column was."""
    try:
        return torch.from_numpy(encoding.encode(rows))
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error


def dataset_of(
    reading: Reading,
    rows: pl.DataFrame,
    points: tuple[Tensor, Tensor],
    row_ids: tuple[str, ...],
    *,
    test: tuple[ArrayLike, ArrayLike] | None,
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
    test_row_ids = tuple(f"test-{row}" for row in range(len(test_labels)))

    def told(ids: tuple[str, ...], cells: pl.DataFrame, labelled: Tensor) -> pl.DataFrame:
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
        rows=told(row_ids, rows, labels),
        test_rows=told(test_row_ids, test_rows, test_labels),
        fingerprint="",
        label_name=label_name,
        scaling=reading.scaling,
        attribution="",
    )
    return replace(dataset, fingerprint=content_fingerprint(dataset))
