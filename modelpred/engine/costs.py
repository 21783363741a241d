"""Seconds of retraining and of prediction on this machine, measured or, before a fit, estimated.

Retraining is timed on a few random subsets. A fitted predictor is timed in the same way. Before the
fit its costs are estimated from the numbers of its products:

    answer       overhead + (1 + steps) gradients of 4 x points x parameters operations each
    preparation  targets x r  +  epochs x (batches x overhead + targets x 4 answers)
                 or, of Newton directions, some levels of 4 points x parameters^2 + 2 parameters^3
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modelpred.engine.choice import Costs
from modelpred.engine.learning import CONTINUED, FEWEST_LEARNED, FEWEST_NEWTON, NEWTON_JUDGES
from modelpred.engine.preparation import Plan, Problem
from modelpred.predictor.fit import uses_newton
from modelpred.predictor.step_count import MOST_STEPS

DEAR = 0.5  # seconds of the full model from which no further one is trained for timing
LONG = 0.5  # seconds of a call that is repeated only once, on fewer subsets: the first one warms up
ENOUGH = 0.02  # seconds of a call that is long enough to be timed
MOST_TIMED = 256
FIT_ANSWERS = 4  # answers that a target of an epoch costs in a fit, with its backward pass
REPEATS = 3  # the shortest is taken: what else runs on the machine only adds
PRODUCTS = 2e10  # operations of float32 products in a second of one core, a cautious guess
ANSWER_OVERHEAD = 5e-6  # seconds of an answer in a large batch beside its products
BATCH_OVERHEAD = 3e-3  # seconds of a batch of the fit beside its products
LEVELS_USED, NEWTON_GRADIENTS = 8, 2  # of Newton directions, about
DENSE_PRODUCTS = 4e10  # operations of Hessians and inverses in a second


def timed_subsets(points: int, count: int) -> Tensor:
    """Return random subsets of a tenth to all of the points, uint8 [count, points]."""
    draws = np.random.default_rng(0)
    shares = draws.uniform(0.1, 1, size=(count, 1))
    return torch.from_numpy((draws.uniform(size=(count, points)) < shares).astype(np.uint8))


def seconds_a_model(
    answer: Callable[[Tensor], object], points: int, *, expected: float = 0.0, least: int = 4
) -> float:
    """Return the seconds of one of many models, timed on as many subsets as take `ENOUGH`.

    Args:
        answer: gives the models of subsets.
        points: number of points.
        expected: seconds of the model of all points; if it is `DEAR`, it is the answer.
        least: fewest subsets.
    """
    if expected > DEAR:
        return expected
    count, seconds = least, _seconds(answer, timed_subsets(points, least))
    while seconds < ENOUGH and count < MOST_TIMED:
        count *= 8
        seconds = _seconds(answer, timed_subsets(points, count))
    if seconds > LONG:
        fewer = max(1, count // 8)
        return min(seconds / count, _seconds(answer, timed_subsets(points, fewer)) / fewer)
    weights = timed_subsets(points, count)
    return min(seconds, *(_seconds(answer, weights) for _ in range(REPEATS - 1))) / count


def _seconds(answer: Callable[[Tensor], object], weights: Tensor) -> float:
    began = time.perf_counter()
    answer(weights)
    return time.perf_counter() - began


def estimated_costs(problem: Problem, plan: Plan, exact: float) -> Costs:
    """Return about the costs before there is a predictor.

    Args:
        problem: the family and the pool.
        plan: of the preparation.
        exact: seconds of retraining one of many models.
    """
    model, points = problem.model, problem.points
    if model.optimum is None or model.quadratic:
        # Training a family of fixed steps costs about as much as predicting it, and a quadratic
        # objective is minimised exactly either way.
        return Costs(exact, exact, plan.targets * exact)
    if plan.automatic and uses_newton(plan.predictor, model, points):
        return _newton_costs(problem, plan, exact)
    answer = estimated_answer_seconds(problem, plan)
    schedule, targets = plan.predictor.schedule(), plan.targets
    seen = schedule.epochs * targets
    if plan.automatic:  # each rung but the first continues the one before
        seen = schedule.epochs * (FEWEST_LEARNED + 2 * targets / CONTINUED)
    fit = seen * (FIT_ANSWERS * answer + BATCH_OVERHEAD / schedule.batch)
    return Costs(exact, answer, plan.trained * exact + fit)


def _newton_costs(problem: Problem, plan: Plan, exact: float) -> Costs:
    """Costs of Newton directions: a path of levels, and a few hundred targets."""
    points, size = len(problem.points.labels), len(problem.full_parameters)
    level = 4 * points * size**2 + 2 * size**3
    path = LEVELS_USED * (problem.full_seconds + level / DENSE_PRODUCTS)
    judges = min(NEWTON_JUDGES, sum(plan.subsets.validation.values()))
    targets = judges + 2 * FEWEST_NEWTON
    answer = ANSWER_OVERHEAD + NEWTON_GRADIENTS * 4 * points * size / PRODUCTS
    return Costs(exact, answer, path + targets * exact)


def estimated_answer_seconds(problem: Problem, plan: Plan) -> float:
    """Return about the seconds of a prediction by learned steps, before there is a predictor."""
    points = problem.points
    steps = MOST_STEPS if plan.predictor.steps is None else plan.predictor.steps
    operations = 4 * len(points.labels) * len(problem.full_parameters)
    return ANSWER_OVERHEAD + (1 + steps) * operations / PRODUCTS
