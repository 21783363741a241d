"""Cells become features, with constants from the training rows alone.

    standardise        (x - mean of the column) / standard deviation of the column
    largest_row_norm   x / max_i ‖x_i‖, the published setting
    none               x

The constants are computed in a unit near the largest cell, a power of two: what neither overflows nor
underflows there is the same to the bit. Refused are cells whose squares float64 does not hold, and a
number so far from the others (-1.8e308 for "no data") that dividing by its distance makes one number of
most of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from modelpred.dataset.config import ScalingName
from modelpred.dataset.magnitudes import LARGEST_CELL, are_one
from modelpred.errors import InvalidInput

LARGEST_FEATURE = 1e18  # the same in float32, in which some solvers and the predictor compute
UNIT = 1000  # largest power of two by which cells are divided; its inverse is a number, too


@dataclass(frozen=True)
class Scaling:
    """How cells became features: (cell - offset) / divisor, column by column."""

    name: ScalingName
    offset: tuple[float, ...]
    divisor: tuple[float, ...]

    def __call__(
        self, cells: Float64[Tensor, "points features"]
    ) -> Float64[Tensor, "points features"]:
        """Features from unscaled cells."""
        offset = torch.tensor(self.offset, dtype=torch.float64)
        return (cells - offset) / torch.tensor(self.divisor, dtype=torch.float64)


def fit_scaling(name: ScalingName, cells: Float64[Tensor, "points features"]) -> Scaling:
    """The scaling with constants from these cells alone.

    A column with one value is shifted, not divided; cells that are all zero stay as they are.
    """
    features = cells.shape[1]
    if name == "standardise":
        smallest, largest = cells.amin(dim=0), cells.amax(dim=0)
        unit = _unit(torch.maximum(smallest.abs(), largest.abs()))
        mean, deviation = (cells / unit).mean(dim=0) * unit, (cells / unit).std(0, correction=0)
        deviation = deviation * unit
        constant = (smallest == largest) | (deviation == 0)
        # The value itself, not its mean: summing 300 equal numbers may round.
        offset = torch.where(constant, smallest, mean)
        divisor = torch.where(constant, torch.ones_like(deviation), deviation)
        return Scaling(name, tuple(offset.tolist()), tuple(divisor.tolist()))
    largest_norm = 1.0
    if name == "largest_row_norm":
        unit = _unit(cells.abs().max())
        largest_norm = float((cells / unit).norm(dim=1).max() * unit)
    return Scaling(name, (0.0,) * features, (largest_norm or 1.0,) * features)


def _unit(largest: Tensor) -> Tensor:
    """The power of two next to each number."""
    exponent = torch.frexp(largest).exponent.clamp(-UNIT, UNIT)
    return torch.ldexp(torch.ones_like(largest), exponent)


def scaled_features(
    scaling: Scaling,
    cells: Float64[Tensor, "rows features"],
    *,
    columns: Sequence[str],
    what: str,
) -> Float64[Tensor, "rows features"]:
    """The features, in numbers that can be computed with.

    Args:
        scaling: with the constants of the training rows.
        cells: unscaled.
        columns: what the features are called.
        what: what messages call the table.

    Raises:
        InvalidInput: a cell is too large; the message names the column.
    """
    features = scaling(cells)
    usable = (cells.abs() <= LARGEST_CELL) & (features.abs() <= LARGEST_FEATURE)
    if not bool(usable.all()):
        at = int((~usable).any(dim=0).int().argmax())
        value = float(cells[~usable[:, at], at][0])
        raise InvalidInput(
            f"column {columns[at]!r} of {what} holds values too large to scale in float64, such as "
            f"{value:g}; divide it by a constant first, or leave cells empty that stand for no value"
        )
    return features


def require_apart(
    scaling: Scaling,
    cells: Float64[Tensor, "points features"],
    *,
    columns: Sequence[str],
    what: str,
) -> None:
    """Refuses training rows where one far number makes one of most others, column by column.

    Raises:
        InvalidInput: the message names the column and the number.
    """
    for at, (column, divisor) in enumerate(zip(columns, scaling.divisor, strict=True)):
        if are_one(cells[:, at].numpy(), divisor):
            # Of a norm, the number may stand in another column.
            held = cells[:, at] if scaling.name == "standardise" else cells.flatten()
            value = float(held[held.abs().argmax()])
            raise InvalidInput(
                f"column {column!r} of {what}: {value:g} is so far from the other cells that scaling "
                "makes one number of them; leave cells empty that stand for no value, or take "
                "logarithms"
            )
