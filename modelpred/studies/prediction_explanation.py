"""Explanations of single predictions: effects of rows on the margin, and small sets that flip it.

For some test rows, it lists the training rows whose removal changes the margin most, with exact
leave-one-out differences. Several methods search for small sets of rows whose removal flips the
predicted class (counterfactuals.py); each set is checked by retraining once.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.studies.context import StudyContext
from modelpred.studies.counterfactuals import (
    ExplainedPrediction,
    Flip,
    leave_one_out,
    smallest_flip,
)
from modelpred.studies.parameter_attribution import whole
from modelpred.studies.results import written_number

EFFECTS = {
    "test_row": pl.Int64,
    "place": pl.Int64,
    "row_id": pl.String,
    **dict.fromkeys(("effect", "exact"), pl.Float64),
}
FLIPS = {
    "method": pl.String,
    "test_row": pl.Int64,
    "predicted": pl.Int64,
    "margin": pl.Float64,
    "size": pl.Int64,
    "found": pl.Boolean,
    "predicted_margin": pl.Float64,
    "retrained_margin": pl.Float64,
    "confirmed": pl.Boolean,
    "removed": pl.String,
}
FLIP_METHODS = {
    "method": pl.String,
    **dict.fromkeys(("rows", "found", "confirmed"), pl.Int64),
    "size": pl.Float64,
    "common": pl.Int64,
    "seconds": pl.Float64,
}


@dataclass(frozen=True)
class Exact:
    """Retrained parameters, as the reference for explanations.

    Attributes:
        full: parameters with all rows, [1, parameters].
        leave_one_out: parameters without each row; nan if training did not converge.
    """

    full: Float[Tensor, "one parameters"]
    leave_one_out: Float[Tensor, "points parameters"]


def predicted_class(
    context: StudyContext, full: Float[Tensor, "one parameters"], features: Float[Tensor, " n"]
) -> int:
    """Return the class that the model of all rows predicts; 0 for a regression."""
    if context.model.regression:
        return 0
    classes = context.points.classes
    scores = context.model.scores(full, features[None].expand(classes, -1))
    return int(context.model.correct(scores, torch.arange(classes))[0].int().argmax())


def effects_of(
    prediction: ExplainedPrediction,
    single: Float[Tensor, "points parameters"],
    full: Float[Tensor, "one parameters"],
) -> Vector:
    """Return the change of the margin when each single row is removed."""
    return prediction.margins(single)[0] - prediction.margins(full)[0]


def strongest(values: Vector, count: int) -> list[int]:
    """Return the positions of the values with the largest magnitudes, the largest first."""
    return np.argsort(-np.abs(values), kind="stable")[:count].tolist()


def explanations(
    context: StudyContext,
    exact: Exact,
    *,
    test_rows: Sequence[int],
    methods: Sequence[str],
    rows: int,
    largest: float,
) -> dict[str, pl.DataFrame]:
    """Return tables on single predictions: effects by the subject, and flips by all methods.

    Args:
        context: the training rows, the test rows and the refits.
        exact: retrained parameters.
        test_rows: positions of the rows to explain.
        methods: refits that search for flips, besides the subject.
        rows: number of effects to list for each test row.
        largest: largest share of the training rows to remove.
    """
    names = [context.subject, *(name for name in methods if name != context.subject)]
    names = [name for name in names if name in context.refits]
    single = {name: leave_one_out(context.refits[name], context) for name in names}
    full = {name: whole(context.refits[name], context) for name in names}
    effects: list[dict[str, Any]] = []
    flips: list[dict[str, Any]] = []
    seconds = dict.fromkeys(names, 0.0)
    for done, test_row in enumerate(test_rows, start=1):
        features = context.test_points.features[test_row]
        label = predicted_class(context, exact.full, features)
        for name in names:
            began = time.perf_counter()
            prediction = ExplainedPrediction(context.refits[name], context, features, label=label)
            effect = effects_of(prediction, single[name], full[name])
            if name == context.subject:
                true = effects_of(prediction, exact.leave_one_out, exact.full)
                effects += _effect_rows(context, test_row, effect, true, rows=rows)
            if not context.model.regression:
                flip = smallest_flip(
                    prediction, effect, largest=max(1, int(largest * context.pool))
                )
                margin = float(prediction.margins(exact.full)[0][0])
                flips.append(
                    {"method": name, "test_row": test_row, "predicted": label, "margin": margin}
                    | _flip_row(context, flip)
                )
            seconds[name] += time.perf_counter() - began
        context.progress(done, len(test_rows), "attribution: predictions")
    table = pl.DataFrame(flips, schema=FLIPS)
    return {
        "effects": pl.DataFrame(effects, schema=EFFECTS),
        "flips": table,
        "flip_methods": _flip_methods(table, seconds),
    }


def _effect_rows(
    context: StudyContext, test_row: int, effect: Vector, exact: Vector, *, rows: int
) -> list[dict[str, Any]]:
    return [
        {
            "test_row": test_row,
            "place": rank,
            "row_id": context.row_ids[point],
            "effect": written_number(float(effect[point])),
            "exact": written_number(float(exact[point])),
        }
        for rank, point in enumerate(strongest(effect, rows), start=1)
    ]


def _flip_row(context: StudyContext, flip: Flip) -> dict[str, Any]:
    return {
        "size": len(flip.removed) or None,
        "found": bool(flip.removed),
        "predicted_margin": written_number(flip.margin),
        "retrained_margin": written_number(flip.retrained_margin),
        "confirmed": flip.confirmed,
        "removed": ", ".join(context.row_ids[row] for row in flip.removed),
    }


def _flip_methods(flips: pl.DataFrame, seconds: dict[str, float]) -> pl.DataFrame:
    """Number of flips and of confirmed flips by each method, and mean size of the sets."""
    confirmed = flips.filter("confirmed").group_by("test_row").len()
    common = confirmed.filter(pl.col("len") == len(seconds))["test_row"].to_list()
    rows: list[dict[str, Any]] = []
    for name in seconds if len(flips) else ():
        own = flips.filter(pl.col("method") == name)
        sizes = own.filter(pl.col("test_row").is_in(common))["size"]
        rows.append(
            {
                "method": name,
                "rows": len(own),
                "found": int(own["found"].sum()),
                "confirmed": int(own["confirmed"].sum()),
                "size": float(np.mean(sizes.to_numpy())) if len(sizes) else None,
                "common": len(common),
                "seconds": seconds[name],
            }
        )
    return pl.DataFrame(rows, schema=FLIP_METHODS)
