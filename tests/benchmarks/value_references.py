"""Long references for values of rows: Shapley values by exactly retrained models, for minutes.

    python -m tests.benchmarks.value_references 3000 460    rows, processor seconds

`SAMPLE` random rows are valued: for each of them and each subset, a model is trained with the row and one without it.
Subsets are drawn as by the sampler `gains`, but no expansion is used. The references are kept in
.modelpred/value_references, and the benchmark `value_samplers` uses them.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelpred.refits.retraining import silent
from modelpred.studies.context import StudyContext
from modelpred.studies.gain_sampling import GainSampler
from modelpred.studies.sampling import Game
from modelpred.studies.utility import ModelGame, game_of

SAMPLE = 300  # rows
FOLDER = Path(".modelpred/value_references")


@dataclass(frozen=True)
class Reference:
    """Values of some rows by exact retraining, with standard errors.

    Attributes:
        rows: positions of the valued rows.
        values: of these.
        standard_errors: of the values.
        models: number of trained models.
        seconds: of the processor.
    """

    rows: np.ndarray
    values: np.ndarray
    standard_errors: np.ndarray
    models: int
    seconds: float

    @property
    def reliability(self) -> float:
        """Expected correlation with a second reference of this length."""
        return float(1 - np.mean(self.standard_errors**2) / self.values.var())


def reference_of(context: StudyContext, *, seconds: float) -> Reference:
    """Return the reference that so many processor seconds allow."""
    points = context.pool
    generator = np.random.default_rng(101)
    rows = np.sort(generator.permutation(points)[:SAMPLE])
    exact = ExactGains(game_of(context.truth, context), rows)
    sampler = GainSampler(np.full(points, 1 / points), exact, generator=generator)
    counted = Game(exact.game, points=points, total=0, progress=silent)
    began = time.process_time()
    while time.process_time() - began < seconds:
        sampler.draw(1, counted)
    estimates = sampler.estimates()[:, rows]
    errors = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    return Reference(
        rows, estimates.mean(axis=0), errors, exact.models, time.process_time() - began
    )


class ExactGains:
    """Gains of some rows by training with and without each; 0 for the others, which have no estimate."""

    def __init__(self, game: ModelGame, rows: np.ndarray) -> None:
        self.game, self.rows, self.models = game, torch.from_numpy(rows), 0

    def __call__(self, weights: Tensor) -> Tensor:
        """Return the gains [subsets, points]."""
        gains = torch.zeros(weights.shape, dtype=torch.float64)
        for row, members in enumerate(weights > 0):
            gains[row, self.rows] = self._of_one(members)
        return gains

    def _of_one(self, members: Tensor) -> Tensor:
        """Gains of the rows in or beside one subset."""
        inside = members[self.rows]
        needed = members.clone()
        needed[self.rows] = True
        places = needed.nonzero()[:, 0]
        few = self.game.context.truth.for_points(self.game.context.points.take(places))
        context = self.game.context
        context = StudyContext(few, context.test_points, {few.name: few}, tuple(map(str, places)))
        own = torch.searchsorted(places, self.rows)
        each = members[places].to(torch.uint8).repeat(len(self.rows) + 1, 1)
        changed = torch.arange(len(self.rows))
        each[changed, own] = 1 - each[changed, own]
        found = game_of(few, context)(each)
        self.models += len(found)
        return torch.where(inside, found[-1] - found[:-1], found[:-1] - found[-1])


def kept(context: StudyContext, *, seconds: float) -> Reference:
    """Return the kept reference of these rows, or compute and keep it."""
    path = FOLDER / f"{context.pool}.npz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        found = reference_of(context, seconds=seconds)
        np.savez(path, **vars(found))
    with np.load(path) as arrays:
        rows, values, errors = (arrays[name] for name in ("rows", "values", "standard_errors"))
        return Reference(rows, values, errors, int(arrays["models"]), float(arrays["seconds"]))


if __name__ == "__main__":
    from tests.benchmarks.value_samplers import drawn

    found = kept(drawn(int(sys.argv[1])).context, seconds=float(sys.argv[2]))
    sys.stdout.write(f"{found.models:,} models, reliability {found.reliability:.4f}\n")
