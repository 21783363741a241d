"""Answers to the page as plain values of JSON: models of edits, compared with the model of all rows."""

import math
from typing import Any

import polars as pl

from modelpred.api import Comparison, EditedModel
from modelpred.errors import InvalidInput
from modelpred.page.messages import Edit
from modelpred.page.subject import Subject

MOST_COEFFICIENTS = 200
MOST_FLIPS = 100
LEAST_CERTAIN = 5
Answer = dict[str, Any]


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a table holds
    """The value as JSON has it; None for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (int, str, bool)) else str(value)


def records(table: pl.DataFrame) -> list[Answer]:
    """The rows of a table as objects."""
    return [
        {name: plain(cell) for name, cell in row.items()} for row in table.iter_rows(named=True)
    ]


def answer(subject: Subject, edit: Edit, *, exact: bool = False) -> Answer:
    """The model of an edit beside the model of all rows."""
    model = subject.model(edit, exact=exact)
    comparison = model.compare()
    return {
        "retrained": model.engine.exact,
        "can_bound": not model.engine.exact and subject.mp.model.optimum is not None,
        "certificate": plain(model.certificate),
        "notes": model.notes,
        "scores": scores(subject, comparison),
        "distance": plain(comparison.distance),
        "coefficients": coefficients(model),
        "flips": flips(subject, comparison),
        "calibration": calibration(model),
        "uncertain": uncertain(comparison),
    }


def bound(subject: Subject, edit: Edit) -> Answer:
    """The bound on the distance of a predicted model to retraining."""
    return {"certificate": plain(subject.bounded(edit).certificate)}


def scores(subject: Subject, comparison: Comparison) -> list[Answer]:
    """Loss and accuracy before and after."""
    model = subject.mp.model
    name = "Log loss" if model.probabilistic else "Mean loss"
    loss = {
        "name": "Root mean squared error" if model.regression else name,
        "kind": "number",
        "better": "lower",
        "before": plain(comparison.loss_before),
        "after": plain(comparison.loss_after),
    }
    if comparison.accuracy_before is None:
        return [loss]
    accuracy = {
        "name": "Accuracy",
        "kind": "share",
        "better": "higher",
        "before": plain(comparison.accuracy_before),
        "after": plain(comparison.accuracy_after),
    }
    return [accuracy, loss]


def coefficients(model: EditedModel, *, most: int | None = MOST_COEFFICIENTS) -> Answer | None:
    """Coefficients before and after, the largest movers first; None for a family without."""
    try:
        table = model.coefficients()
    except InvalidInput:
        return None
    moved = (pl.col("after") - pl.col("before")).abs()
    table = table.with_columns(moved.fill_nan(None).alias("moved"))
    table = table.sort("moved", descending=True, nulls_last=True, maintain_order=True)
    listed = table if most is None else table.head(most)
    return {"count": table.height, "rows": records(listed)}


def flips(subject: Subject, comparison: Comparison) -> Answer:
    """Predictions that flip, with the cells of their rows; of numbers those that change most."""
    table = comparison.predictions
    if subject.regression:
        change = (pl.col("after") - pl.col("before")).abs()
        changed = table.filter(change > 0).sort(change, descending=True, maintain_order=True)
    else:
        changed = comparison.flips
    listed = changed.head(MOST_FLIPS)
    cells = subject.shown_rows[[subject.places[row] for row in listed["row"]]]
    return {
        "count": changed.height,
        "of": table.height,
        "rows": records(listed.drop("flips", strict=False)),
        "columns": cells.columns,
        "cells": [[plain(cell) for cell in row] for row in cells.iter_rows()],
    }


def uncertain(comparison: Comparison) -> list[str]:
    """Rows whose label has a probability nearest to one half; none for a family without."""
    table = comparison.predictions
    if "probability_after" not in table.columns:
        return []
    distance = (pl.col("probability_after") - 0.5).abs()
    return table.sort(distance, maintain_order=True)["row"].head(LEAST_CERTAIN).to_list()


def calibration(model: EditedModel) -> Answer | None:
    """Reliability of the probabilities before and after; None for a family without."""
    try:
        table = model.reliability()
    except InvalidInput:
        return None
    return {
        side: records(table.filter(pl.col("model") == side).drop("model"))
        for side in ("before", "after")
    }
