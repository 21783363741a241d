"""Prediction beside exact retraining where training is dear: linear heads on features, and long tables.

Each problem is fitted with the default settings. Then, for halves, uniform sizes and deletions of up to a
tenth, held-out subsets are retrained and predicted: processor time a subset on
one thread, mean relative error of the parameters, and LDS (rank correlation over subsets of a test
row's margin, mean over rows). Break-even is the number of queries after which the training of the
subsets that the fit used, the fit and the answers took less processor time than retraining each query.

The features of MNIST are 2,000 random ReLU features of the pixels, their first 128 principal components,
standardised. The embedding-like table is that of tests/embeddings.py; its C was chosen on further rows.
Problems whose table (MNIST, adult) is not at hand are left out, with a line that says so.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modelpred.metrics import mean_interval, relative_errors, spearman
from modelpred.predictor import Predictor, PredictorConfig, fit_predictor
from modelpred.targets import Points, points_of, target_model, train_targets
from modelpred.targets.threads import torch_threads
from tests.benchmarks import problems
from tests.benchmarks.figures import Benchmark, Figure, number
from tests.embeddings import embeddings
from tests.projects import ROOT

DATA = ROOT.parent / "shared" / "data"
FIT = 250  # subsets of each design
FIT_WEAK = 166  # the same where corrections are learned from them: at most 500 in all
LEARNS_FROM = 0.1  # C of MNIST features
HELD_OUT = 200
TESTED = 300
REPEATS = 3
ACCURACIES = (0.01, 0.02)  # at which each subset stops, by its own estimate


@dataclass(frozen=True)
class Problem(problems.Problem):
    """A problem, and how many subsets of each design are fitted and held out."""

    fit: int = FIT
    held_out: int = HELD_OUT


def split(features: np.ndarray, labels: np.ndarray, rows: int) -> tuple[Points, Points]:
    """The first rows as the pool and the next ones as the test, standardised by the pool."""
    centre, spread = features[:rows].mean(0), features[:rows].std(0)
    usable = spread > 1e-9
    scaled = (features[:, usable] - centre[usable]) / spread[usable]
    classes = int(labels.max()) + 1
    last = slice(rows, rows + TESTED)
    return points_of(scaled[:rows], labels[:rows], classes), points_of(
        scaled[last], labels[last], classes
    )


def mnist(rows: int, C: float) -> Problem:  # noqa: N803
    """A softmax head on features of MNIST."""
    table = pl.read_parquet(DATA / "mnist.parquet")
    pixels = np.array(table["image"].to_list(), dtype=np.float32) / 255
    generator = np.random.default_rng(0)
    relu = np.maximum(pixels @ generator.normal(size=(784, 2000)).astype(np.float32) / 10, 0)
    relu -= relu.mean(0)
    _, _, directions = np.linalg.svd(relu[:4000], full_matrices=False)
    features = (relu @ directions[:128].T).astype(np.float64)
    pool, test = split(features, table["label"].to_numpy().astype(np.int64), rows)
    name = f"MNIST {rows:,} x 128, C {C:g}"
    fit = FIT if C < LEARNS_FROM else FIT_WEAK
    return Problem(name, target_model("softmax", C=C), pool, test, fit=fit)


def adult() -> Problem:
    """Adult, one column a category, 20,000 rows."""
    table = pl.read_parquet(DATA / "adult.parquet").sample(fraction=1, shuffle=True, seed=1)
    label = table.columns[-1]
    classes = table[label].cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
    rest = table.drop(label)
    words = [name for name, kind in rest.schema.items() if not kind.is_numeric()]
    encoded = rest.to_dummies(words, drop_first=True).fill_null(0)
    features = encoded.select(pl.all().cast(pl.Float64)).to_numpy()
    often = (features != 0).sum(0) >= 50
    pool, test = split(features[:, often], classes, 20_000)
    return Problem("adult, 20,000 rows", target_model("logistic", C=0.1), pool, test)


def embedding(rows: int, features: int, classes: int) -> Problem:
    """A softmax head on made-up embeddings of many classes."""
    pool, test = split(*embeddings(rows + TESTED, features, classes), rows)
    name = f"embeddings {rows:,} x {features}, {classes} classes, C 0.01"
    return Problem(name, target_model("softmax", C=0.01), pool, test, fit=30, held_out=48)


def made_up(rows: int, features: int, family: str = "logistic") -> Problem:
    """A logistic model's own labels; for ridge its scores with noise."""
    generator = np.random.default_rng(1)
    columns = generator.normal(size=(rows + TESTED, features))
    scores = columns @ generator.normal(size=features) / 3
    noisy = scores + generator.logistic(size=len(scores))
    pool, test = split(columns, (noisy > 0).astype(np.int64), rows)
    if family == "ridge":
        pool = points_of(pool.features, noisy[:rows], 0)
        test = points_of(test.features, noisy[rows : rows + TESTED], 0)
    name = f"{family} {rows:,} x {features}, C 1"
    return Problem(name, target_model(family, C=1.0), pool, test)


