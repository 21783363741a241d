"""Values by `engine="auto"` beside retrained ones, and what the trial of predicted values finds.

`Trial` is the time of predicted and corrected values over that of retrained ones of the same standard errors;
predicted values pay below 1. `Auto` is the mean squared standard error times the processor seconds of
`mp.values(engine="auto")`, preparation and trial included, over those of `engine="exact"`: what auto loses or
gains at equal time.
"""

import time
from collections.abc import Iterable

import numpy as np
import torch

from modelpred import ModelPred
from modelpred.api.contexts import context_of
from modelpred.api.values import values_trial
from modelpred.engine import EngineChoice
from tests.benchmarks.engine import FEATURES, made
from tests.benchmarks.figures import Benchmark, Figure, number

TEST = 300
PERMUTATIONS = 100


def fit(family: str, rows: int, *, classes: int) -> ModelPred:
    """A ModelPred of the first rows, with test rows."""
    cells, labels = made(rows + TEST, classes=classes)
    test = cells[rows:], labels[rows:]
    return ModelPred(family, progress=False).fit(cells[:rows], labels[:rows], test=test)


def trial(mp: ModelPred) -> float:
    """Time of predicted values of the same standard errors, relative to retrained ones."""
    prepared = mp.fitted.engine.prepared()
    choice = EngineChoice("predicted", models=1, retrained_below=prepared.least_size)
    points = mp.fitted.scored_points
    asked = {"semivalue": "shapley", "permutations": PERMUTATIONS}
    with context_of(mp.fitted, points, choice=choice, scored=(points,)) as context:
        found = values_trial(context, groups=None, utility="loss", seed=0, settings=asked)
    return np.nan if found is None else found.time


def variance_and_time(mp: ModelPred, engine: str) -> float:
    """Mean squared standard error times processor seconds."""
    began = time.process_time()
    values = mp.values(permutations=PERMUTATIONS, refine=0, engine=engine)
    seconds = time.process_time() - began
    return seconds * float(np.mean(values["standard_error"].to_numpy() ** 2))


def measure(quick: bool) -> Iterable[Figure]:
    """Logistic regression of three sizes; a quick run has the smallest."""
    torch.set_num_threads(1)
    pools = [("logistic", 300, 2), ("logistic", 1000, 2), ("logistic", 10_000, 2)]
    for family, rows, classes in pools[: 1 if quick else None]:
        name = f"{family} {rows:,} x {FEATURES}"
        retrained = variance_and_time(fit(family, rows, classes=classes), "exact")
        ratio = variance_and_time(fit(family, rows, classes=classes), "auto") / retrained
        yield number(f"{name}: auto", ratio, "of exact")
        if rows <= 1000:  # of more rows, values need few models
            found = trial(fit(family, rows, classes=classes))
            yield number(f"{name}: trial", found, "of exact")


BENCHMARK = Benchmark("values by auto at equal time, and the trial of predicted values", 2, measure)
