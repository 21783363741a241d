"""The model after an edit of the training set: row weights, new labels and added rows together."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from modelpred.api.edited import EditedModel
from modelpred.api.files import Fitted
from modelpred.api.frames import is_frame, row_names
from modelpred.api.inputs import ArrayLike, RowNames, positions_of, unique_ids
from modelpred.numbers import Number, real_number
from modelpred.predictor.predictor import LARGEST_WEIGHT
from modelpred.targets import Points

Added = tuple[ArrayLike, ArrayLike]


def edited_model(
    fitted: Fitted,
    *,
    weights: Mapping[Any, Number],
    labels: Mapping[Any, Any],
    added: Added | None,
    ids: RowNames | None,
    refine: Number,
    exact: bool,
    bounded: bool,
) -> EditedModel:
    """Return the model of the edited training set.

    Args:
        fitted: the fit.
        weights: how often a row counts, by position or id; the other rows count once.
        labels: the new label of a row, by position or id.
        added: rows with their labels, unscaled, with the columns of the fit.
        ids: names of the added rows; by default new-0, new-1, ...
        refine: Newton steps after the prediction.
        exact: retrain in place of predicting.
        bounded: whether to compute the certificate of a prediction.

    Raises:
        InvalidInput: unknown rows, classes or columns, or a weight below zero.
    """
    predictor = fitted.predictor
    pool, row_ids = predictor.points, predictor.row_ids
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
    words = _words(counts, changed=len(changed), old=len(predictor.row_ids))
    if exact:
        model = EditedModel(
            words, np.empty(0), None, counts.numpy(), predictor, fitted.reference, pool=pool
        )
        return model.retrained()
    if pool is not predictor.points:
        predictor = predictor.for_points(pool, row_ids=row_ids)
    return EditedModel.predicted(
        words,
        counts,
        predictor=predictor,
        reference=fitted.reference,
        refine=refine,
        bounded=bounded,
    )


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
    told = ", ".join(words.format(count) for count, words in parts if count)
    told = told or "as it was"
    return f"Training set of {old} rows, {told}:"
