"""One level of a Newton path: what answers near a share need, formed once over the pool."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from modelpred.predictor.newton_inverse import Inverse, blockwise
from modelpred.predictor.newton_leverage import leverage_corrected, row_factors
from modelpred.targets import Points
from modelpred.targets.compiled.slopes import SlopeChanges, slope_changes
from modelpred.targets.linear import Linear

ROWS = 1024  # whose directions are formed at once
NODES = 4  # of the path's optima through which a curve is drawn


@final
@dataclass(frozen=True)
class Level:
    """The tensors of one share s. Moves are in coordinates of the basis, float32 [directions].

    The product type is that of the design. g_i are the rows' gradients, f_i (x) a_i those of their
    corrected factors.
    """

    share: float
    theta: Tensor  # [parameters], float32
    inverse: Inverse
    penalty: Tensor  # move: -H^-1 grad penalty
    total: Tensor  # move: -H^-1 sum_i g_i
    whole: Tensor  # d_0 of all rows with weight one
    shift: float  # about s; products sum over weights less this, so that the sums are short
    shifted: Tensor  # d_0 of all rows with this weight
    offset: Tensor  # from d_0 to the move that it stands for
    bent: Tensor  # share of the data in the Hessian's diagonal
    near: Tensor  # [NODES, parameters]: moves to the optima of the levels around
    near_logs: Tensor  # [NODES]: their log shares over s
    directions: Tensor | None  # [points, directions], product type: H^-1 (f_i (x) a_i)
    factors: Tensor  # [outputs, points], product type: f_i
    scores: Tensor  # [outputs, points], product type
    slopes: Tensor  # [outputs, points], product type: f_i over C and the sample weight
    changes: SlopeChanges | None  # the compiled change of these


def formed_level(
    model: Linear,
    points: Points,
    design: Tensor,
    *,
    share: float,
    theta: Tensor,
    inverse: Inverse,
    basis: Tensor,
    near: tuple[Tensor, Tensor],
    keeps_directions: bool,
) -> Level:
    """The level of a share.

    Args:
        model: the family.
        points: the pool, float64.
        design: [points, size] in the type of products.
        share: s.
        theta: its optimum, float64.
        inverse: of the Hessian there.
        basis: [blocks, size, directions], float32.
        near: log shares over s [NODES] and optima [NODES, parameters] of the levels around.
        keeps_directions: whether there is memory for the rows' directions.
    """
    nothing = points.features.new_zeros(1, len(design))
    penalty = model.gradient(theta[None], nothing, points)[0]
    plain = row_factors(model, theta, points)
    factors, absent = leverage_corrected(model, theta, points, inverse, share=share, basis=basis)
    exact = model.design(points.features)
    sums = [(each @ exact).flatten() for each in (plain, factors, absent)]
    shift = round(share * 8) / 8  # weights less this are exact in half precision
    ends = (penalty, sums[0], penalty + sums[1], penalty + shift * sums[1], sums[2] - penalty)
    moves = -inverse(torch.stack(ends).to(torch.float32))
    scores = theta.unflatten(0, (len(plain), -1)).to(design) @ design.T
    beyond = (factors - plain) / (model.C * points.factors)
    half = design.dtype == torch.bfloat16
    return Level(
        share=share,
        theta=theta.to(torch.float32),
        inverse=inverse,
        penalty=moves[0],
        total=moves[1],
        whole=moves[2],
        shift=shift,
        shifted=moves[3],
        offset=moves[4],
        bent=_bent(model, inverse, basis, points.features.shape[1]),
        near=blockwise((near[1] - theta).to(torch.float32), basis),
        near_logs=near[0].to(basis),
        directions=_directions(factors, exact, inverse, design.dtype) if keeps_directions else None,
        factors=factors.to(design),
        scores=scores,
        slopes=(model.score_slopes(scores[:, None].clone(), points.labels)[:, 0] + beyond).to(
            design
        ),
        changes=slope_changes(model.name, scores.float(), model.C, beyond=beyond.float())
        if half
        else None,
    )


def _directions(factors: Tensor, design: Tensor, inverse: Inverse, dtype: torch.dtype) -> Tensor:
    """H^-1 of every row's factors times the row, [points, directions]."""
    size = inverse.matrices.shape[0] * inverse.matrices.shape[2]
    found = torch.empty(len(design), size, dtype=dtype, device=design.device)
    for rows in torch.arange(len(found), device=found.device).split(ROWS):
        gradients = (factors.T[rows, :, None] * design[rows, None, :]).flatten(1)
        found[rows] = inverse(gradients.to(torch.float32)).to(dtype)
    return found


def _bent(model: Linear, inverse: Inverse, basis: Tensor, features: int) -> Tensor:
    """1 - penalty / Hessian, for the diagonals of both in the basis."""
    blocks, size, _ = basis.shape
    penalty = basis.new_ones(blocks, size).unflatten(1, (-1, features + 1))
    penalty[..., -1] = model.intercept_penalty
    own = torch.einsum("kij,ki->kj", basis.square(), penalty.flatten(1))
    lengths = inverse.lengths
    if lengths is None:
        lengths = torch.einsum("kij,kij->kj", basis, inverse.matrices).flatten()
    return (1 - own.flatten() * lengths).clamp(0, 1)
