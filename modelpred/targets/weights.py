"""Weights [subsets, points]: how often each subset holds each point. One definition of what they may be."""

import math

import torch
from torch import Tensor

from modelpred.errors import InvalidInput

NARROW = (torch.uint16, torch.uint32, torch.uint64)  # kinds that torch can store but not compare


def weights_of(weights: object, *, points: int) -> Tensor:
    """The weights as a tensor [subsets, points] of whatever real numbers they are; nothing is copied.

    Raises:
        InvalidInput: another shape, complex numbers, or a value that is negative or not finite.
    """
    try:
        table = torch.as_tensor(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"weights are a {type(weights).__name__} that is no table of numbers; expected "
            f"[subsets, {points}]"
        ) from error
    if table.is_complex() or table.layout != torch.strided:
        raise InvalidInput(
            f"weights are {table.dtype}, {table.layout}; expected dense real numbers"
        )
    if table.ndim != 2:
        raise InvalidInput(
            f"weights have shape {list(table.shape)}; expected [subsets, points], one row a subset"
        )
    if table.shape[1] != points:
        raise InvalidInput(
            f"weights have {table.shape[1]} points but the data set has {points}; "
            "were they drawn for another pool or split?"
        )
    if table.dtype in NARROW:
        table = table.to(torch.float64)
    if table.numel() and table.dtype not in (torch.bool, torch.uint8):
        low, high = (float(extreme) for extreme in table.detach().aminmax())  # nan, if there is one
        if not (low >= 0 and high < math.inf):
            raise InvalidInput(
                f"weights run from {low:g} to {high:g}; expected finite and not negative ones, "
                "0 for a row that is left out"
            )
    return table
