"""Scores of a wider network, predicted from retrainings of halves, beside what else predicts them.

MNIST rows (../shared/data), 5,000 x (784-128-64-10), SGD, batches of 64, 50 epochs, learning rate 0.1. FIT
halves are retrained with one of five seeds each, to learn from; JUDGED others with three further seeds, whose
mean margins are the truth. Margins of 500 test rows; LDS with 95% intervals over them.

With exact kernels of gradients, K[t, i] = grad f_t . grad f_i at models of all rows, which a chain of layers has as
products of layers, the methods are (Q: derivative of loss by margin, R: 1, or its second derivative)

    projected gradients     tau = K_t R^1/2 (R^1/2 K R^1/2 + ridge)^-1 R^-1/2 Q, R = 1, projected to all dimensions
    Gauss-Newton influence  the same with R = q (1 - q)
    influence at models     the first sums of subset_influence.py, at MODELS of the models that are learned from
    of halves
    predictor               that of recipe_fidelity.py: sums of first and second order, and a kernel, fitted to the margins
    effects of training     derivatives through every step of the first FOLLOWED trainings, with what they leave out of
                            a row's own answer (training_effects.py); in the predictor beside the other sums

Those with effects are judged on every SPACING-th test row, as a derivative costs about one training a row.
A ridge is chosen by the LDS on the retrainings that are learned from. Every block of 20 models and every kernel is
kept in .modelpred/torch_goal, so that a run that was ended goes on.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelpred.metrics import Interval, lds
from modelpred.predictor.subset_scores import subset_scores
from modelpred.refits.subset_influence import Model, Sums, subset_sums
from modelpred.refits.training_effects import Residuals, Run
from modelpred.targets import Points, TorchTarget, train_targets
from tests.benchmarks.figures import Benchmark, Figure
from tests.benchmarks.torch_targets import mnist

FOLDER = Path(".modelpred/torch_goal")
FIT_SEEDS, JUDGED_SEEDS = range(5), (100, 101, 102)
MODELS, FOLLOWED, SPACING = 60, 20, 10
FIT, JUDGED, BLOCK = (100, 300, 500), 40, 20  # finished blocks are kept
RIDGES = (1e-3, 1e-1, 1.0, 10.0)  # shares of the mean of K's diagonal
FULL = {  # epochs and seeds of the models of all rows whose gradients are used
    "one seed": ((50, 0),),
    "two seeds": ((50, 0), (50, 1)),
}
Array = NDArray[np.float64]


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def recipe(seed: int, epochs: int) -> TorchTarget:
    return TorchTarget(build=deep, epochs=epochs, learning_rate=0.1, batch_size=64, seed=seed)


def halves(rows: int, count: int, draw: int) -> NDArray[np.uint8]:
    generator = np.random.default_rng([0, draw])
    weights = np.zeros((count, rows), dtype=np.uint8)
    for row in weights:
        row[generator.permutation(rows)[: rows // 2]] = 1
    return weights


def kept(name: str, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """The arrays of this name, made unless an earlier run has."""
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, **make())
        part.replace(path)
    return dict(np.load(path))


def retrained(
    seed: int, epochs: int, weights: NDArray[np.uint8], rows: Points, test: Points
) -> dict[str, Array]:
    """Margins of the test rows under models of these subsets, and parameters of the first models."""
    target = recipe(seed, epochs)
    features = rows.features, rows.labels
    trained = train_targets(target, *features, torch.from_numpy(weights), classes=10).parameters
    found = target.margins(target.scores(trained, test.features.float()), test.labels)
    return {"margins": found.numpy(), "parameters": trained[: MODELS // len(FIT_SEEDS)].numpy()}


def kernel_of(target: TorchTarget, theta: Tensor, both: Points, pool: int) -> tuple[Tensor, Tensor]:
    """Products of the margins' gradients of all rows with those of the pool, and margins."""
    parts = target.module.split(theta)
    inputs = [both.features.float()]
    for place, layer in enumerate(("0", "2", "4")):
        made = inputs[-1] @ parts[f"{layer}.weight"].T + parts[f"{layer}.bias"]
        inputs.append(made.relu() if place < 2 else made)
    outputs = inputs.pop().requires_grad_()
    found = target.margins(outputs[None], both.labels)[0]
    slopes = torch.autograd.grad(found.sum(), outputs)[0]
    kernel = torch.zeros(len(both.labels), pool)
    for place in (2, 1, 0):
        below = inputs[place]
        kernel += (slopes @ slopes[:pool].T) * (below @ below[:pool].T + 1)
        if place:
            slopes = (slopes @ parts[f"{2 * place}.weight"]) * (below > 0)
    return kernel.double(), found.detach().double()


