"""What fitting minimises: parameter error, and the paper's two regularisers.

    parameter   how far the prediction is from the trained parameters
    optimality  (local)  the prediction should be a stationary point of the subset's own objective:
                ||grad F_w(theta_hat)||
    utility     (global) the prediction should have the training loss that the trained model has:
                |L_w(theta_hat) - L_w(theta)|, L_w the weighted mean loss over the subset

All are means over a batch of subsets and written against the TargetModel seam, so they are right
for every family. The published regularisers measure plain gradients. With a preconditioner P the
local one measures ||P grad F_w(theta_hat)|| / ||theta_hat||: the length of the step that is left,
in units of parameter error. It needs no trained target, so it also holds on subsets that were never
trained, which is what keeps a large network from over-fitting a small bank.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from modelpred.targets import Points, TargetModel

TINY = 1e-12  # under square roots, so that their slope stays finite at zero


def relative_error_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean of ||theta_hat - theta|| / ||theta||: the very error that is reported."""
    scale = true.norm(dim=1).clamp(min=1e-6)
    return (_length(predicted - true) / scale).mean()


def squared_error_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean squared difference over subsets and parameters (the published one)."""
    return (predicted - true).square().mean()


def optimality_loss(
    model: TargetModel,
    predicted: Tensor,
    weights: Tensor,
    points: Points,
    *,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean ||grad F_w(theta_hat)||, or of the relative step that is left if preconditioned."""
    gradients = model.gradient(predicted, weights, points)
    if precondition is None:
        return _length(gradients).mean()
    scale = predicted.detach().norm(dim=1).clamp(min=1e-6)
    return (_length(precondition(gradients)) / scale).mean()


def utility_loss(
    model: TargetModel, predicted: Tensor, true: Tensor, weights: Tensor, points: Points
) -> Tensor:
    """Mean |L_w(theta_hat) - L_w(theta)|, one number a subset before the mean."""
    difference = mean_training_loss(model, predicted, weights, points) - mean_training_loss(
        model, true, weights, points
    )
    return difference.abs().mean()


def mean_training_loss(
    model: TargetModel, parameters: Tensor, weights: Tensor, points: Points
) -> Tensor:
    """L_w(theta) = sum_i w_i loss_i / sum_i w_i, [subsets]."""
    losses = model.losses(model.scores(parameters, points.features), points.labels)
    return (weights * losses).sum(1) / weights.sum(1).clamp(min=TINY)


def _length(rows: Tensor) -> Tensor:
    return torch.sqrt(rows.square().sum(1) + TINY)
