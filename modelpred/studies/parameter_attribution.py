"""Effects of each row on each parameter: derivatives of a predictor, and differences of any refit.

A predictor is a differentiable function of the weights. Automatic differentiation gives the derivative
of every parameter by every row's weight at the full data,

    d theta_j / d w_i  at  w = 1.

Removing row i changes theta_j by about minus this derivative. The fit of the network matches values,
not slopes. If single rows have little effect, the slopes of the plain prediction rank rows less well
than the slopes after some Newton steps, which are differentiated, too. (The level of the size path
at which a prediction starts, and the step-size limit, are discrete choices that are constant around
w = 1.) The reference is the exact leave-one-out difference theta_j(1) - theta_j(1 - e_i) by
retraining.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor import Predictor, Refined
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.context import StudyContext, refitted, retrained
from modelpred.studies.counterfactuals import BLOCK, leave_one_out, without

# Number of parameters that are differentiated at once; limits the memory of the backward pass.
DERIVATIVE_ROWS = 64
# Leave-one-out differences are small, so retraining needs a smaller tolerance.
TRUTH_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ParameterName:
    """Name of a parameter.

    Attributes:
        class_name: the class whose score it is part of; empty for a family with one score.
        feature: the feature that it multiplies, or `intercept`; for a network `parameter 17`.
    """

    class_name: str
    feature: str


def parameter_names(context: StudyContext) -> list[ParameterName]:
    """Return the name of every parameter, in order."""
    features, classes = context.points.features.shape[1], context.points.classes
    names = context.feature_names or tuple(f"feature {number}" for number in range(features))
    class_names = context.class_names or tuple(f"class {number}" for number in range(classes))
    found = context.model.parameter_names(names, class_names[:classes])
    return [ParameterName(*name) for name in found]


def derivatives(
    refit: Predictor | Refined, parameters: Int[Tensor, " chosen"] | None = None
) -> Float[Tensor, "chosen points"]:
    """Return d theta_j / d w_i of the predictor at w = 1 by automatic differentiation.

    Args:
        refit: the predictor. A refined one is differentiated through its Newton steps, if its family
            is convex.
        parameters: positions of the parameters; default: all.

    Raises:
        InvalidInput: the model does not have such a parameter.
    """
    predictor, refine = (
        (refit.predictor, refit.refine) if isinstance(refit, Refined) else (refit, 0)
    )
    refine = 0 if predictor.model.optimum is None else refine
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
    """Derivatives with one copy of w = 1 for each parameter, so that one backward pass suffices."""
    features = predictor.points.features
    tensors = (*predictor.network.parameters(), *predictor.network.buffers())
    precision = tensors[0].dtype
    weights = features.new_ones(len(chosen), len(features), dtype=torch.float64)
    weights.requires_grad_()
    answer = predictor.forward_unchecked(weights, weights.to(precision), refine=refine)
    own = answer.gather(1, chosen[:, None]).sum()
    (slopes,) = torch.autograd.grad(own, weights)
    return slopes


def removals_of(refit: Refit, context: StudyContext) -> Float[Tensor, "parameters points"]:
    """Return theta_j(1) - theta_j(1 - e_i), the effect of row i on each parameter."""
    return whole(refit, context).sub(leave_one_out(refit, context)).T


def whole(refit: Refit, context: StudyContext) -> Float[Tensor, "one parameters"]:
    """Return a refit's parameters for all rows."""
    return refitted(refit, torch.ones(1, context.pool), context)


def exact_removals(context: StudyContext) -> Float[Tensor, "points parameters"]:
    """Return retrained parameters without each row; nan if training did not converge."""
    blocks = torch.arange(context.pool)[:, None].split(BLOCK)
    return torch.cat([retrained(without(rows, points=context.pool), context) for rows in blocks])


def with_tolerance(context: StudyContext) -> StudyContext:
    """Return the context with retraining to a tolerance below the effects of single rows."""
    truth = context.truth
    if truth.tolerance <= TRUTH_TOLERANCE:
        return context
    precise = truth.with_tolerance(TRUTH_TOLERANCE)
    refits = {
        name: precise if isinstance(refit, Retraining) else refit
        for name, refit in context.refits.items()
    }
    return replace(context, truth=precise, refits=refits)
