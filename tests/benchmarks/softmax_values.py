"""Values of rows with softmax regression by the sampler gains: time, reliability, and agreement with retraining.

Labels of normal features are drawn from a softmax model; the utility is the loss of 1,000 test rows. Values of the large
tables are those of a fitted ModelPred with default settings, fit included. Those of 300 rows are compared with
permutations with retrained models by another seed: the correlation, the most that both reliabilities allow, and the
standard deviation of the differences divided by their standard errors.
"""

import time
from collections.abc import Iterable, Iterator

import numpy as np

from modelpred import ModelPred
from modelpred.refits import Retraining
from modelpred.studies.context import StudyContext
from modelpred.studies.semivalues import estimate_values
from modelpred.studies.utility import game_of
from modelpred.targets import points_of, target_model
from tests.benchmarks.figures import Benchmark, Figure, number

TEST = 1000
TABLES = ((3000, 20, 5), (10_000, 40, 5))


def measure(quick: bool) -> Iterable[Figure]:
    yield from compared(100 if quick else 300, 10, 4)
    for rows, columns, classes in () if quick else TABLES:
        yield from of_many_rows(rows, columns, classes)


def drawn(rows: int, columns: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(rows + TEST, columns))
    scores = 2 * cells @ draws.normal(size=(columns, classes)) / np.sqrt(columns)
    return cells, (scores + draws.gumbel(size=scores.shape)).argmax(axis=1)


def compared(rows: int, columns: int, classes: int) -> Iterator[Figure]:
    """Figures of few rows, beside permutations."""
    cells, labels = drawn(rows, columns, classes)
    pool, test = (
        points_of(cells[part], labels[part], classes) for part in (slice(rows), slice(rows, None))
    )
    truth = Retraining(target_model("softmax"), pool)
    ids = tuple(map(str, range(rows)))
    game = game_of(truth, StudyContext(truth, test, {truth.name: truth}, ids))
    name, found = f"{rows:,} x {columns} x {classes} classes", []
    for sampler, permutations in (("stratified", 200), ("gains", 800)):
        began = time.process_time()
        values = estimate_values(
            game, points=rows, permutations=permutations,
            generator=np.random.default_rng(len(found)),
            sampler=sampler,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        yield number(f"{name}: {sampler}, processor", time.process_time() - began, "s")
        yield number(f"{name}: {sampler}, models", values.evaluations, "models")
        yield number(f"{name}: {sampler}, reliability", values.reliability, "reliability")
        found.append(values)
    orders, gains = found
    ceiling = float(np.sqrt(orders.reliability * gains.reliability))
    differences = (orders.values - gains.values) / np.hypot(
        orders.standard_errors, gains.standard_errors
    )
    yield number(f"{name}: correlation", np.corrcoef(orders.values, gains.values)[0, 1], "r")
    yield number(f"{name}: highest correlation expected", ceiling, "r")
    yield number(f"{name}: differences by standard errors", differences.std(), "deviation")


def of_many_rows(rows: int, columns: int, classes: int) -> Iterator[Figure]:
    """Figures of the default settings."""
    cells, labels = drawn(rows, columns, classes)
    began, wall = time.process_time(), time.perf_counter()
    mp = ModelPred(progress=False)
    mp.fit(cells[:rows], labels[:rows], test=(cells[rows:], labels[rows:]))
    values = mp.values()
    name = f"{rows:,} x {columns} x {classes} classes"
    yield number(f"{name}: default, processor", time.process_time() - began, "s")
    yield number(f"{name}: default, wall", time.perf_counter() - wall, "s")
    yield number(f"{name}: default, models", values.models, "models")
    yield number(f"{name}: default, reliability", values.reliability, "reliability")


BENCHMARK = Benchmark("values of rows with softmax by gains of all rows", 4, measure)
