"""From a prediction towards the exact answer, and how far it can still be.

*Refinement.* For a convex family `refine = k` takes k Newton steps from the prediction, each solved
by eight iterations of preconditioned conjugate gradients (the anchors' preconditioner); a fraction
of a step is a fraction of those iterations. So one knob goes from the pure prediction to retraining.
Gradients are double precision, the conjugate gradients that correct them single: errors of the
latter are corrected by the next step. A step that raises the objective is halved, up to five times,
and dropped if that does not help.

A family of fixed training steps is refined by training on: ten of its own steps for each k, from the
prediction and from rest.

*Certificate.* If F is m-strongly convex then ||theta_hat - theta|| <= ||grad F(theta_hat)|| / m. The
coefficients are regularised with m = 1 but a free intercept is not, so it is profiled out:
f(c) = min_b F(c, b) is 1-strongly convex too, with gradient grad_c F at the best b. With e that
gradient's norm, the coefficients are within e. The best intercept moves by at most a weighted mean
of the rows times the coefficients' change: within e times the largest row norm of the subset for
logistic, times the norm of the mean row for ridge. No retraining is needed, and nothing is estimated.
"""

import math

import torch
from torch import Tensor

from modelpred.predictor.anchors import BoundAnchors
from modelpred.targets import Points, TargetModel, target_model, train_targets
from modelpred.targets.model import class_counts

ITERATIONS = 8  # of conjugate gradients that make one Newton step
HALVINGS = 5
TRAINING_STEPS = 10  # that make one step of refinement for a family of fixed steps
INTERCEPT_ITERATIONS = 60


def refine_parameters(
    model: TargetModel,
    points: Points,
    anchors: BoundAnchors,
    *,
    weights: Tensor,
    start: Tensor,
    steps: float | int,
) -> Tensor:
    """Parameters [subsets, parameters] after `steps` Newton steps from `start` (float64).

    Args:
        model: the family; see the module's text for one that is not convex.
        points: the pool, float64.
        anchors: whose preconditioner is used, bound to the pool in single precision.
        weights: [subsets, points], float64.
        start: [subsets, parameters], float64.
        steps: Newton steps; 0.5 is half of one step's iterations.
    """
    if not model.convex:
        return _trained_on(model, points, weights, start, steps=round(TRAINING_STEPS * steps))
    left = round(steps * ITERATIONS)
    single = points.to(dtype=torch.float32)
    light = weights.to(torch.float32)
    parameters = start
    while left > 0:
        direction = _newton_direction(
            model,
            single,
            anchors,
            weights=light,
            parameters=parameters,
            gradients=model.gradient(parameters, weights, points),
            iterations=min(left, ITERATIONS),
        )
        parameters = _guarded(model, single, light, parameters, direction)
        left -= ITERATIONS
    return parameters


def _trained_on(
    model: TargetModel, points: Points, weights: Tensor, start: Tensor, *, steps: int
) -> Tensor:
    if not steps:
        return start
    shorter = target_model(model.name, **{**model.settings, "steps": steps})
    return train_targets(
        shorter, points.features, points.labels, weights, start=start, classes=points.classes
    ).parameters


def _newton_direction(
    model: TargetModel,
    points: Points,
    anchors: BoundAnchors,
    *,
    weights: Tensor,
    parameters: Tensor,
    gradients: Tensor,
    iterations: int,
) -> Tensor:
    """About -H^-1 g by preconditioned conjugate gradients in single precision, from zero."""
    precondition = anchors.preconditioner(weights)
    theta = parameters.to(weights.dtype)
    # Gradients near the optimum are far below one: scaled so that single precision keeps them.
    scale = gradients.abs().amax(1, keepdim=True).clamp(min=1e-300)
    residual = (-gradients / scale).to(weights.dtype)
    solution = torch.zeros_like(residual)
    toward = precondition(residual)
    direction = toward
    match = (residual * toward).sum(1, keepdim=True)
    for _ in range(iterations):
        turned = model.hessian_vector_product(theta, weights, points, direction)
        curvature = (direction * turned).sum(1, keepdim=True)
        length = torch.where(curvature > 0, match / curvature.clamp(min=1e-30), 0.0)
        solution = solution + length * direction
        residual = residual - length * turned
        toward = precondition(residual)
        again = (residual * toward).sum(1, keepdim=True)
        direction = toward + again / match.clamp(min=1e-30) * direction
        match = again
    return solution.to(gradients.dtype) * scale


