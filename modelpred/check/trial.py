"""A little of what the stages up to the predictor do, on the table's own rows, and how long it took.

Timed in this process, on one thread: starting Python with what a worker needs, training up to one
block of subsets, a few epochs of the fit on them, and one answer of every method that the predictor
is compared with. What follows for the whole is counted in estimate.py.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median

import torch

from modelpred.check.estimate import (
    Speeds,
    blocks_drawn,
    scaled,
    told,
    usual_epochs,
    usual_subsets,
)
from modelpred.dataset import Dataset, DatasetConfig, Table, prepare_table
from modelpred.dataset.files import parquet_bytes
from modelpred.errors import InvalidInput
from modelpred.predictor import Predictor, PredictorConfig, answer_curve, fit_predictor
from modelpred.predictor.fidelity import mean_losses
from modelpred.refits import Refit, retrainings, rivals, silent
from modelpred.subsets import Subsets, SubsetsConfig, draw_subsets, subsets_table
from modelpred.targets import (
    Points,
    TargetModel,
    TargetsConfig,
    TrainedTargets,
    points_of,
    train_targets,
)
from modelpred.targets.parquet import ShardMetadata, shard_bytes
from modelpred.targets.shards import Bank
from modelpred.targets.threads import torch_threads
from modelpred.targets.worker import parse_devices

FIRST, BLOCK = 50, 250  # subsets: those of the first look; of the trial, where these were fast
PATIENT = 4.0  # seconds that training the trial's block may take
QUICK = 0.15  # seconds of an answer to the few held-out subsets, up to which all are asked about
EPOCHS = 4  # of which the first warms up
STARTED = "import modelpred.targets.worker"

Clock = Callable[[], float]
Report = Callable[[int, int, str], None]


def tried(table: Table, config: DatasetConfig, *, subsets: int, report: Report) -> str:
    """What so many subsets of the table would cost, as text; or why they cannot be had."""
    asked = usual_subsets(subsets)
    cores = len(parse_devices("cpu"))
    try:
        dataset = prepare_table(table, config)
        measured = speeds(dataset, asked, start=start_seconds(), report=report)
    except InvalidInput as error:
        return f"{subsets:,} subsets cannot be trained: {error}"
    return told(measured, asked, cores=cores, epochs=usual_epochs())


def start_seconds(clock: Clock = time.perf_counter) -> float:
    """Seconds in which a process starts that can train."""
    began = clock()
    subprocess.run([sys.executable, "-c", STARTED], check=True, capture_output=True)
    return clock() - began


def speeds(
    dataset: Dataset,
    asked: SubsetsConfig,
    *,
    start: float,
    clock: Clock = time.perf_counter,
    report: Report = silent,
) -> Speeds:
    """What each part of the stages takes on these rows.

    Args:
        dataset: the rows, as the pipeline would make them.
        asked: the subsets that the pipeline would draw.
        start: seconds in which a process starts.
        clock: what tells the seconds.
        report: called with (steps done, steps, what comes).

    Raises:
        InvalidInput: the rows cannot be trained on, or have too few distinct subsets.
    """
    points = points_of(dataset.features, dataset.labels, len(dataset.classes))
    targets = TargetsConfig()
    model = targets.build(classes=points.classes)
    report(0, 3, "training")
    drawn, trained, drawing, training = _trained(
        model, points, asked, targets.tolerance, clock=clock
    )
    bank = Bank.of(drawn, trained)
    report(1, 3, "fitting")
    predictor, preparing, epoch = _fitted(
        bank, model, points, tolerance=targets.tolerance, clock=clock
    )
    report(2, 3, "answering")
    began = clock()
    cheap = rivals(model, points, *bank.usable(role="fit"))
    compared = clock() - began
    full = cheap["full_model"](torch.ones(1, len(points.labels)))[0]
    refits = {
        **answer_curve(predictor),
        **cheap,
        **retrainings(model, points, tolerance=targets.tolerance, start=full),
    }
    tested = points_of(dataset.test_features, dataset.test_labels, points.classes)
    answering, judging = _answers(refits, bank, model, tested, clock=clock)
    report(3, 3, "")
    return Speeds(
        subsets=len(drawn),
        start=start,
        drawing=drawing,
        training=training,
        preparing=preparing,
        epoch=epoch,
        compared=compared,
        answering=answering,
        judging=judging,
        shard_bytes=_shard_size(drawn, trained, model, targets.tolerance) / len(drawn),
        subset_bytes=len(parquet_bytes(subsets_table(drawn))) / len(drawn),
    )


def _trained(
    model: TargetModel, points: Points, asked: SubsetsConfig, tolerance: float, *, clock: Clock
) -> tuple[Subsets, TrainedTargets, float, float]:
    """One block of subsets, few where training is slow, trained; seconds to draw and to train."""
    for count in (FIRST, BLOCK):
        began = clock()
        few = scaled(asked, count)
        drawn = draw_subsets(
            few,
            points=len(points.labels),
            labels=points.labels if points.classes else None,
        )
        drawing = (clock() - began) / blocks_drawn(few)
        began = clock()
        with torch_threads(1):
            trained = train_targets(
                model,
                points.features,
                points.labels,
                drawn.weights.to(torch.float64),
                tolerance=tolerance,
                classes=points.classes,
            )
        training = (clock() - began) / len(drawn)
        if BLOCK * training > PATIENT:
            break
    return drawn, trained, drawing, training


def _shard_size(
    drawn: Subsets, trained: TrainedTargets, model: TargetModel, tolerance: float
) -> int:
    """Bytes of the subsets' shard."""
    metadata = ShardMetadata(
        fingerprint="0" * 64,
        dataset="trial",
        model=model.name,
        settings=model.settings,
        tolerance=tolerance,
    )
    return len(shard_bytes(drawn, trained, metadata))


def _fitted(
    bank: Bank, model: TargetModel, points: Points, *, tolerance: float, clock: Clock
) -> tuple[Predictor, float, float]:
    """A predictor after a few epochs; seconds until the first of them, and an epoch's a subset."""
    ends: list[float] = []

    def ended(_done: int, _total: int, _what: str) -> None:
        ends.append(clock())

    began = clock()
    weights, parameters = bank.usable(role="fit")
    predictor = fit_predictor(
        PredictorConfig(epochs=EPOCHS),
        model,
        points,
        weights,
        parameters,
        validation=bank.usable(role="validation"),
        tolerance=tolerance,
        progress=ended,
    )
    if predictor.exact:  # nothing was learned
        return predictor, max(0.0, clock() - began), 0.0
    epoch = median(later - sooner for sooner, later in pairwise(ends))
    return predictor, max(0.0, ends[0] - began - epoch), epoch / len(weights)


def _answers(
    refits: Mapping[str, Refit], bank: Bank, model: TargetModel, tested: Points, *, clock: Clock
) -> tuple[tuple[float, ...], float]:
    """Seconds a subset of each refit's answer, and of judging one answer by the test rows."""
    few, _ = bank.usable(role="test")
    rows = few.to(tested.features)
    all_rows = bank.weights.to(tested.features)
    seconds: list[float] = []
    predicted = rows
    for refit in refits.values():
        began = clock()
        refit(rows)
        # The first answer warms up; a batch as large as the stage's says more where it is cheap.
        asked = all_rows if clock() - began < QUICK else rows
        began = clock()
        predicted = refit(asked)
        seconds.append((clock() - began) / len(asked))
    began = clock()
    mean_losses(model, predicted, tested)
    return tuple(seconds), (clock() - began) / len(predicted)
