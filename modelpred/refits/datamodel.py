"""The linear datamodel: parameters as a linear function of the weights, fitted by ridge regression.

    theta(w) = mean theta + (w - mean w) B,    B = argmin ‖T - W B‖² + penalty ‖B‖²

with the rows of W and T the centred weights and parameters of the bank (Ilyas et al. 2022 fit
outputs; here parameters). With the eigenbasis V of W'W, eigenvalues e, B = V (V'W'T / (e + penalty)):
one decomposition serves every penalty.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector, relative_errors
from modelpred.refits.ordering import content_order
from modelpred.refits.retraining import checked_weights
from modelpred.targets.points import Points
from modelpred.targets.shapes import Parameters, ParameterVector
from modelpred.targets.threads import threads_for

# Penalties tried, as multiples of the mean eigenvalue of W'W.
GRID = np.logspace(-5, 2, 15)
# Every fifth bank row, in the order of their content, chooses the penalty; then all rows fit.
HELD_OUT = 5
BLOCK = 4096  # rows of the bank that are read at once
EXPLORED = 1e-12  # share of the largest eigenvalue up to which no weights explore a direction


@dataclass(frozen=True)
class _Moments:
    """Sums over rows of weights and parameters, each less a fixed shift, and of their products."""

    shift_weights: Tensor
    shift_parameters: Tensor
    rows: int
    weights: Tensor
    parameters: Tensor
    squares: Tensor
    products: Tensor

    @classmethod
    def none(cls, weights: Tensor, parameters: Tensor) -> "_Moments":
        """Of no rows yet; shifted by the mean of the first, so that little is lost to rounding."""
        first = weights[:BLOCK].to(torch.float64).mean(0)
        mean = parameters[:BLOCK].to(torch.float64).mean(0)
        squares, products = (first.new_zeros(len(first), len(other)) for other in (first, mean))
        return cls(
            first, mean, 0, torch.zeros_like(first), torch.zeros_like(mean), squares, products
        )

    def added(self, weights: Tensor, parameters: Tensor) -> "_Moments":
        """With the rows of a block."""
        rows = weights - self.shift_weights
        targets = parameters - self.shift_parameters
        return replace(
            self,
            rows=self.rows + len(rows),
            weights=self.weights + rows.sum(0),
            parameters=self.parameters + targets.sum(0),
            squares=self.squares + rows.T @ rows,
            products=self.products + rows.T @ targets,
        )

    def joined(self, other: "_Moments") -> "_Moments":
        """With the rows of both, which have one shift."""
        names = ("rows", "weights", "parameters", "squares", "products")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True)
class _Decomposed:
    mean_weights: Tensor
    mean_parameters: Tensor
    vectors: Tensor
    values: Tensor
    projected: Tensor

    @classmethod
    def of(cls, moments: _Moments) -> "_Decomposed":
        weights, parameters = moments.weights / moments.rows, moments.parameters / moments.rows
        centred = moments.squares - moments.rows * torch.outer(weights, weights)
        values, vectors = torch.linalg.eigh(centred)
        products = moments.products - moments.rows * torch.outer(weights, parameters)
        return cls(
            moments.shift_weights + weights,
            moments.shift_parameters + parameters,
            vectors,
            values.clamp(min=0),
            vectors.T @ products,
        )

    @classmethod
    def of_rows(cls, weights: Tensor, parameters: Tensor) -> "_Decomposed":
        """The same from fewer rows than points: by a matrix [rows, rows] in place of [points, points]."""
        rows, targets = weights.to(torch.float64), parameters.to(torch.float64)
        mean_weights, mean_parameters = rows.mean(0), targets.mean(0)
        rows, targets = rows - mean_weights, targets - mean_parameters
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        explored = values > EXPLORED * values[-1]
        values, vectors = values[explored], vectors[:, explored]
        lengths = values.sqrt()
        return cls(
            mean_weights,
            mean_parameters,
            rows.T @ (vectors / lengths),
            values,
            lengths[:, None] * (vectors.T @ targets),
        )

    def coefficients(self, factor: float) -> Tensor:
        """B for a penalty of `factor` mean eigenvalues, [points, parameters]."""
        if not len(self.values):  # all rows of the bank are the same
            return self.projected.new_zeros(len(self.mean_weights), self.projected.shape[1])
        shrunk = self.values + factor * self.values.sum() / len(self.mean_weights)
        # Directions that no weights explore carry nothing, whatever the penalty.
        share = torch.where(self.values > EXPLORED * self.values.max(), 1 / shrunk, 0)
        return self.vectors @ (share[:, None] * self.projected)


@final
class LinearDatamodel:
    """Ridge regression of trained parameters on weights; `fit` makes one."""

    name = "linear_datamodel"

    def __init__(
        self,
        coefficients: Float[Tensor, "points parameters"],
        intercept: ParameterVector,
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
        parameters: Parameters,
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
        # Decompositions of a matrix [points, points] take most of the time.
        with threads_for(8 * weights.shape[1] ** 2):
            return cls._fitted(weights, parameters, penalty)

    @classmethod
    def _fitted(
        cls, weights: Tensor, parameters: Tensor, penalty: float | None
    ) -> "LinearDatamodel":
        choosing = torch.zeros(len(weights), dtype=torch.bool, device=weights.device)
        choosing[content_order(weights, parameters)[HELD_OUT - 1 :: HELD_OUT]] = True
        if len(weights) < weights.shape[1]:
            learned = _Decomposed.of_rows(weights[~choosing], parameters[~choosing])
            fitted = _Decomposed.of_rows(weights, parameters)
        else:
            some = rest = _Moments.none(weights, parameters)
            for rows, targets, others in _blocks(weights, parameters, choosing):
                some = some.added(rows[~others], targets[~others])
                rest = rest.added(rows[others], targets[others])
            learned, fitted = _Decomposed.of(some), _Decomposed.of(some.joined(rest))
        chosen = penalty
        if chosen is None:
            chosen = _chosen_penalty(learned, weights, parameters, choosing)
        coefficients = fitted.coefficients(chosen)
        intercept = fitted.mean_parameters - fitted.mean_weights @ coefficients
        return cls(coefficients, intercept, penalty=chosen)

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return intercept + Σ_i w_i coefficients_i."""
        rows = checked_weights(weights, points=len(self.coefficients))
        with threads_for(8 * rows.numel()):
            return self.intercept + rows @ self.coefficients

    def for_points(self, points: Points) -> "LinearDatamodel":
        """The same datamodel for more points; added points have no effect."""
        added = len(points.labels) - len(self.coefficients)
        if added < 0:
            raise InvalidInput(
                f"the new pool has {len(points.labels)} points, fewer than the "
                f"{len(self.coefficients)} of the fit; add points at its end"
            )
        unknown = self.coefficients.new_zeros(added, self.coefficients.shape[1])
        coefficients = torch.cat([self.coefficients, unknown])
        return LinearDatamodel(coefficients, self.intercept, penalty=self.penalty)


def _blocks(
    weights: Tensor, parameters: Tensor, choosing: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Weights and parameters in float64, block by block, and which rows choose the penalty."""
    for first in range(0, len(weights), BLOCK):
        place = slice(first, first + BLOCK)
        yield weights[place].to(torch.float64), parameters[place].to(torch.float64), choosing[place]


def _chosen_penalty(
    fitted: _Decomposed, weights: Tensor, parameters: Tensor, choosing: Tensor
) -> float:
    factors = [float(factor) for factor in GRID]
    coefficients = [fitted.coefficients(factor) for factor in factors]
    errors: list[list[Vector]] = [[] for _ in factors]
    for rows, targets, held in _blocks(weights, parameters, choosing):
        offsets = rows[held] - fitted.mean_weights
        for found, slopes in zip(errors, coefficients, strict=True):
            found.append(relative_errors(fitted.mean_parameters + offsets @ slopes, targets[held]))
    # The median is not moved by a held-out target near zero, whose relative error is endless.
    medians = [float(np.median(np.concatenate(found))) for found in errors]
    return factors[int(np.argmin(medians))]
