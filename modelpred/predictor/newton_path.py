"""Newton directions of every row along the size path: anchors of linear families, exact to first order.

The optimum for all rows with one weight s ("share") is theta_s, and H_s the Hessian there. To first
order in the weights, the optimum of a subset w of about that share is

    theta_s + d_0(w),   d_0(w) = -H_s^-1 (grad penalty(theta_s) + sum_i w_i g_i),   g_i = grad_i(theta_s)

Two corrections cost no sum over rows. A row's gradient is corrected by its own leverage
(newton_leverage.py). And the answer for all rows with the subset's own share is known: it is read from a
cubic through the neighbouring optima. The rest of d_0 is divided, in each direction of the basis, by how
much larger the Hessian at that share is (`BoundNewtonPath.moves`).

The same inverse turns the gradient at any other parameters theta_s + d into a step, in a form whose
terms are all of the size of d, so that half precision (bfloat16) is precise enough:

    H_s^-1 grad F_w(theta_s + d) = -d_0(w) + H_s^-1 (P d + sum_i w_i (C r_i(theta_s + d) - f_i) a_i)

with P the penalty, a_i = [x_i, 1], r_i the derivative of the loss in the scores, and g_i = f_i (x) a_i.

d_0 is one matrix product in two ways. The rows' directions H_s^-1 g_i are kept where they fit into
memory. Otherwise the factors f_i are kept; then the sum over rows is a product of w_i f_i with the design, and H_s^-1 is applied to the sum. Where nearly all weights are one, only the
rows of other weights are summed, and the sum over all rows is added.

Levels of s are a geometric ladder. A level's Hessian and directions are formed when a subset first
needs them, and kept. All moves d are in coordinates of one orthonormal basis, the eigenvectors of a
Hessian of the path (newton_inverse.py), in which the corrections of newton_network.py are diagonal.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, final

import torch
from torch import Tensor

from modelpred.predictor.acceleration import WINDOW
from modelpred.predictor.anchors import (
    GROWN,
    Anchors,
    BoundAnchors,
    ByLevel,
    Preconditioner,
    by_level,
    level_edges,
    nearest_levels,
    optima_by_share,
)
from modelpred.predictor.newton_inverse import (
    Inverse,
    block_count,
    blockwise,
    decomposed,
    inverse_hessian,
    invertible,
    output_penalty,
    rescaled_lengths,
)
from modelpred.predictor.newton_level import NODES, Level, PoolProducts, formed_level
from modelpred.predictor.rare_columns import rare_columns
from modelpred.targets import Points, TargetModel
from modelpred.targets.compiled.answers import compiled_rows, totals_of
from modelpred.targets.linear import Linear, row_space_of

LEVELS = 8  # up to a share of 1; with three times as many, errors were the same
DIRECTION_BYTES = 4 * 2**30  # of the directions of all levels; beyond, their factors are kept
BLOCK_SHARE = 0.5  # about the share at which blocks are decomposed
SUBSETS = 128  # of one level whose scores are formed at once, at most; more of SMALL_BYTES together
SMALL_BYTES = 2**23
COMPILED_SUBSETS = 512  # the same where a kernel forms them block by block
SCORE_BYTES = 2**25  # of those scores: they stay in the last cache
BYTES = (torch.uint8, torch.bool)


def has_newton_path(model: TargetModel, points: Points) -> bool:
    """Whether the family is linear, not quadratic, and small enough to decompose its Hessian."""
    return isinstance(model, Linear) and not model.quadratic and invertible(model, points)


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
    basis: Tensor  # [blocks, size, directions], float32
    eigenvalues: Tensor  # [blocks, directions], float32, of the level `middle`
    pool: int
    _bound: "list[BoundNewtonPath]" = field(
        init=False, repr=False, compare=False, default_factory=list["BoundNewtonPath"]
    )

    kind: ClassVar[str] = "newton_path"

    def __post_init__(self) -> None:
        levels, parameters = self.parameters.shape
        blocks, size, directions = self.basis.shape
        fits = size >= directions and self.eigenvalues.shape == (blocks, directions)
        if self.shares.shape != (levels,) or blocks * size != parameters or not fits:
            raise ValueError("the tensors of the Newton path do not fit each other")

    @property
    def parameter_count(self) -> int:
        """Number of the family's parameters."""
        return self.parameters.shape[1]

    @property
    def direction_count(self) -> int:
        """Number of coordinates of a move in the basis."""
        return self.eigenvalues.numel()

    @property
    def middle(self) -> int:
        """The level whose Hessian's eigenvectors are the basis."""
        return _middle(self.shares, len(self.basis))

    def tensors(self) -> dict[str, Tensor]:
        """Shares, parameters, basis, eigenvalues."""
        names = ("shares", "parameters", "basis", "eigenvalues")
        return {name: getattr(self, name) for name in names}

    def bind(self, model: TargetModel, points: Points, dtype: torch.dtype) -> "BoundNewtonPath":
        """The path on these points, the pool that it was made for. Levels are formed when needed.

        All predictors with this path share the levels: the last binding is kept for the same points.

        Raises:
            ValueError: another family, or another number of points.
        """
        del dtype  # moves are float32, products what the device is fastest at
        if not isinstance(model, Linear) or len(points.features) != self.pool:
            raise ValueError("the Newton path was made for another family or other points")
        if not (self._bound and self._bound[0].serves(model, points)):
            self._bound[:] = [BoundNewtonPath(self, model, points)]
        return self._bound[0]


