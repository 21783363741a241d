"""Where a prediction starts: what is linear in the weights, and cheap.

For a convex family the optimum moves smoothly with the total weight, so it is trained once on the
whole pool at a few dozen weight levels t ("shares"): the size path theta*(t) = argmin F_{t 1}. A
subset w of share s = sum_i w_i / N starts at the nearest level and takes one Newton step with that
level's Hessian H_t, which needs only the pooled gradients of that level:

    anchor(w) = theta*(t) - H_t^-1 (grad penalty + sum_i w_i grad_i(theta*(t)))

H_t is kept as its diagonal in one shared orthonormal basis (one block an output for families with
many parameters), so the same basis preconditions a gradient at any parameters:

    precondition(g) = Q diag(Q' H_t Q)^-1 Q' g  ~  the step from there to the optimum

The full-model anchors of influence functions are the single level t = 1. For a family that is not
convex there is no path; its anchor is the full model, and its preconditioner is plain scaling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from modelpred.targets import Points, TargetModel, train_targets

LEVELS = 24
SMALLEST_SHARE = 0.02
JOINT_BLOCK = 400  # up to so many parameters the Hessian is kept as one block


@dataclass(frozen=True)
class Anchors:
    """A size path and its preconditioner, as tensors (float64); see the module's text."""

    shares: Tensor  # [levels], ascending
    parameters: Tensor  # [levels, parameters]
    basis: Tensor  # [blocks, size, size], columns are directions
    curvatures: Tensor  # [levels, blocks, size], diagonal of the Hessian in the basis
    pool: int  # number of points that a share of 1 stands for

    def levels(self, weights: Tensor) -> Tensor:
        """Index [subsets] of the path level nearest in log share to each subset."""
        share = weights.sum(1).clamp(min=1e-9).log() - torch.log(torch.tensor(float(self.pool)))
        edges = self.shares.to(share).log()
        return torch.bucketize(share, (edges[1:] + edges[:-1]) / 2)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> "Anchors":
        """The same anchors in another precision or on another device."""
        return Anchors(
            *(
                tensor.to(dtype=dtype, device=device)
                for tensor in (self.shares, self.parameters, self.basis, self.curvatures)
            ),
            pool=self.pool,
        )

    def precondition(self, gradients: Tensor, levels: Tensor) -> Tensor:
        """Q diag(Q' H_t Q)^-1 Q' g for each subset's level t. Shapes [subsets, parameters]."""
        blocks, size, _ = self.basis.shape
        if blocks == 1:
            turned = gradients @ self.basis[0]
            return (turned / self.curvatures[levels, 0]) @ self.basis[0].T
        shaped = gradients.unflatten(1, (blocks, size)).transpose(0, 1)
        turned = torch.bmm(shaped, self.basis) / self.curvatures[levels].transpose(0, 1)
        return torch.bmm(turned, self.basis.mT).transpose(0, 1).flatten(1)


def make_anchors(model: TargetModel, points: Points, *, tolerance: float = 1e-6) -> Anchors:
    """The anchors of a pool: the size path for a convex family, else the full model alone."""
    levels = LEVELS if model.convex else 1
    smallest = max(SMALLEST_SHARE, min(0.1, 3 / len(points.features)))
    exponents = torch.linspace(0, 1, levels, dtype=torch.float64)
    shares = smallest ** (1 - exponents) if levels > 1 else torch.ones(1, dtype=torch.float64)
    weights = shares[:, None].expand(-1, len(points.features)).contiguous().to(points.features)
    trained = train_targets(
        model, points.features, points.labels, weights, tolerance=tolerance, classes=points.classes
    )
    if not model.convex:
        size = trained.parameters.shape[1]
        return Anchors(
            shares,
            trained.parameters,
            torch.ones(size, 1, 1, dtype=torch.float64),
            torch.ones(1, size, 1, dtype=torch.float64),
            pool=len(points.features),
        )
    basis, curvatures = _shared_basis(model, points, trained.parameters, weights)
    return Anchors(
        shares.to(points.features), trained.parameters, basis, curvatures, pool=len(points.features)
    )


def _shared_basis(
    model: TargetModel, points: Points, path: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Eigenbasis of the middle level's Hessian (by block), and every level's diagonal in it."""
    size = path.shape[1]
    per_output = points.features.shape[1] + 1
    blocks = 1 if size <= JOINT_BLOCK else size // per_output
    middle = _blocks(model.hessian(path[len(path) // 2], weights[len(path) // 2], points), blocks)
    basis = torch.linalg.eigh(middle).eigenvectors
    diagonals: list[Tensor] = []
    for parameters, level in zip(path, weights, strict=True):
        hessian = _blocks(model.hessian(parameters, level, points), blocks)
        diagonals.append(torch.einsum("kpi,kpq,kqi->ki", basis, hessian, basis))
    curvatures = torch.stack(diagonals)
    # Directions that change nothing (equal shifts of all softmax intercepts) have curvature zero
    # and gradient zero: any positive number keeps the quotient at zero.
    return basis, curvatures.clamp(min=1e-6 * float(curvatures.max()))


def _blocks(hessian: Tensor, blocks: int) -> Tensor:
    """Diagonal blocks [blocks, size, size]."""
    size = hessian.shape[0] // blocks
    shaped = hessian.reshape(blocks, size, blocks, size)
    return torch.stack([shaped[block, :, block] for block in range(blocks)])


@dataclass(frozen=True)
class PooledAnchor:
    """`Anchors` bound to points: gradients of every point at every level, ready to be pooled."""

    anchors: Anchors
    point_gradients: Tensor  # [levels, points, parameters]
    penalty_gradients: Tensor  # [levels, parameters]

    def __call__(self, weights: Tensor, levels: Tensor) -> Tensor:
        """anchor(w) [subsets, parameters], one matrix product a level that occurs."""
        path = self.anchors.parameters
        if len(path) == 1:
            return path.expand(len(weights), -1)
        order = levels.argsort(stable=True)
        counts = torch.bincount(levels, minlength=len(path)).tolist()
        gradients = torch.cat(
            [
                rows @ self.point_gradients[level] + self.penalty_gradients[level]
                for level, rows in enumerate(weights[order].split(counts))
                if len(rows)
            ]
        )
        gradients = torch.empty_like(gradients).index_copy_(0, order, gradients)
        return path[levels] - self.anchors.precondition(gradients, levels)


def pool_anchors(anchors: Anchors, model: TargetModel, points: Points) -> PooledAnchor:
    """Anchors bound to these points, in the points' precision and on their device."""
    ours = anchors.to(points.features.dtype, points.features.device)
    if len(ours.parameters) == 1:
        return PooledAnchor(ours, ours.parameters[:, None], torch.zeros_like(ours.parameters))
    nothing = ours.parameters.new_zeros(len(ours.parameters), len(points.features))
    return PooledAnchor(
        ours,
        torch.stack([model.point_gradients(theta, points) for theta in ours.parameters]),
        model.gradient(ours.parameters, nothing, points),
    )
