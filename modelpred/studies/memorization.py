"""Which rows does a model only know because it has seen them?

With S a random subset of a fixed share of the pool and h_S its model, Feldman (2020; Feldman and
Zhang 2020) defines, for training row i and any row z,

    memorization(i)   = P[h_S right on x_i | i in S] - P[h_S right on x_i | i not in S]
    influence(i, z)   = P[h_S right on z   | i in S] - P[h_S right on z   | i not in S]

A learner without randomness of its own makes "right" coarse, so a soft form replaces it by the mean
probability of the true label, or, for a family without probabilities, by minus the loss:

    family                    hard form   soft form
    logistic, softmax, mlp    yes         probability
    svm                       yes         loss
    ridge                     no          loss

All rows share the same subsets: with values c [subsets, rows] both are differences of two means,
found from W'c, W'c² and the column sums alone (W [subsets, points] of 0 and 1), block by block.
Intervals treat subsets as independent: Welch's t for the soft form, Newcombe's for the hard one.

Judged by exact retraining on the same subsets and on others. Retraining on the same against
retraining on the others is the ceiling: no method agrees better with what it has not seen, but by
chance. Subsets whose retraining did not converge are left out of both and counted. Subsets and
comparison are this project's own protocol.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Num
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import (
    Differences,
    Vector,
    mean_differences,
    pearson,
    proportion_differences,
    top_overlap,
)
from modelpred.studies.utility import (
    StudyContext,
    StudyResult,
    refitted,
    score_blocks,
    written_number,
)
from modelpred.targets.model import Points, TargetModel

STUDY = "memorization"
HARD = "correct"
# Subsets answered at once; also the block of a generator, so part of what is drawn.
BLOCK = 250
ROUNDING = 1e-12

Measure = Callable[[Tensor, Tensor], Tensor]
"""(scores [subsets, rows, outputs], labels [rows]) -> how well it does, [subsets, rows]"""


class MemorizationConfig(BaseModel):
    """Section `memorization` of params.yaml.

    Attributes:
        subsets: random subsets; as many others for the comparison with retraining.
        share: of the pool in each subset.
        strongest: influences on test rows that are written, the largest first.
        rivals: whether every refit is asked, or only the study's subject.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subsets: int = Field(default=1000, ge=2)
    share: float = Field(default=0.7, gt=0, lt=1)
    strongest: int = Field(default=100, ge=0)
    rivals: bool = True
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Memorization:
    """Both forms for every pair of rows, estimated from one set of subsets.

    Attributes:
        soft_name: `probability` or `loss`.
        soft: memorization of every training row [points].
        hard: the same by right and wrong; None for a regression.
        influence: soft influence of training on test rows [points, test rows].
        hard_influence: the same by right and wrong; None for a regression.
        inside: subsets that hold each row [points].
        subsets: how many there were.
    """

    soft_name: str
    soft: Differences
    hard: Differences | None
    influence: Differences
    hard_influence: Differences | None
    inside: Vector
    subsets: int


def draw_share(
    *, subsets: int, points: int, share: float, generator: np.random.Generator
) -> Num[Tensor, "subsets points"]:
    """Return 0/1 weights of random subsets that hold that share of the points, rounded.

    Raises:
        InvalidInput: so small a pool that every point, or none, is in every subset.
    """
    size = round(share * points)
    if not 0 < size < points:
        raise InvalidInput(
            f"a share of {share} of {points} points is {size} of them; expected at least one in "
            "each subset and one left out, so choose another memorization.share or more points"
        )
    orders = np.argsort(generator.random((subsets, points)), axis=1)
    return torch.from_numpy((orders < size).astype(np.uint8))


def measures(model: TargetModel, *, classes: int) -> dict[str, Measure]:
    """Return what of the family is measured, by name: the soft form, and the hard one if any."""

    def correct(scores: Tensor, labels: Tensor) -> Tensor:
        return model.correct(scores, labels).to(torch.float64)

    def probability(scores: Tensor, labels: Tensor) -> Tensor:
        index = labels[None, :, None].expand(len(scores), -1, 1)
        return model.probabilities(scores).gather(2, index)[..., 0]

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return -model.losses(scores, labels)

    if model.regression:
        return {"loss": loss}
    soft: dict[str, Measure] = {"probability": probability}
    try:
        model.probabilities(torch.zeros(1, 1, max(1, classes), dtype=torch.float64))
    except InvalidInput:
        soft = {"loss": loss}
    return {**soft, HARD: correct}


class _Sums:
    """Sums over subsets of one measure: inside and in all, of values and squares."""

    def __init__(self, points: int, test: int) -> None:
        self.own = torch.zeros(2, 2, points, dtype=torch.float64)  # [power, inside or all, points]
        self.test_inside = torch.zeros(2, points, test, dtype=torch.float64)
        self.test_all = torch.zeros(2, test, dtype=torch.float64)

    def add(self, weights: Tensor, own: Tensor, test: Tensor) -> None:
        for power in (0, 1):
            values, seen = own ** (power + 1), test ** (power + 1)
            self.own[power, 0] += (weights * values).sum(0)
            self.own[power, 1] += values.sum(0)
            self.test_inside[power] += weights.T @ seen
            self.test_all[power] += seen.sum(0)


