"""Memorization of training rows and their influence on test rows, predicted and retrained.

Memorization and influence (feldman.py) by the predictor and the other methods are compared with
exact retraining on the same subsets and on other subsets. The agreement between the two sets of
retrained models is the ceiling: the best expected agreement of any method with the other subsets.
Subsets whose retraining did not converge are excluded and counted. Subsets and comparison are this
project's own protocol.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field
from torch import Tensor

from modelpred.metrics import Differences, Vector, pearson, top_overlap
from modelpred.numbers import MOST_DRAWS, Seed
from modelpred.studies.answering import AnsweringConfig
from modelpred.studies.context import StudyContext, finished, refitted, retrained
from modelpred.studies.feldman import HARD, Estimator, Memorization, draw_share
from modelpred.studies.results import StudyResult, written_number

STUDY = "memorization"
# Subsets that are refitted at once. Each block has its own generator, so it also affects the draws.
BLOCK = 250


class MemorizationConfig(AnsweringConfig):
    """Section `memorization` of params.yaml.

    Attributes:
        subsets: number of random subsets, and of others for the comparison with retraining.
        share: size of each subset, as a share of the training rows.
        strongest: number of influences on test rows to write, the strongest first.
        rivals: whether to use every refit, or only the study's subject.
        seed: of the draws.
    """

    subsets: int = Field(default=1000, ge=2, le=MOST_DRAWS)
    share: float = Field(default=0.7, gt=0, lt=1)
    strongest: int = Field(default=100, ge=0)
    rivals: bool = True
    seed: Seed = 0


def run(config: MemorizationConfig, context: StudyContext) -> StudyResult:
    """Return the memorization of every training row and its influence on test rows.

    Tables:
        rows: a row per training row: row_id, memorization (hard; null for a regression), soft, each
            with _low and _high, true_memorization and true_soft by retraining on the same subsets,
            inside (number of subsets with the row), rank (1: most memorized, by the soft form).
        influences: the strongest soft influences on test rows: row_id, test_row, influence, low,
            high, true_influence.
        methods: a row per refit and form: method, form, same, different (Pearson with retraining
            on the same and on other subsets), ceiling, of_ceiling, top_same, top_different,
            top_ceiling, top_of_ceiling (overlap of the most memorized tenth), influence_same,
            influence_different, influence_ceiling (over all pairs of a training and a test row),
            seconds.
    """
    names = list(context.refits) if config.rivals else [context.subject]
    collected = {name: Estimator(context) for name in names}
    truths = Estimator(context), Estimator(context)
    seconds = dict.fromkeys([*names, "truth"], 0.0)
    unfinished = 0
    for half, weights in _drawn(config, context):
        began = time.perf_counter()
        exact = retrained(weights, context)
        converged = finished(exact)
        unfinished += int((~converged).sum())
        truths[half].add(weights[converged], exact[converged])
        seconds["truth"] += (time.perf_counter() - began) * (half == 0)
        for name in names if half == 0 else ():
            began = time.perf_counter()
            parameters = refitted(context.refits[name], weights[converged], context)
            collected[name].add(weights[converged], parameters)
            seconds[name] += time.perf_counter() - began
    same, different = (truth.estimate() for truth in truths)
    estimates = {name: estimator.estimate() for name, estimator in collected.items()}
    rows = [
        {"method": name, **row, "seconds": seconds[name]}
        for name, estimate in estimates.items()
        for row in _agreement(estimate, same, different)
    ]
    subject = estimates[context.subject]
    metrics: dict[str, Any] = {
        "subsets": config.subsets,
        "share": config.share,
        "soft": subject.soft_name,
        "truth_not_converged": unfinished,
        "truth_seconds": seconds["truth"],
        "methods": {
            name: {row["form"]: _numbers_of(row) for row in rows if row["method"] == name}
            for name in names
        },
    }
    metrics |= metrics["methods"][context.subject][subject.soft_name]
    tables = {
        "rows": row_table(context, subject).with_columns(_true_columns(context, same)),
        "influences": influence_table(context, subject, strongest=config.strongest, truth=same),
        "methods": pl.DataFrame(rows, schema=_METHODS),
    }
    return StudyResult(metrics, tables)


_COMPARED = (
    *("same", "different", "ceiling", "of_ceiling"),
    *("top_same", "top_different", "top_ceiling", "top_of_ceiling"),
    *("influence_same", "influence_different", "influence_ceiling", "seconds"),
)
_METHODS = {"method": pl.String, "form": pl.String, **dict.fromkeys(_COMPARED, pl.Float64)}


def _numbers_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _COMPARED}


def _drawn(
    config: MemorizationConfig, context: StudyContext, *, halves: int = 2
) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of subsets, each with 0 (for the estimate) or 1 (for the comparison)."""
    blocks = -(-config.subsets // BLOCK)
    for block in range(halves * blocks):
        half, number = divmod(block, blocks)
        count = min(BLOCK, config.subsets - number * BLOCK)
        generator = context.generator(seed=config.seed, study=STUDY, block=block)
        yield (
            half,
            draw_share(subsets=count, points=context.pool, share=config.share, generator=generator),
        )
        context.progress(block + 1, halves * blocks, STUDY)


def estimated(config: MemorizationConfig, context: StudyContext) -> Memorization:
    """Return memorization and influence by the context's subject, without a comparison.

    The subsets are those of the study. Failed models are excluded.
    """
    estimator = Estimator(context, hard_influence=False)
    refit = context.refits[context.subject]
    for _, weights in _drawn(config, context, halves=1):
        estimator.add(weights, refitted(refit, weights, context))
    return estimator.estimate()


def _agreement(
    estimate: Memorization, same: Memorization, different: Memorization
) -> list[dict[str, Any]]:
    """One row per form: agreement with both retrained estimates, and between these two."""
    rows: list[dict[str, Any]] = []
    for form, own, influence in (
        (estimate.soft_name, "soft", "influence"),
        (HARD, "hard", "hard_influence"),
    ):
        predicted, first, second = (getattr(side, own) for side in (estimate, same, different))
        if predicted is None:
            continue
        pairs = [getattr(side, influence) for side in (estimate, same, different)]
        numbers = {
            "same": _pearson(predicted, first),
            "different": _pearson(predicted, second),
            "ceiling": _pearson(first, second),
            "top_same": _top(predicted, first),
            "top_different": _top(predicted, second),
            "top_ceiling": _top(first, second),
            "influence_same": _pearson(pairs[0], pairs[1]),
            "influence_different": _pearson(pairs[0], pairs[2]),
            "influence_ceiling": _pearson(pairs[1], pairs[2]),
        }
        for share, agreement, limit in (
            ("of_ceiling", "different", "ceiling"),
            ("top_of_ceiling", "top_different", "top_ceiling"),
        ):
            numbers[share] = numbers[agreement] / numbers[limit] if numbers[limit] else float("nan")
        rows.append(
            {"form": form, **{name: written_number(value) for name, value in numbers.items()}}
        )
    return [{**dict.fromkeys(_COMPARED), **row} for row in rows]


def _known(first: Differences, second: Differences) -> tuple[Vector, Vector]:
    """The values of rows for which both are finite."""
    known = np.isfinite(first.mean) & np.isfinite(second.mean)
    return first.mean[known], second.mean[known]


def _pearson(first: Differences, second: Differences) -> float:
    left, right = _known(first, second)
    return pearson(left, right) if left.size else float("nan")


def _top(first: Differences, second: Differences) -> float:
    left, right = _known(first, second)
    return top_overlap(left, right) if left.size else float("nan")


def row_table(context: StudyContext, estimate: Memorization) -> pl.DataFrame:
    """Return a row per training row: row_id, both forms with their intervals, inside, rank."""
    unknown = np.full(context.pool, np.nan)
    hard = estimate.hard or Differences(unknown, unknown, unknown)
    rank = np.empty(context.pool, dtype=np.int64)
    order = np.argsort(-np.nan_to_num(estimate.soft.mean, nan=-np.inf), kind="stable")
    rank[order] = np.arange(1, context.pool + 1)
    table = pl.DataFrame(
        {
            "row_id": list(context.row_ids),
            "memorization": hard.mean,
            "memorization_low": hard.low,
            "memorization_high": hard.high,
            "soft": estimate.soft.mean,
            "soft_low": estimate.soft.low,
            "soft_high": estimate.soft.high,
            "inside": estimate.inside.astype(np.int64),
            "rank": rank,
        }
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def _true_columns(context: StudyContext, truth: Memorization) -> list[pl.Series]:
    """Memorization by retraining on the same subsets, in both forms."""
    true = row_table(context, truth)
    return [true["memorization"].alias("true_memorization"), true["soft"].alias("true_soft")]


def influence_table(
    context: StudyContext,
    estimate: Memorization,
    *,
    strongest: int,
    truth: Memorization | None = None,
) -> pl.DataFrame:
    """Return the strongest soft influences: row_id, test_row, influence, low, high.

    With `truth`, there is also a column true_influence.
    """
    strength = np.nan_to_num(np.abs(estimate.influence.mean), nan=-1).ravel()
    order = np.argsort(-strength, kind="stable")[:strongest]
    points, tests = np.unravel_index(order, estimate.influence.mean.shape)
    columns = {
        "influence": estimate.influence.mean,
        "low": estimate.influence.low,
        "high": estimate.influence.high,
    }
    if truth is not None:
        columns["true_influence"] = truth.influence.mean
    table = pl.DataFrame(
        {
            "row_id": [context.row_ids[point] for point in points],
            "test_row": tests.astype(np.int64),
            **{name: values[points, tests] for name, values in columns.items()},
        },
        schema_overrides={"row_id": pl.String},
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
