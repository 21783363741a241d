"""Coefficients of rare columns at their own optimum: what Newton directions of a whole pool answer worst.

A column is rare if it has one common value m_j, and few rows with another (one column a category, after
scaling). How many of these few rows a subset has varies widely, and so does the curvature along the
coefficient: it may be a multiple of that at the level of the subset, or only that of the penalty. The
coefficient's own problem is small, though. Moving it by d and the intercept by -m_j d changes the scores of
the column's few rows alone:

    minimise over d   penalty + C sum_i w_i loss_i(z_i + d v_ij),   v_ij = x_ij - m_j

A few Newton steps are taken for all rare columns at once. The curvature of a step is
sum_i C w_i loss''_i |v_ij| sum_k |v_ik|, which bounds that of joint steps where a row has several rare
columns. The step of one column moves no score by more than 1. Within that the curvature of a logistic
loss changes less than e-fold.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from modelpred.predictor.newton_inverse import coupled
from modelpred.targets import Points
from modelpred.targets.linear import Linear, row_space_of

# Rows that have a rare value, at most, of the pool; an eighth cost more than it gained.
ROW_SHARE = 1 / 16
JUDGED = 256  # rows by which the common value of a column is found
COMMON = 0.75  # share of these that have it
STEPS = 2
FARTHEST = 1.0  # move of a score in a step
SCORE_BYTES = 2**20  # of the scores of subsets that are answered at once


@final
@dataclass(frozen=True)
class RareColumns:
    """The rare columns of a pool and the rows that have a rare value."""

    model: Linear
    rows: Tensor  # [rows], indices into the pool
    columns: Tensor  # [columns]
    common: Tensor  # [columns]: m_j
    values: Tensor  # [rows, columns]: v_ij
    reach: Tensor  # [rows, columns]: |v_ij| sum_k |v_ik|
    longest: Tensor  # [columns]: the largest |v_ij|
    design: Tensor  # [rows, size]
    labels: Tensor  # [rows]
    factors: Tensor  # [rows]: C times the sample weight
    joint: float  # by what the curvature across outputs enlarges that of each output

    def weights(self, weights: Tensor) -> Tensor:
        """C w_i of the rows, float32 [subsets, rows], of weights [subsets, points]."""
        return weights.index_select(1, self.rows).to(torch.float32) * self.factors

    def changes(self, parameters: Tensor, weights: Tensor) -> Tensor:
        """From parameters to the optimum of each rare column's coefficient, [subsets, parameters].

        Args:
            parameters: float32 [subsets, parameters].
            weights: as `weights` gives them.
        """
        most = max(1, SCORE_BYTES // (4 * self._outputs(parameters) * len(self.rows)))
        parts = zip(parameters.split(most), weights.split(most), strict=True)
        return torch.cat([self._changes(*part) for part in parts])

    def _outputs(self, parameters: Tensor) -> int:
        return parameters.shape[1] // self.design.shape[1]

    def _changes(self, parameters: Tensor, weights: Tensor) -> Tensor:
        theta = parameters.unflatten(1, (-1, self.design.shape[1])).transpose(0, 1)
        scores = theta @ self.design.T  # [outputs, subsets, rows]
        coefficients, intercept = theta[:, :, self.columns], theta[:, :, -1:]
        penalty = self.model.intercept_penalty * self.common
        stiffness = 1 + penalty.abs() * self.common.abs().sum()  # bounds that of joint steps, too
        total = torch.zeros_like(coefficients)
        for step in range(STEPS):
            moved = intercept - (total @ self.common)[:, :, None]
            slopes = self.model.score_slopes(scores, self.labels) * weights
            gradient = coefficients + total - penalty * moved + slopes @ self.values
            change = -gradient / (stiffness + self._curvatures(scores, weights))
            change = change.clamp(-FARTHEST / self.longest, FARTHEST / self.longest)
            if self.model.shift_free:  # at the optimum, the mean over outputs is zero
                change = change - (change + coefficients + total).mean(0, keepdim=True)
            total = total + change
            if step + 1 < STEPS:
                scores = scores + change @ self.values.T
        found = torch.zeros_like(theta)
        found[:, :, self.columns] = total
        found[:, :, -1] = -(total @ self.common)
        return found.transpose(0, 1).flatten(1)

    def _curvatures(self, scores: Tensor, weights: Tensor) -> Tensor:
        """Of the data along each coefficient, [outputs, subsets, columns]."""
        # A hinge bends most at scores of zero, where every row violates its margin.
        at = scores if self.model.smooth else torch.zeros_like(scores)
        bends = self.model.score_curvature(at, self.labels, weights)[0]
        return self.joint * bends @ self.reach


def rare_columns(model: Linear, points: Points) -> RareColumns | None:
    """The rarest columns of a pool whose rows are few together; None if there are none.

    None as well without an intercept, which takes up the common value, and in the space of the rows.
    """
    design = model.design(points.features)
    if not bool(design[0, -1]) or row_space_of(model, points) is not None:
        return None
    found = _chosen(points.features)
    if found is None:
        return None
    columns, common, rare = found
    rows = rare.any(1).nonzero()[:, 0]
    values = (points.features[rows][:, columns] - common).to(torch.float32)
    reach = values.abs() * values.abs().sum(1, keepdim=True)
    factors = (model.C * points.factors).expand(len(design))[rows]
    return RareColumns(
        model=model,
        rows=rows,
        columns=columns,
        common=common.to(torch.float32),
        values=values,
        reach=reach,
        longest=values.abs().amax(0),
        design=design[rows].to(torch.float32),
        labels=points.labels[rows],
        factors=factors.to(torch.float32),
        joint=coupled(model, points),
    )


def _chosen(features: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Rare columns, their common values, and which rows have another [points, columns]."""
    judged = features[:: max(1, len(features) // JUDGED)]
    common = judged.mode(0).values
    columns = ((judged == common).to(torch.float32).mean(0) >= COMMON).nonzero()[:, 0]
    rare = features[:, columns] != common[columns]
    counts = rare.sum(0)
    order = counts.argsort(stable=True)
    order = order[counts[order] > 0]
    if not len(order):
        return None
    with_any = rare[:, order][rare[:, order].any(1)]
    firsts = with_any.to(torch.uint8).argmax(1)  # each row's rarest column
    together = firsts.bincount(minlength=len(order)).cumsum(0)
    order = order[together <= ROW_SHARE * len(features)]
    if not len(order):
        return None
    return columns[order], common[columns[order]], rare[:, order]
