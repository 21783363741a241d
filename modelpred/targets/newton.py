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

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from modelpred.targets.model import Points, Solution, Solver

WORKING = torch.float32
MAXIMUM_STEPS = 100
MAXIMUM_LINE_SEARCH = 30
MAXIMUM_CONJUGATE = 200
FORCING = 0.1  # relative residual of early Newton systems
POLISH = 3e-5  # relative residual of the last one
UNREACHED = 0.2  # share of rows that conjugate gradients may leave above their residual
FINISHED = 1e-4  # gradient norm / tolerance at which a row is done at once
FINISH = 3e-5  # gradient norm / tolerance that the last step aims at
PATIENCE = 3  # steps from within the tolerance after which rounding is all there is to gain
FIRST_PACE = 3.0  # conjugate gradients' iterations per digit, before any is known
PROBE = 8  # rows that tell it where the first system is solved to all its digits
SOLVE_COST = 4.0  # iteration preconditioned by factors / by a diagonal
PAIR_BYTES = 64 * 2**20  # largest table of products of columns
DAMPING = 1e-3  # of a free intercept, times the gradient norm so that it fades at the optimum
STALLED = 0.5  # share of its gradient norm that a step may leave before it counts as a stall
PATIENCE_LOOSE = 3  # stalls in a row before systems are solved tighter ...
PATIENCE_STALLED = 7  # ... and before they are solved in float64
PATIENCE_STEPS = 15  # steps after which all are solved in float64
OVERSHOT = 0.5  # phi'(t) / |phi'(0)| above which a step is shortened


@runtime_checkable  # shapes are checked at run time in tests
class ScoreLoss(Protocol):
    """What Newton's method needs of a linear family; scores lie as [outputs, subsets, points]."""

    intercept_penalty: ClassVar[float]  # 1 if intercepts are penalised like coefficients, else 0
    quadratic: ClassVar[bool]  # whether one exact Newton step is all
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
    """What all subsets share: loss, labels, design [x, 1] and its eigenbasis for each output."""

    loss: ScoreLoss
    labels: Tensor
    design: Tensor  # float64 [points, size], size = features + 1
    turn: Tensor  # float64 [outputs, size, size]: theta = turned theta @ turn.mT
    turned: Tensor  # working precision [outputs, points, size]: design @ turn
    squares: Tensor  # its squares
    penalty: Tensor  # [size]: diagonal in the turned coordinates
    pairs: Tensor | None  # [points, pairs]: products of turned columns i >= j
    unpack: Tensor | None  # [size * size] places in a row of pairs

    def exact(self) -> "Problem":
        """The same in float64, without the table of pairs."""
        turned = self.design @ self.turn
        return replace(
            self,
            turned=turned,
            squares=turned.square(),
            penalty=self.penalty.double(),
            pairs=None,
            unpack=None,
        )

    @property
    def direct_cost(self) -> float:
        """Conjugate gradient iterations that cost as much as building and factoring H.

        A product with H is 4 points size operations, its half 2 points size^2 / 2. Factoring many
        small matrices reaches a tenth of the speed of a large product: about 9 size^3.
        """
        points, size = self.design.shape
        return size / 4 + 2.3 * size**2 / points if self.pairs is not None else math.inf


@dataclass
class Block:
    """Rows still being trained; [outputs, rows, ...] where there are outputs."""

    row: Tensor  # place in the result
    scale: Tensor  # C w, float64 [rows, points]
    theta: Tensor  # float64 [outputs, rows, size]
    scores: Tensor  # of theta
    gradient: Tensor
    norm: Tensor  # largest absolute entry of the gradient
    residual: Tensor  # relative residual to which the next Newton system is solved
    within: Tensor  # steps taken from a gradient within the tolerance
    polished: Tensor  # bool: the last of these gained what it should
    steps: Tensor  # taken so far
    stalls: Tensor  # steps in a row that gained little
    factor: Tensor | None = None  # Cholesky factors [rows, size, size] of an earlier step

    def select(self, keep: Tensor) -> "Block":
        """Only some rows."""
        with_outputs = ("theta", "scores", "gradient")
        pick = {
            name: value[:, keep] if name in with_outputs else value[keep]
            for name, value in vars(self).items()
            if value is not None
        }
        return Block(**pick)


