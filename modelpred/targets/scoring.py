"""How good models are on points: scores of many models in blocks of bounded size, reduced at once.

A model that failed (its parameters or scores are not finite) gets nan.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.shapes import Parameters, PerPoint
from modelpred.targets.threads import threads_for

# Bytes of a block of scores: fits into the processor's cache, and is large enough for fast products.
SCORE_BYTES = 4 * 2**20


def score_blocks(
    model: TargetModel, parameters: Parameters, points: Points, *, limit: int = SCORE_BYTES
) -> Iterator[Float[Tensor, "block points outputs"]]:
    """Return the scores of consecutive subsets on all points, about `limit` bytes at once."""
    row_bytes = 8 * len(points.features) * max(1, points.classes)
    largest = largest_scored(parameters, points, limit=limit)
    for block in parameters.split(max(1, limit // row_bytes)):
        if len(block):
            with threads_for(largest):
                scores = model.scores(block, points.features)
            yield scores  # outside: what the caller computes has a size of its own


def largest_scored(parameters: Parameters, points: Points, *, limit: int = SCORE_BYTES) -> int:
    """Return the bytes of the largest array in `score_blocks`: the points' features, or the scores of a block."""
    row_bytes = 8 * len(points.features) * max(1, points.classes)
    block = min(len(parameters), max(1, limit // row_bytes))
    return max(8 * points.features.numel(), block * row_bytes)


def scored(
    reduce: Callable[[Tensor], Tensor],
    model: TargetModel,
    parameters: Parameters,
    points: Points,
    *,
    columns: tuple[int, ...] = (),
    limit: int = SCORE_BYTES,
) -> Float[Tensor, "subsets *columns"]:
    """Return `reduce` of the scores of every subset's model; nan for a failed model.

    Args:
        reduce: maps scores [subsets, points, outputs] to numbers [subsets, *columns]; it is not
            called with scores of failed models.
        model: the family.
        parameters: of the models.
        points: the rows to score.
        columns: the shape of the result for one model.
        limit: bytes of the scores that are formed at once.
    """
    with threads_for(largest_scored(parameters, points, limit=limit)):
        blocks = score_blocks(model, parameters, points, limit=limit)
        parts = [_reduced(reduce, scores, columns) for scores in blocks]
    return torch.cat(parts) if parts else parameters.new_zeros(0, *columns)


def _reduced(
    reduce: Callable[[Tensor], Tensor], scores: Tensor, columns: tuple[int, ...]
) -> Tensor:
    """The result of `scored` for a block."""
    finite = scores.sum(dim=(1, 2)).isfinite()
    if bool(finite.all()):
        return reduce(scores).to(torch.float64)
    part = torch.full((len(scores), *columns), torch.nan, dtype=torch.float64)
    if bool(finite.any()):
        part[finite] = reduce(scores[finite]).to(torch.float64)
    return part


def mean_test_losses(
    model: TargetModel, parameters: Parameters, points: Points, *, limit: int = SCORE_BYTES
) -> Float[Tensor, " subsets"]:
    """Return the loss of every subset's model on the points: see `TargetModel.test_loss`."""

    def reduce(scores: Tensor) -> Tensor:
        return model.test_loss(scores, points.labels)

    return scored(reduce, model, parameters, points, limit=limit)


def row_losses(model: TargetModel, parameters: Parameters, points: Points) -> PerPoint:
    """Return the contribution of each point to `mean_test_losses`, which is their mean.

    For a regression, whose loss is a root mean squared error, the contributions are its linearisation
    in the squared residuals r², rmse + (r² - rmse²) / (2 rmse). Their spread gives the standard error.
    """

    def reduce(scores: Tensor) -> Tensor:
        if not model.regression:
            return model.losses(scores, points.labels)
        root = model.test_loss(scores, points.labels)[:, None]
        squares = model.margins(scores, points.labels).square()
        tiny = torch.finfo(root.dtype).tiny
        return (root + squares / root.clamp(min=tiny)) / 2

    return scored(reduce, model, parameters, points, columns=(len(points.labels),))


def accuracies(
    model: TargetModel, parameters: Parameters, points: Points
) -> Float[Tensor, " subsets"]:
    """Return the accuracy of every subset's model on the points; InvalidInput for ridge."""
    return scored(
        lambda scores: model.correct(scores, points.labels).double().mean(dim=1),
        model,
        parameters,
        points,
    )


def squared_errors(
    model: TargetModel, parameters: Parameters, points: Points
) -> Float[Tensor, " subsets"]:
    """Return the mean squared residual, or Σ_k (p_k - [y = k])² for classes; InvalidInput for svm."""

    def reduce(scores: Tensor) -> Tensor:
        if model.regression:
            return model.margins(scores, points.labels).square().mean(dim=1)
        truth = torch.nn.functional.one_hot(points.labels, points.classes)
        return (model.probabilities(scores) - truth).square().sum(dim=2).mean(dim=1)

    return scored(reduce, model, parameters, points)
