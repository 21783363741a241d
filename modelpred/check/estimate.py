"""Estimates time and disk space of the stages up to the predictor on this machine from a trial.

With n subsets for each role, blocks of b on c cores and the trial's seconds t (`Speeds`):

    dataset, subsets  STARTS t_start each, and SERVER t_start more for the first; t_drawing for each 250
                      of a design
    targets           (STARTS + 1) t_start + n t_training / min(c, blocks)
    predictor         STARTS t_start + t_preparing + t_compared + epochs n_fit t_epoch
                      + the sum over methods and designs of calls n_design t_answering, and judging
    disk              COPIES n bytes of a shard's row + 2 n bytes of a subset's row

A stage starts Python and Prefect, and `targets` starts its workers. A prediction is timed one to
four times, fewer if it is slow (refits/timing.py). A shard is stored in the shard store, in
artifacts/ and in DVC's cache. Studies and the report are not included.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from modelpred.predictor import PredictorConfig
from modelpred.predictor.fidelity import REPEATS
from modelpred.refits.timing import calls_of
from modelpred.studies.row_gains import cost_of_gains
from modelpred.subsets import DESIGNS, DRAWN_TOGETHER, ROLES, Counts, SubsetsConfig

STARTS = 2.0  # start of a stage over the start of a worker: Python with torch, then Prefect
SERVER = 2.0  # additional starts, once: DVC and Prefect's server
COPIES = 3


@dataclass(frozen=True)
class Speeds:
    """Seconds and bytes that a trial measured, per subset if not stated otherwise.

    Attributes:
        subsets: number of subsets that were trained.
        start: seconds to start a process.
        drawing: seconds to draw a whole block of one design.
        training: seconds to train, on one thread.
        preparing: total seconds of the fit before its first epoch.
        epoch: seconds of an epoch.
        compared: total seconds to fit the methods of the comparison.
        answering: seconds of each method's prediction.
        predicting: seconds of a prediction of the predictor, refined by one Newton step if it can be.
        judging: seconds to score a prediction on the test rows.
        gains: seconds of the gains of all rows by one model, for each evaluation that they count
            as; 0 if the family has none.
        gains_count: evaluations that the gains by one model count as.
        shard_bytes: bytes of a row in a shard.
        subset_bytes: bytes of a row in the table of subsets.
    """

    subsets: int
    start: float
    drawing: float
    training: float
    preparing: float
    epoch: float
    compared: float
    answering: tuple[float, ...]
    predicting: float
    judging: float
    gains: float
    shard_bytes: float
    subset_bytes: float
    gains_count: int = cost_of_gains(1)


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage, and bytes on disk."""

    dataset: float
    subsets: float
    targets: float
    predictor: float
    disk: float


def usual_subsets(total: int) -> SubsetsConfig:
    """The default numbers of subsets, scaled to a total."""
    return scaled(SubsetsConfig(), total)


def scaled(config: SubsetsConfig, total: int) -> SubsetsConfig:
    """The config scaled to about `total` subsets, with at least two of each design in use."""
    share = total / sum(_counts(config))

    def of(counts: Counts) -> Counts:
        return {design: max(2, round(share * count)) for design, count in counts.items() if count}

    counts = {role: of(getattr(config, role)) for role in ROLES}
    return config.model_copy(update={**counts, "scale": 1.0})


def blocks_drawn(config: SubsetsConfig) -> int:
    """Number of blocks that are drawn for these subsets."""
    return sum(math.ceil(count / DRAWN_TOGETHER) for count in _counts(config))


def estimate(
    speeds: Speeds, config: SubsetsConfig, *, cores: int, epochs: int, starts: float = STARTS
) -> Estimate:
    """Estimated time and disk space of the stages with these subsets and this number of cores.

    `starts` is the time to start a stage over that to start a worker; 0 for stages of one process.
    """
    total, stage = sum(_counts(config)), starts * speeds.start
    blocks = sum(math.ceil(count / config.block) for count in _counts(config))
    fitted, tested = sum(config.fit.values()), list(config.test.values())
    answers = sum(
        _timed(count * seconds) + count * speeds.judging
        for count in tested
        for seconds in speeds.answering
    )
    return Estimate(
        dataset=stage + (SERVER * speeds.start if starts else 0.0),
        subsets=stage + blocks_drawn(config) * speeds.drawing,
        targets=stage + speeds.start + total * speeds.training / min(cores, blocks),
        predictor=stage
        + speeds.preparing
        + speeds.compared
        + epochs * fitted * speeds.epoch
        + answers,
        disk=total * (COPIES * speeds.shard_bytes + 2 * speeds.subset_bytes),
    )


def usual_epochs() -> int:
    """The default number of epochs of the fit."""
    return PredictorConfig().schedule().epochs


def _timed(seconds: float) -> float:
    """Total seconds of the repeated timing of a prediction that takes `seconds`."""
    return calls_of(seconds, timings=REPEATS) * seconds


def _counts(config: SubsetsConfig) -> list[int]:
    """Number of subsets of each role and design."""
    named: Iterable[Counts] = (getattr(config, role) for role in ROLES)
    return [counts[design] for counts in named for design in DESIGNS if counts.get(design)]
