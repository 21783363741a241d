"""Newton steps in float64 by a factor of each row's own Hessian: slow, for few rows, and sure.

Where float32 or a shared basis cannot follow (columns of very different lengths, far from zero or
nearly dependent; curvatures that differ by many powers of ten), each row's Hessian is made as a
matrix, scaled to a diagonal of ones, and factored.
"""

import torch
from torch import Tensor

from modelpred.targets.systems import Block, Problem

LARGEST = 600  # parameters of a row
ROUNDED = 1000  # rounding errors that an eigenvalue must exceed
BYTES = 32 * 2**20  # of what is worked on at once


def fits(problem: Problem) -> bool:
    """Whether a row's Hessian is small enough to be made as a matrix."""
    return len(problem.turn) * problem.size <= LARGEST


def dense_steps(problem: Problem, block: Block, *, sure: bool = False) -> tuple[Tensor, Tensor]:
    """-H^-1 g [outputs, rows, size], and which rows have one; the others' steps are zero.

    With `sure`, rows have none if rounding may have made the smallest eigenvalue of their Hessian.
    """
    outputs, count, size = block.theta.shape
    each = 8 * size * (2 * outputs**2 * size + outputs * len(problem.design))
    parts = torch.arange(count, device=block.theta.device).split(max(1, BYTES // each))
    steps = [_steps(problem, block.select(part), sure=sure) for part in parts]
    return torch.cat([step for step, _ in steps], 1), torch.cat([found for _, found in steps])


def _steps(problem: Problem, block: Block, *, sure: bool) -> tuple[Tensor, Tensor]:
    outputs, count, size = block.theta.shape
    matrices = _hessians(problem, block)
    scale = matrices.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()
    gradient = block.gradient
    if problem.loss.shift_free:
        gradient = gradient - gradient.mean(0)
    right = gradient.transpose(0, 1).reshape(count, -1) * scale
    scaled = matrices * scale[:, None] * scale[:, :, None]
    found, info = torch.linalg.solve_ex(scaled, -right)
    step = (found * scale).reshape(count, outputs, size).transpose(0, 1)
    if problem.loss.shift_free:
        step = step - step.mean(0)
        step[..., :-1] -= block.theta[..., :-1].mean(0)
    solved = (info == 0) & torch.isfinite(found).all(1)
    if sure:
        floor = ROUNDED * scaled.shape[1] * torch.finfo(scaled.dtype).eps
        finite = scaled.nan_to_num(0, 0, 0)
        solved &= torch.linalg.eigvalsh(finite)[:, 0] > floor
    return step.masked_fill(~solved[:, None], 0), solved


def _hessians(problem: Problem, block: Block) -> Tensor:
    """[rows, outputs size, outputs size]."""
    outputs, count, size = block.theta.shape
    design, loss = problem.design[:, :size], problem.loss
    curvature = loss.score_curvature(block.scores, problem.labels, block.scale)
    matrices = block.theta.new_empty(count, outputs, size, outputs, size)
    for output in range(outputs):
        unit = torch.zeros_like(curvature[0])
        unit[output] = 1
        bent = loss.curvature_product(curvature, unit)[..., None] * design
        matrices[:, :, :, output] = (bent.mT @ design).transpose(0, 1)
    if loss.shift_free:
        # Equal shifts of all outputs bend nothing but the penalty, which is soon lost in rounding.
        # What they are at the optimum, zero, is known, and the rest is orthogonal to them.
        shared = matrices.diagonal(dim1=2, dim2=4)
        shared += shared.diagonal(dim1=1, dim2=2).mean(2)[:, None, None] / outputs
    matrices = matrices.reshape(count, outputs * size, outputs * size)
    matrices.diagonal(dim1=1, dim2=2).add_(problem.penalised.repeat(outputs))
    return matrices
