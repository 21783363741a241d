"""From a prediction towards the exact answer, and how far it can still be.

*Refinement.* For a convex family `refine = k` takes k Newton steps from the prediction, each solved
by eight iterations of preconditioned conjugate gradients (the anchors' preconditioner); a fraction
of a step is a fraction of those iterations. So one knob goes from the pure prediction to
retraining. Gradients are double precision, the solutions that correct them single: errors of the
latter are corrected by the next step. Where the loss has kinks, the curvature changes on the way: a
step's best length is sought, and a small Hessian is inverted at the third step and every third
from there on; it preconditions the two between, for which four iterations do. Elsewhere a step that
raises the objective is halved, up to five times, and dropped if that does not help.

A family of fixed training steps is refined by ten more gradients for each k: by a longer short
training, or training on from the prediction, see coarse_training.py.

*Certificate.* Each convex family bounds the distance to a subset's optimum by its gradient
(`ConvexFamily.distance_bound`). That is loose by what the curvature exceeds the regulariser's. It
gets tight by walking ahead: for any theta',

    ||theta_hat - theta|| <= ||theta_hat - theta'|| + bound(theta'),

and with theta' some Newton steps ahead of the prediction the last term is small beside the first. So
k steps buy a bound that is as loose as before on an error that is k steps smaller. The smallest of
the bounds met on the way is returned; each holds by itself.

A margin of a row x is a Lipschitz function of the parameters, so the same bound is one for margins:

    |margin(theta_hat) - margin(theta)| <= |margin(theta_hat) - margin(theta')| + L ||[x, 1]|| bound(theta')

with L = 1 for one score and the root of two for several.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modelpred.predictor.anchors import BoundAnchors, Preconditioner
from modelpred.predictor.coarse_training import BoundCoarseTraining
from modelpred.targets import Points, TargetModel
from modelpred.targets.matrices import applied
from modelpred.targets.model import ConvexFamily

ITERATIONS = 8  # of conjugate gradients that make one Newton step
HALVINGS = 5
TRAINING_STEPS = 10  # whose gradients make one step of refinement for a family of fixed steps
INEXACT_STEPS = 2  # before Hessians are inverted: until then their error is not what limits
REUSED = 3  # steps that an inverse Hessian serves: margins that become violated make it worse
CERTIFICATE_STEPS = 1  # Newton steps that tighten a certificate


def refine_parameters(
    model: TargetModel,
    points: Points,
    anchors: BoundAnchors,
    *,
    weights: Tensor,
    start: Callable[[], Tensor],
    steps: float | int,
) -> Tensor:
    """Parameters [subsets, parameters] after `steps` Newton steps from where `start` says (float64).

    Args:
        model: the family; see the module's text for one that is not convex.
        points: the pool, float64.
        anchors: whose preconditioner or short training is used, bound to the pool in single
            precision.
        weights: [subsets, points], float64.
        start: gives [subsets, parameters], float64; a longer short training does not ask for it.
        steps: Newton steps; 0.5 is half of one step's iterations.
    """
    if isinstance(anchors, BoundCoarseTraining):
        gradients = round(TRAINING_STEPS * steps)
        if not gradients:
            return start()
        return anchors.refined(points, weights, start=start, gradients=gradients)
    iterations = round(steps * ITERATIONS)
    optimum = model.optimum
    assert optimum is not None, "size paths are of families with an optimum"
    return _newton_steps(
        optimum, points, anchors, weights=weights, start=start(), iterations=iterations
    )


def _newton_steps(
    model: ConvexFamily,
    points: Points,
    anchors: BoundAnchors,
    *,
    weights: Tensor,
    start: Tensor,
    iterations: int,
) -> Tensor:
    """Where so many iterations of conjugate gradients lead, eight of them a guarded Newton step."""
    single = points.to(dtype=torch.float32)
    light = weights.to(torch.float32)
    systems = _Systems(model, single, anchors, light)
    gradient = model.gradient_function(weights, points)
    parameters = start
    for done in range(0, iterations, ITERATIONS):
        direction = systems.direction(
            parameters, gradient(parameters), min(iterations - done, ITERATIONS)
        )
        with torch.no_grad():  # where a length is best it moves the objective in second order only
            lengths = model.best_lengths(
                parameters.to(single.features), light, single, direction.to(single.features)
            )
        parameters = (
            _guarded(model, single, light, parameters, direction)
            if lengths is None
            else parameters + lengths[:, None] * direction
        )
    return parameters


class _Systems:
    """Newton systems of the same subsets at one point after another, in single precision."""

    def __init__(
        self, model: ConvexFamily, points: Points, anchors: BoundAnchors, weights: Tensor
    ) -> None:
        self.model, self.points, self.weights = model, points, weights
        self.rough = anchors.preconditioner(weights)
        self.inverse: Tensor | None = None
        self.steps = 0

    def direction(self, parameters: Tensor, gradients: Tensor, iterations: int) -> Tensor:
        """About -H^-1 g."""
        theta = parameters.to(self.weights.dtype)
        # Gradients near the optimum are far below one: scaled so that single precision keeps them.
        scale = gradients.abs().amax(1, keepdim=True).clamp(min=1e-300)
        right = (-gradients / scale).to(self.weights.dtype)
        return self._solved(theta, right, iterations).to(gradients.dtype) * scale

    def _solved(self, theta: Tensor, right: Tensor, iterations: int) -> Tensor:
        exact = self.steps - INEXACT_STEPS
        self.steps += 1
        if exact >= 0 and exact % REUSED == 0:
            with torch.no_grad():  # H^-1 moves with the weights, but what it is applied to vanishes
                self.inverse = self.model.inverse_hessians(theta, self.weights, self.points)
            if self.inverse is not None:
                solution = applied(self.inverse, right)
                if bool(torch.isfinite(solution).all()):
                    return solution
                self.inverse = None
        inverse = self.inverse
        return _conjugate_gradients(
            self.model.hessian_product(theta, self.weights, self.points),
            right,
            precondition=self.rough if inverse is None else partial(applied, inverse),
            iterations=iterations if inverse is None else -(-iterations // 2),
        )


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    *,
    precondition: Preconditioner,
    iterations: int,
) -> Tensor:
    """About H^-1 right, from zero."""
    residual, solution = right, torch.zeros_like(right)
    toward = precondition(residual)
    direction = toward
    match = (residual * toward).sum(1, keepdim=True)
    for left in reversed(range(iterations)):
        turned = product(direction)
        curvature = (direction * turned).sum(1, keepdim=True)
        length = torch.where(curvature > 0, match / curvature.clamp(min=1e-30), 0.0)
        solution = solution + length * direction
        if not left:
            break
        residual = residual - length * turned
        toward = precondition(residual)
        again = (residual * toward).sum(1, keepdim=True)
        direction = toward + again / match.clamp(min=1e-30) * direction
        match = again
    return solution


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
    model: TargetModel,
    points: Points,
    anchors: BoundAnchors,
    *,
    weights: Tensor,
    parameters: Tensor,
    steps: int,
    rows: Tensor | None = None,
) -> Tensor | None:
    """Upper bound [subsets] on ||theta_hat - theta||; None for a family without an optimum.

    It bounds the distance to the optimum of the subset's objective; rows without an optimum
    (degenerate subsets) get infinity. With `rows` it bounds, for each of them, how far any of its
    margins is from that at the optimum, [subsets, rows].

    Args:
        model: the family.
        points: the pool, float64.
        anchors: as for `refine_parameters`.
        weights: [subsets, points], float64.
        parameters: [subsets, parameters], float64.
        steps: Newton steps taken to tighten it.
        rows: features [rows, features], float64.
    """
    if (optimum := model.optimum) is None:
        return None
    bound: Tensor | None = None
    ahead = parameters
    for step in range(steps + 1):
        if step:
            ahead = _newton_steps(
                optimum, points, anchors, weights=weights, start=ahead, iterations=ITERATIONS
            )
        left = optimum.distance_bound(ahead, weights, points)
        if left is None:
            return None
        if rows is None:
            way = (model.representative(ahead, points.features.shape[1]) - parameters).norm(dim=1)
            here = way + left
        else:
            here = _margin_way(model, parameters, ahead, rows, points.classes)
            here = here + left[:, None] * _margin_reach(model, rows, points.classes)
        bound = here if bound is None else torch.minimum(bound, here)
    return bound


def _margin_way(
    model: TargetModel, first: Tensor, second: Tensor, rows: Tensor, classes: int
) -> Tensor:
    """How far any margin of each row differs between two models, [subsets, rows]."""
    scores = model.scores(first, rows), model.scores(second, rows)
    way = torch.zeros_like(scores[0][..., 0])
    # A single score has one margin up to its sign.
    for label in range(classes if scores[0].shape[2] > 1 else 1):
        labels = torch.full((len(rows),), label, device=rows.device)
        margins = [model.margins(each, labels) for each in scores]
        way = torch.maximum(way, (margins[0] - margins[1]).abs())
    return way


def _margin_reach(model: TargetModel, rows: Tensor, classes: int) -> Tensor:
    """The most that a unit move of the parameters changes any margin of each row, [rows].

    A score moves by at most the length of [x, 1]. Of several scores, a margin is the label's less a
    weighted mean of the others or the highest of them, so that its gradient in the scores is at most the
    root of two long.
    """
    length = (rows.square().sum(1) + 1).sqrt()
    single = model.parameter_count(rows.shape[1], classes) == rows.shape[1] + 1
    return length if single else math.sqrt(2) * length
