"""What a person holds, as what the library computes with: tables, weights, names of rows.

A table is numpy, torch or polars, rows by columns; one of polars may hold words, dates and gaps.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from modelpred.errors import InvalidInput

ArrayLike: TypeAlias = NDArray[Any] | Tensor | pl.DataFrame | pl.Series | Sequence[Any]


def frame_of(table: ArrayLike, *, what: str) -> tuple[pl.DataFrame, bool]:
    """A table as polars has it, and whether it names its columns itself.

    Args:
        table: polars with columns of any type, or numpy or torch with finite numbers,
            [rows, columns].
        what: what the caller calls it, for messages.

    Raises:
        InvalidInput: no table, or an array of other things than finite numbers.
    """
    array = np.zeros(table.shape) if isinstance(table, pl.DataFrame) else array_of(table)
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidInput(
            f"{what} has shape {list(array.shape)}, expected [rows, columns] with one or more of both"
        )
    if isinstance(table, pl.DataFrame):
        return table, True
    try:
        values = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{what} holds {array.dtype}, expected numbers; encode it first"
        ) from error
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise InvalidInput(
            f"{what} has {len(wrong)} missing or not finite "
            f"{'values' if len(wrong) > 1 else 'value'} (first in row {row}, column {column}); "
            "fill or remove, or pass a polars table, whose missing cells are filled"
        )
    return pl.DataFrame(values, schema=[f"x{column}" for column in range(values.shape[1])]), False


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
