"""One level of a Newton path: what answers near a share need, formed once over the pool."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, final

import torch
from torch import Tensor

from modelpred.predictor.newton_inverse import Inverse, blockwise
from modelpred.predictor.newton_leverage import leverage_corrected, row_factors
from modelpred.predictor.newton_products import CompiledProducts, Products, TorchProducts
from modelpred.targets import Points
from modelpred.targets.compiled.answers import CompiledRows
from modelpred.targets.compiled.slopes import slope_changes
from modelpred.targets.linear import Linear

ROWS = 1024  # whose directions are formed at once
NODES = 4  # of the path's optima through which a curve is drawn


@final
@dataclass(frozen=True)
class Level:
    """The tensors of one share s. Moves are in coordinates of the basis, float32 [directions].

    g_i are the rows' gradients, f_i (x) a_i those of their corrected factors.
    """

    share: float
    theta: Tensor  # [parameters], float32
    inverse: Inverse
    penalty: Tensor  # move: -H^-1 grad penalty
    total: Tensor  # move: -H^-1 sum_i g_i
    offset: Tensor  # from d_0 to the move that it stands for
    curvatures: Tensor  # the Hessian's diagonal in the basis
    bent: Tensor  # share of the data in it
    near: Tensor  # [NODES, parameters]: moves to the optima of the levels around
    near_logs: Tensor  # [NODES]: their log shares over s
    compiled: CompiledProducts | None
    form_products: Callable[[], TorchProducts]

    def products(self, weights: Tensor) -> Products:
        """What sums over the rows for weights of that type."""
        if weights.dtype != torch.uint8:
            return self.by_torch
        assert self.compiled is not None
        return self.compiled

    @cached_property
    def by_torch(self) -> TorchProducts:
        """The products of torch, formed when they are first needed."""
        return self.form_products()


@final
@dataclass(frozen=True)
class PoolProducts:
    """What the products of all levels share."""

    model: Linear
    points: Points  # float64
    design: Tensor  # [points, size], product type
    turned_design: Tensor  # [size, points], product type
    rows: CompiledRows | None
    keeps_directions: bool  # whether there is memory for the rows' directions


@final
class _AtAnchor(NamedTuple):
    """What products near an anchor are formed from, float64."""

    theta: Tensor  # [parameters]
    plain: Tensor  # [outputs, points]: the rows' factors there
    factors: Tensor  # the same, corrected by leverage
    inverse: Inverse


def formed_level(
    pool: PoolProducts,
    *,
    share: float,
    theta: Tensor,
    inverse: Inverse,
    basis: Tensor,
    near: tuple[Tensor, Tensor],
) -> Level:
    """The level of a share.

    Args:
        pool: the family and the rows.
        share: s.
        theta: its optimum, float64.
        inverse: of the Hessian there.
        basis: [blocks, size, directions], float32.
        near: log shares over s [NODES] and optima [NODES, parameters] of the levels around.
    """
    model, points = pool.model, pool.points
    nothing = points.features.new_zeros(1, len(points.features))
    penalty = model.gradient(theta[None], nothing, points)[0]
    plain = row_factors(model, theta, points)
    factors, absent = leverage_corrected(model, theta, points, inverse, share=share, basis=basis)
    exact = model.design(points.features)
    sums = [(each @ exact).flatten() for each in (plain, factors, absent)]
    shift = round(share * 8) / 8  # weights less this are exact in half precision
    ends = (penalty, sums[0], penalty + sums[1], penalty + shift * sums[1], sums[2] - penalty)
    moves = -inverse(torch.stack(ends).to(torch.float32))
    lengths = _lengths(inverse, basis)
    own = _AtAnchor(theta, plain, factors, inverse)
    return Level(
        share=share,
        theta=theta.to(torch.float32),
        inverse=inverse,
        penalty=moves[0],
        total=moves[1],
        offset=moves[4],
        curvatures=1 / lengths,
        bent=_bent(model, lengths, basis, points.features.shape[1]),
        near=blockwise((near[1] - theta).to(torch.float32), basis),
        near_logs=near[0].to(basis),
        compiled=_compiled(pool, own, penalty=moves[0]),
        form_products=partial(_by_torch, pool, own, whole=(moves[2], shift, moves[3])),
    )


def _compiled(pool: PoolProducts, own: _AtAnchor, *, penalty: Tensor) -> CompiledProducts | None:
    """The sums in C; None where the kernels are missing or there is no memory for directions."""
    if pool.rows is None:
        return None
    model, points = pool.model, pool.points
    design = model.design(points.features)
    scores = design @ own.theta
    beyond = (own.factors - own.plain)[0] / (model.C * points.factors)
    anchor = pool.rows.anchored(
        scores=scores,
        slopes=model.score_slopes(scores[None, None], points.labels)[0, 0] + beyond,
        directions=_directions(own, design, torch.float32),
    )
    return CompiledProducts(penalty, anchor)


def _by_torch(
    pool: PoolProducts,
    own: _AtAnchor,
    *,
    whole: tuple[Tensor, float, Tensor],
) -> TorchProducts:
    """The products of torch; `whole` is d_0 for weights of one, a weight, and d_0 for weights of that."""
    model, points, design = pool.model, pool.points, pool.design
    scores = own.theta.unflatten(0, (len(own.plain), -1)).to(design) @ pool.turned_design
    beyond = (own.factors - own.plain) / (model.C * points.factors)
    slopes = model.score_slopes(scores[:, None].clone(), points.labels)[:, 0] + beyond
    directions = None
    if pool.keeps_directions:
        directions = _directions(own, model.design(points.features), design.dtype)
    changes = None
    if design.dtype == torch.bfloat16:
        changes = slope_changes(model.name, scores.float(), model.C, beyond=beyond.float())
    return TorchProducts(
        model=model,
        points=points,
        design=design,
        turned_design=pool.turned_design,
        inverse=own.inverse,
        whole=whole[0],
        shift=whole[1],
        shifted=whole[2],
        directions=directions,
        factors=own.factors.to(design),
        scores=scores,
        slopes=slopes.to(design),
        changes=changes,
    )


def _directions(own: _AtAnchor, design: Tensor, dtype: torch.dtype) -> Tensor:
    """H^-1 of every row's factors times the row, [points, directions]."""
    size = own.inverse.matrices.shape[0] * own.inverse.matrices.shape[2]
    found = torch.empty(len(design), size, dtype=dtype, device=design.device)
    for rows in torch.arange(len(found), device=found.device).split(ROWS):
        gradients = (own.factors.T[rows, :, None] * design[rows, None, :]).flatten(1)
        found[rows] = own.inverse(gradients.to(torch.float32)).to(dtype)
    return found


def _lengths(inverse: Inverse, basis: Tensor) -> Tensor:
    """The diagonal [directions] of the inverse Hessian in the basis."""
    if inverse.lengths is not None:
        return inverse.lengths
    return torch.einsum("kij,kij->kj", basis, inverse.matrices).flatten()


def _bent(model: Linear, lengths: Tensor, basis: Tensor, features: int) -> Tensor:
    """1 - penalty / Hessian, for the diagonals of both in the basis."""
    blocks, size, _ = basis.shape
    penalty = basis.new_ones(blocks, size).unflatten(1, (-1, features + 1))
    penalty[..., -1] = model.intercept_penalty
    own = torch.einsum("kij,ki->kj", basis.square(), penalty.flatten(1))
    return (1 - own.flatten() * lengths).clamp(0, 1)
