"""Confidence in each label by models that were not trained on the row.

A round divides the rows at random into parts of an eighth of them, the same share of each class in
every part, and gives a model of each part. A row is scored by the models of the seven other parts.
Rows outside the training sample are scored by all models.

*Small parts.* A model of an eighth of the rows has few wrong labels, and so few rows that the
regulariser keeps the model from fitting them. Among shares of 8% to 85%, shares of a tenth to a fifth
found planted labels best on all tables that were tried (docs/values.md). Parts have less variance than
as many subsets drawn one by one, because each row is in as many models as any other.

Confidence in a label, with p the mean probabilities over these models:

    confidence = log p_label - log max of the other classes' p

For two classes this is the log odds. For more classes, dividing by the most probable other class
distinguishes rows on which small models are uncertain from rows that they assign to another class.
Without probabilities (svm), the confidence is the mean margin; for a regression, it is minus the
root mean squared residual. Failed models are excluded from the mean.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.refits.retraining import Refit
from modelpred.studies.context import StudyContext, finished, refitted
from modelpred.studies.sampling import UndefinedUtility
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.scoring import largest_scored, score_blocks
from modelpred.targets.threads import threads_for

PARTS = 8
ROUNDS = (2, 125)  # the fewest and the most; large tables need few, since parts are large
ROUND_ROWS = 40_000  # rows of all rounds together, between these


@dataclass(frozen=True)
class HeldOut:
    """Mean evidence (see `evidence`) by models without each row.

    Attributes:
        own: on the training rows, [points, columns].
        others: on rows outside of them, [rows, columns].
    """

    own: Float[Tensor, "points columns"]
    others: Float[Tensor, "rows columns"]


def evidence(
    model: TargetModel,
    scores: Float[Tensor, "subsets points outputs"],
    labels: Num[Tensor, " points"],
) -> Float[Tensor, "subsets points columns"]:
    """Return the quantities that are averaged over models to compute the confidence.

    These are the probabilities of all classes; without them, one column of margins or of squared
    residuals.
    """
    if model.regression:
        return model.margins(scores, labels).square()[..., None]
    if not model.probabilistic:
        return model.margins(scores, labels)[..., None]
    return model.probabilities(scores)


def confidence(
    mean_evidence: Float[Tensor, "points columns"], labels: Num[Tensor, " points"]
) -> Vector:
    """Return the confidence in every point's label."""
    if labels.is_floating_point():
        return -mean_evidence[:, 0].sqrt().numpy()
    if mean_evidence.shape[1] == 1:
        return mean_evidence[:, 0].numpy()
    logs = _logs(mean_evidence)
    own = torch.nn.functional.one_hot(labels, logs.shape[1]).bool()
    return (logs[own] - logs.masked_fill(own, -torch.inf).amax(dim=1)).numpy()


def log_probabilities(
    mean_evidence: Float[Tensor, "points columns"], labels: Num[Tensor, " points"]
) -> Float[Tensor, "points classes"]:
    """Return log probabilities of the classes, up to a constant for each point.

    A mean margin, which only two classes have, counts as log odds.
    """
    if mean_evidence.shape[1] > 1:
        return _logs(mean_evidence)
    signs = torch.nn.functional.one_hot(labels, 2) - 0.5
    return signs * mean_evidence


def _logs(probabilities: Tensor) -> Tensor:
    """Logarithms; probabilities may underflow to 0, whose logarithm would be infinite."""
    return probabilities.clamp(min=torch.finfo(torch.float64).tiny).log()


def rounds_of(points: int) -> int:
    """Return the number of rounds for so many rows."""
    fewest, most = ROUNDS
    return min(most, max(fewest, ROUND_ROWS // points))


def parts_of(
    points: Points, *, rounds: int, generator: np.random.Generator
) -> UInt8[Tensor, "subsets points"]:
    """Return 0/1 weights of the parts of all rounds."""
    count = len(points.labels)
    parts = min(PARTS, count)
    groups = points.labels.numpy() if points.classes else np.zeros(count)
    weights = np.zeros((rounds, parts, count), dtype=np.uint8)
    for drawn in weights:
        order = np.lexsort((generator.random(count), groups))
        drawn[np.arange(count) % parts, order] = 1
    return torch.from_numpy(weights.reshape(rounds * parts, count))


def held_out_evidence(
    refit: Refit,
    context: StudyContext,
    *,
    generator: np.random.Generator,
    rounds: int | None = None,
    others: Points | None = None,
) -> HeldOut:
    """Return the mean evidence on each point over models of parts without it.

    Args:
        refit: gives the models.
        context: the training rows.
        generator: draws the parts.
        rounds: how often the rows are divided; default: `rounds_of`.
        others: rows outside the training rows, which all models score.

    Raises:
        UndefinedUtility: so many models failed that a row has none.
    """
    points = context.points
    rounds = rounds or rounds_of(context.pool)
    members = parts_of(points, rounds=rounds, generator=generator)
    parameters = refitted(refit, members, context)
    usable = finished(parameters)
    members, parameters = members[usable], parameters[usable]
    outside = members == 0
    if not bool(outside.any(dim=0).all()):
        raise UndefinedUtility(
            f"{int((~usable).sum())} of {len(usable)} models of small parts of the rows failed, and "
            "some row is in all others; let training converge, or refine"
        )
    own = _mean_evidence(context.model, parameters, points, outside)
    if others is None:
        others = Points(points.features[:0], points.labels[:0], points.classes)
    everyone = outside.new_ones(()).expand(len(parameters), len(others.labels))
    return HeldOut(own, _mean_evidence(context.model, parameters, others, everyone))


def _mean_evidence(
    model: TargetModel, parameters: Tensor, points: Points, judged_by: Tensor
) -> Tensor:
    """The mean on each point over the models [subsets, points] that score it."""
    columns = points.classes if model.probabilistic and points.classes else 1
    total = torch.zeros(len(points.labels), columns, dtype=torch.float64)
    if not len(points.labels):
        return total
    first = 0
    with threads_for(largest_scored(parameters, points)):
        for scores in score_blocks(model, parameters, points):
            judges = judged_by[first : first + len(scores)].to(torch.float64)
            total += torch.einsum("sp,spc->pc", judges, evidence(model, scores, points.labels))
            first += len(scores)
    return total / judged_by.sum(dim=0)[:, None]


def held_out_confidence(
    refit: Refit,
    context: StudyContext,
    *,
    generator: np.random.Generator,
    rounds: int | None = None,
) -> Vector:
    """Return the confidence in every point's label of models trained on parts without the point."""
    held_out = held_out_evidence(refit, context, generator=generator, rounds=rounds)
    return confidence(held_out.own, context.points.labels)