def shared_problem(loss: ScoreLoss, points: Points, curvature: Tensor) -> Problem:
    """Eigenbases of sum_i curvature_i a_i a_i', for curvature [outputs, points].

    Free intercepts are first made orthogonal to the features by centring, which keeps the penalty
    diagonal: m = c' Q' (x - centre) + b. Penalised ones turn like any other coefficient.
    """
    features = points.features
    design = torch.cat([features, features.new_ones(len(features), 1)], 1)
    size = design.shape[1]
    penalty = design.new_ones(size)
    if loss.intercept_penalty > 0:
        turn = _eigenvectors(design.expand(len(curvature), -1, -1), curvature)
    else:
        centre = (curvature / curvature.sum(1, keepdim=True)) @ features
        vectors = _eigenvectors(features - centre[:, None], curvature)
        turn = torch.eye(size, dtype=design.dtype, device=design.device)
        turn = turn.repeat(len(curvature), 1, 1)
        turn[:, :-1, :-1] = vectors
        turn[:, -1, :-1] = -(centre[:, None] @ vectors)[:, 0]
        penalty[-1] = 0
    turned = (design @ turn).to(WORKING)
    pairs = unpack = None
    if len(curvature) == 1 and 2 * len(design) * size * size <= PAIR_BYTES:
        rows, columns = torch.tril_indices(size, size, device=design.device)
        pairs = turned[0][:, rows] * turned[0][:, columns]
        unpack = torch.zeros(size, size, dtype=torch.int64, device=design.device)
        unpack[rows, columns] = torch.arange(len(rows), device=design.device)
        unpack = torch.maximum(unpack, unpack.T).flatten()
    penalty = penalty.to(WORKING)
    return Problem(
        loss, points.labels, design, turn, turned, turned.square(), penalty, pairs, unpack
    )


def _eigenvectors(rows: Tensor, curvature: Tensor) -> Tensor:
    return torch.linalg.eigh(rows.mT @ (rows * curvature[..., None]))[1]


def newton_solver(loss: ScoreLoss, points: Points) -> Solver:
    """A solver for blocks of subsets that starts at the model of the whole pool."""
    features = points.features
    outputs = loss.outputs(points.classes)
    ones = features.new_ones(1, len(features))
    first = shared_problem(loss, points, ones.expand(outputs, -1))
    origin = features.new_zeros(outputs, 1, features.shape[1] + 1)
    full = _minimise(first, ones, origin, 1e-6)
    theta = _outputs_first(full.parameters, outputs)
    curvature = loss.score_curvature(theta @ first.design.T, points.labels, ones)[0][:, 0]
    # Points that the whole pool's model is sure of still matter to subsets without their neighbours.
    problem = shared_problem(loss, points, curvature + 1e-3 * curvature.mean() + 1e-12)

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        begin = theta if start is None else _outputs_first(start, outputs)
        return _minimise(problem, weights, begin, tolerance)

    return solve


def _outputs_first(parameters: Tensor, outputs: int) -> Tensor:
    return parameters.unflatten(1, (outputs, -1)).transpose(0, 1).contiguous()


def _minimise(problem: Problem, weights: Tensor, start: Tensor, tolerance: float) -> Solution:
    count = len(weights)
    final = start.expand(-1, count, -1).clone()
    norms, objective = weights.new_zeros(2, count)
    iterations = torch.zeros(count, dtype=torch.int64, device=weights.device)
    scale = problem.loss.C * weights
    # Scores of a shared start are computed once; steps make new tensors, so views will do.
    scores, gradient = _evaluate(problem, start, scale)
    theta = start.expand(-1, count, -1)
    scores = scores.expand(-1, count, -1)
    row = torch.arange(count, device=weights.device)
    norm = gradient.abs().amax((0, 2))
    residual = torch.full_like(norm, POLISH if problem.loss.quadratic else FORCING)
    block = Block(
        row, scale, theta, scores, gradient, norm, residual, row * 0, row < 0, row * 0, row * 0
    )
    pace = _probed_pace(problem, block) if problem.loss.quadratic else FIRST_PACE
    for step in range(MAXIMUM_STEPS + 1):
        done = (block.norm <= tolerance) & block.polished | (block.norm <= FINISHED * tolerance)
        if step == MAXIMUM_STEPS:
            done = torch.ones_like(done)
        if bool(done.any()):
            rows = block.row[done]
            final[:, rows] = block.theta[:, done]
            norms[rows] = block.norm[done]
            iterations[rows] = step
            objective[rows] = _objective(problem, block.select(done))
            if bool(done.all()):
                break
            block = block.select(~done)
        pace = _step(problem, block, tolerance, pace)
    if problem.loss.shift_free:
        final[..., -1] -= final[..., -1].mean(0, keepdim=True)
    parameters = final.transpose(0, 1).flatten(1)
    return Solution(parameters, norms, objective, iterations, norms <= tolerance)


