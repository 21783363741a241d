"""Where a prediction starts: what is linear in the weights, and cheap.

*Size path*, for a convex family. The optimum moves smoothly with the total weight, so it is trained
once on the whole pool at a few dozen weight levels t ("shares"): theta*(t) = argmin F_{t 1}. A
subset w of share s = sum_i w_i / N starts at the nearest level and takes one Newton step with that
level's Hessian H_t, which needs only the pooled gradients of that level:

    anchor(w) = theta*(t) - H_t^-1 (grad penalty + sum_i w_i grad_i(theta*(t)))

A step is linear in the weights, so that H_t^-1 grad_i is formed once for every point and level and
an anchor is one product with those of its level. A step is cut to the length of the largest
theta*(t); levels go on to t = 2 for pools that grow.
H_t is kept as its diagonal in one shared orthonormal basis (one block an output for families with
many parameters), so the same basis preconditions a gradient at any parameters:

    precondition(g) = Q diag(Q' H_t Q)^-1 Q' g  ~  the step from there to the optimum

With more features than points Q has a column for each direction of the space of the rows only
(row_space.py), and what lies outside of that, where the Hessian is 1, is added.

The anchor of influence functions is the single level t = 1.

A family trained by fixed steps has no optimum to move; its anchors are in coarse_training.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from modelpred.targets import Points, TargetModel, train_targets
from modelpred.targets.linear import Linear, row_space_of

LEVELS = 24
GROWN = (1.25, 1.6, 2.0)  # shares above one: points may join the pool that the path was trained on
SMALLEST_SHARE = 0.02
UNDETERMINED = 1e-12  # share of the largest curvature below which a direction has none
JOINT_BLOCK = 400  # up to so many parameters the Hessian is kept as one block

Preconditioner = Callable[[Tensor], Tensor]


class BoundAnchors(ABC):
    """Anchors over given points, in one precision: what every batch of subsets needs."""

    @abstractmethod
    def __call__(self, weights: Tensor) -> Tensor:
        """Where the predictions of these subsets start, [subsets, parameters]."""

    @abstractmethod
    def preconditioner(self, weights: Tensor) -> Preconditioner:
        """A function from gradients to about the steps to the optimum, both [subsets, parameters]."""


class Anchors(ABC):
    """Fitted anchors, free of points: tensors that a file can keep."""

    kind: ClassVar[str]
    pool: int  # number of points that a share of 1 stands for

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """Number of the family's parameters."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps; the constructor takes them back by these names, with `pool`."""

    @abstractmethod
    def bind(self, model: TargetModel, points: Points, dtype: torch.dtype) -> BoundAnchors:
        """The anchors over these points (float64), to be used in precision `dtype`."""


