"""How a short training (coarse_training.py) is fitted to a bank of trained targets.

*Plan.* A quarter of the gradients of training can be divided into opening steps and pieces in many
ways, and may cover all the time that is left or, where curvature makes long steps wild, a part of
it. Of a few plans the one is taken whose squared relative error is least on some of the targets,
evenly over subset sizes.

*Ridge.* From where the plan ends, and from the subset's size and class shares, a ridge regression
leads to the trained parameters, or to what is left of the way, or nowhere, whichever is best on rows
held out.

*Refinement.* A longer plan, or training on from the prediction: whichever is nearer after ten
gradients.
"""

import dataclasses
import itertools
import math

import torch
from torch import Tensor

from modelpred.predictor.coarse_training import (
    WILD,
    BoundCoarseTraining,
    CoarseTraining,
    Plan,
    recipe_of,
    ridge_inputs,
    trained_on,
)
from modelpred.refits import LinearDatamodel
from modelpred.targets import Points, TargetModel

SHARE = 0.25  # of the gradients of training
MEMORIES = 3  # but at least so many times 1 / (1 - momentum): before that nothing flows yet
STAGES, PIECES, GROWTHS = (3, 4, 5, 6, 8), (1, 2, 3, 4), (1.5, 2.0)
REACHES = (1.0, 0.4, 0.1)
TRIED_ON = 128  # subsets of the bank that plans are compared on
HELD_OUT = 5  # every so many rows judge the ridge
LEAST_FOR_RIDGE = 20
COMPARED = 10  # gradients that ways of refinement are compared with


def fit_coarse_training(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor
) -> CoarseTraining:
    """The short training of a family of fixed steps that comes nearest to the bank's targets.

    Args:
        model: the family.
        points: the pool.
        weights: [subsets, points] of the bank.
        parameters: their trained parameters.
    """
    start = recipe_of(model).initial(points.features.shape[1], points.classes).to(points.features)
    plain = _without_ridge(start, parameters, points)
    # Evenly over sizes: small subsets are curved most, large ones are asked about most.
    by_size = weights.sum(1).argsort(stable=True)
    even = torch.linspace(0, len(weights) - 1, min(TRIED_ON, len(weights)), dtype=torch.float64)
    tried = by_size[even.round().long()]
    plan = _best_plan(plain.bind(model, points, torch.float32), weights[tried], parameters[tried])
    planned = dataclasses.replace(
        plain, plan=torch.tensor(dataclasses.astuple(plan), dtype=torch.float64)
    )
    bound = planned.bind(model, points, torch.float32)
    coarse = bound.follow(plan, weights.float()).to(parameters)
    led = _with_ridge(
        planned, ridge_inputs(weights, coarse, points, pool=plain.pool), coarse, parameters
    )
    return dataclasses.replace(
        led,
        lengthens=_whether_longer_is_better(led, model, points, weights[tried], parameters[tried]),
    )


def plans(gradients: int, *, reach: float) -> list[Plan]:
    """Plans of so many gradients, at least a third of them opening steps; first, all of them."""
    divided = [
        Plan(gradients - pieces * stages, pieces, stages, growth, reach)
        for stages, pieces, growth in itertools.product(STAGES, PIECES, GROWTHS)
        if gradients / 3 <= gradients - pieces * stages and (pieces > 1 or growth == GROWTHS[0])
    ]
    return [Plan(gradients, 0, 1, 1.0, reach), *divided]


def _best_plan(bound: BoundCoarseTraining, weights: Tensor, parameters: Tensor) -> Plan:
    family = recipe_of(bound.model)
    least = round(MEMORIES / (1 - family.momentum))
    gradients = min(family.steps, max(math.ceil(SHARE * family.steps), least))
    tried, true = weights.float(), parameters.float()
    openings = list(itertools.islice(bound.opened(tried), gradients + 1))

    def error(plan: Plan) -> float:
        coarse = bound.finished(plan, tried, *openings[plan.opening])
        # Squared: a plan that goes wild on few subsets is worse than one that is never exact.
        errors = (coarse - true).norm(dim=1) / true.norm(dim=1).clamp(min=1e-6)
        return float(errors.square().mean())

    best = Plan(gradients, 0, 1, 1.0, 1.0)
    for reach in REACHES:
        best = min(plans(gradients, reach=reach), key=error)
        if best.pieces:
            break  # long steps are not wild: no need to stop early
    return best


def _with_ridge(
    anchors: CoarseTraining, inputs: Tensor, coarse: Tensor, true: Tensor
) -> CoarseTraining:
    """The anchors with the ridge that is best on every fifth row, fitted on all; or as they are."""
    if len(true) < LEAST_FOR_RIDGE:
        return anchors
    scale = inputs.std(0)
    # One scale for all parameters: the ridge then shrinks what moves little more.
    scale[: true.shape[1]] = coarse.std()
    scale = torch.where(scale > 0, scale, 1.0)
    centre = inputs.mean(0)
    scaled = ((inputs - centre) / scale).clamp(-WILD, WILD)
    held = torch.arange(len(true)) % HELD_OUT == 0
    best, error = anchors, _error(coarse[held], true[held])
    for kept in (0.0, 1.0):
        left = true - kept * coarse
        ridge = LinearDatamodel.fit(scaled[~held], left[~held])
        led = ridge.intercept + scaled[held] @ ridge.coefficients
        found = _error(kept * coarse[held] + led, true[held])
        if found < error:
            ridge = LinearDatamodel.fit(scaled, left, penalty=ridge.penalty)
            error, best = found, dataclasses.replace(
                anchors, kept=torch.full_like(anchors.kept, kept), centre=centre, scale=scale,
                coefficients=ridge.coefficients, intercept=ridge.intercept,
            )  # fmt: skip
    return best


def _whether_longer_is_better(
    anchors: CoarseTraining, model: TargetModel, points: Points, weights: Tensor, true: Tensor
) -> Tensor:
    bound = anchors.bind(model, points, torch.float32)
    wanted = bound.plan.gradients + COMPARED
    if wanted >= recipe_of(model).steps:
        return torch.ones_like(anchors.lengthens)
    longer = bound.follow(bound.plan.lengthened(wanted), weights.float())
    predicted = bound(weights.float()).to(true)
    onward = trained_on(model, points, weights, predicted, steps=COMPARED)
    better = _error(longer.to(true), true) < _error(onward, true)
    return torch.full_like(anchors.lengthens, float(better))


def _without_ridge(start: Tensor, parameters: Tensor, points: Points) -> CoarseTraining:
    """A short training whose plan is not chosen yet, and that ends where the plan does."""
    one, middle = start.new_ones(1), parameters.mean(0)
    inputs = len(start) + max(1, points.classes) + 2
    return CoarseTraining(
        start=start,
        middle=middle,
        farthest=(parameters - middle).norm(dim=1).max()[None],
        plan=start.new_zeros(5),
        lengthens=one,
        kept=one,
        centre=start.new_zeros(inputs),
        scale=start.new_ones(inputs),
        coefficients=start.new_zeros(inputs, len(start)),
        intercept=torch.zeros_like(start),
        pool=len(points.features),
    )


def _error(coarse: Tensor, true: Tensor) -> float:
    """Mean relative error, of a row at most 1: few rows should not decide for all."""
    errors = (coarse - true).norm(dim=1) / true.norm(dim=1).clamp(min=1e-6)
    return float(errors.clamp(max=1).mean())