def gradient_terms(
    epochs: int, seed: int, rows: Points, test: Points, weights: Array
) -> dict[str, Array]:
    """Sums of attributions over each subset [test rows, subsets]."""
    target, count = recipe(seed, epochs), len(rows.labels)
    everything = torch.ones(1, count)
    trained = train_targets(target, rows.features, rows.labels, everything, classes=10).parameters
    kernel, found = kernel_of(target, trained[0], rows.joined(test), count)
    own, tested = kernel[:count], kernel[count:]
    slopes = torch.sigmoid(-found[:count])
    subsets = torch.from_numpy(weights)
    saved: dict[str, Array] = {}
    curvature = (slopes * (1 - slopes)).clamp(min=1e-6)
    for name, each in (("trak", torch.ones(count)), ("gauss_newton", curvature / curvature.mean())):
        roots = each.double().sqrt()
        for ridge in RIDGES:
            scaled = roots[:, None] * own * roots
            scaled.diagonal().add_(ridge * own.diagonal().mean())
            factor = torch.linalg.cholesky(scaled)
            tau = torch.cholesky_solve((tested * roots).T, factor).T / roots * slopes
            saved[f"{name}-{ridge}-tau"] = (tau @ subsets.T).numpy()
    return saved


def effects(pool: Points, test: Points, subsets: NDArray[np.uint8], *, quick: bool) -> Array:
    """Effects of training [test rows, rows], of the first subsets of each seed."""
    each = (5 if quick else FOLLOWED) // len(FIT_SEEDS)
    runs = {
        (seed, place): Run(
            recipe(seed, 1 if quick else 50),
            pool,
            torch.from_numpy(subsets[100 * seed + place].astype(np.float32)),
        )
        for place in range(each)
        for seed in FIT_SEEDS
    }
    name = "quick-" if quick else ""
    seen = {
        key: kept(
            f"{name}residuals-{key[0]}-{key[1]}",
            lambda run=run: {"residuals": run.path().watched.numpy()},
        )["residuals"]
        for key, run in runs.items()
    }
    residuals = Residuals.of(
        torch.from_numpy(np.stack(list(seen.values()))),
        torch.stack([run.weights for run in runs.values()]),
    )

    def effect(key: tuple[int, int]) -> dict[str, Array]:
        run, own = runs[key], torch.from_numpy(seen[key])
        began = time.process_time()
        factors = residuals.factors(own, run.weights, regression=False)
        path = run.path()
        found = run.effects(path, run.margin_slopes(path, test), factors).numpy()
        return {"effects": found, "seconds": np.array(time.process_time() - began)}

    found = [
        kept(f"{name}effects-{len(test.labels)}-{key[0]}-{key[1]}", lambda key=key: effect(key))
        for key in runs
    ]
    return np.mean([own["effects"] for own in found], 0)


