"""What a person holds, as what the library computes with: tables, weights, names of rows.

A table is numpy, torch or polars, rows by columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from modelpred.dataset import InvalidInput

ArrayLike: TypeAlias = NDArray[Any] | Tensor | pl.DataFrame | pl.Series | Sequence[Any]


@dataclass(frozen=True)
class Cells:
    """A table of numbers with the names of its columns; None where it has none."""

    values: Float64[Tensor, "rows columns"]
    names: tuple[str, ...] | None


def read_cells(table: ArrayLike, *, what: str) -> Cells:
    """The cells of a table in float64.

    Args:
        table: numpy, torch or polars, [rows, columns].
        what: what the caller calls it, for messages.

    Raises:
        InvalidInput: no table of finite numbers.
    """
    names = tuple(table.columns) if isinstance(table, pl.DataFrame) else None
    if isinstance(table, pl.DataFrame):
        for column in table:
            if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
                raise InvalidInput(
                    f"column {column.name!r} of {what} holds {column.dtype}, expected numbers; "
                    "encode or drop it"
                )
        table = table.cast(pl.Float64).to_numpy()
    array = array_of(table)
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidInput(
            f"{what} has shape {list(array.shape)}, expected [rows, columns] with one or more of both"
        )
    try:
        values = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{what} holds {array.dtype}, expected numbers; encode it first"
        ) from error
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        name = repr(names[column]) if names else column
        raise InvalidInput(
            f"{what} has {len(wrong)} missing or not finite "
            f"{'values' if len(wrong) > 1 else 'value'} (first in row {row}, column {name}); "
            "fill or remove"
        )
    return Cells(torch.from_numpy(values), names)


def read_weights(weights: ArrayLike) -> Float64[Tensor, "subsets points"]:
    """Weights of subsets in float64; InvalidInput where they are no table of numbers."""
    if isinstance(weights, pl.DataFrame):
        weights = weights.to_numpy()
    array = array_of(weights)
    try:
        values = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"weights hold {array.dtype}, expected numbers") from error
    if values.ndim != 2:
        raise InvalidInput(
            f"weights have shape {list(values.shape)}, expected [subsets, points]: a row for each "
            "subset, with how often it takes each point"
        )
    return torch.from_numpy(values)


def positions_of(rows: Sequence[int | str] | NDArray[Any], row_ids: tuple[str, ...]) -> list[int]:
    """The positions of rows that are named by position (a whole number) or by id (a text).

    Raises:
        InvalidInput: none, unknown or repeated rows.
    """
    named: list[Any] = rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
    if isinstance(rows, str) or not named:
        raise InvalidInput(f"expected one or more rows in a list, got {rows!r}")
    index = {row_id: position for position, row_id in enumerate(row_ids)}
    positions: list[int] = []
    for row in named:
        if isinstance(row, bool) or not isinstance(row, (int, str)):
            raise InvalidInput(
                f"row {row!r} is neither a position (a whole number) nor an id (a text); "
                "for a mask pass numpy.flatnonzero(mask)"
            )
        if isinstance(row, str) and row not in index:
            raise InvalidInput(
                f"no row has the id {row!r}; ids run from {row_ids[0]!r} to {row_ids[-1]!r}"
            )
        position = index[row] if isinstance(row, str) else row
        if not 0 <= position < len(row_ids):
            raise InvalidInput(f"there is no row {row}; positions run from 0 to {len(row_ids) - 1}")
        positions.append(position)
    repeated = sorted({row for row in positions if positions.count(row) > 1})
    if repeated:
        raise InvalidInput(
            f"row {repeated[0]} (id {row_ids[repeated[0]]!r}) is named more than once; "
            "name each row once"
        )
    return positions


def unique_ids(ids: Sequence[int | str] | NDArray[Any], *, rows: int) -> tuple[str, ...]:
    """Ids as text, one a row; InvalidInput where they are not one a row, or not unique."""
    texts = tuple(str(row_id) for row_id in array_of(ids).tolist())
    if len(texts) != rows:
        raise InvalidInput(f"{len(texts)} ids for {rows} rows; pass one a row")
    if len(set(texts)) != rows:
        first = next(row_id for row_id in texts if texts.count(row_id) > 1)
        raise InvalidInput(f"the id {first!r} stands for several rows; ids must be unique")
    return texts


def array_of(values: ArrayLike) -> NDArray[Any]:
    """The values as numpy has them."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if isinstance(values, pl.Series):
        return values.to_numpy()
    return np.asarray(values)
