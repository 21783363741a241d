"""Newton directions of every row along the size path: anchors of linear families, exact to first order.

The optimum for all rows with one weight s ("share") is theta_s, and H_s the Hessian there. To first
order in the weights, the optimum of a subset w of about that share is

    theta_s + d_0(w),   d_0(w) = -H_s^-1 (grad penalty(theta_s) + sum_i w_i g_i),   g_i = grad_i(theta_s)

So with the rows' directions H_s^-1 g_i at hand an anchor is one matrix product. The same inverse turns
the gradient at any other parameters theta_s + d into a step, in a form whose terms are all of the
size of d, so that half precision (bfloat16) is precise enough:

    H_s^-1 grad F_w(theta_s + d) = -d_0(w) + H_s^-1 (P d + C sum_i w_i (r_i(theta_s + d) - r_i(theta_s)) a_i)

with P the penalty, a_i = [x_i, 1], and r_i the derivative of the loss in the scores.

Levels of s are a geometric ladder. A level's Hessian and directions are formed when a subset first
needs them, and kept. All moves d are in coordinates of one orthonormal basis, the eigenvectors of a
Hessian in the middle of the path, in which the corrections of newton_network.py are diagonal.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, final

import torch
from torch import Tensor

from modelpred.predictor.anchors import (
    GROWN,
    JOINT_BLOCK,
    LEVELS,
    Anchors,
    BoundAnchors,
    ByLevel,
    Preconditioner,
    by_level,
    level_edges,
    nearest_levels,
    optima_by_share,
)
from modelpred.targets import Points, TargetModel
from modelpred.targets.compiled.slopes import SlopeChanges, slope_changes
from modelpred.targets.linear import Linear

WIDE_LEVELS = 12  # levels below a share of 1 for families with many parameters
LARGEST_INVERSE = 4096  # parameters up to which Hessians are inverted
DIRECTION_BYTES = 4 * 2**30  # of the directions of all levels


def has_newton_path(model: TargetModel, points: Points) -> bool:
    """Whether the family is linear, not quadratic, and small enough to invert its Hessian and keep directions."""
    if not isinstance(model, Linear) or model.quadratic:
        return False
    size = model.parameter_count(points.features.shape[1], points.classes)
    levels = _level_count(size) + len(GROWN)
    width = product_dtype(points.features.device.type).itemsize
    directions = levels * len(points.features) * size * width
    return size <= LARGEST_INVERSE and directions <= DIRECTION_BYTES


@cache
def product_dtype(device: str) -> torch.dtype:
    """The type in which large products are fastest there: bfloat16 where the hardware has it."""
    if device != "cpu":
        return torch.bfloat16
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if supported is not None and supported() else torch.float32


@final
@dataclass(frozen=True)
class NewtonPath(Anchors):
    """Trained parameters at every level of total weight, and the basis of their moves."""

    shares: Tensor  # [levels], ascending
    parameters: Tensor  # [levels, parameters]
    basis: Tensor  # [parameters, parameters], float32, columns are directions
    pool: int

    kind: ClassVar[str] = "newton_path"

    def __post_init__(self) -> None:
        levels, parameters = self.parameters.shape
        if self.shares.shape != (levels,) or self.basis.shape != (parameters, parameters):
            raise ValueError("the tensors of the Newton path do not fit each other")

    @property
    def parameter_count(self) -> int:
        """Number of the family's parameters."""
        return self.parameters.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Shares, parameters, basis."""
        return {"shares": self.shares, "parameters": self.parameters, "basis": self.basis}

    def bind(self, model: TargetModel, points: Points, dtype: torch.dtype) -> "BoundNewtonPath":
        """The path on these points, the pool that it was made for. Levels are formed when needed.

        Raises:
            ValueError: another family, or another number of points.
        """
        del dtype  # moves are float32, products what the device is fastest at
        if not isinstance(model, Linear) or len(points.features) != self.pool:
            raise ValueError("the Newton path was made for another family or other points")
        return BoundNewtonPath(self, model, points)


@final
@dataclass(frozen=True)
class Level:
    """The tensors of one share s; the product type is that of `product_dtype`."""

    share: float
    theta: Tensor  # [parameters], float32
    start: Tensor  # [parameters], float32, basis coordinates: -H^-1 grad penalty
    directions: Tensor  # [points, parameters], product type, basis coordinates: H^-1 g_i
    inverse: Tensor  # [parameters, parameters], float32: gradients -> steps in basis coordinates
    narrow: Tensor  # the same in the product type
    scores: Tensor  # [outputs, points], product type
    slopes: Tensor  # [outputs, points], product type: loss derivatives at those scores
    changes: SlopeChanges | None  # the compiled change of these


@final
class BoundNewtonPath(BoundAnchors):
    """A Newton path over given points."""

    def __init__(self, path: NewtonPath, model: Linear, points: Points) -> None:
        self.path, self.model, self.points = path, model, points
        features = points.features
        self.dtype = product_dtype(features.device.type)
        design = model.design(features)
        self.design = design.to(self.dtype)  # [points, features + 1]
        self.turned_design = self.design.T.contiguous()
        self.outputs = model.outputs(points.classes)
        self.basis = path.basis.to(features.device)
        self.narrow_basis = self.basis.to(self.dtype)
        penalty = features.new_ones(self.outputs, design.shape[1], dtype=torch.float32)
        penalty[:, -1] = model.intercept_penalty
        self.penalty = penalty.flatten()
        self.longest = float(path.parameters.norm(dim=1).amax())
        self.edges = level_edges(path.shares.to(features.device))
        self._levels: dict[int, Level] = {}

    def by_level(self, weights: Tensor) -> ByLevel:
        """Group the subsets by the level nearest in log share; weights as `narrowed` gives them."""
        totals = weights.detach().sum(1, dtype=torch.float32).to(self.edges)
        levels = nearest_levels(totals, self.path.pool, self.edges)
        return by_level(narrowed(weights, self.dtype), levels)

    def level(self, index: int) -> Level:
        """The level of that index, formed at its first use."""
        if index not in self._levels:
            self._levels[index] = self._formed(index)
        return self._levels[index]

    def _formed(self, index: int) -> Level:
        model, points = self.model, self.points
        theta = self.path.parameters[index].to(points.features)
        share = points.features.new_full((len(points.features),), float(self.path.shares[index]))
        inverse = inverse_hessian(model, theta, share, points) @ self.basis.to(points.features)
        nothing = points.features.new_zeros(1, len(points.features))
        penalty = model.gradient(theta[None], nothing, points)[0]
        small = inverse.to(torch.float32)
        gradients = model.point_gradients(theta, points).to(torch.float32)
        wide = theta.unflatten(0, (self.outputs, -1)).to(self.dtype)
        scores = wide @ self.turned_design
        return Level(
            share=float(self.path.shares[index]),
            theta=theta.to(torch.float32),
            start=-(penalty @ inverse).to(torch.float32),
            directions=(gradients @ small).to(self.dtype),
            inverse=small,
            narrow=small.to(self.dtype),
            scores=scores,
            slopes=model.score_slopes(scores[:, None].clone(), points.labels)[:, 0],
            changes=slope_changes(model.name, scores.float(), model.C)
            if self.dtype == torch.bfloat16
            else None,
        )

    def starts(self, level: Level, weights: Tensor) -> Tensor:
        """d_0 [subsets, parameters] in basis coordinates, float32, for subsets of that level."""
        narrow = weights.to(self.dtype)
        moved = (narrow @ level.directions).to(torch.float32)
        if weights.dtype != self.dtype:  # weights that the product type cannot hold
            rest = (weights - narrow).to(self.dtype)
            moved = moved + (rest @ level.directions).to(torch.float32)
        return level.start - moved

    def gradient_step(self, level: Level, weights: Tensor, start: Tensor, move: Tensor) -> Tensor:
        """H_s^-1 grad F_w(theta_s + move), in basis coordinates, float32.

        Args:
            level: of these subsets.
            weights: [subsets, points].
            start: d_0 [subsets, parameters], basis coordinates.
            move: [subsets, parameters], basis coordinates.
        """
        subsets, outputs = len(weights), self.outputs
        plain = (move.to(self.dtype) @ self.narrow_basis.T).unflatten(1, (outputs, -1))
        scores = (plain.transpose(0, 1).flatten(0, 1) @ self.turned_design).unflatten(
            0, (outputs, subsets)
        )
        slopes = self._slope_changes(
            level, scores, self.points.weighted(weights.to(self.dtype)).to(self.dtype)
        )
        data = (slopes.flatten(0, 1) @ self.design).unflatten(0, (outputs, subsets))
        gradient = data.transpose(0, 1).flatten(1) + self.penalty.to(self.dtype) * plain.flatten(1)
        return (gradient @ level.narrow).to(torch.float32) - start

    def _slope_changes(self, level: Level, moved: Tensor, weights: Tensor) -> Tensor:
        """C w_i (r_i(theta_s + d) - r_i(theta_s)), [outputs, subsets, points]; may overwrite `moved`."""
        score_slopes, labels = self.model.score_slopes, self.points.labels
        if torch.is_grad_enabled():
            slopes = score_slopes(moved + level.scores[:, None], labels)
            return (slopes - level.slopes[:, None]) * (self.model.C * weights)
        if level.changes is not None:
            return level.changes(moved, weights)
        slopes = score_slopes(moved.add_(level.scores[:, None]), labels, out=moved)
        return slopes.sub_(level.slopes[:, None]).mul_(self.model.C * weights)

    def parameters(self, level: Level, move: Tensor) -> Tensor:
        """theta_s + move [subsets, parameters], float32, of a move in basis coordinates."""
        return level.theta + (move.to(self.dtype) @ self.narrow_basis.T).to(torch.float32)

    def __call__(self, weights: Tensor) -> Tensor:
        """theta_s + d_0, the answer to first order in the weights."""
        groups = self.by_level(weights)
        return groups.joined(
            [
                self.parameters(level, self.starts(level, part))
                for level, part in zip(map(self.level, groups.levels), groups.weights, strict=True)
            ]
        )

    def preconditioner(self, weights: Tensor) -> Preconditioner:
        """H_s^-1 g for each subset's level."""
        groups = self.by_level(weights)
        sizes = [len(part) for part in groups.weights]
        inverses = [self.level(index).inverse for index in groups.levels]

        def steps(gradients: Tensor) -> Tensor:
            ordered = gradients if groups.order is None else gradients[groups.order]
            parts = [
                part @ inverse for inverse, part in zip(inverses, ordered.split(sizes), strict=True)
            ]
            return groups.joined(parts) @ self.basis.T

        return steps


