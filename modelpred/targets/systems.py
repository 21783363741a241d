"""Newton systems of many subsets: the basis they share, and two ways to solve H s = -g.

In the turned basis every subset's Hessian is nearly diagonal. `conjugate` multiplies with all
Hessians of a block by two matrix products, in float32 (or in that of `Problem.exact`), with the
exact diagonal, or inverses of an earlier step, as preconditioner. `direct` builds all Hessians by one
product of weights with the table of products of columns, and inverts them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelpred.targets.matrices import OuterProducts, applied
from modelpred.targets.points import Points
from modelpred.targets.score_loss import ScoreLoss

WORKING = torch.float32
# Products with few columns run up to a third faster where those are a multiple of these.
WIDTH = {torch.float32: 16, torch.float64: 12}
MAXIMUM_CONJUGATE = 200
ROUNDED = 8  # rounding errors of the start to which a row is solved at most
UNREACHED = 0.2  # share of rows that conjugate gradients may leave above their residual
PAIR_BYTES = 64 * 2**20  # largest table of products of columns
DAMPING = 1e-3  # of a free intercept, times the gradient norm so that it fades at the optimum


@dataclass(frozen=True)
class Problem:
    """What all subsets share: loss, labels, design [x, 1] and its eigenbasis for each output."""

    loss: ScoreLoss
    labels: Tensor
    size: int  # features + 1
    design: Tensor  # float64 [points, size], widened by columns of zeros
    turn: Tensor  # float64 [outputs, size, size]: theta = turned theta @ turn.mT
    turned: Tensor  # working precision [outputs, points, size]: design @ turn, widened
    squares: Tensor  # its squares
    penalty: Tensor  # [size]: diagonal in the turned coordinates
    norms: Tensor  # [size]: length of each column of the design
    penalised: Tensor  # [size]: diagonal in the design's own coordinates

    def exact(self) -> "Problem":
        """The same in float64, where systems are never solved directly."""
        turned = _widened(self.design[:, : self.size] @ self.turn, self.turn.dtype)
        return replace(
            self,
            turned=turned,
            squares=turned.square(),
            penalty=self.penalty.double(),
        )

    @property
    def direct_cost(self) -> float:
        """Conjugate gradient iterations that cost as much as building and inverting H.

        An iteration is 4 points size operations, at a third of the speed of large products because
        of what is around them; H is points size^2 of them, and inverting many small matrices takes
        as long as 8 size^3.
        """
        points, size = len(self.design), self.size
        single = len(self.turned) == 1 and self.turned.dtype == WORKING
        if not single or 2 * points * size * size > PAIR_BYTES:
            return math.inf
        return size / 5 + 1.5 * size**2 / points

    @cached_property
    def outer_products(self) -> OuterProducts:
        """Of the turned design's rows, where all outputs share it."""
        return OuterProducts.of(self.turned[0][:, : self.size])


@dataclass
class Block:
    """Rows still being trained; [outputs, rows, ...] where there are outputs."""

    row: Tensor  # place in the result
    scale: Tensor  # C w, float64 [rows, points]
    theta: Tensor  # float64 [outputs, rows, size]
    scores: Tensor  # of theta
    gradient: Tensor
    slopes: Tensor  # [rows]: length of the losses' slopes, weights included
    norm: Tensor  # largest absolute entry of the gradient
    goal: Tensor  # the norm at which the parameters are within the tolerance, as far as is known
    residual: Tensor  # relative residual to which the next Newton system is solved
    within: Tensor  # steps taken from a gradient within the tolerance
    polished: Tensor  # bool: the last of these gained what it should
    ready: Tensor  # bool: a further step would change next to nothing
    steps: Tensor  # taken so far
    stalls: Tensor  # steps in a row that gained little
    left: Tensor  # bool: still to be done; the others only wait for being dropped
    inverse: Tensor | None = None  # of an earlier step's Hessians [rows, size, size]

    def select(self, keep: Tensor) -> "Block":
        """Only some rows, by their indices."""
        with_outputs = ("theta", "scores", "gradient")
        rows = {
            name: value.index_select(1 if name in with_outputs else 0, keep)
            for name, value in vars(self).items()
            if value is not None
        }
        return Block(**rows)