class Estimator:
    """Collects models of subsets block by block; memory does not grow with their number.

    Args:
        context: the pool, the test rows and the family.
    """

    def __init__(self, context: StudyContext) -> None:
        self.context = context
        classes = context.points.classes
        self.measures = measures(context.model, classes=classes)
        test = len(context.test_points.labels)
        self.sums = {name: _Sums(context.pool, test) for name in self.measures}
        self.inside = torch.zeros(context.pool, dtype=torch.float64)
        self.subsets = 0

    def add(
        self,
        weights: Num[Tensor, "subsets points"],
        parameters: Float[Tensor, "subsets parameters"],
    ) -> None:
        """Take in the models of a block of subsets (weights of 0 and 1)."""
        member = weights.to(torch.float64)
        model = self.context.model
        for name, measure in self.measures.items():
            own, test = (
                _measured(model, measure, parameters, points)
                for points in (self.context.points, self.context.test_points)
            )
            self.sums[name].add(member, own, test)
        self.inside += member.sum(0)
        self.subsets += len(weights)

    def estimate(self) -> Memorization:
        """Return what the subsets so far say; nan for a row that was hardly ever in or out."""
        soft = next(name for name in self.measures if name != HARD)
        own, test = self._differences(soft)
        hard = self._differences(HARD) if HARD in self.measures else (None, None)
        return Memorization(soft, own, hard[0], test, hard[1], self.inside.numpy(), self.subsets)

    def _differences(self, name: str) -> tuple[Differences, Differences]:
        sums, count = self.sums[name], self.inside.numpy()
        own = _difference(
            sums.own[:, 0].numpy(), sums.own[:, 1].numpy(), count, self.subsets, hard=name == HARD
        )
        test = _difference(
            sums.test_inside.numpy(),
            sums.test_all[:, None].numpy(),
            count[:, None],
            self.subsets,
            hard=name == HARD,
        )
        return own, test


def _measured(model: TargetModel, measure: Measure, parameters: Tensor, points: Points) -> Tensor:
    blocks = score_blocks(model, parameters, points)
    return torch.cat([measure(scores, points.labels) for scores in blocks])


def _difference(
    inside: Vector, total: Vector, count: Vector, subsets: int, *, hard: bool
) -> Differences:
    """Mean inside minus mean outside, from sums of values (first) and of squares (second)."""
    counts = count, subsets - count
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = [(inside[power], total[power] - inside[power]) for power in (0, 1)]
        first, second = (value / n for value, n in zip(sums[0], counts, strict=True))
        # Means that differ by the rounding of their sums alone do not differ.
        second = np.where(np.abs(first - second) <= ROUNDING * np.abs(first), first, second)
        if hard:
            return proportion_differences((first.clip(0, 1), second.clip(0, 1)), counts)
        variances = [
            ((square - n * mean**2) / (n - 1)).clip(0)
            for square, mean, n in zip(sums[1], (first, second), counts, strict=True)
        ]
    return mean_differences((first, second), (variances[0], variances[1]), counts)


def run(config: MemorizationConfig, context: StudyContext) -> StudyResult:
    """Return the memorization of every training row and its influence on test rows.

    Tables:
        rows: a row per training row: row_id, memorization (hard; null for a regression), soft, each
            with _low and _high, true_memorization and true_soft by retraining on the same subsets,
            inside (subsets that hold it), rank (1: most memorized, by the soft form).
        influences: the strongest soft influences on test rows: row_id, test_row, influence, low,
            high, true_influence.
        methods: a row per refit and form: method, form, same, different (Pearson with retraining
            on the same and on other subsets), ceiling, of_ceiling, top_same, top_different,
            top_ceiling (overlap of the most memorized tenth), influence_same, influence_different,
            influence_ceiling (over all pairs of a training and a test row), seconds.
    """
    names = list(context.refits) if config.rivals else [context.subject]
    collected = {name: Estimator(context) for name in names}
    truths = Estimator(context), Estimator(context)
    seconds = dict.fromkeys([*names, "truth"], 0.0)
    unfinished = 0
    for half, weights in _drawn(config, context):
        began = time.perf_counter()
        trained = context.truth.train(weights)
        kept = trained.converged
        unfinished += int((~kept).sum())
        truths[half].add(weights[kept], trained.parameters[kept])
        seconds["truth"] += (time.perf_counter() - began) * (half == 0)
        for name in names if half == 0 else ():
            began = time.perf_counter()
            parameters = refitted(context.refits[name], weights[kept], context)
            collected[name].add(weights[kept], parameters)
            seconds[name] += time.perf_counter() - began
    same, different = (truth.estimate() for truth in truths)
    found = {name: estimator.estimate() for name, estimator in collected.items()}
    rows = [
        {"method": name, **row, "seconds": seconds[name]}
        for name, estimate in found.items()
        for row in _agreement(estimate, same, different)
    ]
    subject = found[context.subject]
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
        "rows": _row_table(context, subject, same),
        "influences": _influence_table(config, context, subject, same),
        "methods": pl.DataFrame(rows, schema=_METHODS),
    }
    return StudyResult(metrics, tables)


