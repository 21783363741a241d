"""Full-batch momentum in C for a network of one hidden layer (see momentum.c)."""

import ctypes
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.kernels import Memory, Shared, widened
from modelpred.targets.momentum import Schedule
from modelpred.targets.points import Points

DESCENDED: dict[str, Memory] = {
    "weights": (torch.float64, ("subsets", "points")),
    "start": (torch.float64, ("subsets", "parameters")),
    "parameters": (torch.float64, ("subsets", "parameters")),
}


class _Network(Shared):
    """Network of momentum.c."""

    tensors: ClassVar[dict[str, Memory]] = {
        "design": (torch.float32, ("points", "width")),
        "labels": (torch.int32, ("points",)),
    }

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "features", "width")),
        *((name, ctypes.c_int64) for name in ("hidden", "classes", "steps")),
        *((name, ctypes.c_double) for name in ("rate", "momentum", "decay")),
        *((name, ctypes.c_void_p) for name in ("design", "labels")),
    )

    def axes(self) -> dict[str, int]:
        """Those of the fields, and what is derived from them."""
        found = super().axes()
        upper = found["classes"] * (found["hidden"] + 1)
        return {**found, "parameters": found["hidden"] * (found["features"] + 1) + upper}


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
        network.call(
            *("modelpred_momentum", DESCENDED),
            subsets=len(weights),
            weights=weights.contiguous(),
            start=starts.contiguous(),
            parameters=found,
        )
        return found

    return descend