def shared_problem(loss: ScoreLoss, points: Points, curvature: Tensor) -> Problem:
    """Eigenbases of sum_i curvature_i a_i a_i', for curvature [outputs or 1 for all, points].

    Free intercepts are first made orthogonal to the features by centring, which keeps the penalty
    diagonal: m = c' Q' (x - centre) + b. Penalised ones turn like any other coefficient.
    """
    features = points.features
    design = loss.design(features)
    size = design.shape[1]
    penalty = design.new_ones(size)
    if loss.intercept_penalty > 0:
        turn = _eigenvectors(design.expand(len(curvature), -1, -1), curvature)
    else:
        turn = centred_basis(features, curvature)
        penalty[-1] = 0
    turned = _widened(design @ turn, WORKING)
    norms, penalised = design.norm(dim=0), design.new_ones(size)
    penalised[-1] = loss.intercept_penalty
    design = _widened(design, design.dtype)
    outputs = loss.outputs(points.classes)
    turn, turned, squares = (
        each.expand(outputs, -1, -1) for each in (turn, turned, turned.square())
    )
    penalty = penalty.to(WORKING)
    return Problem(
        loss, points.labels, size, design, turn, turned, squares, penalty, norms, penalised
    )


def centred_basis(features: Tensor, curvature: Tensor) -> Tensor:
    """[outputs, size, size]: eigenvectors of the features about their centre, and a free intercept.

    Args:
        features: [points, features].
        curvature: [outputs or 1 for all, points].
    """
    size = features.shape[1] + 1
    centre = (curvature / curvature.sum(1, keepdim=True)) @ features
    vectors = _eigenvectors(features - centre[:, None], curvature)
    turn = torch.eye(size, dtype=features.dtype, device=features.device)
    turn = turn.repeat(len(curvature), 1, 1)
    turn[:, :-1, :-1] = vectors
    turn[:, -1, :-1] = -(centre[:, None] @ vectors)[:, 0]
    return turn


def _eigenvectors(rows: Tensor, curvature: Tensor) -> Tensor:
    return torch.linalg.eigh(rows.mT @ (rows * curvature[..., None]))[1]


def _widened(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return pad(rows, (0, -rows.shape[-1] % WIDTH[dtype])).to(dtype)


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


def direct(problem: Problem, block: Block) -> tuple[Tensor, Tensor]:
    """-H^-1 g by inverses, for one output; and which rows have one."""
    system = _newton_system(problem, block)
    inverse = problem.outer_products.inverses(system.curvature[0][0], system.penalty)
    solution = applied(inverse, system.right[0])[None]
    solved = torch.isfinite(solution).all(2)[0]
    if bool(solved.all()):
        block.inverse = inverse
    else:
        block.inverse = None
        rough = _preconditioner(problem, block, system)(system.right)
        solution = torch.where(solved[:, None], solution, rough)
    return _turned_back(problem, system, solution), solved


def _preconditioner(problem: Problem, block: Block, system: System) -> Callable[[Tensor], Tensor]:
    """The inverses of an earlier step if there are any, else the diagonal of H."""
    inverse = block.inverse
    if inverse is not None:
        return lambda right: applied(inverse, right[0])[None]
    diagonal = (system.curvature[0] @ problem.squares)[..., : problem.size]
    inverse = 1 / diagonal.add_(system.penalty).clamp_(min=1e-30)
    return lambda right: right * inverse


def conjugate(
    problem: Problem, block: Block, residual: Tensor, *, patient: bool = False
) -> tuple[Tensor, Tensor, int]:
    """-H^-1 g to each row's relative residual, which rows reached theirs, and iterations.

    They stop when few rows are left unreached, unless `patient`: those get a useful direction and
    another step.
    """
    system = _newton_system(problem, block)
    curvature, remaining = system.curvature, system.right
    precondition = _preconditioner(problem, block, system)
    forward = problem.turned[..., : problem.size].mT
    solution = torch.zeros_like(remaining)
    scaled = precondition(remaining)
    search = scaled.clone()
    energy = (remaining * scaled).sum((0, 2))
    goal = energy * residual.to(energy.dtype).square()
    floor = energy * (ROUNDED * torch.finfo(energy.dtype).eps) ** 2
    allowed = 0 if patient else int(UNREACHED * len(residual))
    used, solved = 0, energy <= goal
    while used < MAXIMUM_CONJUGATE:
        used += 1
        product = search @ forward
        product = problem.loss.curvature_product(curvature, product, out=product)
        product = (product @ problem.turned)[..., : problem.size]
        product.addcmul_(search, system.penalty)
        curved = (search * product).sum((0, 2)).clamp_(min=1e-30)
        # What is left of a row that is solved is rounding, and would be followed anywhere.
        ratio = (energy / curved).masked_fill_(energy <= floor, 0)[:, None]
        solution.addcmul_(search, ratio)
        remaining.addcmul_(product, ratio, value=-1)
        scaled = precondition(remaining)
        following = (remaining * scaled).sum((0, 2))
        solved = following <= goal
        if len(solved) - int(solved.sum()) <= allowed:
            break
        search.mul_((following / energy.clamp(min=1e-30))[:, None]).add_(scaled)
        energy = following
    return _turned_back(problem, system, solution), solved, used
