"""The choice of `engine="auto"` against the better of both engines: families, sizes and numbers of models.

For each pool and number of models, a fitted ModelPred that was asked nothing chooses. Its seconds are those of
the choice (timing, preparation) and of the models by the engine that it chose. The better of both is the
least of retraining all, and of full preparation and predicting all if the error is within the accuracy
asked for. All are processor seconds of one thread. `auto` may stop preparing earlier than full preparation,
so that it may take less than the better of both.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelpred import ModelPred
from modelpred.engine import Engine, EngineChoice
from modelpred.engine.costs import timed_subsets
from tests.benchmarks.engine import made
from tests.benchmarks.figures import Benchmark, Figure, number

MODELS = (100, 1000, 10_000, 100_000)
TIMED = 1024
LONG = 1.0  # seconds from which a ratio says something


@dataclass(frozen=True)
class Case:
    """Seconds for a number of models."""

    name: str
    auto: float
    better: float
    predicted: bool


def each(answer: Callable[[Tensor], object], rows: int) -> float:
    """Processor seconds of one of many models."""
    weights = timed_subsets(rows, TIMED)
    answer(weights[:256])
    began = time.process_time()
    answer(weights)
    return (time.process_time() - began) / TIMED


def spent(call: Callable[[], EngineChoice]) -> tuple[EngineChoice, float]:
    """What it returns, and its processor seconds."""
    began = time.process_time()
    found = call()
    return found, time.process_time() - began


def cases(family: str, rows: int, features: int, *, classes: int) -> Iterable[Case]:
    """The cases of a pool."""
    mp = ModelPred(family, progress=False)
    mp.fit(*made(rows, classes=classes, features=features))
    fitted = mp.fitted.engine
    exact = each(fitted.truth, rows)
    began = time.process_time()
    prepared = fitted.prepared()
    preparation = time.process_time() - began
    predicted = each(prepared.predictor.predict, rows)
    usable = fitted.error <= fitted.plan.accuracy
    for models in MODELS:
        engine = Engine(fitted.problem, fitted.plan)
        choice, seconds = spent(lambda engine=engine, n=models: engine.choose("auto", models=n))
        own = exact if choice.exact else each(engine.predictor.predict, rows)
        ways = [models * exact, *([preparation + models * predicted] if usable else [])]
        name = f"{family} {rows:,} x {features}, {classes} classes, {models:,} models"
        yield Case(name, seconds + models * own, min(ways), not choice.exact)


def measure(quick: bool) -> Iterable[Figure]:
    """All pools; a quick run has one."""
    torch.set_num_threads(1)
    pools = [("logistic", rows, 40, 2) for rows in (100, 300, 1000, 3000, 10_000)]
    pools += [("svm", rows, 40, 2) for rows in (100, 1000, 3000)]
    pools += [("softmax", rows, 10, 3) for rows in (100, 1000, 3000)]
    pools += [("softmax", rows, 40, 10) for rows in (100, 1000, 3000)]
    found = [
        case
        for family, rows, features, classes in pools[: 1 if quick else None]
        for case in cases(family, rows, features, classes=classes)
    ]
    for case in found:
        ratio, engine = case.auto / case.better, "predicted" if case.predicted else "retrained"
        yield number(f"{case.name}: {engine}", ratio, "of the better")
    long = [case.auto / case.better for case in found if case.better > LONG]
    short = [case.auto - case.better for case in found if case.better <= LONG]
    for name, values, unit in (
        (f"auto / better where that takes over {LONG:g} s", long, "times"),
        (f"auto less better where that takes up to {LONG:g} s", short, "s"),
    ):
        if values:
            low, high, count = min(values), max(values), len(values)
            yield Figure(f"{name}, mean", float(np.mean(values)), unit, count, low, high)
            yield Figure(f"{name}, most", high, unit, count, low, high)


BENCHMARK = Benchmark("the choice of engine auto against the better of both engines", 4, measure)
