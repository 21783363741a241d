"""Torch modules trained on many subsets together, against the same recipe one model at a time.

MNIST rows (../shared/data), halves of 2,000, batch 64, SGD with momentum. The loop is what people write:
torch.optim.SGD, one model after another, the same batches and row weights, the same cores. Times are
processor time of one run, since other work on the machine would count in elapsed time.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from modelpred.predictor.recipe_fidelity import FidelityPlan, recipe_fidelity
from modelpred.targets import Points, TorchTarget, points_of, train_targets
from tests.benchmarks.figures import Benchmark, Figure, median
from tests.benchmarks.heads import DATA

REPEATS = 3


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))


def usual() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def tabular() -> nn.Module:
    return nn.Sequential(nn.Linear(49, 16), nn.ReLU(), nn.Linear(16, 10))


def mnist(first: int, rows: int, *, side: int = 28) -> Points:
    """Images as pixels from 0 to 1; of side 7 means of squares of 4 by 4."""
    table = pl.read_parquet(DATA / "mnist.parquet")[first : first + rows]
    pixels = np.array(table["image"].to_list(), dtype=np.float64) / 255
    step = 28 // side
    pixels = pixels.reshape(-1, side, step, side, step).mean((2, 4)).reshape(len(pixels), -1)
    return points_of(pixels, table["label"].to_numpy().astype(np.int64), 10)


def loop(target: TorchTarget, points: Points, weights: Tensor) -> None:
    """Train one model after another."""
    features, labels = points.features.float(), points.labels
    for own in weights:
        module = target.build()
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        factors = (own * len(own) / own.sum()).float()
        for epoch in range(int(target.epochs)):
            order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(len(own)))
            for batch in order.split(int(target.batch_size)):
                losses = nn.functional.cross_entropy(
                    module(features[batch]), labels[batch], reduction="none"
                )
                optimiser.zero_grad()
                (losses * factors[batch]).mean().backward()
                optimiser.step()


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def speed(
    name: str,
    build: Callable[[], nn.Module],
    *,
    side: int,
    batch: int,
    models: int = 64,
    quick: bool,
) -> Iterator[Figure]:
    """Processor time of a model, in a loop and together, and their ratio."""
    points = mnist(0, 200 if quick else 2000, side=side)
    generator = np.random.default_rng(0)
    weights = torch.from_numpy(
        (generator.random((models, len(points.labels))) < 0.5).astype(np.float64)
    )
    target = TorchTarget(build=build, momentum=0.9, batch_size=batch, epochs=1 if quick else 5)
    loop(target, points, weights[:1])  # the first call of torch loads code
    one, together, ratios = [], [], []
    for _ in range(1 if quick else REPEATS):
        one.append(seconds(lambda: loop(target, points, weights[:4])) / 4)
        together.append(
            seconds(
                lambda: train_targets(target, points.features, points.labels, weights, classes=10)
            )
            / len(weights)
        )
        ratios.append(one[-1] / together[-1])
    yield median(f"{name}: one model in a loop", one)
    yield median(f"{name}: one of {models} models together", together)
    yield median(f"{name}: loop / together", ratios, "times")


def bound(*, quick: bool) -> Iterator[Figure]:
    """How much faster than a loop training can be, if its products ran at the peak and all else were free."""
    times = 5 if quick else 400
    target = TorchTarget(build=usual, momentum=0.9, batch_size=64, epochs=1)
    points = mnist(0, 64 * 10)
    loop(target, points, torch.ones(1, 640))
    square = torch.randn(1024, 1024)
    square @ square
    shares, ratios = [], []
    for _ in range(1 if quick else REPEATS):
        step = (
            seconds(lambda: loop(target, points, torch.ones(times // 5, 640))) / (times // 5) / 10
        )
        rate = 2 * 1024**3 * 5 / seconds(lambda: [square @ square for _ in range(5)])
        # Both layers forward, the gradients of their weights, and of what the second is given.
        least = 64 * (2 * 2 * 784 * 64 + 3 * 2 * 64 * 10) / rate
        shares.append(least / step)
        ratios.append(2 * step / least)  # halves leave out half of the rows
    name = "784-64-10, batch 64"
    yield median(f"{name}: the loop's share of the peak of products", shares, "")
    yield median(f"{name}: most that training of halves can gain", ratios, "times")


def known(name: str, target: TorchTarget, *, quick: bool) -> Iterator[Figure]:
    """What seeds leave to be known, and what predictions know of it."""
    plan = (
        FidelityPlan(fit=10, held_out=6, changes=2) if quick else FidelityPlan(fit=100, held_out=50)
    )
    table = recipe_fidelity(target, mnist(0, 200 if quick else 2000), mnist(11_000, 200), plan)
    for row in table.iter_rows(named=True):
        measure = row["measure"].partition(" (")[0]
        yield Figure(f"{name}: {measure}", row["value"], "", plan.models, row["low"], row["high"])


def measure(quick: bool) -> Iterator[Figure]:
    torch.set_num_threads(1)
    yield from speed("784-64-10, batch 64", usual, side=28, batch=64, quick=quick)
    yield from speed("784-8-10, batch 64", small, side=28, batch=64, quick=quick)
    yield from speed("49-16-10, batch 16", tabular, side=7, batch=16, quick=quick)
    yield from speed(
        "49-16-10, batch 16, 256 models", tabular, side=7, batch=16, models=256, quick=quick
    )
    yield from bound(quick=quick)
    epochs = 1 if quick else 20
    yield from known("SGD", TorchTarget(build=usual, epochs=epochs), quick=quick)
    yield from known(
        "SGD with momentum", TorchTarget(build=usual, epochs=epochs, momentum=0.9), quick=quick
    )


BENCHMARK = Benchmark(
    "torch modules trained on MNIST subsets together and in a loop; what seeds leave to be known",
    12,
    measure,
)