def _guarded(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor, direction: Tensor
) -> Tensor:
    """Parameters plus direction, shortened where that would raise the objective."""
    before = model.objective(parameters.to(weights.dtype), weights, points)
    slack = 1e-4 * (1 + before.abs())  # single precision cannot tell less than this apart
    result = parameters + direction
    rows = torch.arange(len(parameters), device=parameters.device)
    for halving in range(HALVINGS + 1):
        after = model.objective(result[rows].to(weights.dtype), weights[rows], points)
        rows = rows[~(after <= before[rows] + slack[rows])]
        if not len(rows):
            return result
        share = 0.0 if halving == HALVINGS else 0.5 ** (halving + 1)
        result = result.index_copy(0, rows, parameters[rows] + share * direction[rows])
    return result


def error_bound(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor
) -> Tensor | None:
    """Upper bound [subsets] on ||theta_hat - theta||; None where no bound is known.

    Known for svm, ridge and logistic. It bounds the distance to the optimum of the subset's
    objective; rows without an optimum (degenerate subsets) get infinity.
    """
    if model.name == "svm":
        return _rounded_up(model.gradient(parameters, weights, points).norm(dim=1), parameters)
    if model.name in {"logistic", "ridge"}:
        return _profiled_bound(model, points, weights, parameters)
    return None


def _profiled_bound(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor
) -> Tensor:
    """sqrt(e^2 + (|b_hat - b(c_hat)| + reach e)^2), see the module's text."""
    best = _best_intercept(model, points, weights, parameters)
    profiled = torch.cat([parameters[:, :-1], best[:, None]], 1)
    gradient = model.gradient(profiled, weights, points)
    error = gradient[:, :-1].norm(dim=1)
    if model.name == "ridge":
        total = weights.sum(1, keepdim=True).clamp(min=1e-300)
        reach = (weights @ points.features / total).norm(dim=1)
    else:
        norms = points.features.norm(dim=1)
        reach = torch.where(weights > 0, norms, 0.0).amax(1)
    intercept = (parameters[:, -1] - best).abs() + reach * error
    bound = torch.sqrt(error.square() + intercept.square())
    bound = _rounded_up(bound, parameters)
    counts = class_counts(weights, points)
    return torch.where(model.without_optimum(counts), math.inf, bound)


def _rounded_up(bound: Tensor, parameters: Tensor) -> Tensor:
    """The bound with what double precision may have lost on the way, gradients included."""
    return bound * (1 + 1e-9) + 1e-9 * (1 + parameters.norm(dim=1))


def _best_intercept(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor
) -> Tensor:
    """argmin_b F(c_hat, b) by bisection on its increasing derivative, [subsets]."""

    def slope(intercept: Tensor) -> Tensor:
        moved = torch.cat([parameters[:, :-1], intercept[:, None]], 1)
        return model.gradient(moved, weights, points)[:, -1]

    low, high = parameters[:, -1] - 1, parameters[:, -1] + 1
    for _ in range(INTERCEPT_ITERATIONS):
        too_high, too_low = slope(low) > 0, slope(high) < 0
        if not bool((too_high | too_low).any()):
            break
        width = high - low
        low = torch.where(too_high, low - 2 * width, low)
        high = torch.where(too_low, high + 2 * width, high)
    for _ in range(INTERCEPT_ITERATIONS):
        middle = (low + high) / 2
        above = slope(middle) > 0
        high = torch.where(above, middle, high)
        low = torch.where(above, low, middle)
    return (low + high) / 2
