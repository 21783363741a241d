"""Fit a set function to a bank of trained targets.

    loss = parameter + optimality * local regulariser + utility * global regulariser

(losses.py). Two named configurations:

`paper`     the published network, mean squared error, Adam 1e-4, batches of 32, 15 epochs, L1 and L2
            of 0.01 on the network's weights; regularisers on the batch's own subsets.
`anchored`  the default: learned steps from the size path, relative error after every step, AdamW
            with one cycle of the learning rate. Best weights by error on validation subsets, and an
            early end when that has not fallen for some epochs. The
            local regulariser is preconditioned and acts on fresh subsets: the fit's own weights
            with the points shuffled, which keeps their sizes and counts and costs no training. It
            is off: the optimality condition is inside the network already, and more of it lowers
            the error by little (docs/predictor.md), for twice the time of the fit.

Without trained subsets nothing is learned, and anchors answer alone: Newton directions and some
gradients where these are defined, else the size path.

A quadratic objective (ridge) has exact answers that cost less than a network's: except for `paper`
nothing is learned, and the history says so in one record of no error.

Degenerate subsets (a class missing) have a defined answer, the prior-only model; they are left out
of fitting and answered by that definition.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor.anchors import JOINT_BLOCK, Anchors, fit_size_path
from modelpred.predictor.coarse_fit import fit_coarse_training
from modelpred.predictor.config import PredictorConfig, Schedule
from modelpred.predictor.descent import Descent
from modelpred.predictor.fit_memory import require_fit_memory
from modelpred.predictor.network import AnchoredNetwork, SetNetwork, initialise
from modelpred.predictor.newton_inverse import BLOCK_BYTES, LARGEST_INVERSE
from modelpred.predictor.newton_network import (
    ENOUGH,
    MOST_GRADIENTS,
    NewtonNetwork,
    Trained,
    fit_newton_network,
)
from modelpred.predictor.newton_path import (
    fit_newton_path,
    has_newton_path,
)
from modelpred.predictor.predictor import (
    Predictor,
    build_network,
)
from modelpred.predictor.step_count import planned_steps
from modelpred.predictor.usable_targets import usable_targets
from modelpred.refits import Progress
from modelpred.targets import Points, TargetModel
from modelpred.targets.linear import Linear
from modelpred.targets.threads import torch_threads

NOTHING_LEARNED: dict[str, float | int] = {
    "epoch": 0, "loss": 0.0, "validation_error": 0.0, "seconds": 0.0,
}  # fmt: skip
BLIND_STEPS = 2  # gradients without trained subsets to judge by
# Rows x parameters below which `auto` learns steps at once: the fit takes seconds, and an answer costs
# as little as handing it over.
LEAST_DIRECTIONS = 100_000
SMALL_BATCH_SCORES = 2**18  # scores of a batch up to which one thread is best


def fit_predictor(
    config: PredictorConfig,
    model: TargetModel,
    points: Points,
    weights: Tensor,
    parameters: Tensor,
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-6,
    row_ids: tuple[str, ...] = (),
    start: Predictor | None = None,
    progress: Progress | None = None,
) -> Predictor:
    """The predictor fitted to trained targets.

    Args:
        config: network and schedule.
        model: the family that was trained.
        points: the pool.
        weights: [subsets, points] of the fit; of no subsets: anchors alone.
        parameters: [subsets, parameters], what training gave for them.
        validation: weights and parameters of other subsets: the best epoch is chosen on them.
        tolerance: to which targets were trained; what the predictor trains itself is, too.
        row_ids: ids of the pool's rows, kept with the predictor.
        start: a predictor of the same family and network, perhaps of a smaller pool, to go on from.
            Of Newton directions on these points, the path is used again.
        progress: called as progress(epochs done, epochs, what).

    Raises:
        InvalidInput: shapes that do not match, targets or losses that are not finite.
    """
    fit = usable_targets(model, points, weights, parameters, role="fit")
    if len(fit[0]) < 2 and len(weights):
        raise InvalidInput(
            f"{len(fit[0])} of {len(weights)} subsets have an optimum to learn from; expected at "
            "least 2: ask for more or larger subsets"
        )
    require_fit_memory(config, model, points, subsets=len(fit[0]))
    if validation is not None:
        validation = usable_targets(model, points, *validation, role="validation")
    task = _Task(config, model, points, fit, validation, tolerance, start)
    learned = None
    if not len(weights):
        learned = _anchors_alone(task)
    elif uses_newton(config, model, points, start):
        learned = _fit_newton(task)
    if learned is None:
        learned = _fit_network(task, progress)
    return Predictor(
        model, points, learned.network, learned.anchors,
        config.model_copy(update={"network": learned.name}), row_ids, tuple(learned.history),
        tolerance=tolerance,
    )  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """The checked arguments of `fit_predictor`, with the usable subsets of the fit and validation."""

    config: PredictorConfig
    model: TargetModel
    points: Points
    fit: Trained
    validation: Trained | None
    tolerance: float
    start: Predictor | None


@dataclass(frozen=True)
class _Learned:
    """A fitted network, its anchors and the record of the fit; `name` as in `PredictorConfig.network`."""

    name: str
    network: SetNetwork
    anchors: Anchors
    history: list[dict[str, float | int]]


def _fit_network(task: _Task, progress: Progress | None) -> _Learned:
    """The network that learns by gradient descent; nothing is learned where answers are exact."""
    config, model, points, start = task.config, task.model, task.points, task.start
    weights, parameters = task.fit
    with torch_threads(_useful_threads(config.schedule(), points)):
        anchors = (
            fit_size_path(model, points, tolerance=task.tolerance)
            if model.optimum is not None
            else fit_coarse_training(
                model, points, weights.to(points.features), parameters.to(points.features)
            )
        )
        steps = config.steps
        if steps is None and start is not None:
            steps = _steps_of(start)
        elif steps is None:
            steps = planned_steps(anchors, model, points, weights, parameters)
        network = build_network(config, anchors, points, steps=steps)
        if start is None:
            initialise(network, torch.Generator().manual_seed(config.seed))
        else:
            _continue(network, start, model)
        network.to(points.features.device)
        optimiser = Descent(
            config,
            network,
            model=model,
            points=points,
            targets=task.fit,
            validation=task.validation,
            scaled=start is not None,
        )
        exact = model.quadratic and config.network != "paper"
        history = [NOTHING_LEARNED] if exact else optimiser.run(progress)
    name = "anchored" if config.network == "auto" else config.network
    return _Learned(name, network, anchors, history)


def _anchors_alone(task: _Task) -> _Learned:
    """Anchors, and as many gradients as are worth it on the validation subsets.

    Raises:
        InvalidInput: the network or the family needs trained subsets.
    """
    config, model, points = task.config, task.model, task.points
    if config.network == "paper" or model.optimum is None:
        what = "the published network" if config.network == "paper" else model.name
        raise InvalidInput(f"{what} is learned from trained subsets; train 20 or more")
    if config.network != "anchored" and has_newton_path(model, points):
        if task.validation is None or not len(task.validation[0]):
            return _unjudged(task)
        nothing = _empty(model, points)
        learned = _fit_newton(replace(task, config=config, fit=nothing, start=None))
        if learned is not None:
            return learned
    anchors = fit_size_path(model, points, tolerance=task.tolerance)
    network = build_network(config, anchors, points, steps=0)
    initialise(network, torch.Generator().manual_seed(config.seed))
    name = "anchored" if config.network == "auto" else config.network
    return _Learned(name, network.to(points.features.device), anchors, [NOTHING_LEARNED])


def _unjudged(task: _Task) -> _Learned:
    """Newton directions and a fixed number of gradients."""
    assert isinstance(task.model, Linear)
    path = fit_newton_path(task.model, task.points, tolerance=task.tolerance)
    steps = BLIND_STEPS if task.config.steps is None else task.config.steps
    network = NewtonNetwork(path, steps=steps).to(task.points.features.device)
    return _Learned("newton", network, path, [NOTHING_LEARNED])


def _empty(model: TargetModel, points: Points) -> Trained:
    """No trained subsets."""
    size = model.parameter_count(points.features.shape[1], points.classes)
    features = points.features
    return features.new_zeros(0, len(features)), features.new_zeros(0, size)


def uses_newton(
    config: PredictorConfig, model: TargetModel, points: Points, start: Predictor | None = None
) -> bool:
    """Whether the fit begins with Newton directions: asked for, or `auto` on a large pool.

    Raises:
        InvalidInput: they are asked for but not defined.
    """
    if config.network == "newton":
        if not has_newton_path(model, points):
            raise InvalidInput(
                "predictor.network is newton, which needs a linear family that is not quadratic, of at "
                f"most {LARGEST_INVERSE - 1} features and {BLOCK_BYTES / 2**30:g} GiB of one square "
                f"matrix a class, got {model.name} of {points.features.shape[1]} features; use auto"
            )
        return True
    if config.network != "auto" or (start is not None and start.config.network == "anchored"):
        return False
    size = model.parameter_count(points.features.shape[1], points.classes)
    return size * len(points.features) >= LEAST_DIRECTIONS and has_newton_path(model, points)


def _fit_newton(task: _Task) -> _Learned | None:
    """The network of Newton directions; None where `auto` goes on to learned steps."""
    config, model, points, start = task.config, task.model, task.points, task.start
    assert isinstance(model, Linear)
    path, before = None, None
    if start is not None and start.points is points and isinstance(start.network, NewtonNetwork):
        path = start.network.anchors
        if config.steps is None:
            before = start.network, [float(stage["validation_error"]) for stage in start.history]
    if path is None:
        path = fit_newton_path(model, points, tolerance=task.tolerance)
    network = NewtonNetwork(path, steps=MOST_GRADIENTS if config.steps is None else config.steps)
    validation = task.validation
    network, history = fit_newton_network(
        network.to(points.features.device), model, points, task.fit,
        validation=validation if validation is not None and len(validation[0]) else None,
        fixed=config.steps is not None, before=before,
    )  # fmt: skip
    learns = len(task.fit[0]) and config.network == "auto" and path.parameter_count <= JOINT_BLOCK
    if learns and history[-1]["validation_error"] > ENOUGH:
        return None
    return _Learned("newton", network, path, history)


def _continue(network: SetNetwork, start: Predictor, model: TargetModel) -> None:
    """Gives the network the weights of another one, with the scales of its inputs and outputs."""
    if start.model != model:
        raise InvalidInput(
            f"the predictor to start from is of {start.model.name} with other settings; start from "
            "one of the same family, or from none"
        )
    try:
        network.load_state_dict(start.network.state_dict())
    except RuntimeError as error:  # torch's word for other shapes
        raise InvalidInput(
            "the predictor to start from has another network or other features; start from one "
            "with the same settings, or from none"
        ) from error


def _steps_of(start: Predictor) -> int:
    """Learned steps of a predictor."""
    return len(start.network.steps) if isinstance(start.network, AnchoredNetwork) else 0


def _useful_threads(schedule: Schedule, points: Points) -> int:
    """One for small batches, so that they give the same bytes on any number of cores.

    Handing out tiny products costs more than it gains, many times more on a busy machine.
    """
    scores = schedule.batch * len(points.features) * max(1, points.classes)
    return 1 if scores <= SMALL_BATCH_SCORES else torch.get_num_threads()
