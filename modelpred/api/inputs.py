"""Converts arguments of the API: tables, weights and names of rows.

A table is an array of numpy or torch, or a frame of pandas, polars or pyarrow; a frame may hold
words, dates and gaps.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.frames import Table, is_column, is_frame, named_row, polars_column, polars_frame
from modelpred.dataset.cells import first_no_text, is_missing
from modelpred.errors import InvalidInput
from modelpred.numbers import plain

ArrayLike: TypeAlias = (
    NDArray[Any]
    | Tensor
    | pl.DataFrame
    | pl.LazyFrame
    | pl.Series
    | Sequence[Any]
    | Mapping[str, Any]
    | Table
)
# Any: a list, a set, an array, a series or an index, of positions or ids; positions_of checks it.
RowNames: TypeAlias = Any


def frame_of(table: ArrayLike, *, what: str) -> tuple[pl.DataFrame, bool]:
    """A table as a polars table, and whether its columns have names.

    Args:
        table: a frame with columns of any type, or numpy or torch with finite numbers,
            [rows, columns].
        what: what the caller calls it, for messages.

    Raises:
        InvalidInput: no table, or an array of other things than finite numbers.
    """
    if is_frame(table):
        frame, _ = polars_frame(table, what=what)
        table = frame
    array = np.zeros(table.shape) if isinstance(table, pl.DataFrame) else array_of(table)
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidInput(
            f"{what} has shape {list(array.shape)}, expected [rows, columns] with one or more of both"
        )
    if isinstance(table, pl.DataFrame):
        return table, True
    values = _floats(array, what=f"{what} holds", hint="; encode it first")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise InvalidInput(
            f"{what} has {len(wrong)} missing or not finite "
            f"{'values' if len(wrong) > 1 else 'value'} (first in row {row}, column {column}); "
            "fill or remove, or pass a pandas or polars table, whose missing cells are filled"
        )
    return pl.DataFrame(values, schema=[f"x{column}" for column in range(values.shape[1])]), False


def one_row(row: ArrayLike) -> ArrayLike:
    """One row as a table: of a pandas series, whose index names its cells, a frame."""
    if isinstance(row, Mapping):
        return row
    if is_column(row) and not isinstance(row, pl.Series):
        row = named_row(row)
    if is_frame(row):
        return row
    array = array_of(row)
    return array if array.ndim != 1 else array[None]


def read_weights(
    weights: ArrayLike, row_ids: tuple[str, ...] = ()
) -> Float64[Tensor, "subsets points"]:
    """Weights of subsets in float64; InvalidInput where they are no table of numbers."""
    if is_frame(weights):
        frame, _ = polars_frame(weights, what="weights")
        if row_ids and set(frame.columns) == set(row_ids):
            frame = frame[list(row_ids)]  # columns that name rows go by these names
        weights = frame.to_numpy()
    array = array_of(weights)
    values = _floats(array, what="weights hold")
    if values.ndim != 2:
        raise InvalidInput(
            f"weights have shape {list(values.shape)}, expected [subsets, points]: a row for each "
            "subset, with how often it takes each point"
        )
    return torch.from_numpy(values)


def positions_of(rows: RowNames, row_ids: tuple[str, ...]) -> list[int]:
    """Positions of rows given by position (a whole number) or by id (a text).

    Raises:
        InvalidInput: none, unknown or repeated rows.
    """
    named = [] if isinstance(rows, str) else listed(rows)
    if not named:
        raise InvalidInput(f"expected one or more rows in a list, got {rows!r}")
    index = {row_id: position for position, row_id in enumerate(row_ids)}
    positions = [_position(row, index, row_ids) for row in named]
    repeated = sorted(row for row, count in Counter(positions).items() if count > 1)
    if repeated:
        raise InvalidInput(
            f"row {repeated[0]} (id {row_ids[repeated[0]]!r}) is named more than once; "
            "name each row once"
        )
    return positions


def _position(row: object, index: dict[str, int], row_ids: tuple[str, ...]) -> int:
    """The position of one row; InvalidInput where there is no such row."""
    if isinstance(row, str):
        if row not in index:
            raise InvalidInput(
                f"no row has the id {row!r}; ids run from {row_ids[0]!r} to {row_ids[-1]!r}"
            )
        return index[row]
    if isinstance(row, bool) or not isinstance(row, Integral):
        raise InvalidInput(
            f"row {row!r} is neither a position (a whole number) nor an id (a text); "
            "for a mask pass numpy.flatnonzero(mask)"
        )
    if not 0 <= int(row) < len(row_ids):
        raise InvalidInput(f"there is no row {row}; positions run from 0 to {len(row_ids) - 1}")
    return int(row)


def unique_ids(ids: RowNames, *, rows: int) -> tuple[str, ...]:
    """Ids as text, one a row; InvalidInput where they are not one a row, or not unique."""
    names = listed(ids)
    missing = [at for at, row_id in enumerate(names) if is_missing(row_id)]
    if missing:
        raise InvalidInput(f"the id of row {missing[0]} is missing; name every row")
    texts = tuple(str(row_id) for row_id in names)
    if (at := first_no_text(texts)) is not None:
        raise InvalidInput(
            f"the id of row {at} is {texts[at]!r}, which is no text of Unicode; rename it"
        )
    if len(texts) != rows:
        raise InvalidInput(f"{len(texts)} ids for {rows} rows; pass one a row")
    twice = [row_id for row_id, count in Counter(texts).items() if count > 1]
    if twice:
        raise InvalidInput(f"the id {twice[0]!r} is the id of several rows; ids must be unique")
    return texts


def array_of(values: ArrayLike) -> NDArray[Any]:
    """The values as a numpy array."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if is_column(values):
        return polars_column(values, what="it").to_numpy()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        known: NDArray[Any] = values.data  # what lies under the mask, too
        none = np.full_like(known, None, dtype=object)
        return np.where(np.ma.getmaskarray(values), none, known)
    return np.asarray(values)


def _floats(array: NDArray[Any], *, what: str, hint: str = "") -> NDArray[np.float64]:
    """The numbers in float64, nan for a missing one; InvalidInput where one is no number."""
    if array.dtype.kind == "O":
        array = np.array([_float(cell) for cell in array.ravel()]).reshape(array.shape)
    if array.dtype.kind not in "biufO":
        raise InvalidInput(f"{what} {array.dtype}, expected numbers{hint}")
    try:
        return np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{what} {array.dtype}, expected numbers{hint}") from error


def _float(value: object) -> object:
    """One cell of an array of objects; itself where it is no number."""
    if isinstance(value, (bool, np.bool_)):
        return float(value)
    if value is None or type(value).__name__ == "NAType":
        return float("nan")
    number = plain(value)
    return value if isinstance(value, str) or number is None else float(number)


def listed(values: RowNames) -> list[Any]:
    """The members of a list, a set, an array, a series or an index; none of what lists nothing."""
    try:
        members = list(values)
    except TypeError:
        return []
    return [value.item() if isinstance(value, (np.generic, Tensor)) else value for value in members]
