"""Expansions around the model of all rows: influence function, rescaled influence, one Newton step.

With theta the full-data parameters (all weights 1), g_i the gradient and H_i the Hessian of point
i's own term at theta, R the Hessian of the penalty and H = R + Σ_i H_i, the gradient of the
subset's objective at theta is Σ_i (w_i - 1) g_i: the penalty does not change with the weights and
the full gradient is zero. Then

    influence            theta - H⁻¹ Σ_i (w_i - 1) g_i            (Cook 1977; Koh & Liang 2017)
    rescaled influence   theta - (R + s Σ_i H_i)⁻¹ Σ_i (w_i - 1) g_i,  s = Σ_i w_i / N
    Newton step          theta - (R + Σ_i w_i H_i)⁻¹ Σ_i (w_i - 1) g_i

All around weights of one (`around` names others, for a pool that was extended afterwards).

The first is the derivative of retraining times the change of weights. The second gives the
full Hessian the subset's size (a name that others use for leverage corrections, too). The third
has the subset's own Hessian and is exact for a quadratic objective; it is neither damped nor
searched along, as is customary.

All is done in the basis B of directions that the data or the penalty determine, with B'HB = 1 and
B'RB = diag(r): there the rescaled Hessian is diag(r + s (1 - r)), and it preconditions the
conjugate gradients of the Newton step. A linear family with more features than points has no more
directions than points there (row_space.py), and nothing costs more than linear time in the features.

The objective of the mlp is not convex and its full-data parameters are no stationary point of it
(a fixed number of steps), so that none of the three is defined there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.refits.retraining import checked_weights, continued
from modelpred.targets.linear import row_space_of
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.shapes import Parameters, ParameterVector, Weights, WeightVector
from modelpred.targets.threads import threads_for

# Eigenvalues below this share of the largest are directions that neither the data nor the penalty
# determine (the common shift of softmax intercepts): parameters stay as they are along them.
UNDETERMINED = 1e-12
# From here on float32 cannot hold the residual; above it halves the time.
SINGLE_PRECISION = 1e-5


@dataclass(frozen=True)
class Expansion:
    """The full objective up to second order around its minimum, in the basis described above."""

    full_parameters: ParameterVector
    basis: Float[Tensor, "parameters directions"]
    penalty_share: Float[Tensor, " directions"]
    gradients: Float[Tensor, "points directions"]
    around: WeightVector

    @classmethod
    def of(
        cls,
        model: TargetModel,
        points: Points,
        full_parameters: Tensor,
        *,
        around: WeightVector | None = None,
    ) -> "Expansion":
        """Return the expansion of a convex family; InvalidInput for any other.

        Args:
            model: a convex family.
            points: the pool.
            full_parameters: [parameters], trained with the weights `around`.
            around: weights to expand at, [points]; by default every point once.
        """
        if model.optimum is None:
            raise InvalidInput(
                f"{model.name} has no expansion around its model of all rows, which is no stationary "
                "point; use the linear datamodel or retraining"
            )
        if around is None:
            around = torch.ones(len(points.labels), dtype=torch.float64)
        largest = max(len(points.features), len(full_parameters)) * len(full_parameters)
        with threads_for(8 * largest):
            space = row_space_of(model, points)
            if space is None:
                return cls._of(model, points, full_parameters, around)
            small = cls._of(model, space.points, space.reduced(full_parameters), around)
            basis = space.lifted_columns(small.basis)
            return replace(small, full_parameters=full_parameters, basis=basis)

    @classmethod
    def _of(
        cls, model: TargetModel, points: Points, full_parameters: Tensor, around: Tensor
    ) -> "Expansion":
        values, vectors = torch.linalg.eigh(model.hessian(full_parameters, around, points))
        determined = values > UNDETERMINED * values[-1]
        whitening = vectors[:, determined] / values[determined].sqrt()
        penalty = model.hessian(full_parameters, 0 * around, points)
        share, rotation = torch.linalg.eigh(whitening.T @ penalty @ whitening)
        basis = whitening @ rotation
        gradients = model.point_gradients(full_parameters, points) @ basis
        return cls(full_parameters, basis, share.clamp(0, 1), gradients, around)

    def gradient(self, weights: Weights) -> Tensor:
        """Return Σ_i (w_i - 1) g_i in the basis, [subsets, directions]."""
        return (weights - self.around) @ self.gradients

    def rescaled_hessian(self, weights: Weights) -> Tensor:
        """Return the diagonal r + s (1 - r) in the basis; an empty subset counts as one point."""
        whole = self.around.sum()
        share = weights.sum(dim=1, keepdim=True).clamp(min=1) / whole
        return self.penalty_share + share * (1 - self.penalty_share)

    def moved(self, step: Float[Tensor, "subsets directions"]) -> Tensor:
        """Return the full-data parameters minus a step in the basis, [subsets, parameters]."""
        return self.full_parameters - step @ self.basis.T


class _Expanded(ABC):
    """A refit by the expansion of a convex family around its model of all rows.

    Args:
        model: a convex family.
        points: the pool.
        full_parameters: [parameters], trained with the weights `around`.
        around: weights to expand at, [points]; by default every point once.
        expansion: the expansion of these points, if it is there.
    """

    name: str

    def __init__(
        self,
        model: TargetModel,
        points: Points,
        full_parameters: Tensor,
        *,
        around: WeightVector | None = None,
        expansion: Expansion | None = None,
    ) -> None:
        self.model = model
        self.points = points
        self.expansion = expansion or Expansion.of(model, points, full_parameters, around=around)

    @abstractmethod
    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return the parameters of each subset's model."""

    def for_points(self, points: Points) -> "_Expanded":
        """The same expansion over a pool that begins with this one's points."""
        around = continued(self.expansion.around, self.points, points)
        return type(self)(self.model, points, self.expansion.full_parameters, around=around)