@final
@dataclass(frozen=True)
class SizePath(Anchors):
    """Trained parameters at every level of total weight, and their Hessians' diagonals."""

    shares: Tensor  # [levels], ascending
    parameters: Tensor  # [levels, parameters]
    basis: Tensor  # [blocks, size, directions]
    curvatures: Tensor  # [levels, blocks, directions], diagonal of the Hessian in the basis
    pool: int

    kind: ClassVar[str] = "size_path"

    def __post_init__(self) -> None:
        levels, parameters = self.parameters.shape
        blocks, size, directions = self.basis.shape
        fits = (
            self.shares.shape == (levels,)
            and size >= directions
            and blocks * size == parameters
            and self.curvatures.shape == (levels, blocks, directions)
        )
        if not fits:
            raise ValueError("the tensors of the size path do not fit each other")

    @property
    def parameter_count(self) -> int:
        """Number of the family's parameters."""
        return self.parameters.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Shares, parameters, basis, curvatures."""
        names = ("shares", "parameters", "basis", "curvatures")
        return {name: getattr(self, name) for name in names}

    def bind(self, model: TargetModel, points: Points, dtype: torch.dtype) -> "BoundSizePath":
        """Steps of every point at every level, formed in double precision."""
        device = points.features.device
        path, basis = self.parameters.to(device), self.basis.to(device)
        nothing = path.new_zeros(len(path), len(points.features))
        lengths = self.curvatures.to(device).reciprocal()[:, :, None]
        steps = [
            _stepped(basis, length, model.point_gradients(theta, points)).to(dtype)
            for theta, length in zip(path, lengths, strict=True)
        ]
        penalties = _stepped(
            basis, lengths[:, :, 0].transpose(0, 1), model.gradient(path, nothing, points)
        )
        ours = {name: tensor.to(device, dtype) for name, tensor in self.tensors().items()}
        return BoundSizePath(
            SizePath(**ours, pool=self.pool), torch.stack(steps), penalties.to(dtype)
        )


@final
@dataclass(frozen=True)
class BoundSizePath(BoundAnchors):
    """A size path whose points' steps are at hand."""

    path: SizePath
    point_steps: Tensor  # [levels, points, parameters], H_t^-1 grad_i(theta*(t))
    penalty_steps: Tensor  # [levels, parameters]
    edges: Tensor = field(init=False, repr=False)  # [levels - 1], log shares between levels
    longest: Tensor = field(init=False, repr=False)  # [], of the parameters on the path
    lengths: Tensor = field(init=False, repr=False)  # [levels, blocks, directions], 1 / curvatures

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", level_edges(self.path.shares))
        object.__setattr__(self, "longest", self.path.parameters.norm(dim=1).amax())
        object.__setattr__(self, "lengths", self.path.curvatures.reciprocal())

    def levels(self, weights: Tensor) -> Tensor:
        """Index [subsets] of the level nearest in log share to each subset."""
        return nearest_levels(weights.sum(1), self.path.pool, self.edges)

    def __call__(self, weights: Tensor) -> Tensor:
        """theta*(t) - H_t^-1 gradient, one matrix product a level that occurs."""
        levels = self.levels(weights)
        groups = by_level(weights, levels)
        step = groups.joined(
            [
                torch.addmm(self.penalty_steps[level], rows, self.point_steps[level])
                for level, rows in zip(groups.levels, groups.weights, strict=True)
            ]
        )
        # No subset of the pool calls for a longer step. Points that the path never saw do, and are
        # overshot by it: cut, their errors fall by a third (spam), and the others stay as they are.
        length = step.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return (
            self.path.parameters.index_select(0, levels)
            - (self.longest / length).clamp(max=1) * step
        )

    def origins(self, weights: Tensor) -> Tensor:
        """theta*(t) of each subset's level, [subsets, parameters]."""
        return self.path.parameters.index_select(0, self.levels(weights))

    def preconditioner(self, weights: Tensor) -> Preconditioner:
        """Q diag(Q' H_t Q)^-1 Q' g for each subset's level t."""
        basis = self.path.basis
        # Looked up once: a prediction applies it many times.
        lengths = self.lengths.index_select(0, self.levels(weights)).transpose(0, 1)
        return lambda gradients: _stepped(basis, lengths, gradients)


def _stepped(basis: Tensor, lengths: Tensor, gradients: Tensor) -> Tensor:
    """Gradients [rows, parameters] in the basis times lengths [blocks, rows or 1, directions], and back."""
    if basis.shape[2] < basis.shape[1]:  # along all others the Hessian is 1
        return gradients + _along(basis, lengths - 1, gradients)
    return _along(basis, lengths, gradients)


def _along(basis: Tensor, lengths: Tensor, gradients: Tensor) -> Tensor:
    blocks, size, _ = basis.shape
    if blocks == 1:
        return ((gradients @ basis[0]) * lengths[0]) @ basis[0].T
    shaped = gradients.unflatten(1, (blocks, size)).transpose(0, 1)
    turned = torch.bmm(shaped, basis) * lengths
    return torch.bmm(turned, basis.mT).transpose(0, 1).flatten(1)


