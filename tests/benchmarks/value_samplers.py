"""Values of rows by every sampler at 300, 3,000 and 30,000 rows: time, and agreement with a long reference.

Labels of 40 normal features are drawn from a logistic model; the utility is the loss of 1,000 test rows. The reference
are Shapley values by exactly retrained models: of 300 rows, stratified permutations; of more, 300 random rows by
value_references.py. Agreement is Spearman's correlation with the reference, divided by the root of the reference's
reliability, so that 1 is the most that a method can expect. Every sampler has about a quarter to all of the processor time that `gains` takes, or the fewest permutations that it can draw, if these take less than
`MOST_SECONDS`; else its figure is the time that they would take. The rival's permutations are those of DataShapley and
pyDVL without truncation: scikit-learn fits a model for each row and permutation. That time is the fit at half of
the rows times their number.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from modelpred.metrics import spearman
from modelpred.refits import Influence, Retraining
from modelpred.studies.context import StudyContext, full_model
from modelpred.studies.order_sampling import FINISHED
from modelpred.studies.semivalues import Values, estimate_values, leave_one_out_values
from modelpred.studies.utility import ModelGame, game_of
from modelpred.studies.valuation_methods import knn_shapley
from modelpred.targets import points_of, target_model
from tests.benchmarks.figures import Benchmark, Figure, number
from tests.benchmarks.large_studies import table
from tests.benchmarks.value_references import Reference, kept

SIZES, COLUMNS, TEST = (300, 3000, 30_000), 40, 1000
SECONDS = {3000: 240, 30_000: 460}  # of the references
EVALUATIONS = {
    "stratified": 1.7,
    "truncated": 0.6,
    "regression": 1.0,
}  # for each row and permutation
MODELS = {150: 100, 300: 800, 3000: 400, 30_000: 100}  # of the sampler gains
MOST_SECONDS = 60.0


@dataclass(frozen=True)
class Table:
    """A table of some rows, and its game with retrained models."""

    rows: int
    context: StudyContext

    @property
    def game(self) -> ModelGame:
        """The test loss of retrained models."""
        return game_of(self.context.truth, self.context)

    def gains(self, models: int, seed: int) -> Values:
        """Shapley values by the sampler gains; its budget counts a model as 100 evaluations."""
        permutations = max(1, round(100 * models / self.rows))
        return self.sampled("gains", permutations, seed)

    def sampled(self, sampler: str, permutations: int, seed: int) -> Values:
        """Shapley values by any sampler."""
        return estimate_values(
            self.game,
            points=self.rows,
            permutations=permutations,
            generator=np.random.default_rng(seed),
            sampler=sampler,  # pyright: ignore[reportArgumentType]
        )


def drawn(rows: int) -> Table:
    cells, labels = table(rows + TEST, COLUMNS)
    pool, test = (
        points_of(cells[part], labels[part], 2) for part in (slice(rows), slice(rows, None))
    )
    model = target_model("logistic")
    truth = Retraining(model, pool)
    ids = tuple(map(str, range(rows)))
    return Table(rows, StudyContext(truth, test, {truth.name: truth}, ids))


def measure(quick: bool) -> Iterable[Figure]:
    for rows in (150,) if quick else SIZES:
        yield from compared(drawn(rows), MODELS[rows])


def compared(of: Table, models: int) -> Iterator[Figure]:
    """Figures of one table."""
    name = f"{of.rows:,} rows"
    reference = reference_of(of)
    yield number(f"{name}: reference, reliability", reference.reliability, "reliability")
    yield number(f"{name}: reference, models", reference.models, "models")
    began = time.process_time()
    found = of.gains(models, seed=2)
    seconds = time.process_time() - began
    yield from judged(f"{name}: gains, {found.evaluations:,} models", found, reference, seconds)
    for sampler in EVALUATIONS:
        yield from of_any_game(of, sampler, reference, seconds)
    yield from of_one_model(of, name, reference)
    yield number(
        f"{name}: one permutation of scikit-learn's models", of.rows * fit_seconds(of), "s"
    )


def reference_of(of: Table) -> Reference:
    """The reference of a table: of all rows if these are few, else of a sample."""
    if of.rows > SIZES[0]:
        return kept(of.context, seconds=SECONDS[of.rows])
    began = time.process_time()
    found = of.sampled("stratified", 40 if of.rows < SIZES[0] else 400, seed=1)
    return Reference(
        np.arange(of.rows), found.values, found.standard_errors, found.evaluations,
        time.process_time() - began,
    )  # fmt: skip


def judged(name: str, found: Values, reference: Reference, seconds: float) -> Iterator[Figure]:
    yield number(f"{name}, processor", seconds, "s")
    if np.isfinite(found.reliability):  # of two rounds or more
        yield number(f"{name}, reliability", found.reliability, "reliability")
    yield agreement(name, found.values, reference)


def agreement(name: str, values: np.ndarray, reference: Reference) -> Figure:
    found = spearman(values[reference.rows], reference.values) / np.sqrt(reference.reliability)
    return number(f"{name}, agreement", found, "Spearman")


def of_any_game(of: Table, sampler: str, reference: Reference, seconds: float) -> Iterator[Figure]:
    """Figures of a sampler that needs a model for each evaluation, in as much time as gains took."""
    if sampler == "regression" and of.rows > 2000:
        return  # it is for up to 2,000 players
    each = model_seconds(of)
    longest = of.rows * EVALUATIONS[sampler]
    step = 2 * FINISHED if sampler == "truncated" else 2
    permutations = max(step, round(seconds / each / longest / step) * step)
    name = f"{of.rows:,} rows: {sampler}, {permutations} permutations"
    if permutations * longest * each > MOST_SECONDS:
        yield number(f"{name}, processor, extrapolated", permutations * longest * each, "s")
        return
    began = time.process_time()
    found = of.sampled(sampler, permutations, seed=3)
    yield from judged(name, found, reference, time.process_time() - began)


def of_one_model(of: Table, name: str, reference: Reference) -> Iterator[Figure]:
    """Figures of methods that train no models of subsets, or only those without one row."""
    context = of.context
    methods: dict[str, Callable[[], np.ndarray]] = {
        "knn_shapley": lambda: knn_shapley(context.points, context.test_points),
        "influence": lambda: influence(context),
        "leave_one_out": lambda: (
            leave_one_out_values(of.game, points=of.rows, sampler="auto").values
        ),
    }
    for method, values_of in methods.items():
        began = time.process_time()
        values = values_of()
        yield number(f"{name}: {method}, processor", time.process_time() - began, "s")
        yield agreement(f"{name}: {method}", values, reference)


def influence(context: StudyContext) -> np.ndarray:
    """Minus the derivative of the test loss by each row's weight."""
    model, test = context.model, context.test_points
    full = full_model(context)
    refit = Influence(model, context.points, full[0])
    ones = torch.ones(1, len(test.labels), dtype=torch.float64)
    slope = model.gradient(full, ones, test)[0] - model.gradient(full, 0 * ones, test)[0]
    return -(refit.derivatives @ slope).numpy()


def model_seconds(of: Table) -> float:
    """Processor seconds of the model of a random half."""
    weights = torch.from_numpy(np.random.default_rng(4).random((20, of.rows)) < 0.5)
    began = time.process_time()
    of.game(weights.to(torch.uint8))
    return (time.process_time() - began) / len(weights)


def fit_seconds(of: Table) -> float:
    """Processor seconds of scikit-learn for the model of the first half."""
    half = of.rows // 2
    features, labels = of.context.points.features[:half], of.context.points.labels[:half]
    began = time.process_time()
    for _ in range(3):
        LogisticRegression(C=1.0).fit(features.numpy(), labels.numpy())
    return (time.process_time() - began) / 3


BENCHMARK = Benchmark("values of rows by every sampler, at 300, 3,000 and 30,000 rows", 17, measure)