@final
class Influence(_Expanded):
    """Influence function: linear in the weights, so one matrix product answers all subsets."""

    name = "influence"

    @cached_property
    def derivatives(self) -> Float[Tensor, "points parameters"]:
        """Derivative of theta in each w_i."""
        return -self.expansion.gradients @ self.expansion.basis.T

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return theta + Σ_i (w_i - 1) dtheta/dw_i."""
        rows = checked_weights(weights, points=len(self.derivatives))
        with threads_for(8 * rows.numel()):
            around, full = self.expansion.around, self.expansion.full_parameters
            return full + (rows - around) @ self.derivatives


@final
class RescaledInfluence(_Expanded):
    """Influence function with the full Hessian scaled to the subset's size."""

    name = "rescaled_influence"

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return theta - (R + s Σ_i H_i)⁻¹ Σ_i (w_i - 1) g_i."""
        rows = checked_weights(weights, points=len(self.expansion.gradients))
        with threads_for(8 * rows.numel()):
            step = self.expansion.gradient(rows) / self.expansion.rescaled_hessian(rows)
            return self.expansion.moved(step)


Operator = Callable[[Tensor, Tensor], Tensor]
"""(weights [subsets, points], vectors [subsets, directions]) -> Hessian times vectors"""


@final
class NewtonStep(_Expanded):
    """One undamped Newton step from the model of all rows on the subset's own objective.

    Args:
        model: a convex family.
        points: the pool.
        full_parameters: [parameters], trained with the weights `around`.
        tolerance: residual of the linear system relative to its right-hand side. The default moves
            parameters by a thousandth of the step's own error (spam, standardised: 0.0001 of
            their size against 0.17); more digits would only cost it time.
        block: subsets solved at once, small enough for the processor's cache.
        around: as `Influence`.
        expansion: as `Influence`.
    """

    name = "newton_step"

    def __init__(
        self,
        model: TargetModel,
        points: Points,
        full_parameters: Tensor,
        *,
        tolerance: float = 1e-3,
        block: int = 250,
        around: WeightVector | None = None,
        expansion: Expansion | None = None,
    ) -> None:
        super().__init__(model, points, full_parameters, around=around, expansion=expansion)
        self.tolerance = tolerance
        self.block = block
        self.dtype = torch.float32 if tolerance >= SINGLE_PRECISION else torch.float64
        self.hessian = _hessian(model, points, self.expansion, self.dtype)

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return theta - (R + Σ_i w_i H_i)⁻¹ Σ_i (w_i - 1) g_i."""
        rows = checked_weights(weights, points=len(self.expansion.gradients))
        scores = min(self.block, len(rows)) * len(self.points.labels) * max(1, self.points.classes)
        with threads_for(8 * scores):
            steps = [self._step(block) for block in rows.split(self.block)]
            return self.expansion.moved(torch.cat(steps).to(torch.float64))

    def for_points(self, points: Points) -> "NewtonStep":
        """The same expansion over a pool that begins with this one's points."""
        return NewtonStep(
            self.model,
            points,
            self.expansion.full_parameters,
            tolerance=self.tolerance,
            block=self.block,
            around=continued(self.expansion.around, self.points, points),
        )

    def _step(self, weights: Tensor) -> Tensor:
        gradient = self.expansion.gradient(weights).to(self.dtype)
        preconditioner = (1 / self.expansion.rescaled_hessian(weights)).to(self.dtype)
        weights = weights.to(self.dtype)
        return _conjugate_gradients(
            lambda vectors: self.hessian(weights, vectors),
            gradient,
            preconditioner=preconditioner,
            tolerance=self.tolerance,
        )