def sums_of(
    pool: Points, test: Points, subsets: Array, on_fit: Callable[[Tensor], float], *, quick: bool
) -> Sums:
    """The sums of subset_influence.py for subsets [subsets, rows], the mean over MODELS models of halves."""
    name = "quick-" if quick else ""
    models = [
        Model(torch.from_numpy(own), torch.from_numpy(weights))
        for place in range(MODELS // len(FIT_SEEDS))
        for seed in FIT_SEEDS
        for own in [kept(f"{name}fit-{seed}-0", dict)["parameters"][place]]
        for weights in [halves(len(pool.labels), 500, 0)[100 * seed + place]]
    ]

    def make() -> dict[str, Array]:
        target, every = recipe(0, 50), torch.from_numpy(subsets)
        centre = torch.full((len(pool.labels),), 0.5)
        found = subset_sums(target, pool, test, models, every, centre=centre, quality=on_fit)
        return {
            "first": found.first.numpy(),
            "second": torch.stack(found.second).numpy(),
            "products": found.products.numpy(),
        }

    own = {key: torch.from_numpy(value) for key, value in kept(f"{name}sums", make).items()}
    return Sums(own["first"], tuple(own["second"]), own["products"])


@dataclass(frozen=True)
class Learned:
    """Retrained halves that are learned from, and those that are judged.

    Attributes:
        places: of both among all halves; each seed has as many of the first.
        fit: number of the first.
        known: their margins, less the mean of each seed's.
        weights: of all halves, less one half.
    """

    places: list[int]
    fit: int
    known: Array
    weights: Array

    def centred(self, values: Array) -> Array:
        """Those of both [all halves, ...]; the first less the mean of each seed's."""
        own = values[self.places]
        return np.concatenate([centred(own[: self.fit]), own[self.fit :]])

    def predicted(
        self, sums: Sequence[Array], products: Array | None = None, *, each: int = 1
    ) -> Array:
        """Margins of the judged halves by subset_scores.py; each seed is held out once."""

        def between(own: Array) -> Tensor:
            return torch.from_numpy(self.centred(self.centred(own.astype(np.float64)).T).T)

        found = subset_scores(
            [torch.from_numpy(self.centred(own)) for own in sums],
            between(self.weights @ self.weights.T),
            None if products is None else between(products),
            torch.from_numpy(self.known[:, ::each]),
            folds=torch.arange(len(FIT_SEEDS)).repeat_interleave(self.fit // len(FIT_SEEDS)),
        )
        return found.numpy()


def centred(values: Array) -> Array:
    """Less the mean of each seed's subsets."""
    return np.concatenate([part - part.mean(0) for part in np.split(values, len(FIT_SEEDS))])


@dataclass(frozen=True)
class Halves:
    """The rows, the halves, and their retrained margins.

    Attributes:
        quick: on few rows, for one epoch.
        rows: the pool.
        test: test rows.
        drawn: halves to learn from, 100 for each seed.
        judged: halves to judge.
    """

    quick: bool
    rows: Points
    test: Points
    drawn: NDArray[np.uint8]
    judged: NDArray[np.uint8]

    @property
    def weights(self) -> Array:
        """Of all halves, less one half."""
        return np.concatenate([self.drawn, self.judged]) - 0.5

    def margins(self, kind: str, seed: int, subsets: NDArray[np.uint8], count: int) -> Array:
        """Margins of the first of these halves [count, test rows], with this seed."""
        epochs, name = (1, "quick-") if self.quick else (50, "")
        blocks = [subsets[at : at + BLOCK] for at in range(0, count, BLOCK)]

        def make(own: NDArray[np.uint8]) -> dict[str, Array]:
            return retrained(seed, epochs, own, self.rows, self.test)

        found = [
            kept(f"{name}{kind}-{seed}-{number}", lambda own=own: make(own))["margins"]
            for number, own in enumerate(blocks)
        ]
        return np.concatenate(found).astype(np.float64)

    def truths(self) -> Array:
        """Margins of the judged halves, [seeds, halves, test rows]."""
        return np.stack(
            [self.margins("judged", seed, self.judged, JUDGED) for seed in JUDGED_SEEDS]
        )

    def learned(self, count: int) -> Learned:
        """So many halves to learn from, as many of each seed."""
        each = count // len(FIT_SEEDS)
        places = [100 * seed + place for seed in FIT_SEEDS for place in range(each)]
        own = [self.margins("fit", s, self.drawn[100 * s : 100 * s + 100], each) for s in FIT_SEEDS]
        known = centred(np.concatenate(own))
        return Learned([*places, *range(500, 500 + JUDGED)], count, known, self.weights)

    def terms(self, models: Sequence[tuple[int, int]]) -> list[dict[str, Array]]:
        """Sums of attributions by gradients at models of all rows, of these epochs and seeds."""
        name = "quick-" if self.quick else ""

        def make(epochs: int, seed: int) -> dict[str, Array]:
            own = 1 if self.quick else epochs
            return gradient_terms(own, seed, self.rows, self.test, self.weights)

        return [
            kept(f"{name}kernel-{epochs}-{seed}", functools.partial(make, epochs, seed))
            for epochs, seed in models
        ]


def measure(quick: bool) -> Iterator[Figure]:
    torch.set_num_threads(1)
    rows, test = mnist(0, 200 if quick else 5000), mnist(11_000, 20 if quick else 500)
    drawn, judged = halves(len(rows.labels), 500, 0), halves(len(rows.labels), 100, 1)
    every = Halves(quick, rows, test, drawn, judged)
    truths = every.truths()
    agreement = _mean([lds(one, other) for one, other in itertools.combinations(truths, 2)])
    seeds = len(JUDGED_SEEDS)
    low, ceiling, high = (
        math.sqrt(seeds * r / (1 + (seeds - 1) * r))
        for r in (agreement.low, agreement.mean, agreement.high)
    )
    yield _figure("agreement of two seeds", agreement, JUDGED)
    yield Figure(f"ceiling against means of {seeds} seeds", ceiling, "", JUDGED, low, high)
    truth = truths.mean(0)

    def judge(what: str, predicted: Array, count: int, each: int = 1) -> Iterator[Figure]:
        found = lds(predicted, truth[:, ::each])
        yield _figure(f"LDS, {what}", found, count)
        low, value, high = (part / ceiling for part in (found.low, found.mean, found.high))
        yield Figure(f"share of the ceiling, {what}", value, "", count, low, high)

    few = every.learned(FIT[0])
    for which, models in FULL.items():
        for method, predicted in by_gradients(every.terms(models), few):
            yield from judge(f"{method}, {which}", predicted, few.fit)
    for what, predicted, count, each in by_models_of_halves(every, few):
        yield from judge(what, predicted, count, each)


def by_models_of_halves(every: Halves, few: Learned) -> Iterator[tuple[str, Array, int, int]]:
    """Margins of the judged halves by methods that use trainings of halves, with the number of these.

    The last number is the spacing of their test rows.
    """

    def on_fit(sums: Tensor) -> float:
        return lds(few.centred(sums.numpy())[: few.fit], few.known).mean

    rows, test, quick = every.rows, every.test, every.quick
    both = np.concatenate([every.drawn, every.judged])
    sums = sums_of(rows, test, both, on_fit, quick=quick)
    first, products = sums.first.numpy(), sums.products.numpy()
    second = [own.numpy() for own in sums.second]
    some = test.take(torch.arange(0, len(test.labels), SPACING))
    through = every.weights @ effects(rows, some, every.drawn, quick=quick).T
    yield "influence at models of halves", first[500 : 500 + JUDGED], MODELS, 1
    yield "effects of training", through[500 : 500 + JUDGED], FOLLOWED, SPACING
    spaced = [own[:, ::SPACING] for own in (first, *second)]
    for count in FIT[: 1 if quick else None]:
        own = every.learned(count)
        yield f"linear datamodel, {count} halves", own.predicted([]), count, 1
        found = own.predicted([first, *second], products)
        yield f"predictor, {count} halves", found, count, 1
        found = own.predicted([through, *spaced], products, each=SPACING)
        yield f"predictor with effects, {count} halves", found, count, SPACING


def by_gradients(terms: list[dict[str, Array]], few: Learned) -> Iterator[tuple[str, Array]]:
    """Margins of the judged subsets by each method that uses gradients at models of all rows."""
    told = {
        key: few.centred(np.mean([each[key] for each in terms], 0).T)
        for key in terms[0]
        if key.endswith("tau")
    }
    on_fit = {key: lds(own[: few.fit], few.known).mean for key, own in told.items()}
    yield f"projected gradients, ridge {RIDGES[0]}", told[f"trak-{RIDGES[0]}-tau"][few.fit :]
    for method, words in (
        ("trak", "projected gradients"),
        ("gauss_newton", "Gauss-Newton influence"),
    ):
        best = max((key for key in told if key.startswith(method)), key=on_fit.__getitem__)
        yield words, told[best][few.fit :]


def _mean(intervals: Sequence[Interval]) -> Interval:
    low, mean, high = (
        float(np.mean([getattr(each, name) for each in intervals]))
        for name in ("low", "mean", "high")
    )
    return Interval(mean, low, high, intervals[0].n)


def _figure(name: str, found: Interval, count: int) -> Figure:
    return Figure(name, found.mean, "", count, found.low, found.high)


BENCHMARK = Benchmark(
    "scores of MNIST networks of 109,386 parameters predicted from retrainings of halves",
    15,
    measure,
)
