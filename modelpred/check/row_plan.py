"""How many random orders, and how many rows, `modelpred suspects` and `modelpred values` use.

A few models are trained on halves of the rows, on few rows first (budget.py). Their times and the
counts of study_costs.py give the time of a command that retrains every model. If it is too long, fewer
orders are used, down to the last of ORDERS, then fewer rows, down to the LEAST_ROWS of a run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from modelpred.check.budget import trial_within
from modelpred.check.estimate import Speeds
from modelpred.check.plan import DRAWING
from modelpred.check.project import busy_words, largest_share, slowdown_since
from modelpred.check.study_costs import held_out_cost, values_cost
from modelpred.check.trial import Clock, gain_seconds
from modelpred.dataset import Dataset, seeded_generator
from modelpred.progress import Progress, silent
from modelpred.studies.held_out import PARTS
from modelpred.targets import TargetsConfig, dataset_points, dataset_test_points, train_targets
from modelpred.targets.scoring import mean_test_losses
from modelpred.targets.threads import torch_threads
from modelpred.wording import time_words

MODELS = (8, 64)  # models that are timed first, and if these were quick
QUICK = 0.1  # seconds of the first models; a batch of few is slower for each
TRIAL_SECONDS = 2.0
TRIAL_SHARE = 0.02  # of the time of the command
WRITING = 2.5  # seconds: the fit, the unusual cells, and the CSV
ORDERS = (20, 14, 10, 8, 6, 4)  # random orders that are tried, the most first

Cost = Callable[[int, int], float]
"""(random orders, rows) -> seconds of processor time"""


@dataclass(frozen=True)
class Measured:
    """Seconds of a model and of its gains, by number of rows.

    Attributes:
        at: the speeds for so many rows.
        points: number of rows of the table.
        tests: number of test rows.
        slowdown: seconds that pass in a second of processor time.
    """

    at: Callable[[int], Speeds]
    points: int
    tests: int
    slowdown: float


@dataclass(frozen=True)
class RowPlan:
    """The work of a command.

    Attributes:
        orders: random orders of the rows or groups.
        share: of the rows.
        seconds: expected time of the whole command.
        slowdown: seconds that pass in a second of processor time.
    """

    orders: int
    share: float
    seconds: float
    slowdown: float

    def words(self, *, orders: bool) -> str:
        """The expected time, and the number of orders."""
        found = f"about {time_words(self.seconds)}"
        if orders:
            found = f"{found} for {self.orders} random orders"
        return found + busy_words(self.slowdown)


def plan_rows(
    dataset: Dataset,
    targets: TargetsConfig,
    *,
    minutes: float,
    began: float,
    groups: int | None,
    orders: int | None,
    every_row: bool,
    fixed_rows: bool,
    progress: Progress = silent,
) -> RowPlan:
    """The most orders and rows that fit into the minutes.

    Args:
        dataset: all rows.
        targets: settings of the models.
        minutes: how long the command may take.
        began: when it began, by time.monotonic.
        groups: number of groups that get values; None: each row gets one.
        orders: random orders; None: ORDERS, or fewer if these take too long.
        every_row: whether the labels of all rows are checked; otherwise rows or groups get values.
        fixed_rows: whether all rows are used whatever they cost.
        progress: called with (steps done, steps, next step).

    Raises:
        InvalidInput: the rows cannot be trained on.
    """
    measured = measure_rows(dataset, targets, minutes=minutes, progress=progress)
    cost = suspects_cost(measured) if every_row else value_cost(measured, groups=groups)
    return largest_plan(
        cost,
        measured,
        spent=time.monotonic() - began,
        seconds=60 * minutes,
        orders=orders,
        fixed_rows=fixed_rows,
    )


def measure_rows(
    dataset: Dataset, targets: TargetsConfig, *, minutes: float, progress: Progress = silent
) -> Measured:
    """Time a few models on some of the rows.

    Raises:
        InvalidInput: the rows cannot be trained on.
    """
    points, tests = len(dataset.labels), len(dataset.test_labels)
    began, busy = time.perf_counter(), time.process_time()
    progress(0, 1, "training a few models")
    with torch_threads(1):
        found = trial_within(
            dataset,
            partial(row_speeds, targets=targets),
            seconds=min(TRIAL_SECONDS, TRIAL_SHARE * 60 * minutes),
            targets=targets,
            clock=time.process_time,
        )
    return Measured(found.at, points, tests, slowdown_since(began, busy))


def row_speeds(
    dataset: Dataset, *, targets: TargetsConfig, clock: Clock = time.process_time
) -> Speeds:
    """The seconds of a model of half of the rows, of scoring it, and of the gains of all rows."""
    points, tested = dataset_points(dataset), dataset_test_points(dataset)
    model = targets.build(classes=points.classes)
    draws = seeded_generator(0, "trial")
    training = judging = 0.0
    for models in MODELS:
        halves = draws.integers(0, 2, (models, len(points.labels))).astype(np.float64)
        began = clock()
        trained = train_targets(
            model, points.features, points.labels, torch.from_numpy(halves),
            tolerance=targets.tolerance, classes=points.classes,
        )  # fmt: skip
        training = (clock() - began) / models
        began = clock()
        mean_test_losses(model, trained.parameters, tested)
        judging = (clock() - began) / models
        if models * (training + judging) > QUICK:
            break
    gains, counted = gain_seconds(model, points, tested, tolerance=targets.tolerance, clock=clock)
    return Speeds(
        subsets=MODELS[0], start=0.0, drawing=0.0, training=training, preparing=0.0, epoch=0.0,
        compared=0.0, answering=(), predicting=0.0, judging=judging, gains=gains,
        gains_count=counted, shard_bytes=0.0, subset_bytes=0.0,
    )  # fmt: skip


def suspects_cost(measured: Measured) -> Cost:
    """The seconds of checking the labels of so many rows."""

    def cost(_: int, points: int) -> float:
        scored = measured.at(measured.points).judging / max(1, measured.tests)
        timed = max(1, 2 * points // PARTS)  # half of these rows are as many as one part of all
        model = measured.at(timed).training + DRAWING * points
        return held_out_cost(points, model=model, scored=scored)

    return cost


def value_cost(measured: Measured, *, groups: int | None) -> Cost:
    """The seconds of the values of so many rows, or of groups of them."""

    def cost(orders: int, points: int) -> float:
        speeds = measured.at(points)
        model = speeds.training + speeds.judging + DRAWING * points
        if groups is not None:
            return values_cost(orders, min(groups, points), model=model, gains=0.0)
        return values_cost(
            orders, points, model=model, gains=speeds.gains, gains_count=speeds.gains_count
        )

    return cost


def largest_plan(
    cost: Cost,
    measured: Measured,
    *,
    spent: float,
    seconds: float,
    orders: int | None,
    fixed_rows: bool,
) -> RowPlan:
    """The most orders and rows that fit into the seconds, of which some are spent; see `plan_rows`."""

    def tried(number: int, share: float) -> RowPlan:
        work = WRITING + cost(number, round(share * measured.points))
        return RowPlan(number, share, spent + measured.slowdown * work, measured.slowdown)

    numbers = ORDERS if orders is None else (orders,)
    number = next((each for each in numbers if tried(each, 1.0).seconds <= seconds), numbers[-1])
    if fixed_rows:
        return tried(number, 1.0)
    share = largest_share(
        lambda share: tried(number, share).seconds <= seconds, points=measured.points
    )
    return tried(number, share)
