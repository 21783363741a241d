"""Gains of all rows by the model of one subset, for a family with one score.

For a family with one linear score, with F_S the objective of subset S, theta its optimum, H its
Hessian there, a_i the design row of point i, l_i its loss and c_i = C times its sample weight:

    i outside of S   theta_{S+i} = theta - t H^-1 a_i   with   t = c_i l_i'(z_i - t h_i)
    i in S           theta_{S-i} = theta - t H^-1 a_i   with   t = -c_i l_i'(z_i) / (1 - c_i h_i l_i''(z_i))

where z_i = theta a_i and h_i = a_i H^-1 a_i. The first is exact up to the quadratic approximation of
F_S (l_i enters as it is), the second is one Newton step without i (approximate leave-one-out, Rad and
Maleki 2020). Where the row's own score moves by more than `NEAR`, t minimises the exact objective along
the same direction, since losses of few rows are far from quadratic. One model thus gives a gain of
every row, for the time of a few predictions.

The mean loss on test rows moves by

    delta_i = -t g H^-1 a_i + t^2 / 2 a_i H^-1 V H^-1 a_i

with g and V its gradient and Hessian at theta: exact for squared losses. For other losses of rows that
move their score by more than `NEAR`, the error of this expansion is computed on `TEST_SAMPLE` random
test rows and added. With Q' H Q = I and Q' V Q = diag(e), B = A Q gives h_i = sum B_i^2 and
a_i H^-1 V H^-1 a_i = sum e B_i^2: one large product for each subset.
"""

from dataclasses import dataclass, replace
from typing import final

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

STEPS = 30  # of the search for t, which mostly ends after three to five


@dataclass(frozen=True)
class _Model:
    """The model of one subset: Q and the test loss's gradient and curvature in its coordinates."""

    theta: Tensor  # [parameters], float64
    basis: Tensor  # Q [parameters, parameters], float64
    slope: Tensor  # Q' g [parameters]
    curvature: Tensor  # e [parameters]
    loss: float


@dataclass(frozen=True)
class _Rows:
    """Rows whose models lie far from that of the subset."""

    places: Tensor  # [rows]
    moved: Tensor  # [rows, parameters]: B
    steps: Tensor  # [rows]: t
    leverage: Tensor  # [rows]: h
    scores: Tensor  # [rows]: z
    sign: Tensor  # [rows]: 1 outside of the subset, -1 inside


