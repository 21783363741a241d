"""Gains of all rows from the model of one subset: what each row would add to it, or has added.

The model of the subset with one row more, or less, follows from its own model and Hessian: score_gains.py
for families with one score, output_gains.py for several. So one model gives a gain of every row, for
the time of a few predictions. A subset that lacks a class may have no optimum: its rows are answered by
the prior model, and by training with each row that brings the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from modelpred.targets.linear import Linear
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points, class_counts
from modelpred.targets.scoring import mean_test_losses

MOST_PARAMETERS = 512  # beyond, the decomposition of two matrices for each subset takes longer
MOST_OF_SEVERAL = 1024  # of families with several scores
TEST_SAMPLE = 256  # test rows on which the expansion of the loss is corrected
NEAR = 0.5  # own score: a row that moves it by less is answered by the expansions alone
LONGEST = 4.0  # step along a line, as a multiple of the quadratic approximation's
LINE_STEPS = 6
BLOCK = 2**22  # scores that are formed at once
TOGETHER = 64  # rows that are added in one training
LEAST_LEFT = 0.02  # least 1 - c h l'': a row that alone determines a direction of its model


def has_row_gains(model: TargetModel, points: Points, utility: object) -> bool:
    """Whether gains of all rows can be computed from one model: a linear family and its loss.

    With several scores the loss must be smooth: gains of the svm's small subsets are not near enough.
    """
    if not isinstance(model, Linear) or utility != "loss" or points.sample_weight is not None:
        return False
    outputs = model.outputs(points.classes)
    if outputs > 1 and not model.smooth:
        return False
    most = MOST_PARAMETERS if outputs == 1 else MOST_OF_SEVERAL
    return outputs * (points.features.shape[1] + 1) <= most


def cost_of_gains(outputs: int) -> int:
    """Return the evaluations in the time of the gains of all rows by one model, as measured."""
    return 100 if outputs == 1 else 400


def line_minima(
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    enough: float = 0.0,
) -> Tensor:
    """Return the minimum of each convex function between its bounds, by Newton's method.

    A step that leaves the bounds is replaced by bisection.

    Args:
        derivatives: maps arguments to first and second derivatives, one for each function.
        start: first arguments.
        low: lower bounds of the minima.
        high: their upper bounds.
        enough: the search ends if no argument changes by as much.
    """
    found = start
    for _ in range(LINE_STEPS):
        slope, bend = derivatives(found)
        low, high = torch.where(slope < 0, found, low), torch.where(slope > 0, found, high)
        newton = found - slope / bend.clamp(min=1e-12)
        safe = (newton >= low) & (newton <= high)
        before, found = found, torch.where(safe, newton, (low + high) / 2)
        if bool(((found - before).abs() < enough).all()):
            break
    return found


class RowGains(ABC):
    """Computes gains of all rows.

    Args:
        model: a family for which `has_row_gains` holds.
        points: the training points.
        test_points: the rows of the utility, which is minus their mean loss (regression: minus the
            root of the mean squared error).
        train: maps weights and points to trained parameters [subsets, parameters]; nan if training
            did not converge.
        generator: draws the test rows of the correction.
    """

    def __init__(
        self,
        model: Linear,
        points: Points,
        test_points: Points,
        *,
        train: Callable[[Tensor, Points], Tensor],
        generator: np.random.Generator,
    ) -> None:
        self.model, self.points, self.test_points = model, points, test_points
        self.outputs = model.outputs(points.classes)
        self.cost = cost_of_gains(self.outputs)
        self.train = train
        self.generator = generator
        self.design = model.design(points.features)
        self.light = self.design.to(torch.float32)
        self.test_design = model.design(test_points.features)
        self.factors = model.C * self.design.new_ones(len(self.design))
        penalty = self.design.new_ones(self.design.shape[1])
        penalty[-1] = model.intercept_penalty
        if not bool(self.design[:, -1].any()):  # no intercept: its parameter is always 0
            penalty[-1] = 1.0
        self.penalty = penalty

    def __call__(self, weights: UInt8[Tensor, "subsets points"]) -> Float[Tensor, "subsets points"]:
        """Return v(S + i) - v(S) of the rows outside, v(S) - v(S - i) of those in each subset.

        nan where a model did not converge.

        Args:
            weights: 0/1.
        """
        gains = torch.full(weights.shape, torch.nan, dtype=torch.float64)
        counts = class_counts(weights.to(torch.float32), self.points).double()
        lacking = self.model.without_optimum(counts)
        parameters = self.train(weights, self.points)
        for row, members in enumerate(weights > 0):
            if bool(lacking[row]):
                gains[row] = self._without_model(members, counts[row])
            elif bool(parameters[row].isfinite().all()):
                gains[row] = self._of_one(parameters[row], members)
                self._last_of_class(gains[row], parameters[row], members, counts[row])
        return gains

    def _last_of_class(self, gains: Tensor, theta: Tensor, members: Tensor, counts: Tensor) -> None:
        """Set the gains of rows without which the subset has the prior model."""
        for group, left in enumerate(counts - torch.eye(len(counts), dtype=counts.dtype)):
            if counts[group] == 1 and bool(self.model.without_optimum(left[None])[0]):
                own = members & self._in_group(group)
                gains[own] = self._utility(theta[None])[0] - self._prior_utility(left)

    def _without_model(self, members: Tensor, counts: Tensor) -> Tensor:
        """Gains of a subset that lacks a class: the prior model, and trained ones with a row more."""
        here = self._prior_utility(counts)
        gains = torch.zeros(len(members), dtype=torch.float64)
        for group, one in enumerate(torch.eye(len(counts), dtype=counts.dtype)):
            own = self._in_group(group)
            if bool((own & members).any()):
                gains[own & members] = here - self._prior_utility(counts - one)
            outside = (own & ~members).nonzero()[:, 0]
            if bool(self.model.without_optimum((counts + one)[None])[0]):
                gains[outside] = self._prior_utility(counts + one) - here
            else:
                gains[outside] = self._with_one_more(members.nonzero()[:, 0], outside) - here
        return gains

    def _with_one_more(self, members: Tensor, others: Tensor) -> Tensor:
        """Utilities of the models of these members and one of the others, trained."""
        utilities = [torch.zeros(0, dtype=torch.float64)]
        size = len(members)
        for part in others.split(TOGETHER):
            weights = torch.zeros(len(part), size + len(part), dtype=torch.uint8)
            weights[:, :size] = 1
            weights[:, size:].fill_diagonal_(1)
            few = self.points.take(torch.cat([members, part]))
            utilities.append(self._utility(self.train(weights, few)))
        return torch.cat(utilities)

    def _prior_utility(self, counts: Tensor) -> float:
        features = self.points.features.shape[1]
        return float(self._utility(self.model.prior(counts[None], features))[0])

    def _utility(self, parameters: Tensor) -> Tensor:
        return -mean_test_losses(self.model, parameters, self.test_points)

    def _in_group(self, group: int) -> Tensor:
        if not self.points.classes:
            return torch.ones_like(self.points.labels, dtype=torch.bool)
        return self.points.labels == group

    def _test_sample(self) -> tuple[Tensor, Tensor]:
        """Design and labels of random test rows, of all if there are few."""
        count = len(self.test_points.labels)
        chosen = torch.arange(count)
        if count > TEST_SAMPLE:
            chosen = torch.from_numpy(self.generator.choice(count, TEST_SAMPLE, replace=False))
        return self.test_design[chosen], self.test_points.labels[chosen]

    @abstractmethod
    def _of_one(self, theta: Tensor, inside: Tensor) -> Tensor:
        """Gains of all rows [points], by the model of the rows inside."""