def _hessian(
    model: TargetModel, points: Points, expansion: Expansion, dtype: torch.dtype
) -> Operator:
    """The subset's Hessian R + Σ_i w_i H_i at the model of all rows, in the basis, as a product.

    Where every H_i has rank one (a single score per point) it is f_i f_i', and a product with the
    Hessian is two matrix products with the f_i instead of three and the curvature.
    """
    full, directions = expansion.full_parameters, expansion.basis
    if (space := row_space_of(model, points)) is not None:
        full, directions = space.reduced(full), space.reduced_columns(directions)
        points = space.points
    factors = _rank_one_factors(model, points, full)
    basis = directions.to(dtype)
    if factors is not None:
        rows = (factors @ directions).to(dtype)
        share = expansion.penalty_share.to(dtype)
        return lambda weights, vectors: torch.addcmul(
            ((vectors @ rows.T).mul_(weights)) @ rows, share, vectors
        )
    pool = points.to(dtype=dtype)
    full = full.to(dtype)

    def product(weights: Tensor, vectors: Tensor) -> Tensor:
        parameters = full.expand(len(weights), -1)
        lifted = vectors @ basis.T
        return model.hessian_vector_product(parameters, weights, pool, lifted) @ basis

    return product


def _rank_one_factors(
    model: TargetModel, points: Points, full_parameters: Tensor
) -> Float[Tensor, "points parameters"] | None:
    """f_i with H_i = f_i f_i' for every point, or None where some H_i has a higher rank.

    A matrix of rank one is its largest column's outer product, over its diagonal entry there. The
    curvature is a difference from the penalty's, and below the rounding of that it is none.
    """
    nothing = torch.zeros(1, dtype=torch.float64)
    factors: list[Tensor] = []
    for row in range(len(points.labels)):
        point = points.take(torch.tensor([row]))
        penalty = model.hessian(full_parameters, nothing, point)
        curvature = model.hessian(full_parameters, nothing + 1, point) - penalty
        rounding = 1e-13 * penalty.abs().max()
        diagonal, largest = curvature.diagonal().max(dim=0)
        factor = curvature[largest] / diagonal.clamp(min=rounding).sqrt()
        remainder = (curvature - torch.outer(factor, factor)).abs().max()
        if remainder > 1e-9 * diagonal + rounding:
            return None
        factors.append(factor)
    return torch.stack(factors)


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Float[Tensor, "subsets directions"],
    *,
    preconditioner: Float[Tensor, "subsets directions"],
    tolerance: float,
) -> Float[Tensor, "subsets directions"]:
    """Solve one positive semi-definite system per row, all rows at once, from zero.

    Stops when every row's residual is `tolerance` of its right-hand side; a direction without
    curvature (the intercept of an empty subset) gets no step.
    """
    tiny = torch.finfo(right.dtype).tiny
    solution = torch.zeros_like(right)
    residual = right.clone()
    goal = tolerance * right.norm(dim=1)
    direction = preconditioner * residual
    alignment = (residual * direction).sum(dim=1, keepdim=True)
    for _ in range(2 * right.shape[1] + 10):
        image = product(direction)
        curvature = (direction * image).sum(dim=1, keepdim=True)
        length = torch.where(curvature > tiny, alignment / curvature.clamp(min=tiny), 0)
        solution.addcmul_(length, direction)
        residual.addcmul_(length, image, value=-1)
        if bool((residual.norm(dim=1) <= goal).all()):
            break
        scaled = preconditioner * residual
        previous, alignment = alignment, (residual * scaled).sum(dim=1, keepdim=True)
        direction = scaled.addcmul_(alignment / previous.clamp(min=tiny), direction)
    return solution
