"""Gradient descent on the weights of a set function, with batches of trained subsets.

    loss = parameter + optimality * local regulariser + utility * global regulariser

(losses.py). The published configuration keeps its last weights; the others keep those of the best
epoch by error on validation subsets, and end early when that has not fallen for some epochs.
"""

import itertools
import math
import time

import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor.config import PredictorConfig
from modelpred.predictor.losses import (
    optimality_loss,
    relative_error_loss,
    squared_error_loss,
    utility_loss,
)
from modelpred.predictor.network import AnchoredNetwork, SetNetwork
from modelpred.predictor.predictor import ANSWER_BLOCK
from modelpred.refits import Progress
from modelpred.targets import Points, TargetModel
from modelpred.targets.points import class_counts
from modelpred.targets.spill import allocate, gather_rows

SCALED_ON = 2**14  # subsets that decide the scales of inputs and outputs
MOST_FRESH = 2**16  # untrained subsets of an epoch
WATCHED = 512  # subsets of the fit that are watched where no others are given


class Descent:
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
        best = BestWeights(self.network, patience=self.config.patience)
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
            predicted = self.network.answer(weights, self.bound, stage=self.network.last_stage)
        return float(relative_error_loss(predicted, true))


class BestWeights:
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