def optima_by_share(
    model: TargetModel, points: Points, *, levels: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares [levels], weights [levels, points] and optima [levels, parameters] of a whole pool.

    `levels` shares lie up to 1, and those of GROWN beyond.
    """
    smallest = max(SMALLEST_SHARE, min(0.1, 3 / len(points.features)))
    exponents = torch.linspace(0, 1, levels, dtype=torch.float64)
    shares = torch.cat([smallest ** (1 - exponents), exponents.new_tensor(GROWN)])
    shares = shares.to(points.features)
    weights = shares[:, None].expand(-1, len(points.features)).contiguous()
    trained = train_targets(
        model,
        points.features,
        points.labels,
        weights,
        tolerance=tolerance,
        classes=points.classes,
        sample_weight=points.sample_weight,
    )
    return shares, weights, trained.parameters


def level_edges(shares: Tensor) -> Tensor:
    """Log shares [levels - 1] halfway between neighbouring levels."""
    logs = shares.log()
    return (logs[1:] + logs[:-1]) / 2


def nearest_levels(totals: Tensor, pool: int, edges: Tensor) -> Tensor:
    """Index [subsets] of the level nearest in log share to subsets of these total weights."""
    return torch.bucketize((totals.clamp(min=1e-9) / pool).log(), edges)


@final
@dataclass(frozen=True)
class ByLevel:
    """Subsets in the order of their levels."""

    levels: list[int]  # those that occur
    weights: tuple[Tensor, ...]  # of each level's subsets
    order: Tensor | None  # [subsets], their rows; None where all are of one level

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Return parts in this order as one tensor in the order of the subsets."""
        together = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
        if self.order is None:
            return together
        return torch.empty_like(together).index_copy(0, self.order, together)


def by_level(weights: Tensor, levels: Tensor) -> ByLevel:
    """Group the weights [subsets, points] by level [subsets]."""
    counts = torch.bincount(levels).tolist()
    occurring = [level for level, count in enumerate(counts) if count]
    order = None if len(occurring) == 1 else levels.argsort(stable=True)
    ordered = weights.contiguous() if order is None else weights.index_select(0, order)
    parts = ordered.split([counts[level] for level in occurring])
    return ByLevel(occurring, tuple(parts), order)


def fit_size_path(model: TargetModel, points: Points, *, tolerance: float = 1e-6) -> SizePath:
    """The size path of a pool, for a convex family; a handful of trainings."""
    shares, weights, path = optima_by_share(model, points, levels=LEVELS, tolerance=tolerance)
    space = row_space_of(model, points)
    pool, optima = (points, path) if space is None else (space.points, space.reduced(path))
    size = optima.shape[1]
    blocks = 1 if size <= JOINT_BLOCK else size // (pool.features.shape[1] + 1)
    middle = _blocks(model, optima[LEVELS // 2], weights[LEVELS // 2], pool, blocks)
    basis = torch.linalg.eigh(middle).eigenvectors.contiguous()  # as a file gives it back
    diagonals: list[Tensor] = []
    for parameters, level in zip(optima, weights, strict=True):
        hessian = _blocks(model, parameters, level, pool, blocks)
        diagonals.append(torch.einsum("kpi,kpq,kqi->ki", basis, hessian, basis))
    curvatures = torch.stack(diagonals)
    # Directions that change nothing (equal shifts of all softmax intercepts) have curvature zero
    # and gradient zero, but in single precision rounding: the largest curvature keeps it small.
    largest = float(curvatures.max())
    curvatures = torch.where(curvatures < UNDETERMINED * largest, largest, curvatures)
    curvatures = curvatures.clamp(min=1e-6 * largest)
    basis = basis if space is None else space.lifted_columns(basis)
    return SizePath(shares, path, basis, curvatures, pool=len(points.features))


def _blocks(
    model: TargetModel, parameters: Tensor, weights: Tensor, points: Points, blocks: int
) -> Tensor:
    """Diagonal blocks [blocks, size, size] of the Hessian."""
    if blocks > 1 and isinstance(model, Linear):
        return model.output_hessians(parameters, weights, points)
    hessian = model.hessian(parameters, weights, points)
    size = hessian.shape[0] // blocks
    shaped = hessian.reshape(blocks, size, blocks, size)
    return torch.stack([shaped[block, :, block] for block in range(blocks)])
