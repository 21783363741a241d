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

import itertools
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor.anchors import JOINT_BLOCK, Anchors, fit_size_path
from modelpred.predictor.coarse_fit import fit_coarse_training
from modelpred.predictor.config import PredictorConfig, Schedule
from modelpred.predictor.fit_memory import require_fit_memory
from modelpred.predictor.losses import (
    optimality_loss,
    relative_error_loss,
    squared_error_loss,
    utility_loss,
)
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
    ANSWER_BLOCK,
    Predictor,
    build_network,
    check_weights,
)
from modelpred.predictor.step_count import planned_steps
from modelpred.refits import Progress, content_order
from modelpred.targets import Points, TargetModel
from modelpred.targets.linear import Linear
from modelpred.targets.points import class_counts
from modelpred.targets.spill import allocate, gather_rows
from modelpred.targets.threads import torch_threads

NOTHING_LEARNED: dict[str, float | int] = {
    "epoch": 0, "loss": 0.0, "validation_error": 0.0, "seconds": 0.0,
}  # fmt: skip
SCALED_ON = 2**14  # subsets that decide the scales of inputs and outputs
MOST_FRESH = 2**16  # untrained subsets of an epoch
BLIND_STEPS = 2  # gradients without trained subsets to judge by
WATCHED = 512  # subsets of the fit that are watched where no others are given
# Rows x parameters below which `auto` learns steps at once: the fit takes seconds, and an answer costs
# as little as handing it over.
LEAST_DIRECTIONS = 100_000
SMALL_BATCH_SCORES = 2**18  # scores of a batch up to which one thread is best


def _learnable(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor, *, role: str
) -> tuple[Tensor, Tensor]:
    """Weights and parameters of the subsets with an optimum, in the order of their content.

    Nothing that follows depends on the order of the bank. Counts to 255 keep a byte each and whole
    numbers their type: a bank is many times what is answered at once.

    Raises:
        InvalidInput: weights that are none, or parameters that do not match or are not finite.
    """
    weights = check_weights(weights, points).to(points.features.device)
    parameters = parameters.to(points.features.device)
    size = model.parameter_count(points.features.shape[1], points.classes)
    _check_targets(parameters, (len(weights), size), role=role)
    if weights.is_floating_point():
        weights = weights.to(torch.float32)
    order = content_order(weights, parameters)
    without = [
        model.without_optimum(class_counts(block.to(points.features), points))
        for block in weights.split(ANSWER_BLOCK)
    ]
    kept = order[~torch.cat(without)[order]]
    return gather_rows(weights, kept), gather_rows(parameters, kept)


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
    fit = _learnable(model, points, weights, parameters, role="fit")
    if len(fit[0]) < 2 and len(weights):
        raise InvalidInput(
            f"{len(fit[0])} of {len(weights)} subsets have an optimum to learn from; expected at "
            "least 2: ask for more or larger subsets"
        )
    require_fit_memory(config, model, points, subsets=len(fit[0]))
    if validation is not None:
        validation = _learnable(model, points, *validation, role="validation")
    learned = None
    if not len(weights):
        learned = _anchors_alone(config, model, points, validation, tolerance=tolerance)
    elif uses_newton(config, model, points, start):
        learned = _fit_newton(
            config, model, points, fit, validation, tolerance=tolerance, start=start
        )
    if learned is None:
        learned = _fit_network(
            config, model, points, fit, validation,
            tolerance=tolerance, start=start, progress=progress,
        )  # fmt: skip
    return Predictor(
        model, points, learned.network, learned.anchors,
        config.model_copy(update={"network": learned.name}), row_ids, tuple(learned.history),
        tolerance=tolerance,
    )  # fmt: skip


@dataclass(frozen=True)
class _Learned:
    """A fitted network, its anchors and the record of the fit; `name` as in `PredictorConfig.network`."""

    name: str
    network: SetNetwork
    anchors: Anchors
    history: list[dict[str, float | int]]


