"""Scores of the models without each single row, computed directly, with a certified bound for each.

With theta the model of all rows, H the Hessian of its objective, a_i the design row of row i, f_i and
J_i the first and second derivatives of its term in the scores, the Newton step without row i is

    theta_i = theta + H^-1 A_i' (I - J_i G_i)^-1 f_i     A_i = I (x) a_i',  G_i = A_i H^-1 A_i'

(approximate leave-one-out, Rad and Maleki 2020). All rows together take one decomposition of H and a
product with it for each row. For squared losses theta_i is the model without the row.

*The bound.* Let |.| be the norm of H and K_i = tr(J_i G_i), so that the Hessian without row i is at
least (1 - K_i) H. The second derivatives of the logistic and softmax losses stay within exp(-s) and
exp(s) of themselves if the scores of a row move apart by s (self-concordance, as in
targets/certificate.py). With m the largest such s of a training row for a unit of |.|, and m' the same
without row i, the step y moves scores apart by at most d = m |y|, the gradient left at theta_i has at
most the length e = (exp(d) - 1 - d) / d |y|_i, where |.|_i is the norm of the Hessian without row i, and
the optimum without row i is at most

    rho = -log(1 - m' exp(d) e) / m'

away. The mean test loss, with gradient g and Hessian V at theta and q = H^-1 g, then differs by at most

    (exp(d) - 1 - d) / d^2  y W y  +  sqrt(K_i / (1 - K_i)) |A_i q|_J e  +  (exp(d + m' rho) - 1) |q|_i rho
    + (exp(D) - 1) / D (|y|_V + |rho|_V) |rho|_V

where W is the Hessian of the training losses with each row weighted by the spread of its scores of q: the
third derivative of a row's loss along u, u and q is at most its second along u times the spread of
q. D bounds how far test scores move apart. The first term is the largest; the others are of third order.

*The svm* has no third derivative but kinks. Within |.| <= R of theta its Hessian differs from H by at
most M, the curvature of the rows that a step of R can take to their kinks. If k is the largest eigenvalue of M,

    e = sqrt(k) |y|_M      rho = e / (1 - K_i - k)   if   |y| + rho <= R

and the loss differs by at most |q|_M (|y|_M + sqrt(k) rho), and terms of third order as above.

Rows without which the Hessian changes by half, or for which the bound does not exist, are retrained.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelpred.refits.retraining import Retraining
from modelpred.studies.removal_expansion import BLOCK, RemovalExpansion, loss_change_within
from modelpred.targets.linear import Linear, row_space_of
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.scoring import mean_test_losses

MOST_PARAMETERS = 4096  # beyond, decompositions take longer than training without each row
LARGEST_SHARE = 0.5  # of the Hessian that a row may have, and of m' exp(d) e
GROUPS = 16  # of rows with about equal steps, each with its own R
WIDER = 1.5  # R, relative to the longest step of the group
ROUNDING = 1e-12


@dataclass(frozen=True)
class Removals:
    """Mean test losses (regression: roots of the mean squared errors) without each row.

    Attributes:
        whole: of the model of all rows.
        without: [points]; nan if training without the row failed.
        bounds: [points], the largest distance of `without` minus `whole` from that of the optima.
        retrained: number of rows without which a model was trained.
    """

    whole: float
    without: Float[Tensor, " points"]
    bounds: Float[Tensor, " points"]
    retrained: int


def can_remove_directly(model: TargetModel, points: Points) -> bool:
    """Whether the family has a direct answer for each row: a linear one with few parameters."""
    if not isinstance(model, Linear):
        return False
    columns = min(points.features.shape) + 1
    return model.outputs(points.classes) * columns <= MOST_PARAMETERS


def direct_removals(
    truth: Retraining, test_points: Points, full: Float[Tensor, " parameters"]
) -> Removals:
    """Return the test losses without each row.

    Args:
        truth: trains the family, for which `can_remove_directly` holds, on the training points.
        test_points: the rows of the loss.
        full: trained on all rows.
    """
    model, points = truth.model, truth.points
    assert isinstance(model, Linear)
    if (space := row_space_of(model, points)) is None:
        expansion = RemovalExpansion(model, points, test_points, full)
    else:
        features = test_points.features @ space.basis
        small = Points(features, test_points.labels, test_points.classes)
        expansion = RemovalExpansion(model, space.points, small, space.reduced(full))
    without, bounds, sure = _Answers(expansion).losses()
    again = (~sure).nonzero()[:, 0]
    for rows in again.split(max(1, BLOCK // len(points.labels))):
        weights = torch.ones(len(rows), len(points.labels), dtype=torch.uint8)
        weights[torch.arange(len(rows)), rows] = 0
        trained = truth(weights)
        without[rows] = mean_test_losses(model, trained, test_points)
        radius = truth.tolerance * trained.norm(dim=1)
        bounds[rows] = loss_change_within(model, trained, radius, test_points)
    whole, error = torch.tensor(expansion.loss), torch.tensor(expansion.loss_error)
    if model.regression:
        bounds, error = _of_roots(without, bounds), _of_roots(whole, error)
    bounds = bounds + error + ROUNDING * (1 + whole + without)
    return Removals(expansion.loss, without, bounds, len(again))


def _of_roots(roots: Tensor, bounds: Tensor) -> Tensor:
    """Bounds of sqrt(2 loss) from those of losses."""
    double = roots.square()
    up = (double + 2 * bounds).sqrt() - roots
    down = roots - (double - 2 * bounds).clamp(min=0).sqrt()
    return torch.maximum(up, down)


class _Steps(NamedTuple):
    """Newton steps without some rows."""

    rows: Int[Tensor, " rows"]
    steps: Float[Tensor, "rows parameters"]  # y, in the basis
    size: Float[Tensor, " rows"]  # |y|
    length: Float[Tensor, " rows"]  # its length by the Hessian without the row
    share: Float[Tensor, " rows"]  # K_i


@final
class _Answers:
    """Direct answers from an expansion."""

    def __init__(self, expansion: RemovalExpansion) -> None:
        self.expansion, self.model = expansion, expansion.model
        if self.model.smooth:
            self.third = expansion.third()
        else:
            self.beyond, self.to_kink = expansion.kinks()

    def losses(self) -> tuple[Tensor, Tensor, Bool[Tensor, " points"]]:
        """Losses without each row, their bounds, and whether these exist."""
        expansion, model = self.expansion, self.model
        points, test = expansion.points, expansion.test_points
        rows = torch.arange(len(points.labels))
        found = [self._block(part) for part in rows.split(expansion.rows_at_once)]
        without, bounds, sure = (torch.cat(parts) for parts in zip(*found, strict=True))
        # Rows are counted here, not their weights: a class without rows leaves the prior model.
        labels = points.labels if points.classes else torch.zeros_like(rows)
        owns = torch.nn.functional.one_hot(labels, max(points.classes, 1))
        prior = model.without_optimum((owns.sum(0) - owns).to(expansion.theta))
        if bool(prior.any()):
            weights = points.factors[:, None] * owns
            left = (weights.sum(0) - weights)[prior]
            models = model.prior(left, points.features.shape[1])
            without[prior] = mean_test_losses(model, models, test)
            bounds[prior], sure[prior] = 0.0, True
        return without, bounds, sure

    def _block(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        expansion = self.expansion
        bends, slopes = expansion.bends[rows], expansion.slopes[rows]
        moved = expansion.moved(expansion.design[rows])
        own = bends @ (moved @ moved.mT)
        share = own.diagonal(dim1=1, dim2=2).sum(dim=1)
        eye = torch.eye(expansion.outputs).to(moved)
        factors = torch.linalg.solve_ex(eye - own, slopes[:, :, None])[0]
        steps = (factors.mT @ moved)[:, 0]
        sure = (share < LARGEST_SHARE) & steps.isfinite().all(dim=1)
        steps[~sure], share[~sure] = 0.0, 0.0
        length = (steps * (slopes[:, None] @ moved)[:, 0]).sum(dim=1).clamp(min=0).sqrt()
        each = _Steps(rows, steps, steps.norm(dim=1), length, share)
        parameters = expansion.theta + steps @ expansion.basis.T
        without = mean_test_losses(self.model, parameters, expansion.test_points)
        bounds, holds = self._smooth(each) if self.model.smooth else self._with_kinks(each)
        return without, bounds, sure & holds

    def _smooth(self, each: _Steps) -> tuple[Tensor, Tensor]:
        """Bounds, and whether they exist."""
        expansion, drift = self.expansion, self.model.curvature_drift
        wider = (1 - each.share).rsqrt()
        apart = drift * expansion.reach * each.size  # d
        second = 0.5 * (apart / 2).exp()  # at least (exp(d) - 1 - d) / d^2
        error = apart * second * each.length + expansion.left * wider  # e
        reach = drift * expansion.reach * wider  # m'
        part = reach * apart.exp() * error
        holds, part = part < LARGEST_SHARE, part.clamp(max=LARGEST_SHARE)
        distance = torch.where(part > 0, -torch.log1p(-part) / reach, error)  # rho
        steepness = expansion.steepness * wider
        bounds = drift * second * _form(each.steps, self.third)
        bounds = bounds + self._own_part(each) * error + steepness * expansion.left * wider
        bounds = bounds + (apart + reach * distance).expm1() * steepness * distance
        tested = drift * expansion.test_reach * (each.size + wider * distance)  # D
        growth = torch.where(tested > 0, tested.expm1() / tested, 1.0)
        return bounds + growth * self._of_test_rows(each, wider * distance), holds

    def _with_kinks(self, each: _Steps) -> tuple[Tensor, Tensor]:
        """Bounds of the svm, and whether they exist."""
        bounds, holds = torch.zeros_like(each.size), torch.zeros_like(each.size, dtype=torch.bool)
        order = each.size.argsort()
        for places in order.split(max(1, -(-len(order) // GROUPS))):
            few = _Steps(*(column[places] for column in each))
            bounds[places], holds[places] = self._with_kinks_within(few)
        return bounds, holds

    def _with_kinks_within(self, each: _Steps) -> tuple[Tensor, Tensor]:
        expansion = self.expansion
        radius = WIDER * each.size.max() + 4 * expansion.left  # R
        near = self.beyond[self.to_kink <= radius]
        bent = near.T @ near  # M
        strongest = float(torch.linalg.eigvalsh(bent)[-1].clamp(min=0))  # k
        along = _form(expansion.slope[None], bent)[0].sqrt()  # |q|_M
        own = _form(each.steps, bent).sqrt()  # |y|_M
        error = strongest**0.5 * own + expansion.left
        remains = 1 - each.share - strongest
        distance = error / remains.clamp(min=LARGEST_SHARE / 2)
        holds = (remains >= LARGEST_SHARE / 2) & (each.size + distance <= radius)
        row = self._own_part(each) * (1 - each.share).rsqrt()
        bounds = along * own + row * error
        bounds = bounds + expansion.steepness * expansion.left / (1 - each.share)
        bounds = bounds + (along + strongest**0.5 * row) * strongest**0.5 * distance
        return bounds + self._of_test_rows(each, distance), holds

    def _own_part(self, each: _Steps) -> Tensor:
        """sqrt(K_i / (1 - K_i)) |A_i q|_J: how much q changes without the row's own curvature."""
        along = self.expansion.along[each.rows][:, None]
        weight = (along @ self.expansion.bends[each.rows] @ along.mT).flatten().clamp(min=0)
        return (each.share / (1 - each.share) * weight).sqrt()

    def _of_test_rows(self, each: _Steps, distance: Tensor) -> Tensor:
        """Change of the loss's gradient along the rest of the way, for curvature as at theta."""
        further = self.expansion.steepest**0.5 * distance
        return (_form(each.steps, self.expansion.loss_bend).sqrt() + further) * further


def _form(rows: Tensor, matrix: Tensor) -> Tensor:
    """The quadratic form of each row, at least 0."""
    return ((rows @ matrix) * rows).sum(dim=1).clamp(min=0)
