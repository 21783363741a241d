"""Names of the rows of a user's table: ids, numbers in the file, and how messages name a row."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from modelpred.dataset.cells import names_of, quoted
from modelpred.dataset.reading import ROW, RawTable
from modelpred.errors import InvalidInput


def places_of_rows(raw: RawTable, second: RawTable | None, selected: pl.DataFrame) -> list[str]:
    """Return how messages name each row, with the file's name for rows of a second file."""
    numbers = selected[ROW].to_list()
    if second is None:
        return [raw.where(row) for row in numbers]
    first = _first_of_second(selected)
    return [
        raw.where(row) if at < first else f"{second.where(row)} of {second.name}"
        for at, row in enumerate(numbers)
    ]


def _first_of_second(selected: pl.DataFrame) -> int:
    """Return the position of the first row of the second file, where the row numbers decrease."""
    numbers = selected[ROW].to_numpy().astype(np.int64)
    falls = np.flatnonzero(np.diff(numbers) <= 0)
    return int(falls[0]) + 1 if len(falls) else len(numbers)


def row_numbers(selected: pl.DataFrame, second: RawTable | None) -> pl.Series:
    """Return the number of each row in its file as text, such as `test-3` in a second file."""
    numbers = selected[ROW].cast(pl.String)
    if second is None:
        return numbers
    first = _first_of_second(selected)
    return pl.concat([numbers[:first], "test-" + numbers[first:]])


def required_names(
    name: str, cells: pl.Series, role: str, source: str, where: Sequence[str]
) -> pl.Series:
    """Return the ids or groups of rows as text.

    Raises:
        InvalidInput: one is missing.
        Unusable: a cell cannot be converted to text.
    """
    names = names_of(cells)
    if names.null_count():
        first = names.is_null().to_list().index(True)
        raise InvalidInput(f"{source}: the {role} {name!r} is missing in {where[first]}; fill it")
    return names


def require_unique(name: str, ids: pl.Series, source: str, where: Sequence[str]) -> None:
    """Refuse ids of which one is in two rows."""
    repeated = ids.is_duplicated()
    if repeated.any():
        row_id = ids[repeated.to_list().index(True)]
        first, second = [at for at, each in enumerate(ids) if each == row_id][:2]
        raise InvalidInput(
            f"{source}: the row id {quoted(row_id)} ({name!r}) is in {where[first]} and in "
            f"{where[second]}; ids must be unique"
        )
