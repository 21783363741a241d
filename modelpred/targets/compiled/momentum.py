"""Full-batch momentum in C for a network of one hidden layer (see momentum.c)."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.kernels import Shared, widened
from modelpred.targets.model import Points
from modelpred.targets.momentum import Schedule


class _Network(Shared):
    """Network of momentum.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "features", "width")),
        *((name, ctypes.c_int64) for name in ("hidden", "classes", "steps")),
        *((name, ctypes.c_double) for name in ("rate", "momentum", "decay")),
        *((name, ctypes.c_void_p) for name in ("design", "labels")),
    )


def compiled_descent(
    points: Points, schedule: Schedule, *, hidden: int
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Trained parameters from starts [subsets, parameters] and weights [subsets, points].

    Products are float32, parameters float64. None where the kernel is missing.
    """
    if kernels.library() is None or points.features.device.type != "cpu":
        return None
    count, features = points.features.shape
    network = _Network(
        *(count, features, widened(features), hidden, points.classes, schedule.steps),
        *(schedule.learning_rate, schedule.momentum, schedule.weight_decay),
    )
    network.keep(
        design=pad(points.features, (0, widened(features) - features)).to(torch.float32),
        labels=points.labels.to(torch.int32),
    )

    def descend(starts: Tensor, weights: Tensor) -> Tensor:
        found = torch.empty_like(starts, memory_format=torch.contiguous_format)
        inputs = weights.contiguous(), starts.contiguous()
        network.call("modelpred_momentum", len(weights), *inputs, found)
        return found

    return descend
