"""What training returns, and Newton's method for any convex objective.

`newton_minimum` serves families without a solver of their own. It trains one subset after another:

    theta <- theta - t H^-1 grad F(theta),   t = 1, halved until F does not rise

Newton's method converges quadratically, so the length of a step is about the distance to the optimum
before it. A subset has converged when a step is shorter than the tolerance times the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelpred.targets.shapes import Parameters, Weights

MOST_STEPS = 100
HALVINGS = 30
FLAT = 1e-12  # share of the largest eigenvalue of H up to which a direction is flat
SLACK = 1e-13  # relative increase of F below the rounding of float64

Function = Callable[[Tensor, Tensor], Tensor]
"""(parameters [one, parameters], weights [one, points]) -> [one] or [one, parameters]"""


@dataclass(frozen=True)
class Solution:
    """Trained parameters of a block of subsets, with their gradients, objectives and iterations."""

    parameters: Parameters
    gradient_norm: Float[Tensor, " subsets"]  # largest absolute entry
    objective: Float[Tensor, " subsets"]
    iterations: Int[Tensor, " subsets"]
    converged: Bool[Tensor, " subsets"]


@runtime_checkable  # shapes are checked at run time in tests
class Solver(Protocol):
    """Trains a block of subsets, from the family's own start or from `start`."""

    def __call__(self, weights: Weights, *, start: Parameters | None, tolerance: float) -> Solution:
        """The block's solution; `converged` says which rows met the tolerance."""
        ...


def newton_minimum(objective: Function, gradient: Function, hessian: Function) -> Solver:
    """The solver that minimises the objective.

    Args:
        objective: F of one subset, [one].
        gradient: of F, [one, parameters].
        hessian: of F, [parameters, parameters].
    """

    def solve(weights: Weights, *, start: Parameters | None, tolerance: float) -> Solution:
        assert start is not None
        ends = start.clone()
        steps = torch.zeros(len(weights), dtype=torch.int64)
        converged = torch.zeros(len(weights), dtype=torch.bool)
        for row in range(len(weights)):
            own, theta = weights[row : row + 1], start[row : row + 1]
            while not converged[row] and steps[row] < MOST_STEPS:
                slope = gradient(theta, own)
                direction = -slope @ torch.linalg.pinv(
                    hessian(theta, own), rtol=FLAT, hermitian=True
                )
                if not bool(torch.isfinite(direction).all()):
                    break
                converged[row] = direction.norm() <= tolerance * theta.norm()
                theta = theta + _length(objective, theta, own, direction) * direction
                steps[row] += 1
            ends[row] = theta[0]
        rows = [(ends[row : row + 1], weights[row : row + 1]) for row in range(len(weights))]
        return Solution(
            parameters=ends,
            gradient_norm=torch.cat([gradient(*row).abs().amax(1) for row in rows]),
            objective=torch.cat([objective(*row) for row in rows]),
            iterations=steps,
            converged=converged,
        )

    return solve


def _length(objective: Function, theta: Tensor, weights: Tensor, direction: Tensor) -> float:
    """The longest of 1, 1/2, 1/4, ... by which the direction does not raise the objective."""
    before = objective(theta, weights)
    for halving in range(HALVINGS):
        length = 0.5**halving
        after = objective(theta + length * direction, weights)
        if bool(after <= before + SLACK * (1 + before.abs())):
            return length
    return 0.0
