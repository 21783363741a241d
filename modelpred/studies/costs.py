"""Break-even: the number of queries after which predicting is cheaper than retraining.

The predictor has a preparation time P (training models and fitting) and takes q seconds per query;
retraining takes r seconds per query and no preparation. They break even after P / (r - q) queries.
q and r are measured on this machine as medians of several calls; the training time is the number of
trained models times the batched time of one. Three kinds of retraining are compared with the
predictor:

    retraining           one query at a time, from the family's initial parameters
    warm_retraining      one query at a time, from the model of all rows (convex families)
    batched_retraining   all queries at once; so are the predictor's
"""

from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Num
from torch import Tensor

from modelpred.predictor import break_even_queries
from modelpred.refits.retraining import Refit, Retraining
from modelpred.refits.timing import machine_busy, median_seconds
from modelpred.studies.context import StudyContext

SINGLE_QUERIES = 10  # queries that are timed one at a time

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
    """Measured seconds per query, one at a time and in a batch."""

    single: float
    batched: float


def seconds_of(refit: Refit, weights: Num[Tensor, "subsets points"], *, timings: int) -> Seconds:
    """Seconds per query, one at a time and all at once, as medians of `timings` calls."""
    chosen = torch.linspace(0, len(weights) - 1, min(SINGLE_QUERIES, len(weights))).long()
    single = weights[chosen]

    def one_by_one() -> None:
        for row in single:
            refit(row[None])

    def together() -> None:
        refit(weights)

    for warm_up in (one_by_one, together):
        warm_up()
    return Seconds(
        median_seconds(one_by_one, timings=timings) / len(single),
        median_seconds(together, timings=timings) / len(weights),
    )


def break_even(
    context: StudyContext,
    weights: Num[Tensor, "subsets points"],
    *,
    timings: int,
) -> pl.DataFrame:
    """The table of break-even points, with a row for each kind of retraining.

    Args:
        context: its subject is the predictor. Without its `preparation`, `preparation_seconds` and
            `queries` are null.
        weights: the queries.
        timings: number of calls to take the median of.

    Returns:
        Columns way, retraining_microseconds and predictor_microseconds (per query),
        preparation_seconds, queries (null also if retraining is always cheaper), busy (whether the
        machine was busy, so that times are too long).
    """
    model, points, tolerance = context.model, context.points, context.truth.tolerance
    cold = seconds_of(Retraining(model, points, tolerance=tolerance), weights, timings=timings)
    predictor = seconds_of(context.refits[context.subject], weights, timings=timings)
    prepared = None
    if (preparation := context.preparation) is not None:
        prepared = preparation.targets * cold.batched + preparation.fit_seconds
    ways = {"retraining": (cold.single, predictor.single)}
    if model.optimum is not None:
        start = context.truth(torch.ones(1, context.pool))[0]
        warm = Retraining(model, points, tolerance=tolerance, start=start)
        ways["warm_retraining"] = (
            seconds_of(warm, weights, timings=timings).single,
            predictor.single,
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