def _fit_network(
    config: PredictorConfig,
    model: TargetModel,
    points: Points,
    fit: Trained,
    validation: Trained | None,
    *,
    tolerance: float,
    start: Predictor | None,
    progress: Progress | None,
) -> _Learned:
    """The network that learns by gradient descent; nothing is learned where answers are exact."""
    weights, parameters = fit
    with torch_threads(_useful_threads(config.schedule(), points)):
        anchors = (
            fit_size_path(model, points, tolerance=tolerance)
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
        optimiser = _Fit(
            config,
            network,
            model=model,
            points=points,
            targets=fit,
            validation=validation,
            scaled=start is not None,
        )
        exact = model.quadratic and config.network != "paper"
        history = [NOTHING_LEARNED] if exact else optimiser.run(progress)
    name = "anchored" if config.network == "auto" else config.network
    return _Learned(name, network, anchors, history)


def _anchors_alone(
    config: PredictorConfig,
    model: TargetModel,
    points: Points,
    validation: Trained | None,
    *,
    tolerance: float,
) -> _Learned:
    """Anchors, and as many gradients as are worth it on the validation subsets.

    Raises:
        InvalidInput: the network or the family needs trained subsets.
    """
    if config.network == "paper" or model.optimum is None:
        what = "the published network" if config.network == "paper" else model.name
        raise InvalidInput(f"{what} is learned from trained subsets; train 20 or more")
    if config.network != "anchored" and has_newton_path(model, points):
        if validation is None:
            config = config.model_copy(update={"steps": config.steps or BLIND_STEPS})
        nothing = _empty(model, points)
        learned = _fit_newton(config, model, points, nothing, validation, tolerance=tolerance)
        if learned is not None:
            return learned
    anchors = fit_size_path(model, points, tolerance=tolerance)
    network = build_network(config, anchors, points, steps=0)
    initialise(network, torch.Generator().manual_seed(config.seed))
    name = "anchored" if config.network == "auto" else config.network
    return _Learned(name, network.to(points.features.device), anchors, [NOTHING_LEARNED])


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


def _fit_newton(
    config: PredictorConfig,
    model: TargetModel,
    points: Points,
    fit: Trained,
    validation: Trained | None,
    *,
    tolerance: float,
    start: Predictor | None = None,
) -> _Learned | None:
    """The network of Newton directions; None where `auto` goes on to learned steps."""
    assert isinstance(model, Linear)
    path, bound = None, None
    if start is not None and start.points is points and isinstance(start.network, NewtonNetwork):
        path, bound = start.network.anchors, start.bound
    if path is None:
        path = fit_newton_path(model, points, tolerance=tolerance)
    network = NewtonNetwork(path, steps=MOST_GRADIENTS if config.steps is None else config.steps)
    if validation is not None and not len(validation[0]):
        validation = None
    network, history = fit_newton_network(
        network.to(points.features.device), model, points, fit,
        validation=validation, fixed=config.steps is not None, bound=bound,
    )  # fmt: skip
    learns = len(fit[0]) and config.network == "auto" and path.parameter_count <= JOINT_BLOCK
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


def _check_targets(parameters: Tensor, shape: tuple[int, int], *, role: str) -> None:
    if parameters.shape[:1] != shape[:1]:
        raise InvalidInput(
            f"{shape[0]} {role} subsets but {len(parameters)} rows of parameters; pass one each"
        )
    if parameters.shape != shape or not parameters.is_floating_point():
        raise InvalidInput(
            f"{role} targets are {parameters.dtype} {list(parameters.shape)}; expected real "
            f"{list(shape)}, the parameters of each subset"
        )
    finite = torch.cat([torch.isfinite(block).all(1) for block in parameters.split(ANSWER_BLOCK)])
    if not bool(finite.all()):
        raise InvalidInput(
            f"{int((~finite).sum())} {role} targets are not finite (first: row "
            f"{int((~finite).nonzero()[0])}); leave them out or train them again"
        )


class _Fit:
    """One run of the optimiser: tensors in single precision, batches drawn from a generator.

    A target costs the compact row of its weights, and its parameters and its anchor as float32; of
    many targets these lie in files (spill.py), and memory holds a batch.
    """

    def __init__(
        self,
        config: PredictorConfig,
        network: SetNetwork,
        *,
        model: TargetModel,
        points: Points,
        targets: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor] | None,
        scaled: bool,
    ) -> None:
        self.config, self.schedule = config, config.schedule()
        self.model, self.points, self.network = model, points, network
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        everything = torch.ones(len(targets[1]), dtype=torch.bool)
        self.weights = targets[0]
        self.parameters = gather_rows(targets[1], everything, dtype=torch.float32)
        self.bound = network.bind(model, points)
        self.prepared = self._prepare(self.weights)
        if isinstance(network, AnchoredNetwork) and not scaled:
            self._standardise(network)
        self.fresh: tuple[Tensor, Tensor | None] | None = None
        # Validation subsets of which none has an optimum are none.
        self.validation = None
        if validation is not None and len(validation[0]):
            self.validation = (validation[0].float(), validation[1].to(self.parameters))
        self.batches = math.ceil(len(self.weights) / self.schedule.batch)

    def _anchored(self) -> bool:
        return isinstance(self.network, AnchoredNetwork)

    def _prepare(self, weights: Tensor) -> Tensor | None:
        found: Tensor | None = None
        with torch.no_grad():
            for first in range(0, len(weights), ANSWER_BLOCK):
                rows = weights[first : first + ANSWER_BLOCK]
                block = self.network.prepare(rows.float(), self.bound)
                if block is None:
                    return None
                if found is None:
                    found = self._room((len(weights), *block.shape[1:]), block)
                found[first : first + len(block)] = block
        return found

    def _room(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        on_cpu = like.device.type == "cpu"
        return allocate(shape, like.dtype) if on_cpu else like.new_empty(shape)

    def _standardise(self, network: AnchoredNetwork) -> None:
        assert self.prepared is not None
        assert self.bound.anchors is not None
        steps: list[Tensor] = []
        totals: list[Tensor] = []
        counts, starts, parameters = (
            each[:SCALED_ON] for each in (self.weights, self.prepared, self.parameters)
        )
        with torch.no_grad():
            for rows, start in zip(
                counts.split(ANSWER_BLOCK), starts.split(ANSWER_BLOCK), strict=True
            ):
                weights = rows.float()
                totals.append(weights.sum(1, keepdim=True))
                gradients = self.model.gradient(start, weights, self.bound.points)
                steps.append(self.bound.anchors.preconditioner(weights)(gradients))
            network.standardise(torch.cat(totals), torch.cat(steps), parameters)
            gap = (parameters - starts).square().mean().sqrt()
            network.correction_scale.fill_(float(gap.clamp(min=1e-6)))

    def _fresh(self) -> tuple[Tensor, Tensor | None] | None:
        """Untrained subsets: fitted ones with their points shuffled, and what is prepared.

        None where none of them has an optimum.
        """
        device = self.weights.device
        blocks: list[Tensor] = []
        for rows in self.weights[:MOST_FRESH].split(ANSWER_BLOCK):
            keys = torch.rand(rows.shape, generator=self.generator)
            moved = rows.gather(1, keys.argsort(1).to(device))
            counts = class_counts(moved.float(), self.points)
            blocks.append(moved[~self.model.without_optimum(counts)])
        shuffled = torch.cat(blocks)
        return (shuffled, self._prepare(shuffled)) if len(shuffled) else None

    def run(self, progress: Progress | None) -> list[dict[str, float | int]]:
        """Fit; the network ends with its best weights. Returns one record an epoch."""
        optimiser, scheduler = self._optimiser()
        history: list[dict[str, float | int]] = []
        # The published configuration keeps its last weights; it knows no validation.
        watched = self._anchored() and self.validation is not None
        best = _Best(self.network, patience=self.config.patience)
        began = time.perf_counter()
        for epoch in range(self.schedule.epochs):
            loss = self._epoch(optimiser, scheduler)
            error = self._validation_error()
            if not (math.isfinite(loss) and math.isfinite(error)):
                raise InvalidInput(
                    f"fitting reached a loss of {loss} (validation error {error}) in epoch "
                    f"{epoch + 1}; try a smaller predictor.learning_rate"
                )
            seconds = time.perf_counter() - began
            history.append(
                {"epoch": epoch + 1, "loss": loss, "validation_error": error, "seconds": seconds}
            )
            # While the learning rate rises and is high, the error may rise for long, to fall below.
            ends = watched and best.ends(error, waiting=2 * epoch >= self.schedule.epochs)
            if progress:
                done = self.schedule.epochs if ends else epoch + 1
                progress(done, self.schedule.epochs, f"validation error {error:.4f}")
            if ends:
                break
        if watched:
            best.restore()
        return history

    def _optimiser(
        self,
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        parameters = list(self.network.parameters())
        if not self._anchored():
            return torch.optim.Adam(parameters, self.schedule.learning_rate), None
        optimiser = torch.optim.AdamW(
            parameters, self.schedule.learning_rate / 2, weight_decay=1e-3, fused=True
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            self.schedule.learning_rate,
            total_steps=self.schedule.epochs * self.batches,
        )
        return optimiser, scheduler

    def _epoch(
        self,
        optimiser: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    ) -> float:
        self.network.train()
        # Targets of fixed steps are not stationary: there is no local condition to hold.
        if self._anchored() and self.model.optimum is not None and self.schedule.optimality:
            self.fresh = self._fresh()
        total = 0.0
        order = torch.randperm(len(self.weights), generator=self.generator)
        for batch in order.split(self.schedule.batch):
            loss = self._loss(batch)
            optimiser.zero_grad()
            loss.backward()
            if scheduler is not None:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimiser.step()
            if scheduler is not None:
                scheduler.step()
            total += float(loss.detach()) * len(batch)
        return total / len(self.weights)

    def _loss(self, batch: Tensor) -> Tensor:
        weights, true = self.weights[batch].float(), self.parameters[batch]
        prepared = None if self.prepared is None else self.prepared[batch]
        stages = self._learned(weights, prepared)
        anchored = self._anchored()
        measure = relative_error_loss if anchored else squared_error_loss
        loss = torch.stack([measure(stage, true) for stage in stages]).sum()
        if self.schedule.utility:
            term = utility_loss(self.model, stages[-1], true, weights, self.bound.points)
            loss = loss + self.schedule.utility * term
        if self.schedule.optimality and self.model.optimum is not None:
            loss = loss + self.schedule.optimality * self._optimality(batch, stages, weights)
        if not anchored:
            loss = loss + _published_penalty(self.network)
        return loss

    def _learned(self, weights: Tensor, prepared: Tensor | None) -> list[Tensor]:
        """Predictions of the stages that have something to learn."""
        stages = self.network.stages(weights, self.bound, prepared)
        return list(itertools.islice(stages, self.network.learned_from, None))

    def _optimality(self, batch: Tensor, stages: list[Tensor], weights: Tensor) -> Tensor:
        if self.fresh is None:
            return optimality_loss(self.model, stages[-1], weights, self.bound.points)
        shuffled, prepared = self.fresh
        assert self.bound.anchors is not None
        assert prepared is not None
        rows = batch % len(shuffled)
        weights, prepared = shuffled[rows].float(), prepared[rows]
        precondition = self.bound.anchors.preconditioner(weights)
        return torch.stack(
            [
                optimality_loss(
                    self.model,
                    stage,
                    weights,
                    self.bound.points,
                    precondition=precondition,
                )
                for stage in self._learned(weights, prepared)
            ]
        ).sum()

    def _validation_error(self) -> float:
        self.network.eval()
        weights, true = self.validation or (
            self.weights[:WATCHED].float(),
            self.parameters[:WATCHED],
        )
        with torch.no_grad():
            predicted = self.network.answer(weights, self.bound)
        return float(relative_error_loss(predicted, true))


class _Best:
    """The weights of the least validation error so far, and how long ago that was."""

    def __init__(self, network: SetNetwork, *, patience: int | None) -> None:
        self.network, self.patience = network, patience
        self.error, self.waited = math.inf, 0
        self.state: dict[str, Tensor] = {}

    def ends(self, error: float, *, waiting: bool) -> bool:
        """Record an epoch, which counts for the patience if `waiting`; returns True to stop early."""
        if error < self.error:
            self.error, self.waited = error, 0
            self.state = {name: value.clone() for name, value in self.network.state_dict().items()}
        elif waiting:
            self.waited += 1
        return self.patience is not None and self.waited >= self.patience

    def restore(self) -> None:
        """Load the weights of the best epoch into the network."""
        self.network.load_state_dict(self.state)


def _published_penalty(network: SetNetwork) -> Tensor:
    """0.01 L1 + 0.01 L2 of all network weights."""
    flat = torch.cat([parameter.flatten() for parameter in network.parameters()])
    return 0.01 * flat.abs().sum() + 0.01 * flat.norm()
