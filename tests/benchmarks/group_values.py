"""Shapley values of 50 groups of rows by a fitted ModelPred: time, standard errors, and exact permutations beside them.

Labels of 40 normal features are drawn from a logistic model; the utility is the loss of 1,000 test rows. Groups either
have between 0 and 40% flipped labels and unequal sizes (the largest seven times the smallest), or are random
parts of equal size, whose values hardly differ. `Error / spread` is the root mean square of the
standard errors by the standard deviation of the values over groups; `true error / spread` has the difference from a
reference in its place: `regression` with retrained models, another seed and `LONG` permutations. Permutation
sampling with retrained models has the processor time of the default settings.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from modelpred import ModelPred
from modelpred.studies.semivalues import Values, estimate_values
from modelpred.studies.utility import game_of
from modelpred.studies.valuation import JointGame
from tests.benchmarks.figures import Benchmark, Figure, number
from tests.benchmarks.large_studies import Clock, memory, table

GROUPS, COLUMNS, TEST = 50, 40, 1000
LONG = {600: 20, 3000: 1000, 10_000: 1000}  # permutations of the references
TRIAL = 40  # permutations whose time is measured
KINDS = ("alike", "label noise")


@dataclass(frozen=True)
class Grouped:
    """A fitted table and the group of each row."""

    mp: ModelPred
    groups: np.ndarray
    figures: list[Figure]

    def values(self, sampler: str, permutations: int, seed: int) -> Values:
        """Values by any sampler with retrained models."""
        mp = self.mp
        with mp._context(mp._ready.scored_points, "exact", models=1, refine=0, own=False) as (
            context,
            _,
        ):
            members = torch.from_numpy(np.arange(GROUPS)[:, None] == self.groups).to(torch.uint8)
            return estimate_values(
                JointGame(game_of(context.truth, context), members),
                points=GROUPS,
                permutations=permutations,
                rows=len(self.groups),
                generator=np.random.default_rng(seed),
                sampler=sampler,  # pyright: ignore[reportArgumentType]
            )


def fitted(rows: int, kind: str, columns: int = COLUMNS) -> Grouped:
    cells, labels = table(rows + TEST, columns)
    draws = np.random.default_rng(1)
    chances = (
        np.ones(GROUPS) if kind == "alike" else draws.permutation(np.linspace(0.25, 1.75, GROUPS))
    )
    groups = np.append(
        np.arange(GROUPS), draws.choice(GROUPS, rows - GROUPS, p=chances / chances.sum())
    )
    if kind == "label noise":
        flipped = draws.random(rows) < np.linspace(0, 0.4, GROUPS)[groups]
        labels[:rows] = np.where(flipped, 1 - labels[:rows], labels[:rows])
    clock, mp = Clock(), ModelPred(progress=False)
    test = cells[rows:], labels[rows:]
    clock(
        f"{rows:,} x {columns}, {kind}: fit", lambda: mp.fit(cells[:rows], labels[:rows], test=test)
    )
    return Grouped(mp, groups, clock.figures)


def measure(quick: bool) -> Iterable[Figure]:
    for rows in (600,) if quick else (3000, 10_000):
        for kind in KINDS:
            yield from compared(fitted(rows, kind), f"{rows:,} x {COLUMNS}, {kind}", LONG[rows])
    if not quick:
        for kind in KINDS:
            yield from of_default(fitted(50_000, kind), f"50,000 x {COLUMNS}, {kind}")
        yield from of_default(fitted(50_000, "label noise", 100), "50,000 x 100, label noise")
        yield memory("most memory of all")


def of_default(of: Grouped, name: str) -> Iterator[Figure]:
    """Figures of default settings, fit included."""
    clock = Clock()
    found = clock(f"{name}: values", lambda: of.mp.values(groups=of.groups))
    yield from of.figures
    yield from clock.figures
    yield number(f"{name}: models", found.models or 0, "models")
    errors, values = (found[column].to_numpy() for column in ("standard_error", "value"))
    yield number(f"{name}: error / spread", rms(errors) / values.std(), "ratio")


def compared(of: Grouped, name: str, long: int) -> Iterator[Figure]:
    """Figures of default settings and of permutations in the same time, against a reference."""
    reference = of.values("regression", long, seed=1)
    spread = reference.values.std()
    yield number(
        f"{name}: reference, error / spread", rms(reference.standard_errors) / spread, "ratio"
    )
    found, seconds = timed(of, "auto", 100)
    yield from judged(f"{name}: {found.sampler} (default)", found, seconds, reference)
    _, each = timed(of, "permutation", TRIAL)
    found, seconds = timed(of, "permutation", max(2, round(TRIAL * seconds / each)))
    yield from judged(f"{name}: permutation", found, seconds, reference)


def timed(of: Grouped, sampler: str, permutations: int) -> tuple[Values, float]:
    began = time.process_time()
    found = of.values(sampler, permutations, seed=2)
    return found, time.process_time() - began


def judged(name: str, found: Values, seconds: float, reference: Values) -> Iterator[Figure]:
    spread = reference.values.std()
    yield number(f"{name}, processor", seconds, "s")
    yield number(f"{name}, models", found.evaluations, "models")
    yield number(f"{name}, error / spread", rms(found.standard_errors) / spread, "ratio")
    yield number(
        f"{name}, true error / spread", rms(found.values - reference.values) / spread, "ratio"
    )


def rms(numbers: np.ndarray) -> float:
    return float(np.sqrt(np.mean(numbers**2)))


BENCHMARK = Benchmark(
    "values of 50 groups of 3,000 to 50,000 rows: time and standard errors", 4, measure
)
