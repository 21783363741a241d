"""Times a small part of the stages up to the predictor on the rows of a table.

Timed in this process, on one thread: starting Python with the imports of a worker, training up to
one block of subsets, a few epochs of the fit, and one prediction of every method in the comparison.
estimate.py computes the estimate for the whole run.
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
)
from modelpred.dataset import Dataset, seeded_generator
from modelpred.dataset.files import parquet_bytes
from modelpred.predictor import Predictor, PredictorConfig, answer_curve, fit_predictor
from modelpred.progress import Progress, silent
from modelpred.refits import Refit, Retraining, retrainings, rivals
from modelpred.studies.gain_sampling import GainSampler
from modelpred.studies.row_gains import cost_of_gains, has_row_gains
from modelpred.studies.sampling import Game
from modelpred.studies.semivalues import Semivalue
from modelpred.studies.utility import row_gains_of
from modelpred.subsets import Subsets, SubsetsConfig, draw_subsets, subsets_table
from modelpred.targets import (
    Points,
    TargetModel,
    TargetsConfig,
    TrainedTargets,
    dataset_points,
    dataset_test_points,
    train_targets,
)
from modelpred.targets.bank import Bank
from modelpred.targets.linear import Linear
from modelpred.targets.parquet import ShardMetadata, shard_bytes
from modelpred.targets.scoring import mean_test_losses
from modelpred.targets.threads import torch_threads

FIRST, BLOCK = 50, 250  # number of subsets trained first, and if these were fast
PATIENT = 4.0  # most seconds to train BLOCK subsets
QUICK = 0.15  # most seconds for the held-out subsets to time the prediction of all subsets
EPOCHS = 4  # the first one warms up
STARTED = "import modelpred.targets.worker"

Clock = Callable[[], float]


def start_seconds(clock: Clock = time.perf_counter) -> float:
    """Seconds to start a process that can train."""
    began = clock()
    subprocess.run([sys.executable, "-c", STARTED], check=True, capture_output=True)
    return clock() - began


def speeds(
    dataset: Dataset,
    planned: SubsetsConfig,
    *,
    start: float,
    clock: Clock = time.perf_counter,
    progress: Progress = silent,
    targets: TargetsConfig | None = None,
) -> Speeds:
    """Measure the time of each part of the stages on these rows.

    Args:
        dataset: the data set of the pipeline.
        planned: the subsets that the pipeline would draw.
        start: seconds to start a process.
        clock: returns the time in seconds.
        progress: called with (steps done, steps, next step).
        targets: settings of the models; None: the defaults.

    Raises:
        InvalidInput: the rows cannot be trained on, or have too few distinct subsets.
    """
    points = dataset_points(dataset)
    targets = targets or TargetsConfig()
    model = targets.build(classes=points.classes)
    progress(0, 3, "training")
    drawn, trained, drawing, training = _trained(
        model, points, planned, targets.tolerance, clock=clock
    )
    bank = Bank.of(drawn, trained)
    progress(1, 3, "fitting")
    predictor, preparing, epoch = _fitted(
        bank, model, points, tolerance=targets.tolerance, clock=clock
    )
    progress(2, 3, "answering")
    began = clock()
    cheap = rivals(model, points, *bank.usable(role="fit"))
    compared = clock() - began
    full = cheap["full_model"](torch.ones(1, len(points.labels)))[0]
    refits = {
        **answer_curve(predictor),
        **cheap,
        **retrainings(model, points, tolerance=targets.tolerance, start=full),
    }
    tested = dataset_test_points(dataset)
    seconds, judging = _answers(refits, bank, model, tested, clock=clock)
    refined = f"{predictor.name}_refine_1"
    gains, counted = gain_seconds(model, points, tested, tolerance=targets.tolerance, clock=clock)
    progress(3, 3, "")
    return Speeds(
        subsets=len(drawn), start=start, drawing=drawing, training=training,
        preparing=preparing, epoch=epoch, compared=compared,
        answering=tuple(seconds.values()),
        predicting=seconds.get(refined, seconds[predictor.name]),
        judging=judging,
        gains=gains,
        gains_count=counted,
        shard_bytes=_shard_size(drawn, trained, model, targets.tolerance) / len(drawn),
        subset_bytes=len(parquet_bytes(subsets_table(drawn))) / len(drawn),
    )  # fmt: skip


def _trained(
    model: TargetModel, points: Points, planned: SubsetsConfig, tolerance: float, *, clock: Clock
) -> tuple[Subsets, TrainedTargets, float, float]:
    """Subsets, their models, and the seconds to draw and to train; few subsets if training is slow."""
    for count in (FIRST, BLOCK):
        began = clock()
        few = scaled(planned, count)
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
    """A predictor after a few epochs, the seconds before the first one, and those of one per subset."""
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
    if predictor.exact or len(ends) < 2:  # solved at once, not in epochs
        return predictor, max(0.0, clock() - began), 0.0
    epoch = median(later - sooner for sooner, later in pairwise(ends))
    return predictor, max(0.0, ends[0] - began - epoch), epoch / len(weights)


def gain_seconds(
    model: TargetModel, points: Points, tested: Points, *, tolerance: float, clock: Clock
) -> tuple[float, int]:
    """`Speeds.gains`, measured over a few subsets, and `gains_count`."""
    if not has_row_gains(model, points, "loss"):
        return 0.0, cost_of_gains(1)
    assert isinstance(model, Linear)
    gains = row_gains_of(
        model, points, tested,
        train=lambda weights, rows: Retraining(model, rows, tolerance=tolerance)(weights),
        generator=seeded_generator(0, "trial"),
    )  # fmt: skip
    sampler = GainSampler(
        Semivalue().size_probabilities(len(points.labels)),
        gains,
        generator=seeded_generator(1, "trial"),
    )
    game = Game(_undefined, points=len(points.labels), total=0, progress=silent)
    began = clock()
    sampler.draw(1, game)
    return (clock() - began) / sampler.evaluations(1) / gains.cost, gains.cost


def _undefined(_: torch.Tensor) -> torch.Tensor:
    """Utilities that gains of all rows do not need."""
    raise AssertionError


def _answers(
    refits: Mapping[str, Refit], bank: Bank, model: TargetModel, tested: Points, *, clock: Clock
) -> tuple[dict[str, float], float]:
    """Seconds per subset of each refit's prediction by its name, and of scoring a prediction on the test rows."""
    few, _ = bank.usable(role="test")
    rows = few.to(tested.features)
    all_rows = bank.weights.to(tested.features)
    seconds: dict[str, float] = {}
    predicted = rows
    for name, refit in refits.items():
        began = clock()
        refit(rows)
        # The first prediction warms up. If it is fast, a batch of the stage's size is more precise.
        batch = all_rows if clock() - began < QUICK else rows
        began = clock()
        predicted = refit(batch)
        seconds[name] = (clock() - began) / len(batch)
    began = clock()
    mean_test_losses(model, predicted, tested)
    return seconds, (clock() - began) / len(predicted)
