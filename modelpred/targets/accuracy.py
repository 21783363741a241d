"""How far parameters are from a subset's optimum, relative to their size, in floating point.

A Newton step s from theta reaches the optimum but for a small part of itself, so its length is the
distance. The largest of three numbers says how long it is (c: coefficients, b: intercepts, D: the
length of each column of features):

    |c of s| / |c|        |D c of s| / |D c|        |b of s| / |(c, b)|

Neither the labels' unit nor a factor that moves from C to the weights changes them. Parameters next
to zero have no size to compare with; theirs is at least `SMALL` of what they would be if all terms
of their gradient, slopes and the scores that they are rounded from, had one sign.

`distance` enlarges the gradient by what rounding may have left out of it before it solves for the
step, so that a gradient that is zero by chance, or an ill-conditioned Hessian, is not taken for an
optimum.
"""

from dataclasses import replace

import torch
from torch import Tensor

from modelpred.targets.dense import dense_steps, fits
from modelpred.targets.systems import Block, Problem, conjugate

SMALL = 1e-3
SCORES_ROUNDED = 4  # rounding errors of each score
SOLVED = 0.1  # relative residual of the system that tells the distance


def relative(problem: Problem, block: Block, step: Tensor) -> Tensor:
    """How far a step [outputs, rows, size] moves each row, relative to its size (module's text)."""
    moved, columns = step[..., :-1], problem.norms[:-1]
    moves = _length(moved), _length(moved * columns), _intercepts(problem, step)
    pairs = zip(moves, _sizes(problem, block), strict=True)
    # A size that is too large for a float is unknown, and so is the distance.
    shares = [torch.where(move == 0, 0.0, move / size) + 0 * size for move, size in pairs]
    return torch.stack(shares).amax(0)


def _sizes(problem: Problem, block: Block) -> tuple[Tensor, Tensor, Tensor]:
    """What each of the three moves is compared with."""
    norms, theta = problem.norms, block.theta[..., :-1]
    columns, points = norms[:-1], len(problem.design)
    stiffness = problem.penalised + block.scale.sum(1, keepdim=True) / points * norms.square()
    reach = (block.theta.abs() @ norms).amax(0) / points**0.5
    terms = block.slopes + reach * block.scale.norm(dim=1)
    least = SMALL * terms[:, None] * norms / stiffness.clamp(min=1e-300)
    free, whole = least[:, :-1], torch.hypot(_length(theta), _intercepts(problem, block.theta))
    return (
        torch.maximum(_length(theta), free.norm(dim=1)),
        torch.maximum(_length(theta * columns), (free * columns).norm(dim=1)),
        torch.maximum(whole, least[:, -1]),
    )


def distance(problem: Problem, block: Block, *, limit: float) -> Tensor:
    """Each row's relative distance to its optimum, rounding included; infinity if none was found.

    The penalty is curvature 1 everywhere. So the length of the gradient bounds the coefficients' way,
    and where that is below the limit conjugate gradients, which may miss directions of little
    curvature, miss none that matters. The other rows' Hessians are factored.
    """
    gradient = _enlarged(problem, block)
    # No norm: nothing may dampen a free intercept here.
    rows = replace(block, gradient=gradient, inverse=None, norm=torch.zeros_like(block.norm))
    goal = torch.full_like(block.norm, SOLVED)
    step, solved, _ = conjugate(problem, rows, goal, patient=True)
    free = gradient @ problem.turn
    whole = free if problem.loss.intercept_penalty else free[..., :-1]
    solved &= _length(whole) <= limit * _sizes(problem, block)[0]
    missing = (~solved).nonzero()[:, 0]
    if len(missing) and fits(problem):
        some = rows.select(missing)
        step[:, missing], solved[missing] = dense_steps(problem, some, sure=True)
    return torch.where(solved, relative(problem, block, step), torch.inf)


def _enlarged(problem: Problem, block: Block) -> Tensor:
    """The gradient with what rounding may have left out of it.

    Scores are wrong each by its own rounding, which moves all entries of the gradient together: some
    are taken to be too high and some too low. What the sums themselves round is on top of each entry.
    """
    design = problem.design[:, : problem.size]
    eps = torch.finfo(design.dtype).eps
    slopes = problem.loss.score_slopes(block.scores, problem.labels) * block.scale
    curvature = problem.loss.score_curvature(block.scores, problem.labels, block.scale)[0]
    wrong = SCORES_ROUNDED * eps * (block.theta.abs() @ design.abs().T)
    side = torch.arange(len(design), device=design.device).square().mul(0.7).cos().sign()
    gradient = block.gradient + (curvature * wrong * side.to(design)) @ design
    sums = slopes.abs() @ design.abs() + problem.penalised * block.theta.abs()
    gradient = gradient + torch.copysign(eps * sums, gradient)
    if problem.loss.shift_free:  # the same more for all outputs: the penalty alone feels it
        gradient[..., -1] -= gradient[..., -1].mean(0)
    return gradient


def _length(coefficients: Tensor) -> Tensor:
    return torch.linalg.vector_norm(coefficients, dim=(0, 2))


def _intercepts(problem: Problem, theta: Tensor) -> Tensor:
    """Length of the intercepts, without a shift that changes nothing."""
    own = theta[..., -1]
    if problem.loss.shift_free:
        own = own - own.mean(0)
    return own.norm(dim=0)
