"""The space of a pool's rows, in which linear families with more features than points are small problems.

    features = small basis',   basis [features, points] orthonormal

The penalty on coefficients is the same in all directions, and the losses depend on the scores alone.
So the optimum of every subset, and every step towards one, is in this space. It has as
many coefficients as points. In each direction outside of it, the Hessian is 1, that of the penalty.
"""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from modelpred.targets.points import Points


@final
@dataclass(frozen=True)
class RowSpace:
    """A pool in the space of its rows.

    Attributes:
        basis: [features, columns], orthonormal.
        points: the pool with its features in this basis.
    """

    basis: Tensor
    points: Points

    def reduced(self, parameters: Tensor) -> Tensor:
        """Parameters [..., parameters] in this space, without the part outside of it."""
        return _turned(parameters, self.basis)

    def lifted(self, parameters: Tensor) -> Tensor:
        """Parameters of this space as those of the features."""
        return _turned(parameters, self.basis.T)

    def reduced_columns(self, matrix: Tensor) -> Tensor:
        """A matrix [..., parameters, columns] with each column in this space."""
        return self.reduced(matrix.mT).mT

    def lifted_columns(self, matrix: Tensor) -> Tensor:
        """A matrix of this space with each column as that of the features."""
        return self.lifted(matrix.mT).mT.contiguous()


def row_space(points: Points) -> RowSpace | None:
    """Return the space of the rows; None if there are no more features than points."""
    if points.features.shape[1] <= len(points.features):
        return None
    basis, small = torch.linalg.qr(points.features.T)
    return RowSpace(basis, replace(points, features=small.T.contiguous()))


def _turned(parameters: Tensor, by: Tensor) -> Tensor:
    """Parameters whose coefficients are multiplied with a matrix [old, new]."""
    theta = parameters.unflatten(-1, (-1, len(by) + 1))
    return torch.cat([theta[..., :-1] @ by.to(theta), theta[..., -1:]], -1).flatten(-2)
