"""Minibatch training of many models of one module together, on the same batches in the same order.

A step of model w on a batch B of the pool descends

    F_B(theta) = sum over i in B of w_i (N / W) loss_i(theta) / |B|,     W = sum over i of w_i

of which an epoch's mean is the mean loss of the rows of the subset. The order of rows is a function of the
seed alone, so that every model is trained on the same batches and its parameters are a function of its weights; rows
of weight zero add nothing. Optimisers are those of torch.optim, for all models at once.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from modelpred.targets.points import Points
from modelpred.targets.torch_chain import chain_of, own_rows
from modelpred.targets.torch_chain import step as chain_step
from modelpred.targets.torch_modules import Built, set_step

RowLosses = Callable[[Tensor, Tensor], Tensor]
"""(outputs [rows, outputs], labels [rows]) -> [rows]"""
BETAS = 0.9, 0.999
EPSILON = 1e-8
STATES = {"sgd": 1, "adam": 2, "adamw": 2}
"""Arrays of the size of the parameters that an optimiser keeps."""


@dataclass(frozen=True)
class Recipe:
    """How training goes; as in torch.optim."""

    optimizer: str
    learning_rate: float
    schedule: str
    momentum: float
    weight_decay: float
    batch_size: int
    epochs: int
    seed: int

    def steps(self, rows: int) -> int:
        """Number of steps on a pool of so many rows."""
        return self.epochs * math.ceil(rows / self.batch_size)

    def batches(self, rows: int) -> Iterator[Tensor]:
        """Positions of the rows of each step: every epoch takes each row once."""
        for epoch in range(self.epochs):
            yield from self.order(epoch, rows).split(self.batch_size)

    def order(self, epoch: int, rows: int) -> Tensor:
        """Positions of all rows in the order in which an epoch takes them."""
        return torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(rows))

    def rate(self, step: int, *, steps: int) -> float:
        """The learning rate of a step, counted from zero."""
        done = step / steps
        share = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
        }
        return self.learning_rate * share[self.schedule]


def train(
    recipe: Recipe,
    built: Built,
    points: Points,
    weights: Tensor,
    start: Tensor,
    *,
    row_losses: RowLosses,
) -> Tensor:
    """Trained parameters [subsets, parameters].

    Args:
        recipe: how training goes.
        built: the module.
        points: the pool, in the precision of the training.
        weights: [subsets, points].
        start: [parameters] or [subsets, parameters], where training starts.
        row_losses: from outputs [rows, outputs] and labels [rows] to losses [rows].
    """
    module = built.own_module(training=True)

    def loss(parts: dict[str, Tensor], rows: Tensor, labels: Tensor, factors: Tensor) -> Tensor:
        return (row_losses(built.outputs(parts, rows, module=module), labels) * factors).sum()

    def output_loss(outputs: Tensor, labels: Tensor, factors: Tensor) -> Tensor:
        return (row_losses(outputs, labels) * factors).sum()

    gradients = vmap(grad(loss), in_dims=(0, None, None, 0))
    output_slopes = vmap(grad(output_loss))
    chain = chain_of(built)
    features, labels = points.features, points.labels
    factors = weights * (len(features) / weights.sum(1, keepdim=True))
    factors = factors.to(features.dtype).T.contiguous()  # a batch is some of its rows
    begin = start.to(features).expand(len(weights), -1)
    parts = {name: part.clone() for name, part in built.split(begin).items()}
    update = Update(recipe, parts)
    steps = recipe.steps(len(features))
    for step, batch in enumerate(recipe.batches(len(features))):
        rows = batch.to(features.device)
        shares = (factors[rows] / len(rows)).T
        update.begin(step, rate=recipe.rate(step, steps=steps))
        if chain is not None:
            own, shares = own_rows(rows, shares)
            repeated = labels[own].expand(shares.shape)
            chain_step(
                chain,
                parts,
                features[own],
                labels=repeated,
                shares=shares,
                output_slopes=output_slopes,
                update=update,
            )
            continue
        set_step(module, seed=recipe.seed, step=step)
        found = gradients(parts, features[rows], labels[rows], shares)
        for name, slope in found.items():
            update.change(name, slope)
    return built.join(parts)


class Update:
    """Changes the parameters of all models in place, by their gradients."""

    def __init__(self, recipe: Recipe, parts: dict[str, Tensor]) -> None:
        self.recipe, self.parts = recipe, parts
        self.step, self.rate = 0, recipe.learning_rate
        slots = STATES[recipe.optimizer] if recipe.optimizer != "sgd" or recipe.momentum else 0
        self.states = {
            name: tuple(torch.zeros_like(part) for _ in range(slots))
            for name, part in parts.items()
        }

    def begin(self, step: int, *, rate: float) -> None:
        """Begin a step, counted from zero, at this learning rate."""
        self.step, self.rate = step, rate

    def change(self, name: str, slope: Tensor) -> None:
        """Change a parameter of all models by its gradients."""
        recipe, part = self.recipe, self.parts[name]
        if recipe.optimizer == "adamw":
            part.mul_(1 - self.rate * recipe.weight_decay)
        elif recipe.weight_decay:
            slope = slope.add(part, alpha=recipe.weight_decay)
        if recipe.optimizer == "sgd":
            self._sgd(part, slope, self.states[name])
        else:
            self._adam(part, slope, self.states[name])

    def change_by_product(self, name: str, left: Tensor, right: Tensor) -> None:
        """Change a matrix of all models by gradients left @ right, which SGD does not keep."""
        recipe, part = self.recipe, self.parts[name]
        if recipe.optimizer != "sgd":
            self.change(name, torch.bmm(left, right))
            return
        states = self.states[name]
        for velocity in states:
            velocity.baddbmm_(left, right, beta=recipe.momentum)
            if recipe.weight_decay:
                velocity.add_(part, alpha=recipe.weight_decay)
            part.add_(velocity, alpha=-self.rate)
        if not states:
            part.baddbmm_(left, right, beta=1 - self.rate * recipe.weight_decay, alpha=-self.rate)

    def _sgd(self, part: Tensor, slope: Tensor, states: tuple[Tensor, ...]) -> None:
        for velocity in states:
            slope = velocity.mul_(self.recipe.momentum).add_(slope)
        part.add_(slope, alpha=-self.rate)

    def _adam(self, part: Tensor, slope: Tensor, states: tuple[Tensor, ...]) -> None:
        mean, square = states
        mean.lerp_(slope, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
        corrections = [1 - beta ** (self.step + 1) for beta in BETAS]
        # The root has no derivative at zero, which torch_derivatives.py must not meet.
        some = square > 0
        roots = torch.where(some, torch.where(some, square, 1).sqrt(), 0)
        length = roots / math.sqrt(corrections[1]) + EPSILON
        part.addcdiv_(mean, length, value=-self.rate / corrections[0])
