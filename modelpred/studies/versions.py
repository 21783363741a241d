"""Comparison of versions of the data: scores of their models, changed rows, and drift of values.

A version is a data set with the predictor that was fitted to it. Rows with equal ids are the same
row; a table without ids is compared by row number.

    scores    of the model of all rows of one version, predicted and exactly retrained, on the test
              rows of another version. The test rows are encoded and scaled like the first version's
              rows, and rows that the model was trained on are excluded
    changes   rows that were added, removed, changed, or moved between training and test rows
    drift     rank correlation of a study's values of the rows that two versions share, and the rows
              with the largest changes of rank
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from modelpred.dataset import Dataset
from modelpred.errors import InvalidInput
from modelpred.metrics import Interval, ranks, spearman_interval
from modelpred.predictor import Predictor
from modelpred.refits import Retraining
from modelpred.studies.results import written_number
from modelpred.targets import Points, points_of
from modelpred.targets.scoring import accuracies, mean_test_losses

SPLITS = ("pool", "test")
_CHANGES = {"row_id": pl.String, "change": pl.String, "columns": pl.String}


class Version(NamedTuple):
    """A data set and the predictor that was fitted to it, with the name of the revision."""

    name: str
    dataset: Dataset
    predictor: Predictor


@dataclass(frozen=True)
class Drift:
    """Change of the rows' values between two versions.

    Attributes:
        before: name of the earlier version.
        after: name of the later version.
        shared: number of rows in both.
        spearman: rank correlation over the shared rows, with its interval; None for too few rows.
        rows: row_id, value and rank in both, move (rank after - rank before), largest moves first.
    """

    before: str
    after: str
    shared: int
    spearman: Interval | None
    rows: pl.DataFrame


def cross_scores(versions: Sequence[Version], *, tolerance: float = 1e-6) -> pl.DataFrame:
    """Loss and accuracy of each version's model of all rows on each version's test rows.

    One row for each pair: `model_of`, `test_rows_of`, `rows` (number scored), `seen` (number excluded
    because the model was trained on them), `loss` of the predicted and `exact_loss` of the retrained
    model (`TargetModel.test_loss`; null if a model failed), `accuracy` (null for a regression),
    `problem` if the rows cannot be used.

    Args:
        versions: the versions to compare.
        tolerance: of retraining.
    """
    scores: list[dict[str, object]] = []
    for version in versions:
        model, points = version.predictor.model, version.predictor.points
        ones = torch.ones(1, len(points.labels), dtype=torch.float64)
        predicted = model.with_prior(version.predictor(ones), ones, points)
        exact = Retraining(model, points, tolerance=tolerance)(ones)
        for other in versions:
            row: dict[str, object] = {"model_of": version.name, "test_rows_of": other.name}
            try:
                test, seen = _test_points(version, other)
            except InvalidInput as error:
                scores.append({**row, "problem": str(error)})
                continue
            row |= {"rows": len(test.labels), "seen": seen}
            if len(test.labels):
                predicted = predicted.double()
                row["loss"] = written_number(mean_test_losses(model, predicted, test)[0])
                row["exact_loss"] = written_number(mean_test_losses(model, exact, test)[0])
                if test.classes:
                    row["accuracy"] = written_number(accuracies(model, predicted, test)[0])
            scores.append(row)
    return pl.DataFrame(scores, schema=_SCORES)


_SCORES = {
    "model_of": pl.String,
    "test_rows_of": pl.String,
    "rows": pl.Int64,
    "seen": pl.Int64,
    "loss": pl.Float64,
    "exact_loss": pl.Float64,
    "accuracy": pl.Float64,
    "problem": pl.String,
}


def _test_points(version: Version, other: Version) -> tuple[Points, int]:
    """Test rows of `other` as points of `version`, and the number excluded as its training rows."""
    own, tested = version.dataset, other.dataset
    trained = set(own.row_ids) if version is not other else set[str]()
    new = [at for at, row_id in enumerate(tested.test_row_ids) if row_id not in trained]
    cells = torch.from_numpy(own.encoding.encode(tested.test_rows[new]))
    labels = tested.test_labels[new]
    if bool(own.classes) != bool(tested.classes):
        raise InvalidInput("the label is a number in one version and a class in the other")
    if own.classes:
        unknown = [name for name in tested.classes if name not in own.classes]
        if unknown:
            raise InvalidInput(f"class {unknown[0]!r} is not in {version.name}")
        positions = torch.tensor([own.classes.index(name) for name in tested.classes])
        labels = positions[labels]
    if not new:
        return Points(own.scaling(cells), labels, len(own.classes)), len(tested.test_row_ids)
    points = points_of(own.scaling(cells), labels, len(own.classes))
    return points, len(tested.test_row_ids) - len(new)


def row_changes(before: Dataset, after: Dataset) -> pl.DataFrame:
    """Rows that differ: `row_id`, `change` (appeared, went, changed, to test, to pool), `columns`."""
    old, new = _rows_by_id(before), _rows_by_id(after)
    changes = [{"row_id": row_id, "change": "went"} for row_id in old if row_id not in new]
    for row_id, (split, cells) in new.items():
        if row_id not in old:
            changes.append({"row_id": row_id, "change": "appeared"})
            continue
        old_split, old_cells = old[row_id]
        names = [name for name in {**old_cells, **cells} if old_cells.get(name) != cells.get(name)]
        if names:
            changes.append({"row_id": row_id, "change": "changed", "columns": ", ".join(names)})
        elif split != old_split:
            changes.append({"row_id": row_id, "change": f"to {split}"})
    return pl.DataFrame(changes, schema=_CHANGES)


def _rows_by_id(dataset: Dataset) -> dict[str, tuple[str, dict[str, str]]]:
    """Split and cells of each row by its id."""
    by_id: dict[str, tuple[str, dict[str, str]]] = {}
    for split, rows in zip(SPLITS, (dataset.rows, dataset.test_rows), strict=True):
        for cells in rows.iter_rows(named=True):
            row_id = cells.pop("row_id")
            by_id[row_id] = (split, {name: _cell_text(cell) for name, cell in cells.items()})
    return by_id


def _cell_text(cell: object) -> str:
    """A cell as text; equal for 40 and 40.0, whose type may differ between files."""
    return repr(float(cell)) if isinstance(cell, (int, float)) else str(cell)


def drift(
    before: tuple[str, pl.DataFrame], after: tuple[str, pl.DataFrame], *, value: str
) -> Drift:
    """Compare a study's values of the shared rows.

    Args:
        before: a version's name and its table with `row_id` and the column `value`.
        after: the same of another version.
        value: the column to compare.
    """
    (first, old), (second, new) = before, after
    table = old.select("row_id", before=pl.col(value).cast(pl.Float64)).join(
        new.select("row_id", after=pl.col(value).cast(pl.Float64)), on="row_id"
    )
    table = table.filter(pl.col("before").is_finite() & pl.col("after").is_finite())
    numbers = [table[name].to_numpy() for name in ("before", "after")]
    correlation = None
    if len(table) > 3 and all(np.ptp(column) > 0 for column in numbers):
        correlation = spearman_interval(*numbers)
    rank_before, rank_after = (ranks(column) if len(column) else np.zeros(0) for column in numbers)
    rows = table.with_columns(
        rank_before=rank_before, rank_after=rank_after, move=rank_after - rank_before
    ).sort(pl.col("move").abs(), descending=True, maintain_order=True)
    return Drift(first, second, len(table), correlation, rows)
