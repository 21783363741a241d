"""Seconds of retraining and of prediction on this machine, measured or, before a fit, estimated.

Retraining is timed on a few random subsets. A fitted predictor is timed in the same way. Before the
fit its costs are estimated from the numbers of its products:

    answer       overhead + (1 + steps) gradients of 4 x points x parameters operations and a loss
                 derivative for each score
    preparation  of Newton directions: levels of 3 points x parameters^2 + 4 parameters^3 operations,
                 and subsets that judge the answers; no step is learned
                 of learned steps: targets x r + epochs x (batches x overhead + targets x 4 answers)

Only the first round of an automatic preparation is estimated (learning.py). It decides whether there is
a predictor; then measured costs and the measured error do.
"""

import math
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from modelpred.engine.choice import Costs
from modelpred.engine.learning import FEWEST_LEARNED, NEWTON_JUDGES, begins_with_directions
from modelpred.engine.preparation import DRAWN_FIRST, Plan, Problem
from modelpred.predictor.newton_network import MOST_GRADIENTS
from modelpred.predictor.step_count import MOST_STEPS

DEAR = 0.5  # seconds of the full model from which no further one is trained for timing
LONG = 0.5  # seconds of a call that is repeated only once, on fewer subsets: the first one warms up
SHORT = 0.05  # seconds of a call that is repeated
ENOUGH = 0.005  # seconds of a call that is long enough to be timed
GROWTH = 8  # a call is timed on so many times the subsets until the seconds of each do not halve
FEWEST = 4  # retrained subsets
FEWEST_TIMED, MOST_TIMED = 256, 2048  # predictions, of which small batches have a large overhead
FIT_ANSWERS = 4  # answers that a target of an epoch costs in a fit, with its backward pass
MOST_TIMED_WEIGHTS = 2**24
REPEATS = 3  # the shortest is taken: what else runs on the machine only adds
MEASURED = 512  # rows and columns of the product that is timed
# Seconds, as measured on one core of 2 to 3 GHz:
ANSWER_OVERHEAD = 5e-6  # of an answer in a large batch
SCORE = 1e-9  # of a score's loss derivative
BATCH_OVERHEAD = 1e-2  # of a batch of the fit
LEVEL_OVERHEAD = 4e-3  # of a level, with its small products for the subsets that judge
DRAW = 3e-8  # of one weight of a drawn subset
OPTIMUM = 3  # models of subsets in the time of the optimum of a level: all rows count there
LEVELS = 8  # about
NEWTON_GRADIENTS = 4  # about


def timed_subsets(points: int, count: int) -> Tensor:
    """Return random subsets of a tenth to all of the points, uint8 [count, points]."""
    draws = np.random.default_rng(0)
    shares = draws.uniform(0.1, 1, size=(count, 1))
    return torch.from_numpy((draws.uniform(size=(count, points)) < shares).astype(np.uint8))