def narrowed(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights in the type of products if it holds all of them exactly, else in float32."""
    narrow = weights.to(dtype)
    # Counts up to 255 are exact in bfloat16, too.
    exact = weights.dtype == torch.uint8 or torch.equal(narrow.to(weights.dtype), weights)
    return narrow if exact else weights.to(torch.float32)


def inverse_hessian(model: Linear, theta: Tensor, weights: Tensor, points: Points) -> Tensor:
    """Inverse [parameters, parameters] of the Hessian; zero along directions that change no model."""
    hessian = model.hessian(theta, weights, points)
    free = _free_direction(model, points)
    if free is None:
        return torch.linalg.inv(hessian)
    # Equal shifts of all intercepts have no curvature: they get some for the inversion, then none.
    largest = float(hessian.diagonal().max())
    inverse = torch.linalg.inv(hessian + largest * torch.outer(free, free))
    return inverse - torch.outer(free, free) / largest


def _free_direction(model: Linear, points: Points) -> Tensor | None:
    """The unit direction [parameters] in which parameters may move without changing a probability."""
    if not model.shift_free or model.intercept_penalty:
        return None
    outputs, size = model.outputs(points.classes), points.features.shape[1] + 1
    direction = points.features.new_zeros(outputs, size)
    direction[:, -1] = outputs**-0.5
    return direction.flatten()


def fit_newton_path(model: Linear, points: Points, *, tolerance: float = 1e-6) -> NewtonPath:
    """The Newton path of a pool: a few dozen trainings and one eigendecomposition."""
    levels = _level_count(model.parameter_count(points.features.shape[1], points.classes))
    shares, weights, path = optima_by_share(model, points, levels=levels, tolerance=tolerance)
    middle = model.hessian(path[levels // 2], weights[levels // 2], points)
    basis = torch.linalg.eigh(middle).eigenvectors.to(torch.float32).contiguous()
    return NewtonPath(shares, path, basis, pool=len(points.features))


def _level_count(parameters: int) -> int:
    """Levels up to a share of 1."""
    return LEVELS if parameters <= JOINT_BLOCK else WIDE_LEVELS
