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
optimum. Rounding has unknown signs: where the Hessian is ill-conditioned the largest distance of
`PATTERNS` patterns of signs counts.

A loss with kinks bends less beyond one. Points that rounding may have put on the wrong side of theirs
count with the smaller curvature, and the length of a step across a kink is no distance.
"""

from dataclasses import replace

import torch
from torch import Tensor

from modelpred.targets.dense import dense_steps, fits
from modelpred.targets.systems import Block, Problem, conjugate

SMALL = 1e-3
SCORES_ROUNDED = 4  # rounding errors of each score
PATTERNS = 4  # of signs of rounding, where Hessians are ill-conditioned
SOLVED = 0.1  # relative residual of the system whose solution is the distance


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

    The penalty has the curvature 1 in every direction, so the length of the gradient bounds the
    distance of the coefficients. If this bound is below the limit, conjugate gradients are
    sufficient, although they may miss directions of small curvature. The Hessians of the other
    rows are factored.
    """
    wrong = _rounding_of_scores(problem, block)
    gradient = _enlarged(problem, block, wrong, pattern=0)
    rows = block if problem.loss.smooth else replace(block, scores=_flattest(problem, block, wrong))
    # No norm: nothing may dampen a free intercept here.
    rows = replace(rows, gradient=gradient, inverse=None, norm=torch.zeros_like(block.norm))
    goal = torch.full_like(block.norm, SOLVED)
    step, solved, _ = conjugate(problem, rows, goal, patient=True)
    free = gradient @ problem.turn
    whole = free if problem.loss.intercept_penalty else free[..., :-1]
    # The same way along the longest column, and of the intercept, which that moves.
    longest = problem.norms[:-1].amax() if len(problem.norms) > 1 else problem.norms[0]
    factors = (1, longest, longest / len(problem.design) ** 0.5)
    for factor, size in zip(factors, _sizes(problem, block), strict=True):
        solved &= factor * _length(whole) <= limit * size
    found = torch.where(solved, relative(problem, block, step), torch.inf)
    missing = (~solved).nonzero()[:, 0]
    if len(missing) and fits(problem):
        found[missing] = _factored(problem, rows.select(missing), block.select(missing))
    return found


def _factored(problem: Problem, rows: Block, block: Block) -> Tensor:
    """The same by each row's own Hessian.

    Args:
        problem: what all subsets share.
        rows: the block with the curvatures that count.
        block: as it is.
    """
    wrong = _rounding_of_scores(problem, block)
    found = torch.zeros_like(block.norm)
    for pattern in range(PATTERNS):
        gradient = _enlarged(problem, block, wrong, pattern=pattern)
        step, solved = dense_steps(problem, replace(rows, gradient=gradient), sure=True)
        if not problem.loss.smooth:
            solved &= ~_crosses(problem, rows, step)
        found = found.maximum(torch.where(solved, relative(problem, block, step), torch.inf))
    return found


def _rounding_of_scores(problem: Problem, block: Block) -> Tensor:
    """By how much each score may be wrong."""
    design = problem.design[:, : problem.size]
    eps = torch.finfo(design.dtype).eps
    return SCORES_ROUNDED * eps * (block.theta.abs() @ design.abs().T)


def _curvature(problem: Problem, block: Block, scores: Tensor) -> Tensor:
    return problem.loss.score_curvature(scores, problem.labels, block.scale)[0]


def _flattest(problem: Problem, block: Block, wrong: Tensor) -> Tensor:
    """The scores within rounding where the loss bends least."""
    high, low = block.scores + wrong, block.scores - wrong
    return torch.where(
        _curvature(problem, block, high) < _curvature(problem, block, low), high, low
    )


def _crosses(problem: Problem, rows: Block, step: Tensor) -> Tensor:
    """Rows whose step leads to where a point's loss bends less."""
    moved = rows.scores + 2 * (step @ problem.design[:, : problem.size].T)
    return (_curvature(problem, rows, moved) < _curvature(problem, rows, rows.scores)).any(2).any(0)


def _enlarged(problem: Problem, block: Block, wrong: Tensor, *, pattern: int) -> Tensor:
    """The gradient with what rounding may have left out of it.

    Scores are wrong each by its own rounding, which moves all entries of the gradient together: some
    are taken to be too high and some too low, as the pattern says. A slope that is a probability less
    one has the rounding of one. What the sums themselves round is on top of each entry.
    """
    design = problem.design[:, : problem.size]
    eps = torch.finfo(design.dtype).eps
    slopes = problem.loss.score_slopes(block.scores, problem.labels) * block.scale
    curvature = _curvature(problem, block, block.scores)
    if not problem.loss.smooth:
        ends = (_curvature(problem, block, block.scores + sign * wrong) for sign in (1, -1))
        curvature = torch.maximum(*ends)
    places = torch.arange(len(design), device=design.device)
    side = places.square().mul(0.7 + pattern).cos().sign()
    blurred = curvature * wrong + (eps * block.scale if problem.loss.probabilistic else 0)
    gradient = block.gradient + (blurred * side.to(design)) @ design
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
