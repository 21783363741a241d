"""A trial within a number of seconds: on a few rows first, then on more, as long as time allows.

The first trial has FEWEST_ROWS training rows. Each further one has as many as end in time if seconds
grow as rows^STEEPEST, and at least LEAST_GROWTH times those of the one before. Where not all rows were
tried, each part of the trial is extrapolated by a power of the rows: the one that the last two trials
show, give or take UNSURE[1], or 1 after a single trial, give or take UNSURE[0].
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from modelpred.check.estimate import Speeds, estimate_text, usual_epochs, usual_subsets
from modelpred.check.trial import Clock, Report, speeds, start_seconds
from modelpred.dataset import Dataset, DatasetConfig, Table, prepare_table, seeded_generator
from modelpred.errors import InvalidInput
from modelpred.refits import silent
from modelpred.subsets import SubsetsConfig
from modelpred.targets.worker import parse_devices

SECONDS = 20.0  # unless the user says another number
FEWEST_ROWS = 250
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


def trial_text(
    table: Table,
    config: DatasetConfig,
    *,
    subsets: int | None = None,
    seconds: float = SECONDS,
    report: Report = silent,
) -> str:
    """What so many subsets of the table would cost, as text; or why they cannot be had.

    Without a number, those of the default settings for a table of this size.
    """
    asked = SubsetsConfig() if subsets is None else usual_subsets(subsets)
    cores = len(parse_devices("cpu"))
    try:
        dataset = prepare_table(table, config)
        asked = asked.for_points(len(dataset.row_ids))
        found = trial_within(dataset, asked, seconds=seconds, start=start_seconds(), report=report)
    except InvalidInput as error:
        return f"{asked.total:,} subsets cannot be trained: {error}"
    text = estimate_text(found.fast, asked, cores=cores, epochs=usual_epochs(), slow=found.slow)
    if found.tried == found.rows:
        return text
    return (
        f"{text}\n  The trial took {found.seconds:.0f} s, the largest with {found.tried:,} of the {found.rows:,} "
        "training rows; the ranges are extrapolated to all of them.\n"
        f"  A trial of --seconds {4 * max(seconds, found.seconds):.0f} has more rows and narrower ranges."
    )


def trial_within(
    dataset: Dataset,
    asked: SubsetsConfig,
    *,
    seconds: float,
    start: float,
    clock: Clock = time.perf_counter,
    report: Report = silent,
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
        measure: one trial; `speeds`.

    Raises:
        InvalidInput: as `speeds`.
    """
    rows = len(dataset.labels)
    seconds -= start
    began = clock()
    found: list[tuple[int, Speeds]] = []
    size = min(rows, FEWEST_ROWS)
    while True:
        last = clock()
        part = dataset if size == rows else some_rows(dataset, size)
        found.append((size, measure(part, asked, start=start, clock=clock, report=report)))
        now = clock()
        left = max(0.0, seconds - (now - began))
        growth = (left / max(now - last, 1e-3)) ** (1 / STEEPEST)
        if size == rows or (growth * size < rows and growth < LEAST_GROWTH):
            fast, slow = (extrapolated(found, rows, sign=sign) for sign in (-1, 1))
            return Trial(fast, slow, size, rows, now - began)
        size = min(rows, int(growth * size))


def some_rows(dataset: Dataset, size: int) -> Dataset:
    """The data set with so many of its training rows, one of each class among them where they suffice."""
    order = seeded_generator(0, "trial").permutation(len(dataset.labels))
    if dataset.classes:
        first = np.unique(dataset.labels.numpy()[order], return_index=True)[1]
        order = np.concatenate([order[first], np.delete(order, first)])
    chosen = torch.from_numpy(np.sort(order[:size]))
    return replace(
        dataset,
        features=dataset.features[chosen],
        labels=dataset.labels[chosen],
        row_ids=tuple(dataset.row_ids[at] for at in chosen.tolist()),
        original_labels=None,
    )


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