def _probed_pace(problem: Problem, block: Block) -> float:
    """Conjugate gradients' iterations per digit of a block's first system, from a few of its rows."""
    rows = block.select(torch.arange(len(block.row), device=block.row.device) < PROBE)
    return _conjugate(problem, rows, rows.residual)[2] / -math.log10(POLISH)


def _step(problem: Problem, block: Block, tolerance: float, pace: float) -> float:
    """One Newton step of every row; returns conjugate gradients' iterations per digit."""
    last = block.norm <= tolerance
    finish = (FINISH * tolerance / block.norm).clamp(POLISH, FORCING)
    residual = torch.where(last, finish, block.residual)
    digits = -float(residual.median().log10())
    if digits * pace > problem.direct_cost:
        direction, reached = _direct(problem, block)
        pace = FIRST_PACE
    else:
        direction, reached, used = _conjugate(problem, block, residual)
        pace = used / digits * (1 if block.factor is None else SOLVE_COST)
    stuck = (block.stalls > PATIENCE_STALLED) | (block.steps >= PATIENCE_STEPS)
    if bool(stuck.any()):
        rows = replace(block.select(stuck), factor=None)
        direction[:, stuck], reached[stuck], _ = _conjugate(problem.exact(), rows, residual[stuck])
    before = block.norm
    _search(problem, block, direction, exempt=last)
    block.norm = block.gradient.abs().amax((0, 2))
    block.steps += 1
    block.within += last
    gained = reached & (block.norm <= 100 * residual * before)
    block.polished = last & (gained | (block.within >= PATIENCE))
    stalled = ~last & (block.norm > STALLED * before)
    block.stalls = torch.where(stalled, block.stalls + 1, 0)
    # Quadratic convergence is worth a matching residual; where loose steps do not help, tight ones.
    matching = (block.norm / before).square()
    tighter = FORCING * 0.1 ** (block.stalls - PATIENCE_LOOSE).clamp(min=0)
    block.residual = torch.where(stalled, tighter, matching).clamp(POLISH, FORCING)
    return pace