@final
class BoundNewtonPath(BoundAnchors):
    """A Newton path over given points."""

    def __init__(self, path: NewtonPath, model: Linear, points: Points) -> None:
        self.path, self.model, self.points = path, model, points
        self.space = row_space_of(model, points)
        features = points.features
        self.dtype = product_dtype(features.device.type)
        design = model.design(features)
        self.outputs = model.outputs(points.classes)
        self.basis = path.basis.to(features.device)
        self.narrow_basis = self.basis.to(self.dtype)
        self.back = {each.dtype: each.mT for each in (self.basis, self.narrow_basis)}
        penalty = features.new_ones(self.outputs, design.shape[1], dtype=torch.float32)
        penalty[:, -1] = model.intercept_penalty
        self.penalty = penalty.flatten()
        self.longest = float(path.parameters.norm(dim=1).amax())
        self.edges = level_edges(path.shares.to(features.device))
        size = len(path.shares) * len(features) * path.direction_count
        self.rows = None
        if self.outputs == 1 and size * torch.float32.itemsize <= DIRECTION_BYTES:
            self.rows = compiled_rows(model.name, design, model.C * points.factors, points.labels)
        narrow = design.to(self.dtype)
        self.pool = PoolProducts(
            model,
            points,
            narrow,
            narrow.T.contiguous(),
            self.rows,
            size * self.dtype.itemsize <= DIRECTION_BYTES,
        )
        self.rare = rare_columns(model, points)
        self._levels: dict[int, Level] = {}

    def serves(self, model: TargetModel, points: Points) -> bool:
        """Whether it was made for this family on the very tensors of these points."""
        own = self.points
        return (
            self.model == model
            and points.features is own.features
            and points.labels is own.labels
            and points.sample_weight is own.sample_weight
        )

    @property
    def at_once(self) -> int:
        """Subsets of one level that are answered at once."""
        moves = 2 * WINDOW * torch.float32.itemsize * self.path.direction_count
        if self.rows is not None:  # whose scores are never all formed
            return max(1, min(COMPILED_SUBSETS, SCORE_BYTES // moves))
        each = self.outputs * len(self.points.features) * self.dtype.itemsize
        most = max(SUBSETS, SMALL_BYTES // each)
        return max(1, min(most, COMPILED_SUBSETS, SCORE_BYTES // max(each, moves)))

    def narrowed(self, weights: Tensor) -> Tensor:
        """The weights in the type in which sums over the rows take them."""
        if self.rows is not None and not weights.requires_grad:
            counts = weights.to(torch.uint8)
            if weights.dtype in BYTES or torch.equal(counts.to(weights.dtype), weights):
                return counts.contiguous()
        return narrowed(weights, self.dtype)

    def totals(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the weights and that of their squares, each float32 [subsets]."""
        if weights.dtype == torch.uint8:
            found = totals_of(weights, self.points.labels, self.points.classes)
            return found.weights.to(torch.float32), found.squares.to(torch.float32)
        wide = weights.to(torch.float32)
        return wide.sum(1), (wide * wide).sum(1)

    def by_level(self, weights: Tensor) -> ByLevel:
        """Group the subsets by the level nearest in log share; weights as `narrowed` gives them."""
        narrow = self.narrowed(weights)
        totals, _ = self.totals(narrow.detach())
        levels = nearest_levels(totals.to(self.edges), self.path.pool, self.edges)
        return by_level(narrow, levels)

    def level(self, index: int) -> Level:
        """The level of that index, formed at its first use."""
        if index not in self._levels:
            self._levels[index] = self._formed(index)
        return self._levels[index]

    def _formed(self, index: int) -> Level:
        first = max(0, min(index - 1, len(self.path.shares) - NODES))
        near = slice(first, first + NODES)
        logs = (self.path.shares[near] / self.path.shares[index]).log()
        return formed_level(
            self.pool,
            share=float(self.path.shares[index]),
            theta=self._optimum(index),
            inverse=self._inverse(index),
            basis=self.basis,
            near=(logs, self.path.parameters[near].to(self.points.features)),
        )

    def _optimum(self, index: int) -> Tensor:
        return self.path.parameters[index].to(self.points.features)

    def _inverse(self, index: int) -> Inverse:
        model, points, path = self.model, self.points, self.path
        if len(self.basis) == 1:
            share = points.features.new_full((len(points.features),), float(path.shares[index]))
            theta, basis = self._optimum(index), self.basis[0].to(points.features)
            if self.space is None:
                steps = inverse_hessian(model, theta, share, points) @ basis
            else:
                theta, basis = self.space.reduced(theta), self.space.reduced_columns(basis)
                steps = inverse_hessian(model, theta, share, self.space.points) @ basis
                steps = self.space.lifted_columns(steps)
            matrices = steps.to(torch.float32)[None]
            return Inverse(matrices, matrices.to(self.dtype), None)
        own, middle = self._curvatures(index), self._curvatures(path.middle)
        lengths = rescaled_lengths(
            self.basis, path.eigenvalues.to(self.basis), output_penalty(model, points), own / middle
        )
        return Inverse(self.basis, self.narrow_basis, lengths)

    def _curvatures(self, index: int) -> Tensor:
        """Sum [outputs] of each output's curvature over all rows with the weight of a level."""
        share = self.points.features.new_full(
            (len(self.points.features),), float(self.path.shares[index])
        )
        return self.model.output_curvatures(self._optimum(index), share, self.points).sum(1)

    def starts(self, level: Level, weights: Tensor) -> Tensor:
        """d_0 [subsets, parameters] in basis coordinates, float32, for subsets of that level."""
        return level.products(weights).start(weights)

    def log_shares(self, level: Level, totals: Tensor) -> Tensor:
        """Log of each subset's share over that of its level, [subsets, 1], within the path.

        Args:
            level: of these subsets.
            totals: [subsets], sums of their weights.
        """
        shares = totals[:, None] / self.path.pool
        shares = shares.clamp(float(self.path.shares[0]), float(self.path.shares[-1]))
        return (shares / level.share).log()

    def rescaled(self, level: Level, steps: Tensor, logs: Tensor) -> Tensor:
        """Steps of H_s as those of the Hessian at the subset's own share, whose data term is larger."""
        return steps / (1 + level.bent * logs.expm1())

    def moves(self, level: Level, start: Tensor, logs: Tensor) -> Tensor:
        """d_0 with what is known of the subset's own share [subsets, parameters], basis coordinates.

        The move of all rows with that share as weight is read from the path. The rest is rescaled.
        """
        linear = level.penalty + level.share * logs.exp() * level.total
        start = start + level.offset
        path = _interpolation(level.near_logs, logs) @ level.near
        return path + self.rescaled(level, start - linear, logs)

    def gradient_step(self, level: Level, weights: Tensor, start: Tensor, move: Tensor) -> Tensor:
        """H_s^-1 grad F_w(theta_s + move), in basis coordinates, float32.

        Args:
            level: of these subsets.
            weights: [subsets, points].
            start: d_0 [subsets, parameters], basis coordinates.
            move: [subsets, parameters], basis coordinates.
        """
        products = level.products(weights)
        plain = blockwise(move.to(products.dtype), self.back[products.dtype])
        data = products.gradient(weights, plain)
        return level.inverse(data + self.penalty.to(products.dtype) * plain) - start

    def parameters(self, level: Level, move: Tensor) -> Tensor:
        """theta_s + move [subsets, parameters], float32, of a move in basis coordinates."""
        dtype = torch.float32 if self.rows is not None else self.dtype
        return level.theta + blockwise(move.to(dtype), self.back[dtype]).to(torch.float32)

    def rare_change(self, level: Level, move: Tensor, weights: Tensor) -> Tensor:
        """The change that brings each rare column's coefficient to its optimum, after a move.

        [subsets, parameters], basis coordinates.

        Args:
            level: of these subsets.
            move: [subsets, parameters], basis coordinates.
            weights: [subsets, rows] of the rows with a rare value (rare_columns.py).
        """
        assert self.rare is not None
        there = level.theta + blockwise(move, self.back[torch.float32])
        return blockwise(self.rare.changes(there, weights), self.basis)

    def __call__(self, weights: Tensor) -> Tensor:
        """theta_s + d_0, the answer to first order in the weights."""
        groups = self.by_level(weights)
        found: list[Tensor] = []
        for level, part in zip(map(self.level, groups.levels), groups.weights, strict=True):
            moves = self.moves(
                level, self.starts(level, part), self.log_shares(level, self.totals(part)[0])
            )
            found.append(self.parameters(level, moves))
        return groups.joined(found)

    def preconditioner(self, weights: Tensor) -> Preconditioner:
        """H_s^-1 g for each subset's level."""
        groups = self.by_level(weights)
        sizes = [len(part) for part in groups.weights]
        inverses = [self.level(index).inverse for index in groups.levels]

        def steps(gradients: Tensor) -> Tensor:
            ordered = gradients if groups.order is None else gradients[groups.order]
            parts = [
                inverse(part) for inverse, part in zip(inverses, ordered.split(sizes), strict=True)
            ]
            return blockwise(groups.joined(parts), self.basis.mT)

        return steps


def _interpolation(nodes: Tensor, places: Tensor) -> Tensor:
    """Weights [subsets, nodes] of Lagrange's polynomial through the nodes, at places [subsets, 1]."""
    count = len(nodes)
    others = ~torch.eye(count, dtype=torch.bool, device=nodes.device)
    gaps = torch.where(others, nodes[:, None] - nodes, 1)
    terms = torch.where(others, (places[:, :, None] - nodes) / gaps, 1)
    return terms.prod(2)


def narrowed(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights in the type of products if it holds all of them exactly, else in float32."""
    narrow = weights.to(dtype)
    # Counts up to 255 are exact in bfloat16, too.
    exact = weights.dtype == torch.uint8 or torch.equal(narrow.to(weights.dtype), weights)
    return narrow if exact else weights.to(torch.float32)


def fit_newton_path(model: Linear, points: Points, *, tolerance: float = 1e-6) -> NewtonPath:
    """The Newton path of a pool: a few dozen trainings and one eigendecomposition."""
    shares, weights, path = optima_by_share(model, points, levels=LEVELS, tolerance=tolerance)
    middle = _middle(shares, block_count(model, points))
    basis, eigenvalues = decomposed(model, path[middle], weights[middle], points)
    return NewtonPath(shares, path, basis, eigenvalues, pool=len(points.features))


def _middle(shares: Tensor, blocks: int) -> int:
    """The level whose Hessian is decomposed: of blocks, which serve all levels, one of a usual share."""
    if blocks == 1:
        return (len(shares) - len(GROWN)) // 2
    return int((shares.log() - math.log(BLOCK_SHARE)).abs().argmin())
