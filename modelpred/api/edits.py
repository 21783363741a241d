"""The model after an edit of the training set: row weights, new labels and added rows together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from modelpred.api.edited import EditedModel
from modelpred.api.files import Fitted
from modelpred.api.frames import is_frame, row_names
from modelpred.api.inputs import ArrayLike, RowNames, positions_of, unique_ids
from modelpred.engine import require_engine
from modelpred.errors import InvalidInput
from modelpred.numbers import Number, real_number
from modelpred.predictor.predictor import LARGEST_WEIGHT
from modelpred.refits import Progress, silent
from modelpred.targets import Points

log = logging.getLogger(__name__)

Added = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True)
class TrainingSet:
    """A training set: points, and how often each counts.

    Attributes:
        words: what was edited.
        weights: count of each point, [points].
        points: the training rows of the fit, or others.
        row_ids: their ids.
    """

    words: str
    weights: Float64[Tensor, " points"]
    points: Points
    row_ids: tuple[str, ...]


def edited_set(
    fitted: Fitted,
    *,
    weights: Mapping[Any, Number],
    labels: Mapping[Any, Any],
    added: Added | None,
    ids: RowNames | None,
) -> TrainingSet:
    """Return the edited training set.

    Args:
        fitted: the fit.
        weights: how often a row counts, by position or id; the other rows count once.
        labels: the new label of a row, by position or id.
        added: rows with their labels, unscaled, with the columns of the fit.
        ids: names of the added rows; by default new-0, new-1, ...

    Raises:
        InvalidInput: unknown rows, classes or columns, or a weight below zero.
    """
    pool, row_ids = fitted.problem.points, fitted.problem.row_ids
    changed = list(positions_of(list(labels), row_ids)) if labels else []
    if changed:
        new_labels = pool.labels.clone()
        new_labels[changed] = fitted.reading.labels.encode(
            list(labels.values()), what="labels", rows=len(changed)
        )
        pool = Points(pool.features, new_labels, pool.classes, pool.sample_weight)
    if added is not None:
        new = fitted.reading.points(*added, what="_new")
        row_ids = ids_with(row_ids, added[0], ids, rows=len(new.labels))
        pool = pool.joined(new)
    counts = _counts(weights, row_ids)
    words = _words(counts, changed=len(changed), old=len(fitted.problem.row_ids))
    return TrainingSet(words, counts, pool, row_ids)


def model_of(
    fitted: Fitted,
    edit: TrainingSet,
    *,
    engine: str,
    refine: Number,
    bounded: bool = True,
    progress: Progress = silent,
) -> EditedModel:
    """Return the model of a training set.

    Args:
        fitted: the fit.
        edit: the training set.
        engine: auto, exact or predicted. Of points that are not those of the fit, auto retrains:
            that costs less than to bind the predictor to them.
        refine: Newton steps after a prediction.
        bounded: whether to compute the certificate of a prediction.
        progress: of the fit of the predictor, if this is its first use.

    Raises:
        InvalidInput: an unknown engine.
        RuntimeError: training did not converge.
    """
    own = edit.points is fitted.problem.points
    named = require_engine(engine)
    named = "exact" if named == "auto" and not own else named
    choice = fitted.engine.choose(named, models=1, refine=refine, progress=progress)
    size = float(edit.weights.sum())
    if size < choice.retrained_below:
        choice = replace(choice, engine="exact")
    if choice.exact:
        return EditedModel.trained(
            edit.words, edit.weights, points=edit.points, row_ids=edit.row_ids,
            reference=fitted.reference, engine=choice,
        )  # fmt: skip
    prepared = fitted.engine.so_far
    if size < (least := prepared.least_size):
        log.warning(
            "%g rows are fewer than any subset that the predictor was fitted to (%g); "
            "retrain this model with engine='exact'", size, least,
        )  # fmt: skip
    predictor = prepared.predictor
    if not own:
        predictor = predictor.for_points(edit.points, row_ids=edit.row_ids)
    return EditedModel.predicted(
        edit.words, edit.weights, predictor=predictor, reference=fitted.reference,
        engine=choice, refine=choice.refine, bounded=bounded,
    )  # fmt: skip


def fit_of(fitted: Fitted, model: EditedModel) -> Fitted:
    """Return the fit with the rows that an edit leaves; a row that counts k times has k times its weight.

    Raises:
        InvalidInput: no row of some class is left.
    """
    if model.notes:
        raise InvalidInput(f"{model.notes[0]}; undo a part of the edit")
    weights = torch.from_numpy(model.weights)
    held = weights.nonzero()[:, 0]
    points = model.points.take(held)
    if bool((weights[held] != 1).any()):
        points = replace(points, sample_weight=points.factors * weights[held])
    row_ids = tuple(model.row_ids[row] for row in held.tolist())
    return replace(fitted, engine=fitted.engine.over(points, row_ids=row_ids))


def ids_with(
    row_ids: tuple[str, ...], table: ArrayLike, ids: RowNames | None, *, rows: int
) -> tuple[str, ...]:
    """Return the ids of the training rows and then of so many added rows.

    Raises:
        InvalidInput: two rows share an id.
    """
    if ids is None:
        ids = row_names(table, what="X_new") if is_frame(table) else None
    named = [f"new-{row}" for row in range(rows)] if ids is None else ids
    return unique_ids([*row_ids, *unique_ids(named, rows=rows)], rows=len(row_ids) + rows)


def _counts(weights: Mapping[Any, Number], row_ids: tuple[str, ...]) -> Float64[Tensor, " points"]:
    """How often each row counts."""
    counts = torch.ones(len(row_ids), dtype=torch.float64)
    if weights:
        positions = positions_of(list(weights), row_ids)
        given = [
            real_number(weight, "a weight", least=0, most=LARGEST_WEIGHT)
            for weight in weights.values()
        ]
        counts[positions] = torch.tensor(given, dtype=torch.float64)
    return counts


def _words(counts: Tensor, *, changed: int, old: int) -> str:
    """The edit in words."""
    removed = int((counts[:old] == 0).sum())
    reweighted = int(((counts != 0) & (counts != 1)).sum())
    added = len(counts) - old
    parts = [
        (removed, "without {}"),
        (reweighted, "with {} reweighted"),
        (changed, "with {} relabelled"),
        (added, "with {} added"),
    ]
    edits = ", ".join(words.format(count) for count, words in parts if count)
    edits = edits or "as it was"
    return f"Training set of {old} rows, {edits}:"
