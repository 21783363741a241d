"""Seconds of retraining and of prediction on this machine, measured or, before a fit, estimated.

Retraining is timed on a few random subsets. A fitted predictor is timed in the same way. Before the
fit its costs are estimated from the numbers of its products:

    answer       overhead + (1 + steps) gradients of 4 x points x parameters operations each
    preparation  targets x r  +  epochs x (batches x overhead + targets x 3 answers)
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modelpred.engine.preparation import Plan, Problem
from modelpred.predictor.step_count import MOST_STEPS

DEAR = 0.5  # seconds of the full model from which no further one is trained for timing
ENOUGH = 0.02  # seconds of a call that is long enough to be timed
MOST_TIMED = 256
REPEATS = 3  # the shortest is taken: what else runs on the machine only adds
PRODUCTS = 2e10  # operations of float32 products in a second of one core, a cautious guess
ANSWER_OVERHEAD = 5e-6  # seconds of an answer in a large batch beside its products
BATCH_OVERHEAD = 3e-3  # seconds of a batch of the fit beside its products


def timed_subsets(points: int, count: int) -> Tensor:
    """Return random subsets of a tenth to all of the points, uint8 [count, points]."""
    draws = np.random.default_rng(0)
    shares = draws.uniform(0.1, 1, size=(count, 1))
    return torch.from_numpy((draws.uniform(size=(count, points)) < shares).astype(np.uint8))


def seconds_a_model(
    answer: Callable[[Tensor], object], points: int, *, expected: float = 0.0
) -> float:
    """Return the seconds of one of many models, timed on as many subsets as take `ENOUGH`.

    Args:
        answer: gives the models of subsets.
        points: number of points.
        expected: seconds of the model of all points; if it is `DEAR`, it is the answer.
    """
    if expected > DEAR:
        return expected
    count, seconds = 4, _seconds(answer, timed_subsets(points, 4))
    while seconds < ENOUGH and count < MOST_TIMED:
        count *= 8
        seconds = _seconds(answer, timed_subsets(points, count))
    weights = timed_subsets(points, count)
    return min(seconds, *(_seconds(answer, weights) for _ in range(REPEATS - 1))) / count


def _seconds(answer: Callable[[Tensor], object], weights: Tensor) -> float:
    began = time.perf_counter()
    answer(weights)
    return time.perf_counter() - began


def estimated_answer_seconds(problem: Problem, plan: Plan) -> float:
    """Return about the seconds of a prediction, before there is a predictor."""
    points = problem.points
    steps = MOST_STEPS if plan.predictor.steps is None else plan.predictor.steps
    operations = 4 * len(points.labels) * len(problem.full_parameters)
    return ANSWER_OVERHEAD + (1 + steps) * operations / PRODUCTS


def estimated_fit_seconds(problem: Problem, plan: Plan) -> float:
    """Return about the seconds of fitting the planned predictor to its targets."""
    schedule = plan.predictor.schedule()
    targets = plan.targets(len(problem.points.labels))
    batches = math.ceil(targets / schedule.batch)
    answers = targets * 3 * estimated_answer_seconds(problem, plan)
    return schedule.epochs * (batches * BATCH_OVERHEAD + answers)
