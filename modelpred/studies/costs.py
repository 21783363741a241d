"""After how many queries is predicting cheaper than retraining?

The predictor costs its preparation P (training its targets, then fitting) and q seconds a query;
retraining costs r a query and no preparation. They break even after P / (r - q) queries. All of
it is measured on this machine: q and r as the median of several calls, the training of targets as
their number times the batched retraining of one. Three ways of retraining are compared:

    retraining           one query at a time, from the family's own start
    warm_retraining      one query at a time, from the full-data model (convex families)
    batched_retraining   all queries at once, by this project's solver

against the predictor's answer to one query at a time, and in the last row to all at once.
"""

import math
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Num
from torch import Tensor

from modelpred.refits.retraining import Refit, Retraining
from modelpred.refits.timing import machine_busy, median_seconds
from modelpred.studies.utility import StudyContext

ALONE = 10  # queries that are asked one at a time

BREAK_EVEN_SCHEMA = {
    "way": pl.String,
    "retraining_microseconds": pl.Float64,
    "predictor_microseconds": pl.Float64,
    "preparation_seconds": pl.Float64,
    "queries": pl.Int64,
    "busy": pl.Boolean,
}


@dataclass(frozen=True)
class Seconds:
    """Measured seconds a query."""

    alone: float
    batched: float


def seconds_of(refit: Refit, weights: Num[Tensor, "subsets points"], *, timings: int) -> Seconds:
    """Seconds a query, asked one at a time and all at once; the median of `timings` calls."""
    alone = weights[torch.linspace(0, len(weights) - 1, min(ALONE, len(weights))).long()]

    def one_by_one() -> None:
        for row in alone:
            refit(row[None])

    def together() -> None:
        refit(weights)

    for warm_up in (one_by_one, together):
        warm_up()
    return Seconds(
        median_seconds(one_by_one, timings=timings) / len(alone),
        median_seconds(together, timings=timings) / len(weights),
    )


def break_even_queries(*, preparation: float, retraining: float, predictor: float) -> int | None:
    """Queries after which preparing and predicting is the cheaper; None if it never is."""
    gain = retraining - predictor
    return math.ceil(preparation / gain) if gain > 0 else None


def break_even(
    context: StudyContext,
    weights: Num[Tensor, "subsets points"],
    *,
    timings: int,
) -> pl.DataFrame:
    """A row per way of retraining.

    Args:
        context: its subject is the predictor that is compared. Without its `preparation`,
            `preparation_seconds` and `queries` are null.
        weights: the queries.
        timings: calls whose median counts.

    Returns:
        Columns way, retraining_microseconds and predictor_microseconds (a query),
        preparation_seconds, queries (null, too, where retraining is the cheaper for any number),
        busy (whether the machine was, so that times are too long).
    """
    model, points, tolerance = context.model, context.points, context.truth.tolerance
    cold = seconds_of(Retraining(model, points, tolerance=tolerance), weights, timings=timings)
    predictor = seconds_of(context.refits[context.subject], weights, timings=timings)
    prepared = None
    if (preparation := context.preparation) is not None:
        prepared = preparation.targets * cold.batched + preparation.fit_seconds
    ways = {"retraining": (cold.alone, predictor.alone)}
    if model.convex:
        start = context.truth(torch.ones(1, context.pool))[0]
        warm = Retraining(model, points, tolerance=tolerance, start=start)
        ways["warm_retraining"] = (
            seconds_of(warm, weights, timings=timings).alone,
            predictor.alone,
        )
    ways["batched_retraining"] = (cold.batched, predictor.batched)
    busy = machine_busy()
    rows = [
        {
            "way": way,
            "retraining_microseconds": 1e6 * retraining,
            "predictor_microseconds": 1e6 * predicting,
            "preparation_seconds": prepared,
            "queries": None
            if prepared is None
            else break_even_queries(
                preparation=prepared, retraining=retraining, predictor=predicting
            ),
            "busy": busy,
        }
        for way, (retraining, predicting) in ways.items()
    ]
    return pl.DataFrame(rows, schema=BREAK_EVEN_SCHEMA)
