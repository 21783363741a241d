"""Batched Newton's method for linear families: all subsets of a block at once.

Each step solves H s = -g by conjugate gradients, where a product with all Hessians of the block is
two matrix products with the shared design. Three things make it cheap without making it loose:

- *A shared basis.* Turning the design once into the eigenbasis of its own second moment makes every
  subset's Hessian nearly diagonal, so its exact diagonal is a good preconditioner.
- *Two precisions.* Gradients are float64. A direction only has to be right to some digits, so
  conjugate gradients run in float32: this is iterative refinement, and its end point is float64's.
- *A safeguard.* phi(t) = F(theta + t s) is convex, so phi'(1) <= |phi'(0)| / 2 tells that the full
  step has not overshot; otherwise t moves by bisection and secants between a descending and an
  ascending end. No row can diverge, whatever the others do.

A row is done when its gradient is at most the tolerance and a further step, solved to
`POLISH` relative, has been taken: rounding that differs between batchings then moves parameters by
much less than 1e-9, although it may move the iteration at which the tolerance is met.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from modelpred.targets.model import Points, Solution, Solver

MAXIMUM_STEPS = 100
MAXIMUM_LINE_SEARCH = 30
MAXIMUM_CONJUGATE = 200
FORCING = 0.1  # relative residual of early Newton systems
POLISH = 1e-4  # relative residual of the last one
OVERSHOT = 0.5  # phi'(t) / |phi'(0)| above which a step is shortened


class ScoreLoss(Protocol):
    """What Newton's method needs of a linear family; scores lie as [subsets, outputs, points]."""

    intercept_penalty: ClassVar[float]  # 1 if intercepts are penalised like coefficients, else 0
    shift_free: ClassVar[bool]  # whether equal shifts of all intercepts change nothing

    @property
    def C(self) -> float:  # noqa: N802 - the field's own name for it
        """Factor of the losses."""
        ...

    def outputs(self, classes: int) -> int:
        """Scores a point."""
        ...

    def score_losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Loss of each point."""
        ...

    def score_slopes(self, scores: Tensor, labels: Tensor) -> Tensor:
        """First derivative of the loss in the scores."""
        ...

    def score_curvature(self, scores: Tensor, labels: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Second derivative in the scores times `scale`; first item is its diagonal."""
        ...

    def curvature_product(
        self, curvature: tuple[Tensor, ...], directions: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """The second derivative applied to directions."""
        ...


@dataclass(frozen=True)
class Problem:
    """What all subsets share: loss, labels, design [x, 1] and its eigenbasis."""

    loss: ScoreLoss
    labels: Tensor
    design: Tensor  # float64 [x, 1]
    turn: Tensor  # float64: theta = turned theta @ turn.T
    turned: Tensor  # float32: design @ turn
    squares: Tensor  # float32: its squares
    penalty: Tensor  # float32 [features + 1], diagonal in the turned coordinates


@dataclass
class Block:
    """Rows still being trained."""

    row: Tensor  # place in the result
    scale: Tensor  # C w, float64 [rows, points]
    theta: Tensor  # float64 [rows, outputs, features + 1]
    scores: Tensor  # of theta
    gradient: Tensor
    polished: Tensor  # bool [rows]

    def select(self, keep: Tensor) -> "Block":
        """Only some rows."""
        return Block(**{name: value[keep] for name, value in vars(self).items()})


def shared_problem(loss: ScoreLoss, points: Points, curvature: Tensor) -> Problem:
    """Eigenbasis of sum_i curvature_i a_i a_i'.

    Free intercepts are first made orthogonal to the features by centring, which keeps the penalty
    diagonal: m = c' Q' (x - centre) + b. Penalised ones turn like any other coefficient.
    """
    features = points.features
    ones = features.new_ones(len(features), 1)
    design = torch.cat([features, ones], 1)
    size = design.shape[1]
    penalty = design.new_ones(size)
    if loss.intercept_penalty > 0:
        _, turn = torch.linalg.eigh(design.T @ (design * curvature[:, None]))
    else:
        centre = curvature @ features / curvature.sum()
        centred = features - centre
        _, vectors = torch.linalg.eigh(centred.T @ (centred * curvature[:, None]))
        turn = torch.eye(size, dtype=design.dtype, device=design.device)
        turn[:-1, :-1] = vectors
        turn[-1, :-1] = -(centre @ vectors)
        penalty[-1] = 0
    turned = (design @ turn).float()
    return Problem(loss, points.labels, design, turn, turned, turned.square(), penalty.float())


def newton_solver(loss: ScoreLoss, points: Points) -> Solver:
    """A solver for blocks of subsets that starts at the model of the whole pool."""
    features = points.features
    outputs = loss.outputs(points.classes)
    ones = features.new_ones(1, len(features))
    origin = features.new_zeros(1, outputs, features.shape[1] + 1)
    first = shared_problem(loss, points, ones[0])
    full = _minimise(first, ones, origin, 1e-6)
    theta = full.parameters.unflatten(1, (outputs, -1))
    diagonal = loss.score_curvature(theta @ first.design.T, points.labels, ones)[0].sum((0, 1))
    problem = shared_problem(loss, points, diagonal + 1e-3 * diagonal.mean() + 1e-12)

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        begin = theta if start is None else start.unflatten(1, (outputs, -1))
        return _minimise(problem, weights, begin, tolerance)

    return solve


def _minimise(
    problem: Problem,
    weights: Tensor,
    start: Tensor,
    tolerance: float,
) -> Solution:
    count = len(weights)
    theta = start.expand(count, -1, -1).clone()
    final = theta.clone()
    norms = torch.full_like(theta[:, 0, 0], torch.inf)
    objective = torch.zeros_like(norms)
    iterations = torch.zeros(count, dtype=torch.int64, device=weights.device)
    scale = problem.loss.C * weights
    scores, gradient = _evaluate(problem, theta, scale)
    row = torch.arange(count, device=weights.device)
    block = Block(row, scale, theta, scores, gradient, torch.zeros_like(row, dtype=torch.bool))
    for step in range(MAXIMUM_STEPS + 1):
        norm = block.gradient.abs().amax((1, 2))
        small = norm <= tolerance
        done = (small & block.polished) | (norm <= POLISH * tolerance)
        if step == MAXIMUM_STEPS:
            done = torch.ones_like(done)
        if bool(done.any()):
            rows = block.row[done]
            final[rows] = block.theta[done]
            norms[rows] = norm[done]
            iterations[rows] = step
            objective[rows] = _objective(problem, block.select(done))
            if bool(done.all()):
                break
            block, small = block.select(~done), small[~done]
        residual = POLISH if bool(small.any()) else FORCING
        direction = _direction(problem, block, residual)
        _search(problem, block, direction)
        block.polished = small
    if problem.loss.shift_free:
        final[:, :, -1] -= final[:, :, -1].mean(1, keepdim=True)
    return Solution(final.flatten(1), norms, objective, iterations, norms <= tolerance)


def _evaluate(problem: Problem, theta: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    scores = theta @ problem.design.T
    slopes = problem.loss.score_slopes(scores, problem.labels) * scale[:, None]
    gradient = slopes @ problem.design
    gradient[..., :-1] += theta[..., :-1]
    gradient[..., -1] += problem.loss.intercept_penalty * theta[..., -1]
    return scores, gradient


def _objective(problem: Problem, block: Block) -> Tensor:
    losses = problem.loss.score_losses(block.scores, problem.labels)
    penalised = block.theta.square()
    penalised[..., -1] *= problem.loss.intercept_penalty
    return penalised.sum((1, 2)) / 2 + (block.scale * losses).sum(1)


def _direction(problem: Problem, block: Block, residual: float) -> Tensor:
    """-H^-1 g to a relative residual, by conjugate gradients in float32 in the turned problem."""
    curvature = problem.loss.score_curvature(
        block.scores.float(), problem.labels, block.scale.float()
    )
    inverse = 1 / (curvature[0] @ problem.squares + problem.penalty).clamp(min=1e-30)
    turned_gradient = block.gradient @ problem.turn
    length = turned_gradient.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)
    remaining = (turned_gradient / -length).float()
    solution = torch.zeros_like(remaining)
    scaled = remaining * inverse
    search = scaled.clone()
    energy = (remaining * scaled).sum((1, 2))
    goal = energy * residual**2
    for _ in range(MAXIMUM_CONJUGATE):
        product = search @ problem.turned.T
        product = problem.loss.curvature_product(curvature, product, out=product) @ problem.turned
        product.addcmul_(search, problem.penalty)
        curved = (search * product).sum((1, 2))
        ratio = (energy / curved).nan_to_num(0, 0, 0)[:, None, None]
        solution.addcmul_(search, ratio)
        remaining.addcmul_(product, ratio, value=-1)
        torch.mul(remaining, inverse, out=scaled)
        following = (remaining * scaled).sum((1, 2))
        if not bool((following > goal).any()):
            break
        growth = (following / energy).nan_to_num(0, 0, 0)[:, None, None]
        search.mul_(growth).add_(scaled)
        energy = following
    return (solution.double() * length) @ problem.turn.T


def _search(problem: Problem, block: Block, direction: Tensor) -> None:
    """Move each row along its direction, shortening steps that overshoot."""
    begin = block.theta
    slope = -(block.gradient * direction).sum((1, 2))
    block.theta = begin + direction
    block.scores, block.gradient = _evaluate(problem, block.theta, block.scale)
    ending = (block.gradient * direction).sum((1, 2))
    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    low_slope, high_slope = -slope, ending
    over = (ending > OVERSHOT * slope).nonzero()[:, 0]
    for attempt in range(MAXIMUM_LINE_SEARCH):
        if len(over) == 0:
            return
        left, right = low[over], high[over]
        fraction = -low_slope[over] / (high_slope[over] - low_slope[over])
        fraction = fraction.clamp(0.1, 0.9) if attempt % 2 == 0 else torch.full_like(fraction, 0.5)
        length = left + fraction * (right - left)
        theta = begin[over] + length[:, None, None] * direction[over]
        scores, gradient = _evaluate(problem, theta, block.scale[over])
        block.theta[over], block.scores[over], block.gradient[over] = theta, scores, gradient
        ending = (gradient * direction[over]).sum((1, 2))
        rises = ending > 0
        high[over[rises]], high_slope[over[rises]] = length[rises], ending[rises]
        low[over[~rises]], low_slope[over[~rises]] = length[~rises], ending[~rises]
        over = over[ending.abs() > OVERSHOT * slope[over]]
