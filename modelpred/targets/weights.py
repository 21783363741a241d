"""Weights [subsets, points]: how often each subset holds each point. One definition of what they may be."""

import math

import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.points import tensor_of

LARGEST = 1e100  # weight; a subset's smallest sum is its inverse. Squares of both are floats.
NARROW = (torch.uint16, torch.uint32, torch.uint64)  # kinds that torch can store but not compare


def weights_of(weights: object, *, points: int) -> Tensor:
    """The weights as a tensor [subsets, points] of their own number type, without a copy.

    Raises:
        InvalidInput: another shape, complex numbers, or a value that is negative, not finite or
            too large.
    """
    try:
        table = tensor_of(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"weights are a {type(weights).__name__} that is no table of numbers; expected "
            f"[subsets, {points}]"
        ) from error
    if table.is_complex() or table.layout != torch.strided or table.is_meta:
        raise InvalidInput(
            f"weights are {table.dtype}, {table.layout} on {table.device}; expected dense real numbers"
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
    check_sizes(table.detach(), largest=LARGEST, smallest=1 / LARGEST)
    return table


def check_sizes(table: Tensor, *, largest: float, smallest: float) -> None:
    """Check that no weight is above the largest, and no subset's sum between 0 and the smallest.

    Raises:
        InvalidInput: one is.
    """
    if not table.numel() or table.dtype == torch.bool:
        return
    most = float(table.max())
    if most > largest:
        raise InvalidInput(
            f"weights go up to {most:g}; expected how often each row counts, at most {largest:g}"
        )
    if table.is_floating_point():
        totals = table.sum(1, dtype=torch.float64)
        faint = totals[(totals > 0) & (totals < smallest)]
        if len(faint):
            raise InvalidInput(
                f"the weights of a subset sum to {float(faint.min()):g}; expected how often each "
                f"row counts, in sum 0 or at least {smallest:g}"
            )