@final
class ScoreGains(RowGains):
    """Gains of all rows for a family with one score."""

    def _of_one(self, theta: Tensor, inside: Tensor) -> Tensor:
        members = inside.nonzero()[:, 0]
        found = self._prepared(theta, members)
        moved = self.light @ found.basis.to(torch.float32)  # B
        squares = moved * moved
        sums = squares @ torch.stack([torch.ones_like(found.curvature), found.curvature], 1).float()
        leverage, bend = sums.double().unbind(1)
        scores = self.design @ theta
        steps = self._steps(scores, leverage, inside)
        change = torch.empty_like(steps)
        far = torch.zeros_like(inside)
        if not self.model.quadratic:
            far = (steps * leverage).abs() > NEAR
        for places in far.nonzero()[:, 0].split(max(1, BLOCK // max(len(members), TEST_SAMPLE))):
            sign = 1.0 - 2 * inside[places].float()
            rows = _Rows(
                places, moved[places], steps[places], leverage[places], scores[places], sign
            )
            rows = replace(rows, steps=self._along_lines(found, rows, members))
            steps[places] = rows.steps
            change[places] = self._beyond_expansion(found, rows)
        along = (moved @ found.slope.float()).double()
        expanded = -steps * along + steps.square() / 2 * bend
        change = torch.where(far, change + expanded, expanded)
        gains = -self._utility_loss(found.loss, change)
        return torch.where(inside, -gains, gains)

    def _utility_loss(self, loss: float, change: Tensor) -> Tensor:
        """By how much the loss of the utility changes with the mean of the family's losses."""
        if not self.model.regression:
            return change
        return (2 * (loss + change)).clamp(min=0).sqrt() - (2 * loss) ** 0.5

    def _prepared(self, theta: Tensor, members: Tensor) -> _Model:
        design = self.design[members]
        scores = (design @ theta)[None, None]
        labels = self.points.labels[members]
        scale = self.factors[members][None]
        bent = self.model.score_curvature(scores, labels, scale)[0][0, 0]
        hessian = (design * bent[:, None]).T @ design + torch.diag(self.penalty)
        slope, curvature, loss = self._test_loss(theta, self.test_design, self.test_points.labels)
        lower = torch.linalg.cholesky(hessian)
        half = torch.linalg.solve_triangular(lower, curvature, upper=False)
        inner = torch.linalg.solve_triangular(lower, half.T, upper=False)
        values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
        basis = torch.linalg.solve_triangular(lower.T, vectors, upper=True)
        return _Model(theta, basis, basis.T @ slope, values, loss)

    def _test_loss(
        self, theta: Tensor, design: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """Gradient and Hessian of the mean loss of test rows, and the loss."""
        scores = (design @ theta)[None, None]
        count = len(labels)
        slopes = self.model.score_slopes(scores, labels)[0, 0] / count
        ones = scores.new_full((1, count), 1 / count)
        bent = self.model.score_curvature(scores, labels, ones)[0][0, 0]
        curvature = (design * bent[:, None]).T @ design
        return slopes @ design, curvature, float(self.model.score_losses(scores, labels).mean())

    def _steps(self, scores: Tensor, leverage: Tensor, inside: Tensor) -> Tensor:
        """Return t of each row."""
        factors = self.factors
        slopes, bent = self._row_losses(scores)
        left = (1 - factors * leverage * bent).clamp(min=LEAST_LEFT)
        removing = -factors * slopes / left
        # Adding: t lies between 0 and c l'(z), since the slope falls as the score moves against it.
        low, high = torch.zeros_like(scores), factors * slopes
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        adding = factors * slopes / (1 + factors * leverage * bent)
        for _ in range(STEPS):
            slopes, bent = self._row_losses(scores - adding * leverage)
            excess = adding - factors * slopes
            if bool((excess.abs() <= 1e-9 * (1 + adding.abs())).all()):
                break
            low, high = torch.where(excess < 0, adding, low), torch.where(excess > 0, adding, high)
            newton = adding - excess / (1 + factors * leverage * bent)
            safe = (newton >= low) & (newton <= high)
            adding = torch.where(safe, newton, (low + high) / 2)
        return torch.where(inside, removing, adding)

    def _along_lines(self, found: _Model, rows: _Rows, members: Tensor) -> Tensor:
        """Return t that minimises the objective of S with, or without, the row along its direction."""
        basis = found.basis
        across = rows.moved @ (self.design[members] @ basis).float().T  # [rows, members]
        here = (self.design[members] @ found.theta).float()
        labels, factors = self.points.labels[members], self.factors[members].float()[None]
        first = rows.moved @ (basis.T @ (self.penalty * found.theta)).float()
        inner = (basis.T @ (self.penalty[:, None] * basis)).float()
        second = ((rows.moved @ inner) * rows.moved).sum(1)
        t, h, z = (each.float() for each in (rows.steps, rows.leverage, rows.scores))
        own = self.factors[rows.places].float() * rows.sign

        def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
            wide = torch.addcmul(here, across, -t[:, None])[None]
            slope = self.model.score_slopes(wide, labels)[0] * factors
            bent = self.model.score_curvature(wide, labels, factors.expand(wide.shape[1:]))[0][0]
            mine, curve = self._row_losses(z - t * h, rows.places)
            pull = t * second - first - (slope * across).sum(1) - own * h * mine
            return pull, second + (bent * across * across).sum(1) + own * h * h * curve

        low, high = (LONGEST * t).clamp(max=0), (LONGEST * t).clamp(min=0)
        return line_minima(derivatives, t, low, high).double()

    def _row_losses(self, scores: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """First and second derivatives of rows' own losses."""
        labels = self.points.labels if places is None else self.points.labels[places]
        wide, ones = scores[None, None], torch.ones_like(scores)[None]
        slopes = self.model.score_slopes(wide, labels)[0, 0]
        return slopes, self.model.score_curvature(wide, labels, ones)[0][0, 0]

    def _beyond_expansion(self, found: _Model, rows: _Rows) -> Tensor:
        """What the expansion of the test loss lacks, by random test rows."""
        design, labels = self._test_sample()
        slope, curvature, loss = self._test_loss(found.theta, design, labels)
        basis, moved, steps = found.basis, rows.moved, rows.steps
        shifted = (moved @ (design @ basis).float().T).mul_(-steps.float()[:, None])
        shifted = shifted.add_((design @ found.theta).float())
        exact = self.model.score_losses(shifted[None], labels).mean(dim=1).double() - loss
        along = (moved @ (basis.T @ slope).float()).double()
        bent = (basis.T @ curvature @ basis).float()
        bend = ((moved @ bent) * moved).sum(1).double()
        return exact - (-steps * along + steps.square() / 2 * bend)
