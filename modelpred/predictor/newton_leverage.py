"""What a row adds to the gradient, corrected by its own leverage: second-order terms of a row with itself.

To first order in the weights, the optimum near the level s moves by -H_s^-1 sum_i d_i g_i with
d_i = w_i - s. But row i also changes the Hessian, by d_i H_i. For one row alone the system with the
changed Hessian is solved exactly: with g_i = f_i (x) a_i, H_i = B_i (x) a_i a_i' and G_i the [outputs,
outputs] matrix of a_i' (H_s^-1)_kl a_i, its move is the first-order one with

    (I + d_i B_i G_i)^-1 d_i f_i   in place of   d_i f_i,

the update of leave-one-out formulas. For a weight of 0 or 1 this is one of two vectors, so that sums over
rows stay linear in the weights.
"""

from typing import NamedTuple, final

import torch
from torch import Tensor

from modelpred.predictor.newton_inverse import Inverse
from modelpred.targets import Points
from modelpred.targets.linear import Linear, row_space_of

LEAST = 0.1  # of 1 + d_i B_i G_i where G_i is only known by its diagonal


@final
class Corrected(NamedTuple):
    """Factors [outputs, points] of the rows, for their weights in a subset."""

    change: Tensor  # per unit of weight
    absent: Tensor  # at a weight of zero


def leverage_corrected(
    model: Linear,
    theta: Tensor,
    points: Points,
    inverse: Inverse,
    *,
    share: float,
    basis: Tensor,
) -> Corrected:
    """The factors at theta, the optimum of all rows with one weight.

    Args:
        model: the family.
        theta: [parameters], float64.
        points: the pool, float64.
        inverse: H_s^-1 at theta.
        share: s.
        basis: [blocks, size, directions], float32, whose coordinates the inverse gives.
    """
    factors, changes = row_factors(model, theta, points), (1 - share, -share)
    if inverse.lengths is not None:
        own = _diagonal_leverages(model, theta, points, inverse)
        present, absent = (by * factors / (1 + by * own).clamp(min=LEAST) for by in changes)
    else:
        steps, directions, own_space = inverse.matrices[0], basis[0], (theta, points)
        if (space := row_space_of(model, points)) is not None:
            steps, directions = space.reduced_columns(steps), space.reduced_columns(directions)
            own_space = (space.reduced(theta), space.points)
        own = _leverages(model, *own_space, steps @ directions.T)
        eye = torch.eye(len(factors)).to(own)
        present, absent = (
            torch.linalg.solve(eye + by * own, by * factors.T[:, :, None])[..., 0].T
            for by in changes
        )
    return Corrected(present - absent, absent)


def row_factors(model: Linear, theta: Tensor, points: Points) -> Tensor:
    """f_i of every row [outputs, points]: C times its sample weight and its loss's slopes."""
    scores = _scores(model, theta, points)
    return model.C * points.weighted(model.score_slopes(scores, points.labels)[:, 0])


def _scores(model: Linear, theta: Tensor, points: Points) -> Tensor:
    """[outputs, 1, points]."""
    outputs = model.outputs(points.classes)
    return (theta.unflatten(0, (outputs, -1)) @ model.design(points.features).T)[:, None]


def _leverages(model: Linear, theta: Tensor, points: Points, inverse: Tensor) -> Tensor:
    """B_i G_i of every row, [points, outputs, outputs], for H^-1 [parameters, parameters]."""
    scores = _scores(model, theta, points)
    outputs = len(scores)
    design = model.design(points.features).to(torch.float32)
    blocks = inverse.unflatten(0, (outputs, -1)).unflatten(2, (outputs, -1))
    curvature = model.score_curvature(scores, points.labels, model.C * points.factors[None])
    reach = theta.new_empty(len(design), outputs, outputs)
    bends = torch.empty_like(reach)
    for output in range(outputs):
        unit = torch.zeros_like(scores)
        unit[output] = 1
        bends[:, :, output] = model.curvature_product(curvature, unit)[:, 0].T
        for other in range(outputs):
            reach[:, output, other] = ((design @ blocks[output, :, other]) * design).sum(1)
    return bends @ reach


def _diagonal_leverages(model: Linear, theta: Tensor, points: Points, inverse: Inverse) -> Tensor:
    """B_i G_i of every row and output by their diagonals [outputs, points], for an inverse of blocks."""
    assert inverse.lengths is not None
    design = model.design(points.features).to(inverse.narrow)
    curvatures = model.output_curvatures(theta, torch.ones_like(points.features[:, 0]), points)
    found = torch.empty_like(curvatures)
    lengths = inverse.lengths.unflatten(0, (len(found), -1))
    for output, vectors in enumerate(inverse.narrow):
        squares = (design @ vectors).to(torch.float32).square()
        found[output] = curvatures[output] * (squares @ lengths[output])
    return found