_COMPARED = (
    *("same", "different", "ceiling", "of_ceiling"),
    *("top_same", "top_different", "top_ceiling"),
    *("influence_same", "influence_different", "influence_ceiling", "seconds"),
)
_METHODS = {"method": pl.String, "form": pl.String, **dict.fromkeys(_COMPARED, pl.Float64)}


def _numbers_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _COMPARED}


def _drawn(config: MemorizationConfig, context: StudyContext) -> Iterator[tuple[int, Tensor]]:
    """Blocks of subsets: those of the estimate (0) and those of the comparison (1)."""
    blocks = -(-config.subsets // BLOCK)
    for block in range(2 * blocks):
        half, number = divmod(block, blocks)
        count = min(BLOCK, config.subsets - number * BLOCK)
        generator = context.generator(seed=config.seed, study=STUDY, block=block)
        yield (
            half,
            draw_share(subsets=count, points=context.pool, share=config.share, generator=generator),
        )
        context.progress(block + 1, 2 * blocks, STUDY)


def _agreement(
    estimate: Memorization, same: Memorization, different: Memorization
) -> list[dict[str, Any]]:
    """One row per form: agreement with both truths, and of the truths with each other."""
    rows: list[dict[str, Any]] = []
    for form, own, influence in (
        (estimate.soft_name, "soft", "influence"),
        (HARD, "hard", "hard_influence"),
    ):
        mine, first, second = (getattr(side, own) for side in (estimate, same, different))
        if mine is None:
            continue
        pairs = [getattr(side, influence) for side in (estimate, same, different)]
        found = {
            "same": _pearson(mine, first),
            "different": _pearson(mine, second),
            "ceiling": _pearson(first, second),
            "top_same": _top(mine, first),
            "top_different": _top(mine, second),
            "top_ceiling": _top(first, second),
            "influence_same": _pearson(pairs[0], pairs[1]),
            "influence_different": _pearson(pairs[0], pairs[2]),
            "influence_ceiling": _pearson(pairs[1], pairs[2]),
        }
        if found["ceiling"]:
            found["of_ceiling"] = found["different"] / found["ceiling"]
        rows.append(
            {"form": form, **{name: written_number(value) for name, value in found.items()}}
        )
    return [{**dict.fromkeys(_COMPARED), **row} for row in rows]


def _known(first: Differences, second: Differences) -> tuple[Vector, Vector]:
    """Values that both sides know."""
    known = np.isfinite(first.mean) & np.isfinite(second.mean)
    return first.mean[known], second.mean[known]


def _pearson(first: Differences, second: Differences) -> float:
    left, right = _known(first, second)
    return pearson(left, right) if left.size else float("nan")


def _top(first: Differences, second: Differences) -> float:
    left, right = _known(first, second)
    return top_overlap(left, right) if left.size else float("nan")


def _row_table(context: StudyContext, found: Memorization, truth: Memorization) -> pl.DataFrame:
    unknown = np.full(context.pool, np.nan)
    nothing = Differences(unknown, unknown, unknown)
    hard, true_hard = found.hard or nothing, truth.hard or nothing
    place = np.empty(context.pool, dtype=np.int64)
    order = np.argsort(-np.nan_to_num(found.soft.mean, nan=-np.inf), kind="stable")
    place[order] = np.arange(1, context.pool + 1)
    table = pl.DataFrame(
        {
            "row_id": list(context.row_ids),
            "memorization": hard.mean,
            "memorization_low": hard.low,
            "memorization_high": hard.high,
            "soft": found.soft.mean,
            "soft_low": found.soft.low,
            "soft_high": found.soft.high,
            "true_memorization": true_hard.mean,
            "true_soft": truth.soft.mean,
            "inside": found.inside.astype(np.int64),
            "rank": place,
        }
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def _influence_table(
    config: MemorizationConfig, context: StudyContext, found: Memorization, truth: Memorization
) -> pl.DataFrame:
    """The strongest influences, either way."""
    strength = np.nan_to_num(np.abs(found.influence.mean), nan=-1).ravel()
    strongest = np.argsort(-strength, kind="stable")[: config.strongest]
    points, tests = np.unravel_index(strongest, found.influence.mean.shape)
    columns = {
        "influence": found.influence.mean,
        "low": found.influence.low,
        "high": found.influence.high,
        "true_influence": truth.influence.mean,
    }
    table = pl.DataFrame(
        {
            "row_id": [context.row_ids[point] for point in points],
            "test_row": tests.astype(np.int64),
            **{name: values[points, tests] for name, values in columns.items()},
        },
        schema_overrides={"row_id": pl.String},
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
