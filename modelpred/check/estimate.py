"""How long the stages up to the predictor will take on this machine, and how much disk, from a trial.

With n subsets for each role, blocks of b on c cores and the trial's seconds t (`Speeds`):

    dataset, subsets  STARTS t_start each, and SERVER t_start more for the first; t_drawing for each 250
                      of a design
    targets           (STARTS + 1) t_start + n t_training / min(c, blocks)
    predictor         STARTS t_start + t_preparing + t_compared + epochs n_fit t_epoch
                      + the sum over methods and designs of calls n_design t_answering, and judging
    disk              COPIES n bytes of a shard's row + 2 n bytes of a subset's row

A stage starts Python and Prefect, and `targets` its workers. An answer is asked for once to four
times, the slower the fewer (refits/timing.py). A shard lies in the store, in
artifacts/ and in DVC's cache. Studies and the report are not in it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from modelpred.predictor import PredictorConfig
from modelpred.predictor.fidelity import REPEATS
from modelpred.refits.timing import calls_of
from modelpred.subsets import DESIGNS, DRAWN_TOGETHER, ROLES, Counts, SubsetsConfig

STARTS = 2.0  # times that of a worker: Python with torch, then Prefect
SERVER = 2.0  # as many more, once: DVC and Prefect's server
COPIES = 3
LOWEST, HIGHEST = 0.7, 1.6  # of the estimate: how far the stages were from it


@dataclass(frozen=True)
class Speeds:
    """Seconds and bytes of a trial; a subset's, except where it says otherwise.

    Attributes:
        subsets: how many were trained.
        start: of a process.
        drawing: of drawing a block of one design, always a whole one.
        training: of training it, on one thread.
        preparing: of the fit before its first epoch, in all.
        epoch: of an epoch.
        compared: of making the methods to compare with, in all.
        answering: of each method's answer.
        judging: of judging one answer by the test rows.
        shard_bytes: of its row in a shard.
        subset_bytes: of its row in the table of subsets.
    """

    subsets: int
    start: float
    drawing: float
    training: float
    preparing: float
    epoch: float
    compared: float
    answering: tuple[float, ...]
    judging: float
    shard_bytes: float
    subset_bytes: float


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage, and bytes on disk."""

    dataset: float
    subsets: float
    targets: float
    predictor: float
    disk: float


def usual_subsets(total: int) -> SubsetsConfig:
    """The subsets that params.yaml asks for as it ships, made more or fewer in proportion."""
    return scaled(SubsetsConfig(), total)


def scaled(config: SubsetsConfig, total: int) -> SubsetsConfig:
    """The config with about so many subsets in all, and two of each design that it asks for."""
    share = total / sum(_counts(config))

    def of(counts: Counts) -> Counts:
        return {design: max(2, round(share * count)) for design, count in counts.items() if count}

    return config.model_copy(update={role: of(getattr(config, role)) for role in ROLES})


def blocks_drawn(config: SubsetsConfig) -> int:
    """How many blocks are drawn for that many subsets."""
    return sum(math.ceil(count / DRAWN_TOGETHER) for count in _counts(config))


def estimate(speeds: Speeds, asked: SubsetsConfig, *, cores: int, epochs: int) -> Estimate:
    """What the stages would take with these subsets on so many cores."""
    total, stage = sum(_counts(asked)), STARTS * speeds.start
    blocks = sum(math.ceil(count / asked.block) for count in _counts(asked))
    fitted, tested = sum(asked.fit.values()), list(asked.test.values())
    answers = sum(
        _asked_for(count * seconds) + count * speeds.judging
        for count in tested
        for seconds in speeds.answering
    )
    return Estimate(
        dataset=stage + SERVER * speeds.start,
        subsets=stage + blocks_drawn(asked) * speeds.drawing,
        targets=stage + speeds.start + total * speeds.training / min(cores, blocks),
        predictor=stage
        + speeds.preparing
        + speeds.compared
        + epochs * fitted * speeds.epoch
        + answers,
        disk=total * (COPIES * speeds.shard_bytes + 2 * speeds.subset_bytes),
    )


def usual_epochs() -> int:
    """Passes of the fit as params.yaml ships."""
    return PredictorConfig().schedule().epochs


def _asked_for(seconds: float) -> float:
    """Seconds in all of an answer that is timed."""
    return calls_of(seconds, timings=REPEATS) * seconds


def _counts(config: SubsetsConfig) -> list[int]:
    """How many of each role and design."""
    named: Iterable[Counts] = (getattr(config, role) for role in ROLES)
    return [counts[design] for counts in named for design in DESIGNS if counts.get(design)]


def told(speeds: Speeds, asked: SubsetsConfig, *, cores: int, epochs: int) -> str:
    """The estimate as a person reads it, each figure as a range."""
    found = estimate(speeds, asked, cores=cores, epochs=epochs)
    stages = ("dataset", "subsets", "targets", "predictor")
    seconds = [getattr(found, stage) for stage in stages]
    head = (
        f"{sum(_counts(asked)):,} subsets, estimated from {speeds.subsets} that were trained here "
        f"on these rows, {cores} core{'s'[: cores != 1]}:"
    )
    lines = [
        head,
        *(f"  {stage:<10} {_range(one)}" for stage, one in zip(stages, seconds, strict=True)),
        f"  {'together':<10} {_range(sum(seconds))}, studies and report come on top",
        f"  {'disk':<10} about {found.disk / 1e6:,.0f} MB",
    ]
    return "\n".join(lines)


def _range(seconds: float) -> str:
    return f"{_time(LOWEST * seconds)} to {_time(HIGHEST * seconds)}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