def _evaluate(problem: Problem, theta: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    scores = theta @ problem.design.T
    slopes = problem.loss.score_slopes(scores, problem.labels)
    # One row of slopes for all subsets where they share theta.
    slopes = slopes.mul_(scale) if slopes.shape[1] == len(scale) else slopes * scale
    gradient = slopes @ problem.design
    gradient[..., :-1] += theta[..., :-1]
    gradient[..., -1] += problem.loss.intercept_penalty * theta[..., -1]
    return scores, gradient


def _objective(problem: Problem, block: Block) -> Tensor:
    losses = problem.loss.score_losses(block.scores, problem.labels)
    penalised = block.theta.square()
    penalised[..., -1] *= problem.loss.intercept_penalty
    return penalised.sum((0, 2)) / 2 + (block.scale * losses).sum(1)


@dataclass(frozen=True)
class System:
    """H s = -g in the turned basis, in working precision, with g scaled to length one."""

    curvature: tuple[Tensor, ...]
    penalty: Tensor  # [rows, size]
    right: Tensor  # -g / length
    length: Tensor  # float64 [rows, 1]


def _newton_system(problem: Problem, block: Block) -> System:
    working = problem.turned.dtype
    scores, scale = block.scores.to(working), block.scale.to(working)
    labels = problem.labels.to(working) if problem.labels.is_floating_point() else problem.labels
    curvature = problem.loss.score_curvature(scores, labels, scale)
    turned = block.gradient @ problem.turn
    length = turned.abs().amax((0, 2)).clamp(min=1e-300)[:, None]
    penalty = problem.penalty.repeat(len(length), 1)
    if problem.loss.intercept_penalty == 0:
        # Where all probabilities are saturated a free intercept has no curvature to divide by.
        penalty[:, -1] = DAMPING * block.norm.clamp(max=1).to(working)
    return System(curvature, penalty, (turned / -length).to(working), length)


def _turned_back(problem: Problem, system: System, solution: Tensor) -> Tensor:
    """The direction in float64; none for a row whose solution is not finite."""
    direction = (solution.double() * system.length) @ problem.turn.mT
    return direction.masked_fill_(~torch.isfinite(direction.sum((0, 2)))[:, None], 0)


def _direct(problem: Problem, block: Block) -> tuple[Tensor, Tensor]:
    """-H^-1 g by Cholesky factors, for one output; and which rows have one."""
    assert problem.pairs is not None
    assert problem.unpack is not None
    system = _newton_system(problem, block)
    right = system.right[0]
    size = len(problem.penalty)
    packed = system.curvature[0][0] @ problem.pairs
    hessian = packed.index_select(1, problem.unpack).unflatten(1, (size, size))
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    diagonal += system.penalty
    inverse = 1 / diagonal.clamp(min=1e-30)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    solution = torch.cholesky_solve(right[..., None], factor)[..., 0]
    reached = (failed == 0) & torch.isfinite(solution).all(1)
    solution = torch.where(reached[:, None], solution, right * inverse)
    block.factor = factor if bool(reached.all()) else None
    return _turned_back(problem, system, solution[None]), reached


def _preconditioner(problem: Problem, block: Block, system: System) -> Callable[[Tensor], Tensor]:
    """The factors of an earlier step if there are any, else the diagonal of H."""
    factor = block.factor
    if factor is not None:
        return lambda right: torch.cholesky_solve(right[0][..., None], factor)[None, ..., 0]
    diagonal = system.curvature[0] @ problem.squares
    inverse = 1 / diagonal.add_(system.penalty).clamp_(min=1e-30)
    return lambda right: right * inverse


def _conjugate(problem: Problem, block: Block, residual: Tensor) -> tuple[Tensor, Tensor, int]:
    """-H^-1 g to each row's relative residual, which rows reached theirs, and iterations.

    They stop when few rows are left unreached: those get a useful direction and another step.
    """
    system = _newton_system(problem, block)
    curvature, remaining = system.curvature, system.right
    precondition = _preconditioner(problem, block, system)
    forward = problem.turned.mT
    solution = torch.zeros_like(remaining)
    scaled = precondition(remaining)
    search = scaled.clone()
    energy = (remaining * scaled).sum((0, 2))
    goal = energy * residual.to(energy.dtype).square()
    allowed = int(UNREACHED * len(residual))
    used, reached = 0, energy <= goal
    while used < MAXIMUM_CONJUGATE:
        used += 1
        product = search @ forward
        product = problem.loss.curvature_product(curvature, product, out=product) @ problem.turned
        product.addcmul_(search, system.penalty)
        curved = (search * product).sum((0, 2)).clamp_(min=1e-30)
        ratio = (energy / curved)[:, None]
        solution.addcmul_(search, ratio)
        remaining.addcmul_(product, ratio, value=-1)
        scaled = precondition(remaining)
        following = (remaining * scaled).sum((0, 2))
        reached = following <= goal
        if len(reached) - int(reached.sum()) <= allowed:
            break
        search.mul_((following / energy.clamp(min=1e-30))[:, None]).add_(scaled)
        energy = following
    return _turned_back(problem, system, solution), reached, used


def _search(problem: Problem, block: Block, direction: Tensor, *, exempt: Tensor) -> None:
    """Move each row along its direction, shortening steps that overshoot.

    Rows within the tolerance are exempt: at the floor of rounding slopes mean nothing.
    """
    begin = block.theta
    slope = -(block.gradient * direction).sum((0, 2))
    block.theta = begin + direction
    block.scores, block.gradient = _evaluate(problem, block.theta, block.scale)
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
        scores, gradient = _evaluate(problem, theta, block.scale[over])
        block.theta[:, over], block.scores[:, over] = theta, scores
        block.gradient[:, over] = gradient
        ending = (gradient * direction[:, over]).sum((0, 2))
        rises = ending > 0
        high[over[rises]], high_slope[over[rises]] = length[rises], ending[rises]
        low[over[~rises]], low_slope[over[~rises]] = length[~rises], ending[~rises]
        over = over[ending.abs() > OVERSHOT * slope[over]]
