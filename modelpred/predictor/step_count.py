"""How many learned steps a predictor needs: as many as its anchors leave to do.

Each learned step costs about as much as every other, to fit and to ask. How much one gains depends
on how far the anchors are from the targets: where their mean relative error is .03 (iris), a step
divides the error by six and leaves less than a hundredth of what a Newton step leaves; where it is
.14 (breast_cancer), by two; where it is .3 or more (spam), by one and a half, and further steps go
on to pay. So there is a step for every .04 of the anchors' error, up to six.
"""

import math

import numpy as np
import torch
from torch import Tensor

from modelpred.metrics import Vector, relative_errors
from modelpred.predictor.anchors import Anchors
from modelpred.targets import Points, TargetModel

ERROR_A_STEP = 0.04
MOST_STEPS = 6
BLOCK = 2048  # targets that the anchors are judged by at once


def planned_steps(
    anchors: Anchors, model: TargetModel, points: Points, weights: Tensor, parameters: Tensor
) -> int:
    """The number of learned steps for a pool.

    None for a family of fixed training steps: one costs a pass of backpropagation and gains little.

    Args:
        anchors: fitted to the pool.
        model: the family.
        points: the pool.
        weights: [subsets, points] of targets.
        parameters: [subsets, parameters], what training gave for them.
    """
    if model.optimum is None:
        return 0
    bound = anchors.bind(model, points, torch.float32)
    errors: list[Vector] = []
    for block, targets in zip(weights.split(BLOCK), parameters.split(BLOCK), strict=True):
        with torch.no_grad():
            starts = bound(block.to(device=points.features.device, dtype=torch.float32))
        errors.append(capped_errors(model, starts, targets, points.features.shape[1]))
    error = np.concatenate(errors).mean()
    return min(MOST_STEPS, max(1, math.ceil(float(error) / ERROR_A_STEP)))


def capped_errors(model: TargetModel, found: Tensor, targets: Tensor, features: int) -> Vector:
    """Relative errors [subsets] of parameters, at most 1.

    A target near zero has any relative error: it should not decide for all.
    """
    named = model.representative(found.to(targets), features)
    return relative_errors(named, targets).clip(max=1)
