"""Inverse Hessians of a linear family along a Newton path: one matrix, or a block for each output.

Up to `LARGEST_INVERSE` parameters the Hessian H_s of a share s is inverted as a matrix. Beyond, it is
taken as one block for each output k,

    H_k = P + C sum_i w_i j_ik a_i a_i',   j_ik = the second derivative of row i's loss in score k

For softmax the outputs bend each other, too. On changes that sum to zero over K classes of equal chance
the full Hessian is K / (K - 1) times the blocks' data term, which is therefore enlarged by that.
The blocks are decomposed at one share, H_k = Q_k L_k Q_k'. At another share the eigenvectors are kept,
and the data term's part of each eigenvalue is scaled with the sum of j_ik there.

With more features than rows, the same is done in the space of the rows (row_space.py): steps stay there,
and there are no more directions than rows for each output.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from modelpred.targets import Points
from modelpred.targets.linear import Linear, row_space_of

LARGEST_INVERSE = 4096  # parameters up to which a Hessian is inverted as a matrix
BLOCK_BYTES = 2**30  # of all blocks' eigenvectors, float32
NEGLIGIBLE = 1e-3  # share of an output's curvature whose rows are left out of its block
LEAST = 1e-6  # eigenvalue, relative to the largest


def invertible(model: Linear, points: Points) -> bool:
    """Whether the Hessian, or a block for each output, is small enough to decompose."""
    features, outputs = points.features.shape[1] + 1, model.outputs(points.classes)
    joined = outputs if block_count(model, points) == 1 and features > _directions(points) else 1
    stored = 4 * outputs * joined * features * _directions(points)
    return _directions(points) <= LARGEST_INVERSE and stored <= BLOCK_BYTES


def block_count(model: Linear, points: Points) -> int:
    """1 where the Hessian is inverted as a matrix, else the number of outputs."""
    outputs = model.outputs(points.classes)
    return 1 if outputs * _directions(points) <= LARGEST_INVERSE else outputs


def _directions(points: Points) -> int:
    """Directions of one output that steps may have."""
    return min(points.features.shape) + 1


def blockwise(rows: Tensor, matrices: Tensor) -> Tensor:
    """Rows [subsets, parameters] times the block diagonal of matrices [blocks, size, size]."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    parts = rows.unflatten(1, (len(matrices), -1)).transpose(0, 1)
    return torch.bmm(parts, matrices).transpose(0, 1).flatten(1)


@final
@dataclass(frozen=True)
class Inverse:
    """H^-1 of one share: from gradients to steps in coordinates of the path's basis."""

    matrices: Tensor  # [blocks, size, size], float32
    narrow: Tensor  # the same in the type of products
    lengths: Tensor | None  # [parameters], float32: what the products are multiplied by; None: ones

    def __call__(self, gradients: Tensor) -> Tensor:
        """H^-1 g [subsets, parameters], float32; products are of the type of the gradients."""
        wide = gradients.dtype == torch.float32
        steps = blockwise(gradients, self.matrices if wide else self.narrow).to(torch.float32)
        return steps if self.lengths is None else steps * self.lengths


def decomposed(
    model: Linear, theta: Tensor, weights: Tensor, points: Points
) -> tuple[Tensor, Tensor]:
    """Eigenvectors [blocks, size, directions] and eigenvalues [blocks, directions] of the Hessian, float32."""
    if (space := row_space_of(model, points)) is not None:
        vectors, values = decomposed(model, space.reduced(theta), weights, space.points)
        return space.lifted_columns(vectors), values
    if block_count(model, points) == 1:
        found = torch.linalg.eigh(model.hessian(theta, weights, points))
        values, vectors = found.eigenvalues[None], found.eigenvectors[None]
    else:
        single = points.to(dtype=torch.float32)
        blocks = model.output_hessians(
            theta.to(torch.float32), weights.to(torch.float32), single, negligible=NEGLIGIBLE
        )
        penalty = torch.diag(output_penalty(model, single))
        blocks = penalty + coupled(model, points) * (blocks - penalty)
        pairs = [torch.linalg.eigh(block) for block in blocks]
        values = torch.stack([pair.eigenvalues for pair in pairs])
        vectors = torch.stack([pair.eigenvectors for pair in pairs])
    return vectors.to(torch.float32).contiguous(), values.to(torch.float32).contiguous()


def coupled(model: Linear, points: Points) -> float:
    """By what the curvature across outputs enlarges that of each output alone."""
    outputs = model.outputs(points.classes)
    return outputs / (outputs - 1) if model.shift_free else 1.0


def output_penalty(model: Linear, points: Points) -> Tensor:
    """Diagonal [size] of the penalty's second derivative for one output."""
    penalty = points.features.new_ones(points.features.shape[1] + 1)
    penalty[-1] = model.intercept_penalty
    return penalty


def rescaled_lengths(basis: Tensor, eigenvalues: Tensor, penalty: Tensor, growth: Tensor) -> Tensor:
    """Inverse eigenvalues [parameters] where each output's curvature is `growth` [blocks] times as large."""
    own = torch.einsum("kij,i->kj", basis.square(), penalty.to(basis))
    found = own + (eigenvalues - own) * growth[:, None].to(basis)
    return 1 / found.clamp(min=LEAST * float(found.max())).flatten()


def inverse_hessian(model: Linear, theta: Tensor, weights: Tensor, points: Points) -> Tensor:
    """Inverse [parameters, parameters] of the Hessian; zero along directions that change no model."""
    hessian = model.hessian(theta, weights, points)
    free = _free_direction(model, points)
    if free is None:
        return torch.linalg.inv(hessian)
    # Equal shifts of all intercepts have no curvature: they get some for the inversion, then none.
    largest = float(hessian.diagonal().max())
    inverse = torch.linalg.inv(hessian + largest * torch.outer(free, free))
    return inverse - torch.outer(free, free) / largest


def _free_direction(model: Linear, points: Points) -> Tensor | None:
    """The unit direction [parameters] in which parameters may move without changing a probability."""
    if not model.shift_free or model.intercept_penalty:
        return None
    outputs, size = model.outputs(points.classes), points.features.shape[1] + 1
    direction = points.features.new_zeros(outputs, size)
    direction[:, -1] = outputs**-0.5
    return direction.flatten()
