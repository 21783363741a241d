"""Gains of all rows by the model of one subset, for a family with several scores (softmax).

With theta the optimum of subset S, H the Hessian of its objective, A_i = I (x) a_i' for the design row a_i,
G_i = A_i H^-1 A_i', and f_i(z), J_i the first and second derivatives of row i's term in its scores z:

    i outside of S   theta_{S+i} = theta - H^-1 A_i' u   with   u = f_i(z_i - G_i u)
    i in S           theta_{S-i} = theta - H^-1 A_i' u   with   u = -(I - J_i G_i)^-1 f_i(z_i)

as in score_gains.py, where t is u. The first is solved by Newton's method for each row. Where a row's own
scores move by more than `NEAR`, u is multiplied by the factor that minimises the exact objective along the
direction. The mean test loss moves by its expansion up to second order, whose error for such rows is
computed on `TEST_SAMPLE` random test rows and added.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from modelpred.studies.row_gains import (
    BLOCK,
    LEAST_LEFT,
    LONGEST,
    NEAR,
    TEST_SAMPLE,
    RowGains,
    line_minima,
)
from modelpred.studies.whitening import across, loss_curvature, second_derivatives, whitening

STEPS = 12  # of the search for u
LONGEST_MOVE = 3.0  # of a row's own scores in one of them
CLOSE = 1e-3  # such a move ends the search
NEARLY = 0.02  # change of a length that ends the search along lines


@dataclass(frozen=True)
class _Model:
    """The model of one subset, in coordinates B with B' H B = I."""

    theta: Tensor  # [parameters]
    basis: Tensor  # B, float32
    across: Tensor  # A_i B of the members [members, outputs, parameters], float32
    members: Tensor
    slope: Tensor  # of the test loss, float32
    curvature: Tensor  # of the test loss, float32


class _Rows(NamedTuple):
    places: Tensor  # [rows]
    steps: Tensor  # u A_i B [rows, parameters], float32
    own: Tensor  # G u [rows, outputs], float32
    sign: Tensor  # 1 outside of the subset, -1 inside


