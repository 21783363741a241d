"""Counterfactual explanations: small sets of training rows whose removal flips a prediction.

The margin of a row x for class k is positive if the model predicts k. Removing training row i changes
it by

    effect(i) = margin of the model without i - margin of the model of all rows

The search predicts the model without each candidate set. It does not add up effects of single rows,
because similar rows can replace each other (Yang et al. 2023, "How many and which training points
would need to be removed to flip this prediction?", add up influences). The search is greedy, so the
set that it returns flips the prediction but need not be the smallest:

1. Rows are sorted by their effects; take the shortest prefix that flips.
2. Repeat, but predict the effects again after every eighth of this prefix, given the removed rows, among
   the rows that were among the first in step 1: four times as many as the prefix has, at least 250.
3. Put rows back that are not needed, one at a time.

The result is checked by retraining once.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.refits.retraining import Refit
from modelpred.studies.context import StudyContext, finished, refitted, retrained
from modelpred.targets.points import Points
from modelpred.targets.scoring import scored

Positions: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

# Subsets that are predicted at once.
BLOCK = 250
PARTS = 8
CANDIDATES = 4  # times as many rows are tried as the shortest prefix has, in order of their effects


@dataclass(frozen=True)
class Flip:
    """A set of rows whose removal is predicted to flip a prediction.

    Attributes:
        removed: positions of the training rows; empty if there is no such set.
        margin: of the predicted model without them; nan if there is no such set.
        retrained_margin: of the retrained model without them; nan if there is no such set, or
            training did not converge.
        confirmed: whether the retrained model's prediction also flips.
        retrained: parameters of the retrained model without them, or None.
    """

    removed: tuple[int, ...]
    margin: float
    retrained_margin: float
    confirmed: bool
    retrained: Float[Tensor, " parameters"] | None = None


def without(
    rows: Num[Tensor, "subsets removed"], *, points: int
) -> Float[Tensor, "subsets points"]:
    """Return weights of 1, with 0 for the removed rows of each subset."""
    weights = torch.ones(len(rows), points, dtype=torch.float64)
    return weights.scatter_(1, rows, 0.0)


def leave_one_out(refit: Refit, context: StudyContext) -> Float[Tensor, "points parameters"]:
    """Return the parameters without each single training row."""
    rows = torch.arange(context.pool)[:, None]
    blocks = (without(block, points=context.pool) for block in rows.split(BLOCK))
    return torch.cat([refitted(refit, weights, context) for weights in blocks])


class ExplainedPrediction:
    """The prediction for one row, as a function of the training rows.

    Args:
        refit: maps weights to the parameters of models.
        context: the training rows and the family.
        features: of the row, [features].
        label: the class that the model of all rows predicts; 0 for a regression, whose margin is the
            predicted number.
    """

    def __init__(
        self,
        refit: Refit,
        context: StudyContext,
        features: Float[Tensor, " features"],
        *,
        label: int,
    ) -> None:
        self.refit = refit
        self.context = context
        kind = torch.float64 if context.model.regression else torch.int64
        self.row = Points(features[None], torch.tensor([label], dtype=kind), context.points.classes)

    def margins(self, parameters: Float[Tensor, "subsets parameters"]) -> tuple[Vector, Flags]:
        """Return the margins of models, and whether each predicts the label.

        A failed model has the margin nan, and does not count as predicting another class.
        """
        model, row = self.context.model, self.row

        def reduce(scores: Tensor) -> Tensor:
            margins = model.margins(scores, row.labels)
            right = torch.ones_like(margins)
            right = right if model.regression else model.correct(scores, row.labels).to(right)
            return torch.cat([margins, right], dim=1)

        margins, right = scored(reduce, model, parameters, row, columns=(2,)).numpy().T
        return margins, right != 0  # nan is not 0

    def removed(self, rows: Num[Tensor, "subsets removed"]) -> tuple[Vector, Flags]:
        """Return the margins of the models without these rows, and whether they predict the label."""
        weights = without(rows, points=self.context.pool)
        return self.margins(refitted(self.refit, weights, self.context))


def smallest_flip(prediction: ExplainedPrediction, effects: Vector, *, largest: int) -> Flip:
    """Return a small set of rows whose removal flips the prediction, checked by retraining.

    Args:
        prediction: the row and the refit.
        effects: of removing each single row; the search starts with the lowest.
        largest: most rows to remove.
    """
    order = np.argsort(effects, kind="stable")[:largest]
    removed = _first_prefix(prediction, order, longer_than=0)
    if removed is None:
        return Flip((), float("nan"), float("nan"), confirmed=False)
    greedy = _greedy(prediction, order, length=len(removed))
    if greedy is not None and len(greedy) < len(removed):
        removed = greedy
    removed = _needed(prediction, removed)
    rows = torch.from_numpy(removed)[None]
    margins, _ = prediction.removed(rows)
    exact = retrained(without(rows, points=prediction.context.pool), prediction.context)
    true, holds = prediction.margins(exact)
    return Flip(
        tuple(removed.tolist()),
        float(margins[0]),
        float(true[0]),
        confirmed=not bool(holds[0]),
        retrained=exact[0] if bool(finished(exact)[0]) else None,
    )


def _first_prefix(
    prediction: ExplainedPrediction, order: Positions, *, longer_than: int
) -> Positions | None:
    """The shortest prefix with more than `longer_than` rows whose removal flips, or None."""
    rows = torch.from_numpy(order)
    for start in range(longer_than + 1, len(order) + 1, BLOCK):
        sizes = torch.arange(start, min(start + BLOCK, len(order) + 1))
        # Each subset removes a prefix; the first row is repeated to fill up the tensor.
        in_prefix = torch.arange(len(order)) < sizes[:, None]
        _, holds = prediction.removed(torch.where(in_prefix, rows, rows[0]))
        if not holds.all():
            return order[: int(sizes[int(np.argmin(holds))])]
    return None


def _greedy(prediction: ExplainedPrediction, order: Positions, *, length: int) -> Positions | None:
    """A set of at most `length` rows that flips the prediction, or None; see step 2 above."""
    part = -(-length // PARTS)
    removed = order[:0]
    candidates = order[: max(BLOCK, CANDIDATES * length)]
    while len(removed) < length:
        others = np.setdiff1d(candidates, removed)
        margins = np.concatenate(
            [
                prediction.removed(_joined(removed, block))[0]
                for block in np.array_split(others, -(-len(others) // BLOCK))
            ]
        )
        best = others[np.argsort(margins, kind="stable")][: min(part, length - len(removed))]
        candidate = np.concatenate([removed, best])
        flipping = _first_prefix(prediction, candidate, longer_than=len(removed))
        if flipping is not None:
            return flipping
        removed = candidate
    return None


def _joined(removed: Positions, others: Positions) -> Tensor:
    """For each of the others, the set of it and all removed rows."""
    return torch.from_numpy(
        np.concatenate([np.tile(removed, (len(others), 1)), others[:, None]], axis=1)
    )


def _needed(prediction: ExplainedPrediction, removed: Positions) -> Positions:
    """The set without rows that are not needed to flip the prediction."""
    while len(removed) > 1:
        smaller = np.stack([np.delete(removed, at) for at in range(len(removed))])
        margins, holds = prediction.removed(torch.from_numpy(smaller))
        if holds.all():
            return removed
        removed = np.delete(removed, int(np.argmin(np.where(holds, np.inf, margins))))
    return removed
