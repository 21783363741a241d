"""The trained subsets that a predictor can be fitted to: those with an optimum, checked."""

import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor.predictor import ANSWER_BLOCK, check_weights
from modelpred.refits import content_order
from modelpred.targets import Points, TargetModel
from modelpred.targets.points import class_counts
from modelpred.targets.spill import gather_rows


def usable_targets(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor, *, role: str
) -> tuple[Tensor, Tensor]:
    """Weights and parameters of the subsets with an optimum, in the order of their content.

    Nothing that follows depends on the order of the bank. Counts to 255 keep a byte each and whole
    numbers their type: a bank is many times what is answered at once.

    Raises:
        InvalidInput: weights that are none, or parameters that do not match or are not finite.
    """
    weights = check_weights(weights, points).to(points.features.device)
    parameters = parameters.to(points.features.device)
    size = model.parameter_count(points.features.shape[1], points.classes)
    _check_targets(parameters, (len(weights), size), role=role)
    if weights.is_floating_point():
        weights = weights.to(torch.float32)
    order = content_order(weights, parameters)
    without = [
        model.without_optimum(class_counts(block.to(points.features), points))
        for block in weights.split(ANSWER_BLOCK)
    ]
    usable = order[~torch.cat(without)[order]]
    return gather_rows(weights, usable), gather_rows(parameters, usable)


def _check_targets(parameters: Tensor, shape: tuple[int, int], *, role: str) -> None:
    if parameters.shape[:1] != shape[:1]:
        raise InvalidInput(
            f"{shape[0]} {role} subsets but {len(parameters)} rows of parameters; pass one each"
        )
    if parameters.shape != shape or not parameters.is_floating_point():
        raise InvalidInput(
            f"{role} targets are {parameters.dtype} {list(parameters.shape)}; expected real "
            f"{list(shape)}, the parameters of each subset"
        )
    finite = torch.cat([torch.isfinite(block).all(1) for block in parameters.split(ANSWER_BLOCK)])
    if not bool(finite.all()):
        raise InvalidInput(
            f"{int((~finite).sum())} {role} targets are not finite (first: row "
            f"{int((~finite).nonzero()[0])}); leave them out or train them again"
        )
