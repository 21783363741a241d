"""A trial within a number of seconds: on a few rows first, then on more, as long as time allows.

The first trial has all rows if QUICK_MODELS models of all rows can be trained in the time, else
FEWEST_ROWS training rows. Each further one has as many as end in time if seconds
grow as rows^STEEPEST, and at least LEAST_GROWTH times those of the one before. Where not all rows were
tried, each part of the trial is extrapolated by a power of the rows: the one that the last two trials
show, give or take UNSURE[1], or 1 after a single trial, give or take UNSURE[0].
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from modelpred.check.estimate import Speeds
from modelpred.check.samples import some_rows
from modelpred.check.trial import Clock, Report, speeds
from modelpred.dataset import Dataset
from modelpred.refits import silent
from modelpred.subsets import SubsetsConfig
from modelpred.targets import TargetsConfig, points_of, train_targets

FEWEST_ROWS = 250
QUICK_MODELS = 500  # all rows are tried at once if so many models of them can be trained in time
LEAST_GROWTH = 1.5
STEEPEST = 2.0
UNSURE = (0.5, 0.25)
NOT_SCALED = ("subsets", "start")  # fields of Speeds that do not depend on the rows
BYTES = ("shard_bytes", "subset_bytes")  # fields that are a number for each row, and a constant


@dataclass(frozen=True)
class Trial:
    """What was measured, and what follows for all rows.

    Attributes:
        fast: speeds for all training rows if they grow little with the rows.
        slow: the same if they grow much; equal where all rows were tried.
        tried: training rows of the largest trial.
        rows: all training rows.
        seconds: how long the trials took together.
    """

    fast: Speeds
    slow: Speeds
    tried: int
    rows: int
    seconds: float


def trial_within(
    dataset: Dataset,
    asked: SubsetsConfig,
    *,
    seconds: float,
    start: float,
    clock: Clock = time.perf_counter,
    report: Report = silent,
    targets: TargetsConfig | None = None,
    measure: Callable[..., Speeds] = speeds,
) -> Trial:
    """Trials on more and more of the rows, as far as the seconds go; one at least.

    Args:
        dataset: the rows, as the pipeline would make them.
        asked: the subsets that the pipeline would draw.
        seconds: how long the trials may take, with the start of a process that was timed before.
        start: seconds in which a process starts.
        clock: what tells the seconds.
        report: called with (steps done, steps, what comes).
        targets: settings of the models; None: the defaults.
        measure: one trial; `speeds`.

    Raises:
        InvalidInput: as `speeds`.
    """
    rows = len(dataset.labels)
    seconds -= start
    began = clock()
    found: list[tuple[int, Speeds]] = []
    alone = trained_alone(dataset, targets or TargetsConfig(), clock=clock)
    size = rows if QUICK_MODELS * alone < seconds else min(rows, FEWEST_ROWS)
    while True:
        last = clock()
        part = dataset if size == rows else some_rows(dataset, size)
        found.append(
            (size, measure(part, asked, start=start, clock=clock, report=report, targets=targets))
        )
        now = clock()
        left = max(0.0, seconds - (now - began))
        growth = (left / max(now - last, 1e-3)) ** (1 / STEEPEST)
        if size == rows or (growth * size < rows and growth < LEAST_GROWTH):
            fast, slow = (extrapolated(found, rows, sign=sign) for sign in (-1, 1))
            return Trial(fast, slow, size, rows, now - began)
        size = min(rows, int(growth * size))


def trained_alone(dataset: Dataset, config: TargetsConfig, *, clock: Clock) -> float:
    """Seconds to train the model of all rows."""
    points = points_of(dataset.features, dataset.labels, len(dataset.classes))
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


def extrapolated(found: list[tuple[int, Speeds]], rows: int, *, sign: int) -> Speeds:
    """The speeds at so many rows, from those of the last one or two trials.

    `sign` is -1 for the smallest power of the rows that is likely, 1 for the largest.
    """
    size, last = found[-1]
    if size == rows:
        return last
    before = found[-2] if len(found) > 1 else None

    def at_all_rows(value: float, earlier: float | None) -> float:
        power = 1.0 + sign * UNSURE[0]
        if before is not None and earlier is not None and min(value, earlier) > 0:
            power = math.log(value / earlier) / math.log(size / before[0])
            power += sign * UNSURE[1]
        return value * (rows / size) ** min(max(power, 0.0), STEEPEST)

    changed: dict[str, float | tuple[float, ...]] = {}
    for name in (field.name for field in fields(Speeds) if field.name not in NOT_SCALED):
        value = getattr(last, name)
        earlier = None if before is None else getattr(before[1], name)
        if name in BYTES:
            changed[name] = value * rows / size
        elif isinstance(value, tuple):
            # Another number of methods: the predictor may have more stages of more rows.
            known = earlier if earlier and len(earlier) == len(value) else (None,) * len(value)
            changed[name] = tuple(map(at_all_rows, value, known))
        else:
            changed[name] = at_all_rows(value, earlier)
    return replace(last, **changed)
