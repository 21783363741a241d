"""Studies of 10,000 and of 50,000 rows by a fitted ModelPred, default settings, fit included.

Labels of normal features are drawn from a logistic model. Times are processor seconds and, in brackets, of the wall
on a machine that others may use. The selection of 20% is judged by the loss of the exactly retrained model on test
rows that it was not chosen by, beside the rows of the highest influence on the validation loss and random choices.
"""

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from scipy.special import expit

from modelpred import ModelPred
from modelpred.refits import Influence
from modelpred.targets import points_of
from modelpred.targets.scoring import mean_test_losses
from tests.benchmarks.figures import Benchmark, Figure, number

ROWS, COLUMNS, TEST, KEPT, RANDOM = 10_000, 40, 1000, 0.2, 10
Found = TypeVar("Found")


@dataclass
class Clock:
    """Times of calls as figures."""

    figures: list[Figure] = field(default_factory=list)

    def __call__(self, name: str, compute: Callable[[], Found]) -> Found:
        """Return what `compute` returns."""
        processor, wall = time.process_time(), time.perf_counter()
        found = compute()
        for kind, value in (
            ("processor", time.process_time() - processor),
            ("wall", time.perf_counter() - wall),
        ):
            self.figures.append(number(f"{name}, {kind}", value, "s"))
        return found


def table(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(rows, columns))
    score = cells @ draws.normal(size=columns) * 2 / np.sqrt(columns)
    return cells, (draws.random(rows) < expit(score)).astype(np.int64)


def measure(quick: bool) -> Iterable[Figure]:
    """One run of each study."""
    clock = Clock()
    rows = 600 if quick else ROWS
    cells, labels = table(rows + 2 * TEST, COLUMNS)
    train, choose, judge = np.split(np.arange(len(labels)), [rows, rows + TEST])
    mp = ModelPred(progress=False)
    test = cells[judge], labels[judge]
    name = f"{rows:,} x {COLUMNS}"
    clock(f"{name}: fit", lambda: mp.fit(cells[train], labels[train], test=test))
    clock(f"{name}: suspects", mp.suspects)
    clock(
        f"{name}: predictive, {TEST:,} rows, 1,000 resamples", lambda: mp.predictive(cells[judge])
    )
    clock(
        f"{name}: predictive about the truth, {TEST:,} rows, 1,000 draws",
        lambda: mp.predictive(cells[judge], about="truth"),
    )
    clock(f"{name}: memorization, {TEST:,} test rows", mp.memorization)
    kept = round(KEPT * rows)
    chosen = clock(
        f"{name}: select {kept:,}", lambda: mp.select(kept, cells[choose], labels[choose])
    )
    yield from clock.figures
    yield memory(f"{name}: most memory")
    yield from judged(mp, chosen["position"].to_numpy(), cells, labels, choose, judge)
    if not quick:
        clock = Clock()
        cells, labels = table(50_000, 100)
        mp = ModelPred(progress=False)
        clock("50,000 x 100: fit", lambda: mp.fit(cells, labels))
        clock("50,000 x 100: suspects", mp.suspects)
        yield from clock.figures
        yield memory("most memory of all")


def memory(name: str) -> Figure:
    return number(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB")


def judged(  # noqa: PLR0917 - the table and its parts
    mp: ModelPred,
    chosen: np.ndarray,
    cells: np.ndarray,
    labels: np.ndarray,
    choose: np.ndarray,
    judge: np.ndarray,
) -> Iterator[Figure]:
    """Test losses of models retrained on the chosen rows, the most influential ones and random ones."""
    rows, kept = len(mp.row_ids), len(chosen)
    validation, test = (
        points_of(((cells[part] - mp.scaling.offset) / mp.scaling.divisor), labels[part], 2)
        for part in (choose, judge)
    )
    problem = mp._ready.problem
    full = torch.from_numpy(mp.retrain(np.ones((1, rows))))[0]
    influence = Influence(problem.model, problem.points, full)
    without = 1 - torch.eye(rows, dtype=torch.uint8)
    values = torch.cat(
        [
            mean_test_losses(problem.model, influence(block), validation)
            for block in without.split(500)
        ]
    )
    draws = np.random.default_rng(0)
    choices = {
        "select": [chosen],
        "highest influence": [values.argsort(descending=True)[:kept].numpy()],
        "random": [draws.permutation(rows)[:kept] for _ in range(RANDOM)],
        "all rows": [np.arange(rows)],
    }
    for name, sets in choices.items():
        weights = np.zeros((len(sets), rows), dtype=np.uint8)
        for row, members in zip(weights, sets, strict=True):
            row[members] = 1
        models = torch.from_numpy(mp.retrain(weights))
        losses = mean_test_losses(problem.model, models, test).numpy()
        yield Figure(
            f"{rows:,} x {COLUMNS}: test loss after retraining, {name}",
            *(float(losses.mean()), "loss", len(losses), float(losses.min()), float(losses.max())),
        )


BENCHMARK = Benchmark(
    "studies of 10,000 and 50,000 rows: time, memory, and what a selection is worth", 3, measure
)