def seconds_a_model(
    answer: Callable[[Tensor], object],
    points: int,
    *,
    expected: float = 0.0,
    least: int = FEWEST,
    enough: float = 0.0,
) -> float:
    """Return the seconds of one of many models, timed on so many that a call's fixed part counts little.

    Args:
        answer: gives the models of subsets.
        points: number of points.
        expected: seconds of the model of all points; if it is `DEAR`, it is the answer.
        least: fewest subsets.
        enough: seconds of a model that are few enough: with fewer subsets the result may be too large.
    """
    if expected > DEAR:
        return expected
    count, seconds, before = least, _seconds(answer, timed_subsets(points, least)), math.inf
    while (
        seconds > enough * count
        and GROWTH * count <= min(MOST_TIMED, MOST_TIMED_WEIGHTS // points)
        and (seconds < ENOUGH or (GROWTH * seconds < LONG and seconds / count < before / 2))
    ):
        before = seconds / count
        count *= GROWTH
        seconds = _seconds(answer, timed_subsets(points, count))
    if seconds <= enough * count:
        return seconds / count
    if seconds > LONG:
        fewer = max(1, count // GROWTH)
        return min(seconds / count, _seconds(answer, timed_subsets(points, fewer)) / fewer)
    weights = timed_subsets(points, count)
    repeats = REPEATS - 1 if seconds < SHORT else 0
    return min([seconds, *(_seconds(answer, weights) for _ in range(repeats))]) / count


def call_seconds(call: Callable[[], object]) -> float:
    """Return the seconds of a call; of the processor if these are fewer, as on a busy machine."""
    began, busy = time.perf_counter(), time.process_time()
    call()
    wall = time.perf_counter() - began
    return wall if torch.cuda.is_available() else min(wall, time.process_time() - busy)


def _seconds(answer: Callable[[Tensor], object], weights: Tensor) -> float:
    return call_seconds(lambda: answer(weights))


def estimated_costs(problem: Problem, plan: Plan, exact: float) -> Costs:
    """Return about the costs before there is a predictor; of an automatic preparation, of its first round.

    Args:
        problem: the family and the pool.
        plan: of the preparation.
        exact: seconds of retraining one of many models.
    """
    model, config = problem.model, plan.predictor
    if model.optimum is None or model.quadratic:
        # Training a family of fixed steps costs about as much as predicting it, and a quadratic
        # objective is minimised exactly either way.
        return Costs(exact, exact, plan.targets * exact)
    if plan.automatic and begins_with_directions(config, model, problem.points):
        return _newton_costs(problem, plan, exact)
    answer = _answer_seconds(problem, MOST_STEPS if config.steps is None else config.steps)
    if plan.automatic and config.network != "paper":
        return Costs(exact, answer, learned_seconds(problem, plan, exact))
    fit = _fit_seconds(plan, plan.targets, answer)
    return Costs(exact, answer, plan.trained * exact + fit)


def learned_seconds(problem: Problem, plan: Plan, exact: float) -> float:
    """Return about the seconds of the first round of learned steps, its targets included."""
    targets = min(FEWEST_LEARNED, plan.targets)
    judges = sum(plan.subsets.validation.values())
    answer = _answer_seconds(problem, MOST_STEPS)
    return (
        _draw_seconds(problem, plan)
        + (targets + judges) * exact
        + _fit_seconds(plan, targets, answer)
    )


def _fit_seconds(plan: Plan, targets: int, answer: float) -> float:
    schedule = plan.predictor.schedule()
    return schedule.epochs * targets * (FIT_ANSWERS * answer + BATCH_OVERHEAD / schedule.batch)


def _draw_seconds(problem: Problem, plan: Plan) -> float:
    """Drawing the first subsets for the fit and all those that judge."""
    config = plan.subsets
    drawn = DRAWN_FIRST + sum(config.validation.values()) + sum(config.test.values())
    return DRAW * drawn * len(problem.points.labels)


def _newton_costs(problem: Problem, plan: Plan, exact: float) -> Costs:
    """Costs of Newton directions: the optima of the path, its levels, and subsets that judge."""
    points, size = len(problem.points.labels), len(problem.full_parameters)
    level = LEVEL_OVERHEAD + (3 * points * size**2 + 4 * size**3) / products_a_second()
    judges = min(NEWTON_JUDGES, sum(plan.subsets.validation.values()))
    judging = judges * _answer_seconds(problem, MOST_GRADIENTS)
    trained = judges + OPTIMUM * LEVELS
    path = _draw_seconds(problem, plan) + LEVELS * level + judging
    return Costs(exact, _answer_seconds(problem, NEWTON_GRADIENTS), path + trained * exact)


def _answer_seconds(problem: Problem, steps: int) -> float:
    """Return about the seconds of a prediction in a large batch: its start, and so many gradients."""
    points = problem.points
    scores = len(points.labels) * max(
        1, len(problem.full_parameters) // (points.features.shape[1] + 1)
    )
    products = 4 * len(points.labels) * len(problem.full_parameters) / products_a_second()
    return ANSWER_OVERHEAD + (1 + steps) * (products + SCORE * scores)


@cache
def products_a_second() -> float:
    """Return the operations of float32 products in a second on this machine, timed once."""
    left = torch.ones(MEASURED, MEASURED)
    return 2 * MEASURED**3 / min(_seconds(left.matmul, left) for _ in range(REPEATS))
