"""How each row moves each parameter: derivatives of a predictor, and differences of any refit.

A predictor is a differentiable function of the weights, so the derivative of every parameter by
every row's weight is there by automatic differentiation at the full data,

    d theta_j / d w_i  at  w = 1.

A fit looks at values, not at slopes: where single rows hardly matter the slopes of the network
alone rank rows less well than those of its answer after some Newton steps, which are differentiated
with it. (The level of the size path at which a prediction starts is a discrete choice, constant around
w = 1; so is cutting a step that would be wild.) Removing row i moves theta_j by about minus that.
The truth is the exact leave-one-out difference theta_j(1) - theta_j(1 - e_i) by retraining.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor import Predictor, Refined
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.counterfactuals import BLOCK, leave_one_out, without
from modelpred.studies.utility import StudyContext, refitted, retrained
from modelpred.targets.linear import Linear

# Weights and what is kept of each step for the way back, held at once.
DERIVATIVE_ROWS = 64
# Leave-one-out differences are small: retraining must be with_tolerance than they are.
TRUTH_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Place:
    """Where a parameter stands in its model.

    Attributes:
        class_name: whose score it belongs to; empty for a family with one score.
        feature: what it multiplies, or `intercept`; for a network `parameter 17`.
    """

    class_name: str
    feature: str


def places(context: StudyContext) -> list[Place]:
    """Return the place of every parameter, in the order of the parameters."""
    features = context.points.features.shape[1]
    size = context.model.parameter_count(features, context.points.classes)
    if not isinstance(context.model, Linear):
        return [Place("", f"parameter {number}") for number in range(size)]
    names = context.feature_names or tuple(f"feature {number}" for number in range(features))
    outputs = size // (features + 1)
    classes = context.class_names or tuple(f"class {number}" for number in range(outputs))
    return [
        Place(classes[output] if outputs > 1 else "", name)
        for output in range(outputs)
        for name in (*names, "intercept")
    ]


def derivatives(
    refit: Predictor | Refined, parameters: Int[Tensor, " chosen"] | None = None
) -> Float[Tensor, "chosen points"]:
    """Return d theta_j / d w_i of the predictor at w = 1 by automatic differentiation.

    Args:
        refit: whose parameters; those of a refined one are differentiated through its Newton steps,
            if its family is convex.
        parameters: which of them; default: all.

    Raises:
        InvalidInput: a parameter that the model does not have.
    """
    predictor, refine = (
        (refit.predictor, refit.refine) if isinstance(refit, Refined) else (refit, 0)
    )
    refine = refine if predictor.model.convex else 0
    points = predictor.points
    size = predictor.model.parameter_count(points.features.shape[1], points.classes)
    chosen = torch.arange(size) if parameters is None else parameters
    if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < size):
        raise InvalidInput(
            f"parameters run from {int(chosen.min())} to {int(chosen.max())}; expected positions "
            f"from 0 to {size - 1}"
        )
    return torch.cat(
        [_derivatives(predictor, block, refine=refine) for block in chosen.split(DERIVATIVE_ROWS)]
    )


def _derivatives(predictor: Predictor, chosen: Tensor, *, refine: float | int) -> Tensor:
    """One copy of w = 1 for each parameter, so that one way back serves all of them."""
    features = predictor.points.features
    precision = next(predictor.network.parameters()).dtype
    weights = features.new_ones(len(chosen), len(features), dtype=torch.float64)
    weights.requires_grad_()
    answer = predictor.forward_unchecked(weights, weights.to(precision), refine=refine)
    own = answer.gather(1, chosen[:, None]).sum()
    (slopes,) = torch.autograd.grad(own, weights)
    return slopes


def removals_of(refit: Refit, context: StudyContext) -> Float[Tensor, "parameters points"]:
    """Return theta_j(1) - theta_j(1 - e_i): what row i adds to each parameter."""
    return whole(refit, context).sub(leave_one_out(refit, context)).T


def whole(refit: Refit, context: StudyContext) -> Float[Tensor, "one parameters"]:
    """Return the parameters that a refit gives all rows."""
    return refitted(refit, torch.ones(1, context.pool), context)


def exact_removals(context: StudyContext) -> Float[Tensor, "points parameters"]:
    """Return retrained parameters without each row; nan where training did not converge."""
    blocks = torch.arange(context.pool)[:, None].split(BLOCK)
    return torch.cat([retrained(without(rows, points=context.pool), context) for rows in blocks])


def with_tolerance(context: StudyContext) -> StudyContext:
    """Return the context with a truth that resolves what one row of many changes."""
    truth = context.truth
    if truth.tolerance <= TRUTH_TOLERANCE:
        return context
    better = Retraining(truth.model, truth.points, tolerance=TRUTH_TOLERANCE, start=truth.start)
    refits = {
        name: better if isinstance(refit, Retraining) else refit
        for name, refit in context.refits.items()
    }
    return replace(context, truth=better, refits=refits)
