"""A trial within a number of seconds: on a few rows first, then on more, as long as time allows.

The first trial has all rows if QUICK_MODELS models of all rows can be trained in the time, else
FEWEST_ROWS training rows. Each further one has as many as end in time if seconds
grow as rows^STEEPEST, and at least LEAST_GROWTH times those of the one before. For other numbers of
rows, each part of the trial is extrapolated by a power of the rows: the slope of the last two trials
and a doubling of the rows at the usual power, since two trials that are close say little. It is 1, or
SLOW_POWER for what is done once.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from modelpred.check.estimate import Speeds
from modelpred.check.trial import Clock
from modelpred.dataset import Dataset
from modelpred.dataset.samples import some_rows
from modelpred.memory import peak_memory
from modelpred.targets import TargetsConfig, dataset_points, train_targets

FEWEST_ROWS = 250
QUICK_MODELS = 500  # all rows are tried at once if so many models of them can be trained in time
LEAST_GROWTH = 1.5
STEEPEST = 2.0
SLOW_POWER = 0.5
ONCE = ("preparing", "compared")  # fields of Speeds that also grow with the parameters
NOT_SCALED = ("subsets", "start", "gains_count")  # fields that do not depend on the rows
TESTED = "judging"  # the field that depends on the test rows, which every trial has all of
BYTES = ("shard_bytes", "subset_bytes")  # fields that are a number for each row, and a constant


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Attributes:
        found: the training rows and the speeds of each trial, the largest last.
        rows: all training rows.
        seconds: how long the trials took together.
        memory: largest bytes of this process before the trials and after them.
    """

    found: tuple[tuple[int, Speeds], ...]
    rows: int
    seconds: float
    memory: tuple[int, int] = (0, 0)

    @property
    def tried(self) -> int:
        """Training rows of the largest trial."""
        return self.found[-1][0]

    def memory_at(self, rows: int) -> float:
        """Bytes that the stages up to the predictor take at one time with so many training rows.

        What the trials took grows with the rows.
        """
        before, after = self.memory
        return before + (after - before) * rows / self.tried

    def at(self, rows: int) -> Speeds:
        """The speeds expected for so many training rows, and test rows in proportion."""
        size, last = self.found[-1]
        before = self.found[-2] if len(self.found) > 1 else None

        def scaled(value: float, earlier: float | None, name: str) -> float:
            power = SLOW_POWER if name in ONCE else 1.0
            if before is not None and earlier is not None and min(value, earlier) > 0:
                doubling = math.log(2)
                rise = math.log(value / earlier) + power * doubling
                power = rise / (math.log(size / before[0]) + doubling)
            return value * (rows / size) ** min(max(power, 0.0), STEEPEST)

        changed: dict[str, float | tuple[float, ...]] = {}
        for name in (field.name for field in fields(Speeds) if field.name not in NOT_SCALED):
            value = getattr(last, name)
            earlier = None if before is None else getattr(before[1], name)
            if name == TESTED:
                changed[name] = value * rows / self.rows
            elif name in BYTES:
                changed[name] = value * rows / size
            elif isinstance(value, tuple):
                # Another number of methods: the predictor may have more stages of more rows.
                known = earlier if earlier and len(earlier) == len(value) else (None,) * len(value)
                pairs = zip(value, known, strict=True)
                changed[name] = tuple(scaled(now, then, name) for now, then in pairs)
            else:
                changed[name] = scaled(value, earlier, name)
        return replace(last, **changed)


def trial_within(
    dataset: Dataset,
    measure: Callable[[Dataset], Speeds],
    *,
    seconds: float,
    targets: TargetsConfig,
    clock: Clock = time.perf_counter,
) -> Trial:
    """Trials on more and more of the rows, until the seconds are used; at least one trial.

    Args:
        dataset: the rows, as the pipeline would make them.
        measure: one trial on a part of the rows (`trial.speeds`).
        seconds: how long the trials may take together.
        targets: settings of the models.
        clock: returns the time in seconds.

    Raises:
        InvalidInput: as `measure`.
    """
    rows = len(dataset.labels)
    before, began = peak_memory(), clock()
    found: list[tuple[int, Speeds]] = []
    few = dataset if rows <= FEWEST_ROWS else some_rows(dataset, FEWEST_ROWS)
    # Of few rows first: a single model of all rows can take longer than the trial may.
    quick = all(
        QUICK_MODELS * trained_alone(part, targets, clock=clock) < seconds
        for part in ((few,) if rows <= FEWEST_ROWS else (few, dataset))
    )
    size = rows if quick else len(few.labels)
    while True:
        last = clock()
        part = dataset if size == rows else some_rows(dataset, size)
        found.append((size, measure(part)))
        now = clock()
        left = max(0.0, seconds - (now - began))
        growth = (left / max(now - last, 1e-3)) ** (1 / STEEPEST)
        if size == rows or (growth * size < rows and growth < LEAST_GROWTH):
            return Trial(tuple(found), rows, now - began, (before, peak_memory()))
        size = min(rows, int(growth * size))


def trained_alone(dataset: Dataset, config: TargetsConfig, *, clock: Clock) -> float:
    """Seconds to train the model of all rows."""
    points = dataset_points(dataset)
    model = config.build(classes=points.classes)
    everything = torch.ones(1, len(points.labels), dtype=torch.float64)
    seconds: list[float] = []
    for _ in range(2):  # the first warms up
        began = clock()
        train_targets(
            model, points.features, points.labels, everything,
            tolerance=config.tolerance, classes=points.classes,
        )  # fmt: skip
        seconds.append(clock() - began)
    return min(seconds)
