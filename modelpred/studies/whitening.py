"""Coordinates B of a linear family in which the Hessian H of its objective is the identity: B' H B = I.

A row with design a_i has the coordinates A_i B with A_i = I (x) a_i', one row for each output.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.targets.linear import Linear
from modelpred.targets.points import Points


def whitening(
    model: Linear,
    theta: Float[Tensor, " parameters"],
    weights: Float[Tensor, " points"],
    points: Points,
) -> Float[Tensor, "parameters parameters"]:
    """B, from the Hessian at theta of the weighted points and the penalty."""
    hessian = model.hessian(theta, weights, points)
    if model.shift_free and not model.intercept_penalty:
        size = points.features.shape[1] + 1  # equal shifts of the intercepts change nothing
        hessian[size - 1 :: size, size - 1 :: size] += hessian.diagonal().mean()
    lower = torch.linalg.cholesky(hessian)
    eye = torch.eye(len(lower)).to(lower)
    return torch.linalg.solve_triangular(lower, eye, upper=False).T


def across(
    design: Float[Tensor, "rows columns"],
    basis: Float[Tensor, "parameters parameters"],
    *,
    outputs: int,
) -> Float[Tensor, "rows outputs parameters"]:
    """A_i B of each row."""
    return torch.stack([design @ part for part in basis.unflatten(0, (outputs, -1))], dim=1)


def second_derivatives(
    model: Linear,
    scores: Float[Tensor, "outputs one rows"],
    labels: Tensor,
    scale: Float[Tensor, "one rows"],
) -> Float[Tensor, "rows outputs outputs"]:
    """Second derivatives of each row's loss in its scores, times `scale`."""
    curvature = model.score_curvature(scores, labels, scale)
    outputs = len(scores)
    found = scores.new_empty(scores.shape[2], outputs, outputs)
    for output in range(outputs):
        unit = torch.zeros_like(scores)
        unit[output] = 1
        found[:, :, output] = model.curvature_product(curvature, unit)[:, 0].T
    return found


def loss_curvature(
    model: Linear,
    theta: Float[Tensor, " parameters"],
    weights: Float[Tensor, " points"],
    points: Points,
    *,
    basis: Float[Tensor, "parameters parameters"],
) -> Float[Tensor, "parameters parameters"]:
    """The Hessian of weighted losses at theta in the coordinates B, without the penalty."""
    hessian = model.hessian(theta, weights, points) - model.hessian(theta, 0 * weights, points)
    return basis.T @ hessian @ basis
