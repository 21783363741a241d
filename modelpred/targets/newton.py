"""Batched Newton's method for linear families: all subsets of a block at once.

Each step solves H s = -g by conjugate gradients, where a product with all Hessians of the block is
two matrix products with the shared design. Three things make it cheap without making it loose:

- *A shared basis.* Turning the design once into the eigenbasis of its own second moment makes every
  subset's Hessian nearly diagonal, so its exact diagonal is a good preconditioner.
- *Two precisions.* Gradients are float64. A direction only has to be right to some digits, so
  conjugate gradients run in float32: this is iterative refinement, and its end point is float64's.
- *A safeguard.* phi(t) = F(theta + t s) is convex, phi'(0)| / 2 tells that the full|so phi'(1) <= |phi'(0)| / 2 shows that the full|phi'(0)| / 2 tells that the full
  step has not overshot; otherwise t moves by bisection and secants between a descending and an
  ascending end. No row can diverge, whatever the others do.

A row is done when a step would move its parameters by less than the tolerance, relative to their size
(accuracy.py), and that step, solved to `POLISH` relative, has been taken: rounding that differs
between batchings then moves parameters by much less than 1e-9, although it may move the iteration at
which the tolerance is met. It has converged if its distance to the optimum, rounding included, is
within the tolerance then.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from modelpred.targets.accuracy import distance, relative
from modelpred.targets.dense import dense_steps, fits
from modelpred.targets.points import Points
from modelpred.targets.score_loss import ScoreLoss
from modelpred.targets.solving import Solution, Solver
from modelpred.targets.systems import Block, Problem, conjugate, direct, shared_problem

MAXIMUM_STEPS = 100
MAXIMUM_LINE_SEARCH = 30
ROUGH = 1e-2  # gradient norm / that of zero parameters, of the whole pool's model as a start
FORCING = 0.1  # relative residual of early Newton systems
POLISH = 3e-5  # relative residual of the last one
FINISHED = 1e-4  # share of the tolerance at which a row is done at once
FINISH = 3e-5  # share of the tolerance that the last step aims at
SURE = 0.1  # share of the tolerance that counts as converged
PATIENCE = 3  # steps within the tolerance; further progress is limited by float64 rounding
FIRST_PACE = 3.0  # conjugate gradients' iterations per digit, before any is known
EXACT_PACE = 0.3  # of those preconditioned by the inverse itself
PROBE = 8  # rows that measure it where the first system is solved to all its digits
SOLVE_COST = 1.5  # iteration preconditioned by inverses / by a diagonal
STALLED = 0.5  # share of its gradient norm that a step may leave before it counts as a stall
PATIENCE_LOOSE = 3  # stalls in a row before systems are solved tighter ...
PATIENCE_STALLED = 7  # ... and before they are solved in float64
PATIENCE_STEPS = 15  # steps after which all are solved in float64
CROWDED = 0.85  # share of a block's rows that is left when the others are dropped
OVERSHOT = 0.5  # phi'(t) / |phi'(0)| above which a step is shortened


def newton_solver(loss: ScoreLoss, points: Points) -> Solver:
    """A solver for blocks of subsets that starts near the model of the whole pool."""
    features = points.features
    outputs = loss.outputs(points.classes)
    ones = features.new_ones(1, len(features))
    first = shared_problem(loss, points, ones)
    theta = _roughly(first, ones, features.new_zeros(outputs, 1, features.shape[1] + 1))
    curvature = loss.score_curvature(_scores(first, theta), points.labels, ones)[0][:, 0]
    # Points that the whole pool's model is sure of still matter to subsets without their neighbours.
    problem = shared_problem(loss, points, curvature + 1e-3 * curvature.mean() + 1e-12)

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        begin = theta if start is None else _outputs_first(start, outputs)
        return _minimise(problem, weights, begin, tolerance)

    return solve


def _roughly(problem: Problem, weights: Tensor, start: Tensor) -> Tensor:
    """A minimiser to some digits: all that a start needs, and the curvature that gives the basis."""
    block = _begun(problem, weights, start)
    goal = ROUGH * block.norm
    pace = FIRST_PACE
    for _ in range(MAXIMUM_STEPS):
        if bool((block.norm <= goal).all()):
            break
        pace = _step(problem, block, 0.0, pace)
    return block.theta


def _outputs_first(parameters: Tensor, outputs: int) -> Tensor:
    return parameters.unflatten(1, (outputs, -1)).transpose(0, 1).contiguous()


def _begun(problem: Problem, weights: Tensor, start: Tensor) -> Block:
    count = len(weights)
    scale = problem.loss.C * weights
    # Scores of a shared start are computed once; steps make new tensors, so views will do.
    scores, gradient, slopes = _evaluate(problem, start, scale)
    norm = gradient.abs().amax((0, 2))
    row = torch.arange(count, device=weights.device)
    return Block(
        row=row,
        scale=scale,
        theta=start.expand(-1, count, -1),
        scores=scores.expand(-1, count, -1),
        gradient=gradient,
        slopes=slopes,
        norm=norm,
        goal=torch.zeros_like(norm),
        residual=torch.full_like(norm, POLISH if problem.loss.quadratic else FORCING),
        within=row * 0,
        polished=row < 0,
        ready=norm == 0,
        steps=row * 0,
        stalls=row * 0,
        left=row >= 0,
    )


def _minimise(problem: Problem, weights: Tensor, start: Tensor, tolerance: float) -> Solution:
    count = len(weights)
    final = start.expand(-1, count, -1).clone()
    norms, objective, distances = weights.new_zeros(3, count)
    iterations = torch.zeros(count, dtype=torch.int64, device=weights.device)

    def record(ended: Block) -> None:
        final[:, ended.row], norms[ended.row] = ended.theta, ended.norm
        objective[ended.row] = _objective(problem, ended)
        distances[ended.row] = distance(problem, ended, limit=SURE * tolerance)
        iterations[ended.row] += ended.steps

    block = _begun(problem, weights, start)
    pace = _probed_pace(problem, block) if problem.loss.quadratic else FIRST_PACE
    for step in range(MAXIMUM_STEPS + 1):
        done = _done(block) if step < MAXIMUM_STEPS else block.left
        if bool(done.any()):
            record(replace(block, inverse=None).select(done.nonzero()[:, 0]))
            block = _without(block, done)
            if not bool(block.left.any()):
                break
        pace = _step(problem, block, tolerance, pace)
    missed = (~(distances <= SURE * tolerance)).nonzero()[:, 0]
    if len(missed) and fits(problem):
        rest = _finished(problem, weights[missed], final[:, missed], tolerance)
        record(replace(rest, row=missed))
    lost = (~torch.isfinite(final).all(2).all(0)).nonzero()[:, 0]
    if len(lost):  # weights so large that a sum overflows: what is left is the start
        begin = _begun(problem, weights[lost], start.expand(-1, count, -1)[:, lost])
        record(replace(begin, row=lost))
    # On columns of zeros the penalty alone acts; steps in turned coordinates leave their rounding there.
    final.masked_fill_(~problem.design[:, : problem.size].any(0), 0)
    if problem.loss.shift_free:
        final -= final.mean(0, keepdim=True)  # coefficients', too: their optimum has no such part
    converged = distances <= SURE * tolerance
    return Solution(final.transpose(0, 1).flatten(1), norms, objective, iterations, converged)


def _done(block: Block) -> Tensor:
    """Which of the rows that are left have been polished, or need no further step."""
    polished = (block.norm <= block.goal) & block.polished
    return block.left & (polished | block.ready | (block.norm <= FINISHED * block.goal))


def _without(block: Block, done: Tensor) -> Block:
    """The block without rows that are done, or with them marked while they are few."""
    block.left &= ~done
    left = block.left.nonzero()[:, 0]
    return block.select(left) if len(left) <= CROWDED * len(block.row) else block


def _finished(problem: Problem, weights: Tensor, start: Tensor, tolerance: float) -> Block:
    """Few rows, by Newton's method with factors in float64, as far as rounding allows."""
    block = _begun(problem, weights, start)
    for _ in range(MAXIMUM_STEPS):
        direction, found = dense_steps(problem, block)
        far = relative(problem, block, direction)
        within = far <= tolerance
        direction[:, (far <= FINISHED * tolerance) | (block.within >= PATIENCE)] = 0
        moved = found & (direction != 0).any(2).any(0)
        if not bool(moved.any()):
            break
        _search(problem, block, direction, exempt=within)
        block.within += within
        block.steps += moved
    block.norm = block.gradient.abs().amax((0, 2))
    return block


