"""Sums over the rows of a pool near one anchor: in C where its kernels fit, else by products of torch.

For subsets w of about the share s, with h_i the direction of row i and r_i the derivative of its loss in
the scores,

    moved      sum_i w_i h_i                                             (to first order)
    gradient   sum_i C w_i (r_i(theta_s + d) - f_i) a_i                  (the data's, at a move d)

The kernels (compiled/answers.py) are for one score a point, and take weights as bytes. Their sums are
float32. Those of torch are of the type of products (bfloat16 where the processor has it); the weights
are of that type, too, or of float32 where it cannot hold them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from modelpred.predictor.newton_inverse import Inverse
from modelpred.targets import Points
from modelpred.targets.compiled.answers import CompiledAnchor
from modelpred.targets.compiled.slopes import SlopeChanges
from modelpred.targets.linear import Linear

# Where so many times fewer weights differ from one than a pool has rows, only their rows are summed.
FEW_FACTORED = 4
FEW_DIRECTED = 32  # whose product over all rows is cheaper


class Products(ABC):
    """Sums over the rows near an anchor theta_s."""

    @abstractmethod
    def start(self, weights: Tensor) -> Tensor:
        """-H_s^-1 (grad penalty + sum_i w_i g_i), float32 [subsets, directions]."""

    @abstractmethod
    def gradient(self, weights: Tensor, move: Tensor) -> Tensor:
        """The change of the data's gradient at theta_s + move [subsets, parameters], of the type of products."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type that moves and gradients have."""


@final
@dataclass(frozen=True)
class CompiledProducts(Products):
    """By the kernels, for one score a point; weights are bytes."""

    penalty: Tensor  # move: -H^-1 grad penalty
    anchor: CompiledAnchor

    def start(self, weights: Tensor) -> Tensor:
        """Few rows alone where few weights differ from one or from zero."""
        return self.penalty - self.anchor.sums(weights)

    def gradient(self, weights: Tensor, move: Tensor) -> Tensor:
        """In one pass over the rows."""
        return self.anchor.gradients(weights, move)

    @property
    def dtype(self) -> torch.dtype:
        """float32."""
        return torch.float32


@final
@dataclass(frozen=True)
class TorchProducts(Products):
    """By products of matrices; autograd follows them."""

    model: Linear
    points: Points
    design: Tensor  # [points, size], product type
    turned_design: Tensor  # [size, points], product type
    inverse: Inverse
    whole: Tensor  # d_0 of all rows with weight one
    shift: float  # about s; products sum over weights less this, so that the sums are short
    shifted: Tensor  # d_0 of all rows with this weight
    directions: Tensor | None  # [points, directions], product type: H^-1 (f_i (x) a_i)
    factors: Tensor  # [outputs, points], product type: f_i
    scores: Tensor  # [outputs, points], product type
    slopes: Tensor  # [outputs, points], product type: f_i over C and the sample weight
    changes: SlopeChanges | None  # the compiled change of these

    @property
    def dtype(self) -> torch.dtype:
        """The design's."""
        return self.design.dtype

    def start(self, weights: Tensor) -> Tensor:
        """Where nearly all weights are one, only the other rows are summed."""
        few = FEW_FACTORED if self.directions is None else FEW_DIRECTED
        other = weights != 1
        if not weights.requires_grad and few * int(other.sum()) <= weights.numel():
            return self.whole - self._sums_of_few(weights, other)
        moved = self._sums((weights - self.shift).to(self.dtype))
        if weights.dtype != self.dtype:  # weights that the product type cannot hold
            rest = weights - self.shift - (weights - self.shift).to(self.dtype)
            moved = moved + self._sums(rest.to(self.dtype))
        return self.shifted - moved

    def _sums(self, weights: Tensor) -> Tensor:
        """sum_i w_i H^-1 g_i, float32 [subsets, directions]."""
        if self.directions is not None:
            return (weights @ self.directions).to(torch.float32)
        scaled = (self.factors[:, None] * weights).flatten(0, 1)
        sums = (scaled @ self.design).unflatten(0, (len(self.factors), -1))
        return self.inverse(sums.transpose(0, 1).flatten(1))

    def _sums_of_few(self, weights: Tensor, other: Tensor) -> Tensor:
        """sum_i (w_i - 1) H^-1 g_i over the rows whose weights are not one."""
        # In the space of the rows fewer than the parameters.
        width = len(self.factors) * self.design.shape[1]
        if self.directions is not None:
            width = self.directions.shape[1]
        sums = weights.new_empty(len(weights), width, dtype=self.dtype)
        for row, (own, places) in enumerate(zip(weights, other, strict=True)):
            found = places.nonzero()[:, 0]
            changes = (own[found] - 1).to(self.dtype)
            if self.directions is not None:
                sums[row] = changes @ self.directions[found]
            else:
                sums[row] = ((self.factors[:, found] * changes) @ self.design[found]).flatten()
        return sums.to(torch.float32) if self.directions is not None else self.inverse(sums)

    def gradient(self, weights: Tensor, move: Tensor) -> Tensor:
        """Scores, slopes and sums of all rows, each a product."""
        subsets, outputs = len(weights), len(self.factors)
        plain = move.unflatten(1, (outputs, -1))
        scores = (plain.transpose(0, 1).flatten(0, 1) @ self.turned_design).unflatten(
            0, (outputs, subsets)
        )
        own = self.points.weighted(weights.to(self.dtype)).to(self.dtype)
        slopes = self._slope_changes(scores, own)
        data = (slopes.flatten(0, 1) @ self.design).unflatten(0, (outputs, subsets))
        return data.transpose(0, 1).flatten(1)

    def _slope_changes(self, moved: Tensor, weights: Tensor) -> Tensor:
        """C w_i (r_i(theta_s + d) - r_i(theta_s)), [outputs, subsets, points]; may overwrite `moved`."""
        score_slopes, labels = self.model.score_slopes, self.points.labels
        if torch.is_grad_enabled():
            slopes = score_slopes(moved + self.scores[:, None], labels)
            return (slopes - self.slopes[:, None]) * (self.model.C * weights)
        if self.changes is not None:
            return self.changes(moved, weights)
        slopes = score_slopes(moved.add_(self.scores[:, None]), labels, out=moved)
        return slopes.sub_(self.slopes[:, None]).mul_(self.model.C * weights)
