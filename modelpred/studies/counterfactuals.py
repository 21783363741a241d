"""Which rows does a prediction rest on, and which few must go for it to change?

The margin of a row x for class k is how far the model is on the side of k. Removing training row i
moves it by

    effect(i) = margin of the model without i - margin of the model of all rows

and the smallest set of rows whose removal flips the prediction is sought among subsets whose
models are predicted jointly: effects are not summed, since rows stand in for each other (Yang et
al. 2023, "How many and which training points would need to be removed to flip this prediction?",
sum influences). The search is greedy in three parts, and finds a set that flips, not surely the
smallest:

1. Rows in the order of their effects; the first prefix of that order that flips.
2. The same again, but effects are predicted anew, given what is removed, after every eighth part
   of that prefix.
3. Rows that are not needed are put back, one at a time.

What is found is confirmed, or not, by retraining once.
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
from modelpred.studies.utility import StudyContext, finished, refitted, retrained, scored
from modelpred.targets.model import Points

Positions: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

# Subsets asked about at once.
BLOCK = 250
PARTS = 8


@dataclass(frozen=True)
class Flip:
    """A set of rows whose removal is predicted to flip a prediction.

    Attributes:
        removed: positions of the rows in the pool; empty if none was found.
        margin: of the predicted model without them; nan if none was found.
        retrained_margin: of the retrained model without them; nan if none was found, or if training
            did not converge.
        confirmed: whether the retrained model's prediction flips, too.
        retrained: parameters of the retrained model without them; None where there is none.
    """

    removed: tuple[int, ...]
    margin: float
    retrained_margin: float
    confirmed: bool
    retrained: Float[Tensor, " parameters"] | None = None


def without(
    rows: Num[Tensor, "subsets removed"], *, points: int
) -> Float[Tensor, "subsets points"]:
    """Return weights of 1, and 0 for the rows of each subset that are removed."""
    weights = torch.ones(len(rows), points, dtype=torch.float64)
    return weights.scatter_(1, rows, 0.0)


def leave_one_out(refit: Refit, context: StudyContext) -> Float[Tensor, "points parameters"]:
    """Return the parameters without each row of the pool in turn."""
    rows = torch.arange(context.pool)[:, None]
    blocks = (without(block, points=context.pool) for block in rows.split(BLOCK))
    return torch.cat([refitted(refit, weights, context) for weights in blocks])


class Question:
    """One row whose predicted class stands or falls with the training rows.

    Args:
        refit: which models to ask.
        context: the pool and the family.
        features: of the row, [features].
        label: the class that is predicted with all rows; 0 for a regression, whose margin is then
            the predicted number.
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

    def judged(self, parameters: Float[Tensor, "subsets parameters"]) -> tuple[Vector, Flags]:
        """Return the margins of models, and whether each still predicts the class.

        A model that failed has the margin nan, and predicts no other class.
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
        """Return what the models without those rows say."""
        weights = without(rows, points=self.context.pool)
        return self.judged(refitted(self.refit, weights, self.context))


def smallest_flip(question: Question, effects: Vector, *, largest: int) -> Flip:
    """Return a small set of rows whose removal flips the prediction, and what retraining says.

    Args:
        question: the row and the refit that is asked.
        effects: of removing each row alone; the search starts from the lowest.
        largest: rows that may be removed at most.
    """
    order = np.argsort(effects, kind="stable")[:largest]
    found = _first_prefix(question, order, kept=0)
    if found is None:
        return Flip((), float("nan"), float("nan"), confirmed=False)
    again = _greedy(question, order, length=len(found))
    if again is not None and len(again) < len(found):
        found = again
    found = _needed(question, found)
    rows = torch.from_numpy(found)[None]
    margins, _ = question.removed(rows)
    exact = retrained(without(rows, points=question.context.pool), question.context)
    true, holds = question.judged(exact)
    return Flip(
        tuple(found.tolist()),
        float(margins[0]),
        float(true[0]),
        confirmed=not bool(holds[0]),
        retrained=exact[0] if bool(finished(exact)[0]) else None,
    )


def _first_prefix(question: Question, order: Positions, *, kept: int) -> Positions | None:
    """The shortest prefix, longer than `kept`, whose removal flips; None if none does."""
    rows = torch.from_numpy(order)
    for start in range(kept + 1, len(order) + 1, BLOCK):
        sizes = torch.arange(start, min(start + BLOCK, len(order) + 1))
        # A row is removed from the subset of every prefix that reaches it; others repeat the first.
        reached = torch.arange(len(order)) < sizes[:, None]
        _, holds = question.removed(torch.where(reached, rows, rows[0]))
        if not holds.all():
            return order[: int(sizes[int(np.argmin(holds))])]
    return None


def _greedy(question: Question, order: Positions, *, length: int) -> Positions | None:
    """Effects anew after every part of the prefix: a set that flips, at most `length` long."""
    part = -(-length // PARTS)
    removed = order[:0]
    while len(removed) < length:
        others = np.setdiff1d(np.arange(question.context.pool), removed)
        margins = np.concatenate(
            [
                question.removed(_joined(removed, block))[0]
                for block in np.array_split(others, -(-len(others) // BLOCK))
            ]
        )
        best = others[np.argsort(margins, kind="stable")][: min(part, length - len(removed))]
        candidate = np.concatenate([removed, best])
        found = _first_prefix(question, candidate, kept=len(removed))
        if found is not None:
            return found
        removed = candidate
    return None


def _joined(removed: Positions, others: Positions) -> Tensor:
    """A subset for each of the others: it and what is removed already."""
    return torch.from_numpy(
        np.concatenate([np.tile(removed, (len(others), 1)), others[:, None]], axis=1)
    )


def _needed(question: Question, found: Positions) -> Positions:
    """The set without rows that it does not need to flip the prediction."""
    while len(found) > 1:
        rows = torch.from_numpy(np.stack([np.delete(found, place) for place in range(len(found))]))
        margins, holds = question.removed(rows)
        if holds.all():
            return found
        found = np.delete(found, int(np.argmin(np.where(holds, np.inf, margins))))
    return found