def _probed_pace(problem: Problem, block: Block) -> float:
    """Conjugate gradients' iterations per digit of a block's first system, from a few of its rows."""
    count = len(block.row)
    # Rows are in order of size, and the largest, nearly the pool itself, are the easiest.
    places = torch.arange(min(PROBE, count), device=block.row.device) * count // min(PROBE, count)
    rows = block.select(places)
    return conjugate(problem, rows, rows.residual)[2] / -math.log10(POLISH)


def _step(problem: Problem, block: Block, tolerance: float, pace: float) -> float:
    """One Newton step of every row; returns conjugate gradients' iterations per digit."""
    last = block.norm <= block.goal
    finish = (FINISH * block.goal / block.norm.clamp(min=1e-300)).clamp(POLISH, FORCING)
    residual = torch.where(last, finish, block.residual)
    digits = -float(residual.median().log10())
    if digits * pace > problem.direct_cost:
        direction, solved = direct(problem, block)
        pace = EXACT_PACE if problem.loss.quadratic and block.inverse is not None else FIRST_PACE
    else:
        direction, solved, used = conjugate(problem, block, residual)
        pace = used / digits * (1 if block.inverse is None else SOLVE_COST)
    stuck = (block.stalls > PATIENCE_STALLED) | (block.steps >= PATIENCE_STEPS)
    stuck = (stuck & block.left).nonzero()[:, 0]
    if len(stuck):
        rows = replace(block.select(stuck), inverse=None)
        direction[:, stuck], solved[stuck], _ = conjugate(problem.exact(), rows, residual[stuck])
    before, far = block.norm, relative(problem, block, direction)
    block.ready = far <= FINISHED * tolerance
    direction[:, block.ready] = 0
    block.goal = torch.where(far > 0, before * tolerance / far, before)
    _move(problem, block, direction)
    block.steps += ~block.ready
    block.within += last
    gained = solved & (block.norm <= 100 * residual * before)
    block.polished = last & (gained | (block.within >= PATIENCE))
    stalled = ~last & (block.norm > STALLED * before)
    block.stalls = torch.where(stalled, block.stalls + 1, 0)
    # Quadratic convergence is worth a matching residual; where loose steps do not help, tight ones.
    matching = (block.norm / before.clamp(min=1e-300)).square()
    tighter = FORCING * 0.1 ** (block.stalls - PATIENCE_LOOSE).clamp(min=0)
    block.residual = torch.where(stalled, tighter, matching).clamp(POLISH, FORCING)
    return pace


