"""Scores of a wider network, predicted from retrainings of halves, beside what else predicts them.

MNIST rows (../shared/data), 5,000 x (784-128-64-10), SGD, batches of 64, 50 epochs, learning rate 0.1. FIT
halves are retrained with one of five seeds each, to learn from; JUDGED others with three further seeds, whose
mean margins are the truth. Margins of 500 test rows; LDS with 95% intervals over them.

With exact kernels of gradients, K[t, i] = grad f_t . grad f_i at models of all rows, which a chain of layers has as
products of layers, the methods are (Q: derivative of loss by margin, R: 1, or its second derivative)

    projected gradients     tau = K_t R^1/2 (R^1/2 K R^1/2 + ridge)^-1 R^-1/2 Q, R = 1, projected to all dimensions
    Gauss-Newton influence  the same with R = q (1 - q)
    effects of training     derivatives through every step of FOLLOWED of the trainings that are learned from, with
                            what they leave out of a row's own answer (training_effects.py)
    predictor               score_prediction.py, with the best tau, or the effects, as prior and K as kernel

The last two are judged on every SPACING-th test row, as a derivative costs about one training a row.
A ridge is chosen by the LDS on the retrainings that are learned from. Every block of 20 models and every kernel is
kept in .modelpred/torch_goal, so that a run that was ended goes on.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelpred.metrics import Interval, lds
from modelpred.refits.training_effects import Residuals, Run
from modelpred.targets import Points, TorchTarget, train_targets
from tests.benchmarks.figures import Benchmark, Figure
from tests.benchmarks.torch_targets import mnist

FOLDER = Path(".modelpred/torch_goal")
FIT_SEEDS, JUDGED_SEEDS = range(5), (100, 101, 102)
FOLLOWED, SPACING = 20, 10
FIT, JUDGED, BLOCK = 100, 40, 20  # the aim is 500 and 100; raise them, and finished blocks are kept
RIDGES = (1e-3, 1e-1, 1.0, 10.0)  # shares of the mean of K's diagonal
KERNEL_RIDGE = 1.0
MODELS = {  # epochs and seeds of the models of all rows whose gradients are used
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


def margins(
    seed: int, epochs: int, weights: NDArray[np.uint8], rows: Points, test: Points
) -> Array:
    """Margins of the test rows under models of these subsets, and the processor time of one model."""
    target = recipe(seed, epochs)
    features = rows.features, rows.labels
    trained = train_targets(target, *features, torch.from_numpy(weights), classes=10).parameters
    return (
        target.margins(target.scores(trained, test.features.float()), test.labels).double().numpy()
    )


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
    """Sums of attributions over each subset [test rows, subsets], and products of subsets by the kernel."""
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
            if (name, ridge) == ("trak", KERNEL_RIDGE):
                own_sums = (subsets * slopes).T
                solved = torch.cholesky_solve(own @ own_sums, factor)
                saved[f"{name}-{ridge}-gram"] = (own_sums.T @ solved).numpy()
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


def centred(values: Array) -> Array:
    """Less the mean of each seed's subsets."""
    return np.concatenate([part - part.mean(0) for part in np.split(values, len(FIT_SEEDS))])


def posterior(linear: Array, gram: Array | None, told: Array | None, known: Array) -> Array:
    """Margins of the judged subsets by the model of score_prediction.py; its strengths by five folds.

    Args:
        linear: products of the subsets' weights, learned from first.
        gram: the same by the kernel.
        told: sums of attributions [subsets, test rows]; those that are learned from centred by seed.
        known: margins [subsets that are learned from, test rows], centred by seed.
    """
    count = len(known)
    if gram is not None:
        gram = gram * np.trace(linear[:count, :count]) / np.trace(gram[:count, :count])

    def predicted(option: tuple[float, float, bool], rows: Array, others: Array) -> Array:
        gamma, penalty, prior = option
        products = linear if gram is None else (1 - gamma) * linear + gamma * gram
        carried = np.zeros((len(linear), known.shape[1]))
        if prior and told is not None:
            carried = told * ((told[rows] * known[rows]).sum() / (told[rows] ** 2).sum())
        inner = products[np.ix_(rows, rows)]
        inner = inner + penalty * np.trace(inner) / len(rows) * np.eye(len(rows))
        rest = np.linalg.solve(inner, known[rows] - carried[rows])
        return carried[others] + products[np.ix_(others, rows)] @ rest

    folds = np.arange(count) % 5

    def error(option: tuple[float, float, bool]) -> float:
        parts = [(np.where(folds != fold)[0], np.where(folds == fold)[0]) for fold in range(5)]
        return sum(((predicted(option, a, b) - known[b]) ** 2).sum() for a, b in parts)

    gammas = (0.0,) if gram is None else (0.0, 0.5, 0.9, 0.99)
    priors = (False,) if told is None else (False, True)
    best = min(itertools.product(gammas, np.logspace(-3, 2, 11), priors), key=error)
    return predicted(best, np.arange(count), np.arange(count, len(linear)))


