"""Attributions by projected gradients, for models without an optimum (Park et al. 2023, "TRAK").

With f_i the margin of row i at trained parameters theta, P a random projection to k dimensions and
q_i = -d loss_i / d f_i,

    phi_i = P' grad f_i(theta)        tau[t, i] = phi_t' (Phi' Phi + ridge)^-1 phi_i q_i

is about what row i adds to the margin of test row t. Attributions are means over models that differ in
their seed only.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.shapes import ParameterVector

GRADIENT_BYTES = 64 * 2**20  # gradients of rows that are made at once
BLOCK = 4096  # parameters that are projected at once
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Shares of the mean eigenvalue of Phi' Phi from which a caller with retrained subsets can choose."""


@dataclass(frozen=True)
class GradientFeatures:
    """What gradients at one model say of rows, for a ridge.

    Attributes:
        pool: phi_i q_i, whitened: their products are the kernel of the rows' effects.
        tested: phi_t of the test rows, whitened.
    """

    pool: Float[Tensor, "points dimensions"]
    tested: Float[Tensor, "test_rows dimensions"]

    def attributions(self) -> Float[Tensor, "test_rows points"]:
        """tau[t, i]."""
        return self.tested @ self.pool.T


@dataclass(frozen=True)
class ProjectedGradients:
    """Projected gradients at one model, before the ridge.

    Attributes:
        own: phi_i of the pool, in the basis of eigenvectors of Phi' Phi.
        tested: phi_t of the test rows, in this basis.
        values: eigenvalues.
        slopes: q_i.
    """

    own: Float[Tensor, "points dimensions"]
    tested: Float[Tensor, "test_rows dimensions"]
    values: Float[Tensor, " dimensions"]
    slopes: Float[Tensor, " points"]

    def features(self, ridge: float) -> GradientFeatures:
        """The features for a ridge, a share of the mean eigenvalue."""
        lengths = (self.values + ridge * self.values.mean()).sqrt()
        return GradientFeatures(self.own / lengths * self.slopes[:, None], self.tested / lengths)


def projected_gradients(
    model: TargetModel,
    points: Points,
    test_points: Points,
    parameters: ParameterVector,
    *,
    dimensions: int,
    seed: int,
) -> ProjectedGradients:
    """The projected gradients of the pool and of test rows at one model."""
    own = projected(model, points, parameters, dimensions=dimensions, seed=seed)
    tested = projected(model, test_points, parameters, dimensions=dimensions, seed=seed)
    values, vectors = torch.linalg.eigh(own.T @ own)
    scores = model.scores(parameters[None], points.features)
    margins = model.margins(scores, points.labels)[0].to(torch.float64)
    slopes = -margins if model.regression else torch.sigmoid(-margins)
    return ProjectedGradients(own @ vectors, tested @ vectors, values.clamp(min=0), slopes)


def projected(
    model: TargetModel, points: Points, parameters: Tensor, *, dimensions: int, seed: int
) -> Tensor:
    """P' grad f of each row, float64 [rows, dimensions].

    Args:
        model: the family.
        points: the rows.
        parameters: of the model, theta.
        dimensions: k.
        seed: of the projection.
    """
    size = len(parameters)

    def margin(theta: Tensor, row: Tensor, label: Tensor) -> Tensor:
        return model.margins(model.scores(theta[None], row[None]), label[None])[0, 0]

    slopes = vmap(grad(margin), in_dims=(None, 0, 0))
    rows = max(1, GRADIENT_BYTES // (size * parameters.element_size()))
    parts = zip(points.features.split(rows), points.labels.split(rows), strict=True)
    found: list[Tensor] = []
    for features, labels in parts:
        gradients = slopes(parameters, features.to(parameters), labels)
        # Drawn again for each block of rows, as the whole projection may not fit into memory.
        generator = torch.Generator(device=parameters.device).manual_seed(seed)
        block = parameters.new_zeros(len(gradients), dimensions)
        for part in gradients.split(BLOCK, 1):
            signs = torch.randint(
                0, 2, (part.shape[1], dimensions), generator=generator, device=parameters.device
            )
            block += part @ (2 * signs - 1).to(part)
        found.append(block)
    return torch.cat(found).to(torch.float64) / math.sqrt(dimensions)
