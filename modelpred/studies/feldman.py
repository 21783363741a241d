"""Feldman's estimator of memorization and influence from models of random subsets.

With S a random subset of a fixed share of the training rows and h_S its model, Feldman (2020;
Feldman and Zhang 2020) defines, for training row i and any row z,

    memorization(i)   = P[h_S right on x_i | i in S] - P[h_S right on x_i | i not in S]
    influence(i, z)   = P[h_S right on z   | i in S] - P[h_S right on z   | i not in S]

For a deterministic learner, right or wrong is a coarse measure. The soft form replaces it by the
mean probability of the true label or, for a family without probabilities, by minus the loss:

    family                    hard form   soft form
    logistic, softmax, mlp    yes         probability
    svm                       yes         loss
    ridge                     no          loss: the absolute residual, in the label's units

All rows use the same subsets. With values c [subsets, rows], both are differences of two means,
computed block by block from W'c, W'c² and the column sums (W [subsets, points] of 0 and 1).
Intervals treat subsets as independent: Welch's t for the soft form, Newcombe's for the hard form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Differences, Vector, mean_differences, proportion_differences
from modelpred.studies.context import StudyContext, finished
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.scoring import scored

HARD = "correct"
ROUNDING = 1e-12
DIFFERENCE_BYTES = (
    16 * 2**20
)  # of an array [points, test rows] whose differences are formed at once

Measure = Callable[[Tensor, Tensor], Tensor]
"""(scores [subsets, rows, outputs], labels [rows]) -> a score of each row, [subsets, rows]"""


@dataclass(frozen=True)
class Memorization:
    """Memorization and influence in both forms, estimated from one set of subsets.

    Attributes:
        soft_name: `probability` or `loss`.
        soft: memorization of every training row [points].
        hard: memorization by right and wrong; None for a regression.
        influence: soft influence of training rows on test rows [points, test rows].
        hard_influence: influence by right and wrong; None for a regression, or if not computed.
        inside: number of subsets with each row [points].
        subsets: number of subsets.
    """

    soft_name: str
    soft: Differences
    hard: Differences | None
    influence: Differences
    hard_influence: Differences | None
    inside: Vector
    subsets: int


def draw_share(
    *, subsets: int, points: int, share: float, generator: np.random.Generator
) -> Num[Tensor, "subsets points"]:
    """Return 0/1 weights of random subsets with this share of the points, rounded.

    Raises:
        InvalidInput: the rounded size is 0 or all points.
    """
    size = round(share * points)
    if not 0 < size < points:
        raise InvalidInput(
            f"a share of {share} of {points} points is {size} of them; expected at least one in "
            "each subset and one outside; set another memorization.share or use more points"
        )
    orders = np.argsort(generator.random((subsets, points)), axis=1)
    return torch.from_numpy((orders < size).astype(np.uint8))


def measures(model: TargetModel, *, classes: int) -> dict[str, Measure]:
    """Return the measures of the family by name: the soft form, and the hard form if it has one."""

    def correct(scores: Tensor, labels: Tensor) -> Tensor:
        return model.correct(scores, labels).to(torch.float64)

    def probability(scores: Tensor, labels: Tensor) -> Tensor:
        index = labels[None, :, None].expand(len(scores), -1, 1)
        return model.probabilities(scores).gather(2, index)[..., 0]

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        if model.regression:
            return -model.margins(scores, labels).abs()
        return -model.losses(scores, labels)

    if model.regression:
        return {"loss": loss}
    soft: dict[str, Measure] = {"probability": probability}
    try:
        model.probabilities(torch.zeros(1, 1, max(1, classes), dtype=torch.float64))
    except InvalidInput:
        soft = {"loss": loss}
    return {**soft, HARD: correct}


class _Sums:
    """Sums of a measure and of its square, over subsets with each point and over all subsets."""

    def __init__(self, points: int, test: int) -> None:
        self.own = torch.zeros(2, 2, points, dtype=torch.float64)  # [power, inside or all, points]
        self.test_inside = torch.zeros(2, points, test, dtype=torch.float64)
        self.test_all = torch.zeros(2, test, dtype=torch.float64)

    def add(self, weights: Tensor, own: Tensor, test: Tensor) -> None:
        for power in (0, 1):
            own_values, test_values = own ** (power + 1), test ** (power + 1)
            self.own[power, 0] += (weights * own_values).sum(0)
            self.own[power, 1] += own_values.sum(0)
            self.test_inside[power] += weights.T @ test_values
            self.test_all[power] += test_values.sum(0)


class Estimator:
    """Collects models of subsets block by block; memory does not grow with their number.

    Args:
        context: the training rows, the test rows and the family.
        hard_influence: whether to estimate the influence by right and wrong, too.
    """

    def __init__(self, context: StudyContext, *, hard_influence: bool = True) -> None:
        self.context = context
        classes = context.points.classes
        self.measures = measures(context.model, classes=classes)
        self.test_points = {
            name: context.test_points if hard_influence or name != HARD else None
            for name in self.measures
        }
        self.sums = {
            name: _Sums(context.pool, 0 if points is None else len(points.labels))
            for name, points in self.test_points.items()
        }
        self.inside = torch.zeros(context.pool, dtype=torch.float64)
        self.subsets = 0

    def add(
        self,
        weights: Num[Tensor, "subsets points"],
        parameters: Float[Tensor, "subsets parameters"],
    ) -> None:
        """Add the models of a block of subsets (weights of 0 and 1), without failed models."""
        usable = finished(parameters)
        weights, parameters = weights[usable], parameters[usable]
        member = weights.to(torch.float64)
        model = self.context.model
        for name, measure in self.measures.items():
            own = _measured(model, measure, parameters, self.context.points)
            points = self.test_points[name]
            test = own[:, :0] if points is None else _measured(model, measure, parameters, points)
            self.sums[name].add(member, own, test)
        self.inside += member.sum(0)
        self.subsets += len(weights)

    def estimate(self) -> Memorization:
        """Return the estimate from all subsets so far; nan for a row that is almost always in or out."""
        soft = next(name for name in self.measures if name != HARD)
        own, test = self._differences(soft)
        hard = self._differences(HARD) if HARD in self.measures else (None, None)
        hard_influence = None if self.test_points.get(HARD) is None else hard[1]
        inside = self.inside.numpy()
        return Memorization(soft, own, hard[0], test, hard_influence, inside, self.subsets)

    def _differences(self, name: str) -> tuple[Differences, Differences]:
        sums, count = self.sums[name], self.inside.numpy()
        own = _difference(
            sums.own[:, 0].numpy(), sums.own[:, 1].numpy(), count, self.subsets, hard=name == HARD
        )
        shape = tuple(sums.test_inside.shape[1:])
        test = Differences(np.empty(shape), np.empty(shape), np.empty(shape))
        width = max(1, DIFFERENCE_BYTES // (8 * max(1, shape[0])))
        for first in range(0, shape[1], width):
            columns = slice(first, first + width)
            block = _difference(
                sums.test_inside[..., columns].numpy(),
                sums.test_all[:, None, columns].numpy(),
                count[:, None],
                self.subsets,
                hard=name == HARD,
            )
            for whole, part in zip(vars(test).values(), vars(block).values(), strict=True):
                whole[:, columns] = part
        return own, test


def _measured(model: TargetModel, measure: Measure, parameters: Tensor, points: Points) -> Tensor:
    return scored(
        lambda scores: measure(scores, points.labels),
        model,
        parameters,
        points,
        columns=(len(points.labels),),
    )


def _difference(
    inside: Vector, total: Vector, count: Vector, subsets: int, *, hard: bool
) -> Differences:
    """Mean over subsets with the row minus mean over the others, from sums of values and squares."""
    counts = count, subsets - count
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = [(inside[power], total[power] - inside[power]) for power in (0, 1)]
        first, second = (value / n for value, n in zip(sums[0], counts, strict=True))
        # Differences within the rounding error of the sums are zero.
        second = np.where(np.abs(first - second) <= ROUNDING * np.abs(first), first, second)
        if hard:
            return proportion_differences((first.clip(0, 1), second.clip(0, 1)), counts)
        variances = [
            ((square - n * mean**2) / (n - 1)).clip(0)
            for square, mean, n in zip(sums[1], (first, second), counts, strict=True)
        ]
    return mean_differences((first, second), (variances[0], variances[1]), counts)