def measure(quick: bool) -> Iterator[Figure]:
    torch.set_num_threads(1)
    rows, test = mnist(0, 200 if quick else 5000), mnist(11_000, 20 if quick else 500)
    epochs = 1 if quick else 50
    name = "quick-" if quick else ""
    drawn, judged = halves(len(rows.labels), 500, 0), halves(len(rows.labels), 100, 1)
    each = FIT // len(FIT_SEEDS)
    weights = np.concatenate([drawn, judged]) - 0.5
    used = [100 * seed + place for seed in FIT_SEEDS for place in range(each)]
    used += range(500, 500 + JUDGED)

    def runs(kind: str, seed: int, subsets: NDArray[np.uint8], count: int) -> Array:
        blocks = [subsets[at : at + BLOCK] for at in range(0, count, BLOCK)]
        return np.concatenate(
            [
                kept(
                    f"{name}{kind}-{seed}-{number}",
                    lambda own=own: {"margins": margins(seed, epochs, own, rows, test)},
                )["margins"]
                for number, own in enumerate(blocks)
            ]
        )

    known = centred(
        np.concatenate([runs("fit", s, drawn[100 * s : 100 * s + 100], each) for s in FIT_SEEDS])
    )
    truths = np.stack([runs("judged", seed, judged, JUDGED) for seed in JUDGED_SEEDS])
    agreement = _mean([lds(one, other) for one, other in itertools.combinations(truths, 2)])
    seeds = len(JUDGED_SEEDS)
    low, ceiling, high = (
        math.sqrt(seeds * r / (1 + (seeds - 1) * r))
        for r in (agreement.low, agreement.mean, agreement.high)
    )
    yield _figure("agreement of two seeds", agreement, JUDGED)
    yield Figure(f"ceiling against means of {seeds} seeds", ceiling, "", JUDGED, low, high)
    linear = weights[used] @ weights[used].T
    truth = truths.mean(0)

    def judge(what: str, predicted: Array, each: int = 1) -> Iterator[Figure]:
        found = lds(predicted, truth[:, ::each])
        yield _figure(f"LDS, {what}", found, FIT)
        low, value, high = (part / ceiling for part in (found.low, found.mean, found.high))
        yield Figure(f"share of the ceiling, {what}", value, "", FIT, low, high)

    yield from judge("linear datamodel", posterior(linear, None, None, known))
    tau = effects(rows, test.take(torch.arange(0, len(test.labels), SPACING)), drawn, quick=quick)
    for what, predicted in by_effects(weights[used] @ tau.T, linear, known[:, ::SPACING]):
        yield from judge(what, predicted, SPACING)
    for which, models in MODELS.items():
        terms = [
            kept(
                f"{name}kernel-{own}-{seed}",
                lambda own=own, seed=seed: gradient_terms(
                    1 if quick else own, seed, rows, test, weights
                ),
            )
            for own, seed in models
        ]
        for method, predicted in by_gradients(terms, linear, known, used):
            yield from judge(f"{method}, {which}", predicted)


def by_effects(sums: Array, linear: Array, known: Array) -> Iterator[tuple[str, Array]]:
    """Margins of the judged subsets from sums of effects [subsets, test rows]."""
    told = np.concatenate([centred(sums[:FIT]), sums[FIT:]])
    yield "effects of training", told[FIT:]
    yield "predictor, effects as prior", posterior(linear, None, told, known)


def by_gradients(
    terms: list[dict[str, Array]], linear: Array, known: Array, used: list[int]
) -> Iterator[tuple[str, Array]]:
    """Margins of the judged subsets by each method that uses gradients."""
    sums = {
        key: np.mean([each[key] for each in terms], 0)[:, used].T
        for key in terms[0]
        if key.endswith("tau")
    }
    told = {key: np.concatenate([centred(s[:FIT]), s[FIT:]]) for key, s in sums.items()}
    on_fit = {key: lds(own[:FIT], known).mean for key, own in told.items()}
    yield f"projected gradients, ridge {RIDGES[0]}", told[f"trak-{RIDGES[0]}-tau"][FIT:]
    for method, words in (
        ("trak", "projected gradients"),
        ("gauss_newton", "Gauss-Newton influence"),
    ):
        best = max((key for key in told if key.startswith(method)), key=on_fit.__getitem__)
        yield words, told[best][FIT:]
    best = max(told, key=on_fit.__getitem__)
    gram = np.mean([own[f"trak-{KERNEL_RIDGE}-gram"] for own in terms], 0)[np.ix_(used, used)]
    yield "predictor", posterior(linear, (gram + gram.T) / 2, told[best], known)


def _mean(intervals: Sequence[Interval]) -> Interval:
    low, mean, high = (
        float(np.mean([getattr(each, name) for each in intervals]))
        for name in ("low", "mean", "high")
    )
    return Interval(mean, low, high, intervals[0].n)


def _figure(name: str, found: Interval, count: int) -> Figure:
    return Figure(name, found.mean, "", count, found.low, found.high)


BENCHMARK = Benchmark(
    "scores of MNIST networks of 109,386 parameters predicted from 100 retrainings of halves",
    15,
    measure,
)
