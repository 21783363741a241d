"""Scales features with constants of the training rows.

    standardise        (x - mean of the column) / standard deviation of the column
    largest_row_norm   x / max_i ‖x_i‖, the published setting
    none               x

The constants are computed in a unit near the largest cell, a power of two, which avoids overflow and
underflow without changing the results. Refused are cells whose squares overflow float64, and numbers so
far from the others (-1.8e308 for "no data") that scaling makes most of the others equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from modelpred.dataset.config import ScalingName
from modelpred.dataset.magnitudes import LARGEST_CELL, are_one
from modelpred.errors import InvalidInput

LARGEST_FEATURE = 1e18  # its square does not overflow float32, which the predictor uses
UNIT = 1000  # largest exponent of the unit; its inverse is also a float64


@dataclass(frozen=True)
class Scaling:
    """Scaling of each column: (cell - offset) / divisor."""

    name: ScalingName
    offset: tuple[float, ...]
    divisor: tuple[float, ...]

    def __call__(
        self, cells: Float64[Tensor, "points features"]
    ) -> Float64[Tensor, "points features"]:
        """Scaled features of unscaled cells."""
        offset = torch.tensor(self.offset, dtype=torch.float64)
        return (cells - offset) / torch.tensor(self.divisor, dtype=torch.float64)


def fit_scaling(name: ScalingName, cells: Float64[Tensor, "points features"]) -> Scaling:
    """Fit the scaling to these cells.

    A constant column is shifted but not divided; an all-zero table is unchanged.
    """
    features = cells.shape[1]
    if name == "standardise":
        smallest, largest = cells.amin(dim=0), cells.amax(dim=0)
        unit = _unit(torch.maximum(smallest.abs(), largest.abs()))
        mean, deviation = (cells / unit).mean(dim=0) * unit, (cells / unit).std(0, correction=0)
        deviation = deviation * unit
        constant = (smallest == largest) | (deviation == 0)
        # The value itself, since the mean of equal numbers has a rounding error.
        offset = torch.where(constant, smallest, mean)
        divisor = torch.where(constant, torch.ones_like(deviation), deviation)
        return Scaling(name, tuple(offset.tolist()), tuple(divisor.tolist()))
    largest_norm = 1.0
    if name == "largest_row_norm":
        unit = _unit(cells.abs().max())
        largest_norm = float((cells / unit).norm(dim=1).max() * unit)
    return Scaling(name, (0.0,) * features, (largest_norm or 1.0,) * features)


def _unit(largest: Tensor) -> Tensor:
    """The nearest power of two of each number."""
    exponent = torch.frexp(largest).exponent.clamp(-UNIT, UNIT)
    return torch.ldexp(torch.ones_like(largest), exponent)


def scaled_features(
    scaling: Scaling,
    cells: Float64[Tensor, "rows features"],
    *,
    columns: Sequence[str],
    what: str,
) -> Float64[Tensor, "rows features"]:
    """The scaled features, checked for size.

    Args:
        scaling: with the constants of the training rows.
        cells: unscaled.
        columns: names of the features.
        what: name of the table in messages.

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
    """Check that no number in a column of the training rows makes most others equal after scaling.

    Raises:
        InvalidInput: the message names the column and the number.
    """
    for at, (column, divisor) in enumerate(zip(columns, scaling.divisor, strict=True)):
        if are_one(cells[:, at].numpy(), divisor):
            # The largest norm may come from another column.
            candidates = cells[:, at] if scaling.name == "standardise" else cells.flatten()
            value = float(candidates[candidates.abs().argmax()])
            raise InvalidInput(
                f"column {column!r} of {what}: {value:g} is so far from the other cells that scaling "
                "makes one number of them; leave cells empty that stand for no value, or take "
                "logarithms"
            )
