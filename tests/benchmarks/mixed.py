"""Whether predictions make values of rows more precise: correlations and costs, at sizes of subsets.

A row's value is a mean over random subsets of the gain d of a test loss when the row joins. Let d be the exact
gain, at cost 1 a pair of models, and p the predicted one, at cost c, with correlation r over the subsets of a
row. The estimate mean(d - b p) over few pairs + b mean(p) over many has, with the best b and the best split
of a given time, this variance relative to that of exact gains alone:

    (sqrt(1 - r^2) + sqrt(c) r)^2,   less than 1 if and only if   c < ((1 - sqrt(1 - r^2)) / r)^2

Costs are processor seconds of one thread; r is of gains less their means by row.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from modelpred.predictor import Predictor
from modelpred.targets.scoring import mean_test_losses
from tests.benchmarks import heads
from tests.benchmarks.engine import made
from tests.benchmarks.figures import Benchmark, Figure

SHARES = (0.03, 0.1, 0.4, 0.8)  # sizes of the subsets
ROWS, SUBSETS = 12, 8
FIT = 40  # subsets of each design


@dataclass(frozen=True)
class Gains:
    """Gains [rows, subsets] of some rows and processor seconds of a pair."""

    gains: np.ndarray
    seconds: float


def variance_ratio(correlation: float, cost: float) -> float:
    """Variance of the best mixture at equal time over that of exact gains; at most 1."""
    r = max(0.0, correlation)
    return min(1.0, ((1 - r * r) ** 0.5 + cost**0.5 * r) ** 2)


def pairs(rows: int, share: float, generator: np.random.Generator) -> Tensor:
    """Weights of subsets without and with a row, [rows x subsets x 2, points]."""
    size = max(3, round(share * rows))
    weights = np.zeros((ROWS, SUBSETS, 2, rows), dtype=np.uint8)
    for row, number in enumerate(generator.permutation(rows)[:ROWS]):
        others = np.setdiff1d(np.arange(rows), number)
        for subset in range(SUBSETS):
            weights[row, subset, :, generator.permutation(others)[:size]] = 1
            weights[row, subset, 1, number] = 1
    return torch.from_numpy(weights.reshape(-1, rows))


def gains(task: heads.Problem, answer: Callable[[Tensor], Tensor], weights: Tensor) -> Gains:
    """Gains of the test loss by these models."""
    answer(weights)
    began = time.process_time()
    parameters = answer(weights)
    seconds = (time.process_time() - began) / (ROWS * SUBSETS)
    losses = mean_test_losses(task.model, parameters, task.test_points).numpy()
    differences = losses.reshape(ROWS, SUBSETS, 2) @ np.array([1.0, -1.0])
    return Gains(differences, seconds)


def compared(task: heads.Problem, predictor: Predictor) -> Iterable[Figure]:
    """The figures of a pool."""
    generator = np.random.default_rng(3)
    for share in SHARES:
        weights = pairs(len(task.points.labels), share, generator)
        exact = gains(task, partial(heads.retrained, task), weights)
        best = (1.0, 0.0, np.inf, -1)
        for stage in range(predictor.stages + 1):
            found = gains(task, partial(predictor.predict, stages=stage), weights)
            own, other = (each.gains - each.gains.mean(1, keepdims=True) for each in (exact, found))
            size = np.sqrt((own**2).sum() * (other**2).sum())
            r = float((own * other).sum() / size) if size else 0.0
            cost = found.seconds / exact.seconds
            best = min(best, (variance_ratio(r, cost), r, cost, stage))
        ratio, r, cost, stage = best
        name = f"{task.name}, subsets of {share:.0%}"
        pair = ROWS * SUBSETS
        yield Figure(f"{name}: variance at equal time", ratio, "of exact", pair, ratio, ratio)
        if stage >= 0:
            told = f"{name}, stage {stage}"
            yield Figure(f"{told}: correlation", r, "", pair, r, r)
            yield Figure(f"{told}: cost of prediction", cost, "of exact", pair, cost, cost)


def pool(rows: int) -> heads.Problem:
    """A logistic pool as in the benchmark of the engine."""
    features, labels = made(rows + heads.TESTED, classes=2)
    points, test = heads.split(features, labels, rows)
    return heads.Problem(f"logistic {rows:,} x 40", heads.target_model("logistic"), points, test)


PROBLEMS: tuple[Callable[[], heads.Problem], ...] = (
    *(partial(pool, rows) for rows in (300, 1000, 3000)),
    partial(heads.mnist, 4000, 0.01),
)


def measure(quick: bool) -> Iterable[Figure]:
    """All pools whose data are at hand; a quick run has the smallest."""
    for make in PROBLEMS[: 1 if quick else None]:
        try:
            task = make()
        except FileNotFoundError as error:
            print(f"left out: {error.filename or error} is not at hand")
            continue
        with heads.torch_threads(1):
            generator = np.random.default_rng(5)
            rows = len(task.points.labels)
            count = 1000 if rows < 1000 else FIT
            drawn = [heads.draw(rows, name, count, generator) for name in ("uniform", "deletions")]
            weights = torch.cat(drawn)
            predictor = heads.fit_predictor(
                heads.PredictorConfig(network="auto" if rows < 1000 else "newton"),
                task.model, task.points, weights, heads.retrained(task, weights),
            )  # fmt: skip
            yield from compared(task, predictor)


BENCHMARK = Benchmark("what predictions gain for values at equal time", 2, measure)
