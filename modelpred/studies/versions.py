"""Versions of the data side by side: what each version's model scores, which rows changed, how values drift.

A version is a data set with the predictor that was fitted to it. Rows are the same row when their
ids are equal, so a table whose rows have no id of their own is compared by row number.

    scores    the model of all rows of one version, predicted and exactly retrained, on the test rows
              of another: encoded and scaled as the first version's rows were, and without those that
              it was trained on
    changes   rows that appeared, went, changed a cell or the label, or moved between pool and test
    drift     rank correlation of what a study found for the rows that two versions share, and the
              rows whose rank moved most
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from modelpred.dataset import Dataset
from modelpred.errors import InvalidInput
from modelpred.metrics import Interval, ranks, spearman_interval
from modelpred.predictor import Predictor
from modelpred.refits import Retraining
from modelpred.studies.utility import accuracies, mean_test_losses, written_number
from modelpred.targets import Points, points_of

SPLITS = ("pool", "test")
_CHANGES = {"row_id": pl.String, "change": pl.String, "columns": pl.String}


@dataclass(frozen=True)
class Version:
    """A data set and the predictor that was fitted to it, under the name of the revision."""

    name: str
    dataset: Dataset
    predictor: Predictor


@dataclass(frozen=True)
class Drift:
    """How what was found for the rows of one version compares to another.

    Attributes:
        before: name of the earlier version.
        after: name of the later one.
        shared: number of rows that both have.
        spearman: rank correlation over those, with its interval; None for fewer than three.
        rows: row_id, value and rank in both, move (rank after - rank before), largest moves first.
    """

    before: str
    after: str
    shared: int
    spearman: Interval | None
    rows: pl.DataFrame


def cross_scores(versions: Sequence[Version], *, tolerance: float = 1e-6) -> pl.DataFrame:
    """Loss and accuracy of each version's full-data model on each version's test rows.

    One row a pair: `model_of`, `test_rows_of`, `rows` that were scored, `seen` that were left out
    because the model was trained on them, `loss` of the predicted and `exact_loss` of the retrained
    model (`TargetModel.test_loss`; null where a model failed), `accuracy` (null for numbers),
    `problem` where the rows cannot be read.

    Args:
        versions: whose models and rows.
        tolerance: of retraining.
    """
    found: list[dict[str, object]] = []
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
                found.append({**row, "problem": str(error)})
                continue
            row |= {"rows": len(test.labels), "seen": seen}
            if len(test.labels):
                predicted = predicted.double()
                row["loss"] = written_number(mean_test_losses(model, predicted, test)[0])
                row["exact_loss"] = written_number(mean_test_losses(model, exact, test)[0])
                if test.classes:
                    row["accuracy"] = written_number(accuracies(model, predicted, test)[0])
            found.append(row)
    return pl.DataFrame(found, schema=_SCORES)


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
    """The other's test rows as points of this version, and how many were left out as known to it."""
    ours, theirs = version.dataset, other.dataset
    known = set(ours.row_ids) if version is not other else set[str]()
    kept = [at for at, row_id in enumerate(theirs.test_row_ids) if row_id not in known]
    cells = torch.from_numpy(ours.encoding.encode(theirs.test_rows[kept]))
    labels = theirs.test_labels[kept]
    if bool(ours.classes) != bool(theirs.classes):
        raise InvalidInput("the label is a number in one version and a class in the other")
    if ours.classes:
        unknown = [name for name in theirs.classes if name not in ours.classes]
        if unknown:
            raise InvalidInput(f"class {unknown[0]!r} is not in {version.name}")
        places = torch.tensor([ours.classes.index(name) for name in theirs.classes])
        labels = places[labels]
    if not kept:
        return Points(ours.scaling(cells), labels, len(ours.classes)), len(theirs.test_row_ids)
    points = points_of(ours.scaling(cells), labels, len(ours.classes))
    return points, len(theirs.test_row_ids) - len(kept)


def row_changes(before: Dataset, after: Dataset) -> pl.DataFrame:
    """Rows that differ: `row_id`, `change` (appeared, went, changed, to test, to pool), `columns`."""
    old, new = _told(before), _told(after)
    found = [{"row_id": row_id, "change": "went"} for row_id in old if row_id not in new]
    for row_id, (split, cells) in new.items():
        if row_id not in old:
            found.append({"row_id": row_id, "change": "appeared"})
            continue
        old_split, old_cells = old[row_id]
        names = [name for name in {**old_cells, **cells} if old_cells.get(name) != cells.get(name)]
        if names:
            found.append({"row_id": row_id, "change": "changed", "columns": ", ".join(names)})
        elif split != old_split:
            found.append({"row_id": row_id, "change": f"to {split}"})
    return pl.DataFrame(found, schema=_CHANGES)


def _told(dataset: Dataset) -> dict[str, tuple[str, dict[str, str]]]:
    """Of each row, where it is and what its cells say."""
    told: dict[str, tuple[str, dict[str, str]]] = {}
    for split, rows in zip(SPLITS, (dataset.rows, dataset.test_rows), strict=True):
        for cells in rows.iter_rows(named=True):
            row_id = cells.pop("row_id")
            told[row_id] = (split, {name: _word(cell) for name, cell in cells.items()})
    return told


def _word(cell: object) -> str:
    """A cell as text; 40 and 40.0 are the same number, whatever type a file gives them."""
    return repr(float(cell)) if isinstance(cell, (int, float)) else str(cell)


def drift(
    before: tuple[str, pl.DataFrame], after: tuple[str, pl.DataFrame], *, value: str
) -> Drift:
    """How a study's findings for the shared rows moved.

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
