"""Derivatives of a trained module's scores by the weights of the rows, through every step of its training.

Training is theta_(t+1), s_(t+1) = step_t(theta_t, s_t, w) with the states s of the optimiser (torch_recipe.py).
Reverse-mode differentiation starts with the gradients of the scores at the end and goes through the steps from the
last to the first (Maclaurin et al. 2015; Ilyas and Engstrom 2025). With the derivatives (theta*, s*) of a score:

    (theta*, s*)_t = (theta*, s*)_(t+1) d step_t / d (theta, s)      d score / d w += (theta*, s*)_(t+1) d step_t / d w

for all scores at once. Only the state at the start of each epoch is kept; an epoch is trained again when its steps
are needed. It costs about as much as one more training a score.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from modelpred.memory import require_memory
from modelpred.targets.points import Points
from modelpred.targets.torch_modules import Built, set_step
from modelpred.targets.torch_recipe import STATES, Recipe, RowLosses, Update

Parts = dict[str, Tensor]
States = dict[str, tuple[Tensor, ...]]
SCORES = 64  # cotangents that are carried at once


@dataclass(frozen=True)
class TrainingPath:
    """One training that can be followed back.

    Attributes:
        watched: a value of each row in each epoch, computed from its outputs before the step that uses the
            row, [epochs, points].
        end: trained parameters.
        starts: parameters and states at the start of each epoch.
    """

    watched: Tensor
    end: Parts
    starts: Sequence[tuple[Parts, States]]


@dataclass(frozen=True, eq=False)
class DifferentiableTraining:
    """The training of one module on one subset.

    Args:
        recipe: how training goes.
        built: the module.
        points: the pool, in the precision of the training.
        weights: [points].
        row_losses: from outputs [rows, outputs] and labels [rows] to losses [rows].
    """

    recipe: Recipe
    built: Built
    points: Points
    weights: Tensor
    row_losses: RowLosses

    def path(self, start: Tensor, watched: Callable[[Tensor, Tensor], Tensor]) -> TrainingPath:
        """Train from a start [parameters].

        Args:
            start: initial parameters.
            watched: from outputs [rows, outputs] and labels [rows] to the values that the path keeps.

        Raises:
            InvalidInput: there is not the memory for the parameters of all epochs.
        """
        self._require_memory()
        own = self.built.split(start.to(self.points.features))
        parts = {name: part.clone() for name, part in own.items()}
        states: States = Update(self.recipe, parts).states
        starts: list[tuple[Parts, States]] = []
        seen = self.points.features.new_zeros(self.recipe.epochs, len(self.weights))
        for epoch in range(self.recipe.epochs):
            starts.append((parts, states))
            for step, rows in self._batches(epoch):
                (parts, states), outputs = self._step(step, rows)(parts, states, self._shares(rows))
                seen[epoch, rows] = watched(outputs, self.points.labels[rows])
        return TrainingPath(seen, parts, starts)

    def derivatives(self, path: TrainingPath, slopes: Parts, factors: Tensor) -> Tensor:
        """Derivatives of scores by the weights [scores, points].

        Args:
            path: of this training.
            slopes: gradients of the scores by the trained parameters, [scores, *shape] by name.
            factors: [epochs, points], by which what an epoch adds is multiplied; ones: the derivatives.
        """
        count = len(next(iter(slopes.values())))
        found = self.weights.new_zeros(count, len(self.weights), dtype=factors.dtype)
        states = {
            name: tuple(part.new_zeros(count, *part.shape) for part in own)
            for name, own in path.starts[0][1].items()
        }
        back = (slopes, states)
        for epoch in reversed(range(self.recipe.epochs)):
            for step, rows, parts, own in reversed(list(self._passed(epoch, *path.starts[epoch]))):
                shares = self._shares(rows)
                pull = vjp(self._step(step, rows), parts, own, shares, has_aux=True)[1]
                *back, by_share = vmap(pull, chunk_size=SCORES)(tuple(back))
                found[:, rows] += by_share * (factors[epoch, rows] * self._scale / len(rows))
        total = self.weights.sum()
        return found - (found @ self.weights.to(found))[:, None] / total

    def _require_memory(self) -> None:
        """Refuse where the states at the starts of epochs and those within one do not fit."""
        recipe, size = self.recipe, self.points.features.element_size()
        states = recipe.epochs + math.ceil(len(self.weights) / recipe.batch_size)
        needed = states * self.built.size * size * (1 + STATES[recipe.optimizer])
        what = f"a training of {self.built.size:,} parameters that is followed through {states:,} states"
        require_memory(needed, what=what)

    @property
    def _scale(self) -> float:
        return len(self.weights) / float(self.weights.sum())

    def _shares(self, rows: Tensor) -> Tensor:
        return (self.weights[rows] * self._scale / len(rows)).to(self.points.features)

    def _batches(self, epoch: int) -> Iterator[tuple[int, Tensor]]:
        order = self.recipe.order(epoch, len(self.weights)).split(self.recipe.batch_size)
        yield from enumerate(order, start=epoch * len(order))

    def _passed(
        self, epoch: int, parts: Parts, states: States
    ) -> Iterator[tuple[int, Tensor, Parts, States]]:
        """The steps of an epoch, with parameters and states before each."""
        for step, rows in self._batches(epoch):
            yield step, rows, parts, states
            (parts, states), _ = self._step(step, rows)(parts, states, self._shares(rows))

    def _step(self, step: int, rows: Tensor) -> Callable[..., tuple[tuple[Parts, States], Tensor]]:
        """A step, as a function from parameters, states and shares of the rows to ((parameters, states), outputs)."""
        features, labels = self.points.features[rows], self.points.labels[rows]
        module = self.built.own_module(training=True)
        rate = self.recipe.rate(step, steps=self.recipe.steps(len(self.weights)))

        def loss(parts: Parts, shares: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.built.outputs(parts, features, module=module)
            return (self.row_losses(outputs, labels) * shares).sum(), outputs

        def advance(
            parts: Parts, states: States, shares: Tensor
        ) -> tuple[tuple[Parts, States], Tensor]:
            set_step(module, seed=self.recipe.seed, step=step)
            slopes, outputs = grad(loss, has_aux=True)(parts, shares)
            update = Update(self.recipe, {name: part.clone() for name, part in parts.items()})
            update.states = {name: tuple(map(torch.clone, own)) for name, own in states.items()}
            update.begin(step, rate=rate)
            for name, slope in slopes.items():
                update.change(name, slope)
            return (update.parts, update.states), outputs

        return advance