@final
class OutputGains(RowGains):
    """Gains of all rows for a family with several scores."""

    def _of_one(self, theta: Tensor, inside: Tensor) -> Tensor:
        found = self._prepared(theta, inside.nonzero()[:, 0])
        change = torch.empty(len(inside), dtype=torch.float64)
        for places in torch.arange(len(inside)).split(max(1, BLOCK // (self.outputs * len(theta)))):
            change[places] = self._changes(found, places, inside[places])
        return torch.where(inside, change, -change)

    def _prepared(self, theta: Tensor, members: Tensor) -> _Model:
        model, few = self.model, self.points.take(members)
        basis = whitening(model, theta, theta.new_ones(len(members)), few)
        share = theta.new_full((len(self.test_points.labels),), 1 / model.C)
        share = share / len(share)
        none, test = 0 * share, self.test_points
        slope = model.gradient(theta[None], share[None], test) - model.gradient(
            theta[None], none[None], test
        )
        curvature = loss_curvature(model, theta, share, test, basis=basis)
        light = basis.float()
        return _Model(
            theta,
            light,
            self._across(light, members),
            members,
            (slope[0] @ basis).float(),
            curvature.float(),
        )

    def _across(self, basis: Tensor, places: Tensor) -> Tensor:
        """A_i B of some rows [rows, outputs, parameters]."""
        return across(self.light[places], basis, outputs=self.outputs)

    def _changes(self, found: _Model, places: Tensor, inside: Tensor) -> Tensor:
        """By how much the test loss changes with, or without, each of some rows."""
        moved = self._across(found.basis, places)
        reach = moved @ moved.mT  # G
        scores = self._scores(found.theta, self.design[places])
        factors = self._factors(scores, reach, places, inside)
        own = (reach @ factors[:, :, None])[..., 0]
        rows = _Rows(places, (factors[:, None] @ moved)[:, 0], own, 1.0 - 2 * inside.float())
        extra = torch.zeros(len(places), dtype=torch.float64)
        if not self.model.quadratic:
            far = (own.abs().amax(1) > NEAR).nonzero()[:, 0]
            size = own.shape[1] * max(len(found.members), TEST_SAMPLE)
            for part in far.split(max(1, BLOCK // size)):
                few = _Rows(*(column[part] for column in rows))
                lengths = self._lengths(found, few, scores[:, part])
                rows.steps[part] *= lengths[:, None]
                extra[part] = self._beyond_expansion(found, rows.steps[part])
        along = rows.steps @ found.slope
        bend = ((rows.steps @ found.curvature) * rows.steps).sum(1)
        return extra - along.double() + bend.double() / 2

    def _scores(self, theta: Tensor, design: Tensor) -> Tensor:
        """Scores [outputs, rows], float32."""
        return (theta.unflatten(0, (-1, design.shape[1])) @ design.T).float()

    def _own_loss(self, scores: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of the rows' terms [rows, outputs (, outputs)]."""
        labels, wide = self.points.labels[places], scores[:, None]
        slopes = self.model.C * self.model.score_slopes(wide, labels)[:, 0].T
        scale = scores.new_full((1, len(places)), self.model.C)
        return slopes, second_derivatives(self.model, wide, labels, scale)

    def _factors(self, scores: Tensor, reach: Tensor, places: Tensor, inside: Tensor) -> Tensor:
        """Return u of each row [rows, outputs]."""
        slopes, bends = self._own_loss(scores, places)
        own = bends @ reach
        # A row that alone determines a direction of its model has an eigenvalue of one.
        alone = inside & (own.diagonal(dim1=1, dim2=2).sum(1) > 1 - LEAST_LEFT)
        largest = torch.linalg.eigvals(own[alone]).real.amax(1).clamp(min=1 - LEAST_LEFT)
        own[alone] *= ((1 - LEAST_LEFT) / largest)[:, None, None]
        eye = torch.eye(len(scores))
        sign = (1.0 - 2 * inside.float())[:, None]
        factors = torch.linalg.solve(eye + sign[..., None] * own, sign * slopes)
        left = (~inside).nonzero()[:, 0]
        if self.model.quadratic:
            return factors
        for _ in range(STEPS):
            mine = factors[left]
            shift = (reach[left] @ mine[..., None])[..., 0]
            slopes, bends = self._own_loss(scores[:, left] - shift.T, places[left])
            step = torch.linalg.solve(eye + bends @ reach[left], slopes - mine)
            move = (reach[left] @ step[..., None]).abs().amax((1, 2))
            factors[left] = mine + step * (LONGEST_MOVE / move.clamp(min=LONGEST_MOVE))[:, None]
            left = left[move > CLOSE]
            if not len(left):
                break
        return factors

    def _lengths(self, found: _Model, rows: _Rows, scores: Tensor) -> Tensor:
        """Factors of the steps that minimise the objective of S with, or without, each row."""
        model, labels = self.model, self.points.labels[found.members]
        across = torch.einsum("np,mkp->knm", rows.steps, found.across)
        here = self._scores(found.theta, self.design[found.members])[:, None]
        penalty = self.penalty.repeat(len(here)).float()
        moved, theta = rows.steps @ found.basis.T, found.theta.float()
        first, second = moved @ (penalty * theta), (moved * moved) @ penalty
        scale = across.new_full(across.shape[1:], model.C)

        def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
            wide = here - t[:, None] * across
            slope = (model.score_slopes(wide, labels) * across).sum((0, 2)) * model.C
            curvature = model.score_curvature(wide, labels, scale)
            bend = (model.curvature_product(curvature, across) * across).sum((0, 2))
            mine, curve = self._own_loss(scores - (t[:, None] * rows.own).T, rows.places)
            pull = t * second - first - slope - rows.sign * (mine * rows.own).sum(1)
            curve = (rows.own[:, None] @ curve @ rows.own[..., None]).flatten()
            return pull, second + bend + rows.sign * curve

        one = torch.ones_like(first)
        return line_minima(derivatives, one, 0 * one, LONGEST * one, enough=NEARLY)

    def _beyond_expansion(self, found: _Model, steps: Tensor) -> Tensor:
        """What the expansion of the test loss lacks, by random test rows."""
        model = self.model
        design, labels = self._test_sample()
        here = self._scores(found.theta, design)[:, None]
        parts = found.basis.unflatten(0, (len(here), -1))
        moved = torch.stack([steps @ (design.float() @ part).T for part in parts])
        exact = model.score_losses(here - moved, labels) - model.score_losses(here, labels)
        first = (model.score_slopes(here, labels) * moved).sum(0)
        curvature = model.score_curvature(here, labels, torch.ones_like(here[0]))
        second = (model.curvature_product(curvature, moved) * moved).sum(0)
        return (exact + first - second / 2).mean(dim=1).double()