PROBLEMS: tuple[Callable[[], Problem], ...] = (
    partial(mnist, 4000, 0.01), partial(mnist, 10_000, 0.01), partial(mnist, 4000, 0.3),
    partial(made_up, 10_000, 40), adult, partial(made_up, 10_000, 40, "svm"),
    partial(made_up, 10_000, 40, "ridge"), partial(embedding, 10_000, 512, 50),
)  # fmt: skip
QUICK: tuple[Callable[[], Problem], ...] = (partial(made_up, 3000, 40),)


def draw(points: int, design: str, count: int, generator: np.random.Generator) -> Tensor:
    """Weights [subsets, points] as bytes."""
    weights = np.zeros((count, points), dtype=np.uint8)
    for index in range(count):
        if design == "bootstrap":
            weights[index] = np.bincount(generator.integers(0, points, points), minlength=points)
            continue
        size = {
            "halves": points // 2,
            "uniform": int(generator.integers(max(3, points // 10), points + 1)),
            "deletions": points - int(generator.integers(1, points // 10 + 1)),
        }[design]
        weights[index, generator.permutation(points)[:size]] = 1
    return torch.from_numpy(weights)


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What it returns, and the least processor seconds of a few repeats."""
    answer = work()
    seconds: list[float] = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return answer, min(seconds)


def lds(task: Problem, true: Tensor, predicted: Tensor) -> float:
    """Mean over test rows of the rank correlation of margins over subsets."""
    found: list[np.ndarray] = []
    for parameters in (true, predicted):
        scores = task.model.scores(parameters, task.test_points.features)
        found.append(task.model.margins(scores, task.test_points.labels).numpy())
    return float(np.mean([spearman(a, b) for a, b in zip(found[0].T, found[1].T, strict=True)]))


def retrained(task: Problem, weights: Tensor) -> Tensor:
    """Exact parameters."""
    points = task.points
    return train_targets(
        task.model, points.features, points.labels, weights.double(), classes=points.classes
    ).parameters


def measured(
    task: Problem, predictor: Predictor, design: str, count: int, spent: float
) -> Iterator[Figure]:
    """The figures of one way of drawing subsets."""
    generator = np.random.default_rng([7, len(design)])
    weights = draw(len(task.points.features), design, count, generator)
    began = time.process_time()
    true = retrained(task, weights)
    exact = (time.process_time() - began) / count
    name = f"{task.name}, {design}"
    yield Figure(f"{name}: retraining", 1e6 * exact, "us", count, 1e6 * exact, 1e6 * exact)
    ways: dict[str, dict[str, float]] = {
        f"stage {stage}": {"stages": stage} for stage in range(predictor.stages + 1)
    }
    if predictor.stages > 1:
        ways |= {f"accuracy {each:.0%}": {"accuracy": each} for each in ACCURACIES}
    for way, stop in ways.items():
        answer, seconds = timed(partial(predictor.predict, weights, **stop))
        error = mean_interval(relative_errors(answer, true))
        ratio = exact * count / seconds
        here = f"{name}, {way}"
        yield Figure(here, error.mean, "relative error", count, error.low, error.high)
        yield Figure(f"{here}: LDS", value := lds(task, true, answer), "", count, value, value)
        yield Figure(f"{here}: retraining / prediction", ratio, "times", count, ratio, ratio)
    queries = spent / max(exact - seconds / count, 1e-12)
    yield Figure(f"{name}: break-even", queries, "queries", count, queries, queries)


def measure(quick: bool) -> Iterable[Figure]:
    """All problems whose data are at hand."""
    for make in QUICK if quick else PROBLEMS:
        try:
            task = make()
        except FileNotFoundError as error:
            print(f"left out: {error.filename or error} is not at hand", file=sys.stderr)
            continue
        with torch_threads(1):
            yield from _problem(task, HELD_OUT // 4 if quick else task.held_out)


def _problem(task: Problem, count: int) -> Iterator[Figure]:
    generator = np.random.default_rng(5)
    rows = len(task.points.features)
    designs = ("uniform", "deletions", "bootstrap")
    drawn = [draw(rows, design, task.fit, generator) for design in designs]
    held = [draw(rows, design, task.fit // 4, generator) for design in designs]
    fit, validation = torch.cat(drawn), torch.cat(held)
    began = time.process_time()
    predictor = fit_predictor(
        PredictorConfig(), task.model, task.points, fit, retrained(task, fit),
        validation=(validation, retrained(task, validation)),
    )  # fmt: skip
    spent = time.process_time() - began
    name = f"{task.name}: training of {len(fit) + len(validation)} subsets and fit"
    yield number(name, spent, "s")
    for design in ("halves", "uniform", "deletions"):
        yield from measured(task, predictor, design, count, spent)


BENCHMARK = Benchmark(
    "prediction beside exact retraining on heads and long tables, from halves to deletions",
    12,
    measure,
)
