"""Models of all subsets of groups of rows from one expansion of the objective.

With theta the model of all rows, g_j and H_j the gradient and Hessian of the losses of group j there,
and g_0 and H_0 those of the penalty, the model of the groups in S is near

    theta_S = theta - (H_0 + sum_{j in S} H_j)^-1 (g_0 + sum_{j in S} g_j)

that is, one Newton step from theta. For squared losses it is exact. The sums of the groups are computed
once; then a model takes the time to solve one linear system, however many rows there are.
"""

from typing import final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from modelpred.targets.model import ConvexFamily
from modelpred.targets.points import Points, class_counts
from modelpred.targets.shapes import Parameters

MOST_PARAMETERS = 512  # beyond, solving takes longer than training on some thousand rows
MOST_ENTRIES = 2**25  # of the Hessians of all groups
AT_ONCE = 2**22  # entries of the Hessians of a block of subsets
JITTER = 1e-10  # relative to the mean curvature, for directions without any


def can_expand(parameters: int, groups: int) -> bool:
    """Whether the Hessians of so many groups fit into memory and are solved quickly."""
    return parameters <= MOST_PARAMETERS and groups * parameters**2 <= MOST_ENTRIES


@final
class GroupExpansion:
    """Maps subsets of groups to their models.

    Args:
        model: the family.
        points: the training points.
        members: the rows of each group, 0 or 1.
        full: the parameters of the model of all rows.
    """

    def __init__(
        self,
        model: ConvexFamily,
        points: Points,
        members: UInt8[Tensor, "groups points"],
        full: Float[Tensor, " parameters"],
    ) -> None:
        self.model, self.full = model, full
        self.features = points.features.shape[1]
        self.counts = class_counts(members.to(torch.float32), points).double()
        size = len(full)
        self.gradients = full.new_empty(len(members), size)
        self.hessians = full.new_empty(len(members), size, size)
        one, none = points.take(torch.arange(1)), full.new_zeros(1, 1)
        self.gradient = model.gradient(full[None], none, one)[0]  # of the penalty
        self.hessian = model.hessian(full, none[0], one)
        for group, rows in enumerate(members > 0):
            part = points.take(rows.nonzero()[:, 0])
            ones = full.new_ones(1, len(part.labels))
            self.gradients[group] = model.gradient(full[None], ones, part)[0] - self.gradient
            self.hessians[group] = model.hessian(full, ones[0], part) - self.hessian

    def __call__(self, weights: UInt8[Tensor, "subsets groups"]) -> Parameters:
        """Return the parameters; those of all rows where the system has no solution."""
        block = max(1, AT_ONCE // len(self.full) ** 2)
        return torch.cat([self._block(part) for part in weights.to(self.full).split(block)])

    def _block(self, weights: Float[Tensor, "subsets groups"]) -> Parameters:
        size = len(self.full)
        hessians = (weights @ self.hessians.flatten(1)).unflatten(1, (size, size)) + self.hessian
        hessians.diagonal(dim1=1, dim2=2).add_(JITTER * self.hessians.mean(0).trace() / size)
        slopes = weights @ self.gradients + self.gradient
        lower, failed = torch.linalg.cholesky_ex(hessians)
        steps = torch.cholesky_solve(slopes[..., None], lower)[..., 0]
        solved = (failed == 0) & steps.isfinite().all(dim=1)
        parameters = torch.where(solved[:, None], self.full - steps, self.full)
        counts = weights @ self.counts
        prior = self.model.without_optimum(counts)
        if bool(prior.any()):
            parameters[prior] = self.model.prior(counts[prior], self.features).to(parameters)
        return parameters
