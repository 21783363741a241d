"""The training objective and the test loss up to second order around the model of all rows.

What direct_removals.py needs of a linear family: coordinates in which the Hessian of the objective is
the identity, derivatives of each row's term in its scores, and the test loss with its derivatives.
"""

import math
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.studies.whitening import across, loss_curvature, second_derivatives, whitening
from modelpred.targets.linear import Linear, signs_of
from modelpred.targets.points import Points
from modelpred.targets.scoring import mean_test_losses

BLOCK = 2**22  # entries of the arrays of a block of rows


@final
class RemovalExpansion:
    """The expansion, in coordinates B with B' H B = I.

    Attributes:
        theta: [parameters], the model of all rows.
        basis: B.
        left: length of the gradient at theta.
        slopes: [points, outputs], f_i: derivatives of each row's term in its scores.
        bends: [points, outputs, outputs], J_i: their second derivatives.
        loss: of the test rows at theta.
        loss_error: bound of its distance from that of the optimum.
        slope: [parameters], its gradient g.
        steepness: length of g.
        loss_bend: its Hessian V.
        steepest: largest eigenvalue of V, of the svm with all rows beyond their kinks.
        along: [points, outputs], scores of q = H^-1 g.
        reach: the most by which a unit step moves the scores of a training row apart.
        test_reach: the same of the test rows.

    Args:
        model: the family.
        points: the training points.
        test_points: the rows of the loss.
        full: [parameters], trained on all rows.
    """

    def __init__(self, model: Linear, points: Points, test_points: Points, full: Tensor) -> None:
        self.model, self.points, self.test_points = model, points, test_points
        self.outputs = model.outputs(points.classes)
        self.design = model.design(points.features)
        self.ones = full.new_ones(len(points.labels))
        self.theta = full
        self.basis = whitening(model, self.theta, self.ones, points)
        # One Newton step: training ends at a tolerance.
        self.theta = full - self.basis @ (self.basis.T @ self._gradient())
        self.basis = whitening(model, self.theta, self.ones, points)
        self.left = float((self.basis.T @ self._gradient()).norm())
        scores = self.scores(self.theta)
        self.slopes = (model.C * points.factors * model.score_slopes(scores, points.labels))[:, 0].T
        scale = (model.C * points.factors)[None]
        self.bends = second_derivatives(model, scores, points.labels, scale)
        self.reach = self._reach(points)
        self._expand_loss()

    def scores(self, theta: Tensor) -> Tensor:
        """Scores [outputs, 1, points]."""
        return self.model.scores(theta[None], self.points.features).permute(2, 0, 1)

    def moved(self, design: Tensor) -> Float[Tensor, "rows outputs parameters"]:
        """A_i B of some rows."""
        return across(design, self.basis, outputs=self.outputs)

    @property
    def rows_at_once(self) -> int:
        """Rows of a block."""
        return max(1, BLOCK // (self.outputs * len(self.theta)))

    def third(self) -> Tensor:
        """W: the Hessian of the training losses, each times the spread of its scores of q."""
        along = self.along
        spread = along[:, 0].abs() if self.outputs == 1 else along.amax(1) - along.amin(1)
        return self._curvature(spread, self.points)

    def kinks(self) -> tuple[Tensor, Tensor]:
        """A_i B and the way to the kink for each row and output of the svm.

        A_i B is multiplied by the root of the curvature before the kink. The way is the least length of a
        step that takes the score to the kink.
        """
        scores = self.scores(self.theta)
        distance = (1 - signs_of(self.points.labels, scores) * scores).abs()[:, 0].T
        moved = self.moved(self.design)
        reach = moved.norm(dim=2).clamp(min=1e-300)
        scaled = moved * (2 * self.model.C * self.points.factors).sqrt()[:, None, None]
        return scaled.flatten(0, 1), (distance / reach).flatten()

    def _gradient(self) -> Tensor:
        return self.model.gradient(self.theta[None], self.ones[None], self.points)[0]

    def _curvature(self, weights: Tensor, points: Points) -> Tensor:
        return loss_curvature(self.model, self.theta, weights, points, basis=self.basis)

    def _reach(self, points: Points) -> float:
        largest = 0.0
        for design in self.model.design(points.features).split(self.rows_at_once):
            moved = self.moved(design)
            own = moved @ moved.mT
            square = own.diagonal(dim1=1, dim2=2)
            if self.outputs > 1:
                square = square[:, :, None] + square[:, None] - 2 * own
            largest = max(largest, float(square.max()))
        return math.sqrt(largest)

    def _expand_loss(self) -> None:
        model, test = self.model, replace(self.test_points, sample_weight=None)
        share = self.theta.new_full((len(test.labels),), 1 / (model.C * len(test.labels)))
        penalty = model.gradient(self.theta[None], 0 * share[None], test)[0]
        slope = model.gradient(self.theta[None], share[None], test)[0] - penalty
        self.loss = float(mean_test_losses(model, self.theta[None], test)[0])
        self.slope = self.basis.T @ slope
        self.steepness = float(self.slope.norm())
        self.loss_error = 2 * self.steepness * self.left
        if model.smooth:
            self.loss_bend = self._curvature(share, test)
        else:
            moved = self.moved(model.design(test.features)).flatten(0, 1)
            self.loss_bend = 2 / len(test.labels) * moved.T @ moved
        self.steepest = float(torch.linalg.eigvalsh(self.loss_bend)[-1].clamp(min=0))
        self.along = self.scores(self.basis @ self.slope)[:, 0].T
        self.test_reach = self._reach(test)


def loss_change_within(
    model: Linear, parameters: Tensor, radius: Float[Tensor, " subsets"], points: Points
) -> Float[Tensor, " subsets"]:
    """Bound of the change of the mean loss if the parameters move by at most the radius.

    A convex loss rises at least as far one way as it falls the other way, so the largest rise is a bound:
    all scores move by the radius times the length of the design row, each to the side where it rises.
    """
    lengths = model.design(points.features).norm(dim=1)
    changes: list[Tensor] = []
    block = max(1, BLOCK // (model.outputs(points.classes) * len(lengths)))
    for part, radii in zip(parameters.split(block), radius.split(block), strict=True):
        scores = model.scores(part, points.features).permute(2, 0, 1)
        side = model.score_slopes(scores, points.labels).sign()
        other = side.new_ones(()) if model.regression else -signs_of(points.labels, scores)
        side = torch.where(side == 0, other, side)
        moved = scores + side * (radii[:, None] * lengths)
        rise = model.score_losses(moved, points.labels) - model.score_losses(scores, points.labels)
        changes.append(rise.mean(dim=1))
    return torch.cat(changes)
