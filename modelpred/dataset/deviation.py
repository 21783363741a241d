"""What sets a row apart from the others, column by column, in standard deviations.

    number, date         |cell - mean| / standard deviation
    category, true/false sqrt((1 - p) / p), where p is the share of rows with the same cell: the same
                         distance for the column of 0 and 1 that says who has it

A missing cell is a level of its own, whatever the column.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float64

from modelpred.dataset.cells import DAYS, column_of


def distances(rows: pl.DataFrame, columns: Sequence[str]) -> Float64[np.ndarray, "rows columns"]:
    """The distance of each cell from the usual cells of its column; 0 in constant columns.

    Args:
        rows: the rows to compare among themselves.
        columns: those to compare them by, of any type that a data set has.
    """
    found = [_distances(column_of(rows, name)) for name in columns]
    return np.stack(found, axis=1) if found else np.zeros((len(rows), 0))


def _distances(cells: pl.Series) -> Float64[np.ndarray, " rows"]:
    ordered = cells.dtype.is_numeric() or cells.dtype in DAYS
    if ordered:
        numbers = cells.to_physical().cast(pl.Float64).fill_nan(None)
        largest = numbers.abs().max()
        if isinstance(largest, float) and largest > 0:
            numbers = numbers / largest  # no square overflows or underflows
        mean, spread = numbers.mean(), numbers.std(ddof=0)
        if isinstance(mean, float) and isinstance(spread, float) and spread > 0:
            far = ((numbers - mean) / spread).abs()
            return far.fill_null(pl.Series(_rarity(numbers.is_null()))).to_numpy()
        cells = numbers.is_null()
    return _rarity(cells)


def _rarity(cells: pl.Series) -> Float64[np.ndarray, " rows"]:
    table = pl.DataFrame({"cell": cells})
    share = table.select(pl.len().over("cell") / pl.len()).to_series().to_numpy()
    return np.sqrt((1 - share) / share)
