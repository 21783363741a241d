"""The linear datamodel: parameters as a linear function of the weights, fitted by ridge regression.

    theta(w) = mean theta + (w - mean w) B,    B = argmin ‖T - W B‖² + penalty ‖B‖²

with the rows of W and T the centred weights and parameters of the bank (Ilyas et al. 2022 fit
outputs; here parameters). With the eigenbasis V of W'W, eigenvalues e, B = V (V'W'T / (e + penalty)):
one decomposition serves every penalty.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.refits.retraining import checked_weights
from modelpred.targets.model import Points

# Penalties tried, as multiples of the mean eigenvalue of W'W.
GRID = np.logspace(-5, 2, 15)
# Every fifth bank row chooses the penalty; then all rows fit.
HELD_OUT = 5


@dataclass(frozen=True)
class _Decomposed:
    mean_weights: Tensor
    mean_parameters: Tensor
    vectors: Tensor
    values: Tensor
    projected: Tensor

    @classmethod
    def of(cls, weights: Tensor, parameters: Tensor) -> "_Decomposed":
        centred = weights - weights.mean(dim=0)
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        targets = parameters - parameters.mean(dim=0)
        return cls(
            weights.mean(dim=0),
            parameters.mean(dim=0),
            vectors,
            values.clamp(min=0),
            vectors.T @ (centred.T @ targets),
        )

    def coefficients(self, factor: float) -> Tensor:
        """B for a penalty of `factor` mean eigenvalues, [points, parameters]."""
        shrunk = self.values + factor * self.values.mean()
        # Directions that no weights explore carry nothing, whatever the penalty.
        share = torch.where(self.values > 1e-12 * self.values.max(), 1 / shrunk, 0)
        return self.vectors @ (share[:, None] * self.projected)


@final
class LinearDatamodel:
    """Ridge regression of trained parameters on weights; `fit` makes one."""

    name = "linear_datamodel"

    def __init__(
        self,
        coefficients: Float[Tensor, "points parameters"],
        intercept: Float[Tensor, " parameters"],
        *,
        penalty: float,
    ) -> None:
        self.coefficients = coefficients
        self.intercept = intercept
        self.penalty = penalty

    @classmethod
    def fit(
        cls,
        weights: Num[Tensor, "subsets points"],
        parameters: Float[Tensor, "subsets parameters"],
        *,
        penalty: float | None = None,
    ) -> "LinearDatamodel":
        """Return the datamodel of a bank of trained targets.

        Args:
            weights: [subsets, points] of the bank's fit rows.
            parameters: [subsets, parameters], trained on them.
            penalty: in mean eigenvalues of W'W; by default the one of `GRID` with the least mean
                relative parameter error on every fifth row, when fitted on the others.
        """
        if len(weights) != len(parameters) or len(weights) < 2 * HELD_OUT:
            raise InvalidInput(
                f"expected {2 * HELD_OUT} or more weight rows, each with its parameters, "
                f"got {len(weights)} and {len(parameters)}"
            )
        rows = weights.to(torch.float64)
        chosen = _chosen_penalty(rows, parameters) if penalty is None else penalty
        fitted = _Decomposed.of(rows, parameters)
        coefficients = fitted.coefficients(chosen)
        intercept = fitted.mean_parameters - fitted.mean_weights @ coefficients
        return cls(coefficients, intercept, penalty=chosen)

    def __call__(
        self, weights: Num[Tensor, "subsets points"]
    ) -> Float[Tensor, "subsets parameters"]:
        """Return intercept + Σ_i w_i coefficients_i."""
        rows = checked_weights(weights, points=len(self.coefficients))
        return self.intercept + rows @ self.coefficients

    def for_points(self, points: Points) -> "LinearDatamodel":
        """The same datamodel over a pool that goes on: it knows nothing of the points added."""
        added = len(points.labels) - len(self.coefficients)
        if added < 0:
            raise InvalidInput(
                f"the new pool has {len(points.labels)} points, fewer than the "
                f"{len(self.coefficients)} of the fit; add points at its end"
            )
        unknown = self.coefficients.new_zeros(added, self.coefficients.shape[1])
        coefficients = torch.cat([self.coefficients, unknown])
        return LinearDatamodel(coefficients, self.intercept, penalty=self.penalty)


def _chosen_penalty(weights: Tensor, parameters: Tensor) -> float:
    held = torch.arange(len(weights)) % HELD_OUT == HELD_OUT - 1
    fitted = _Decomposed.of(weights[~held], parameters[~held])
    offsets = weights[held] - fitted.mean_weights

    def error(factor: float) -> float:
        predicted = fitted.mean_parameters + offsets @ fitted.coefficients(factor)
        # The median is not moved by a held-out target near zero, whose relative error is endless.
        return float(np.median(relative_errors(predicted, parameters[held])))

    return min(map(float, GRID), key=error)