def _move(problem: Problem, block: Block, direction: Tensor) -> None:
    """Take the step; a row within the tolerance stays where its step would leave that."""
    old, last = replace(block), block.norm <= block.goal
    _search(problem, block, direction, exempt=last)
    block.norm = block.gradient.abs().amax((0, 2))
    worse = (last & ~(block.norm <= block.goal)).nonzero()[:, 0]
    if len(worse):  # nothing has searched the lengths of their steps
        for name in ("theta", "scores", "gradient"):
            getattr(block, name)[:, worse] = getattr(old, name)[:, worse]
        for name in ("slopes", "norm"):
            getattr(block, name)[worse] = getattr(old, name)[worse]


def _scores(problem: Problem, theta: Tensor) -> Tensor:
    return theta @ problem.design[:, : problem.size].T


def _evaluate(problem: Problem, theta: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, gradient, and the length of each row's slopes."""
    scores = _scores(problem, theta)
    slopes = problem.loss.score_slopes(scores, problem.labels)
    # One row of slopes for all subsets where they share theta.
    slopes = slopes.mul_(scale) if slopes.shape[1] == len(scale) else slopes * scale
    gradient = (slopes @ problem.design)[..., : problem.size]
    gradient[..., :-1] += theta[..., :-1]
    gradient[..., -1] += problem.loss.intercept_penalty * theta[..., -1]
    return scores, gradient, torch.linalg.vector_norm(slopes, dim=(0, 2))


def _objective(problem: Problem, block: Block) -> Tensor:
    losses = problem.loss.score_losses(block.scores, problem.labels)
    penalised = block.theta.square()
    penalised[..., -1] *= problem.loss.intercept_penalty
    return penalised.sum((0, 2)) / 2 + (block.scale * losses).sum(1)


def _search(problem: Problem, block: Block, direction: Tensor, *, exempt: Tensor) -> None:
    """Move each row along its direction, shortening steps that overshoot.

    Rows within the tolerance are exempt: at the floor of rounding slopes mean nothing.
    """
    begin = block.theta
    slope = -(block.gradient * direction).sum((0, 2))
    block.theta = begin + direction
    block.scores, block.gradient, block.slopes = _evaluate(problem, block.theta, block.scale)
    ending = (block.gradient * direction).sum((0, 2))
    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    low_slope, high_slope = -slope, ending
    over = ((ending > OVERSHOT * slope) & ~exempt).nonzero()[:, 0]
    for attempt in range(MAXIMUM_LINE_SEARCH):
        if len(over) == 0:
            return
        left, right = low[over], high[over]
        fraction = -low_slope[over] / (high_slope[over] - low_slope[over])
        fraction = fraction.clamp(0.1, 0.9) if attempt % 2 == 0 else torch.full_like(fraction, 0.5)
        length = left + fraction * (right - left)
        theta = begin[:, over] + length[:, None] * direction[:, over]
        scores, gradient, block.slopes[over] = _evaluate(problem, theta, block.scale[over])
        block.theta[:, over], block.scores[:, over] = theta, scores
        block.gradient[:, over] = gradient
        ending = (gradient * direction[:, over]).sum((0, 2))
        rises = ending > 0
        high[over[rises]], high_slope[over[rises]] = length[rises], ending[rises]
        low[over[~rises]], low_slope[over[~rises]] = length[~rises], ending[~rises]
        over = over[ending.abs() > OVERSHOT * slope[over]]
