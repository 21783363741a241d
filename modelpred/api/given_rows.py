"""The rows of a fit as a person gave them, before any preprocessing of an estimator."""

import polars as pl

from modelpred.api.forgetting import Given
from modelpred.api.frames import Table
from modelpred.api.inputs import frame_of
from modelpred.dataset import Dataset
from modelpred.errors import InvalidInput


def given_rows(dataset: Dataset, given: Given | None) -> pl.DataFrame:
    """Return the training rows: row_id, their cells, and the label last."""
    return _with_given(dataset.rows, None if given is None else given.table)


def given_test_rows(dataset: Dataset, given: Given | None) -> pl.DataFrame:
    """Return the test rows in the same form; none if there are none."""
    test = None if given is None or given.test is None else given.test[0]
    return _with_given(dataset.test_rows, test)


def _with_given(rows: pl.DataFrame, table: Table | None) -> pl.DataFrame:
    """The rows with the cells of the given table; unchanged where it is no table of columns."""
    if table is None:
        return rows
    try:
        cells, _ = frame_of(table, what="X")
    except (InvalidInput, TypeError, ValueError):  # images, sparse matrices and the like
        return rows
    if cells.height != rows.height or "row_id" in cells.columns:
        return rows
    name = rows.columns[-1]
    label = rows[name]
    while name in cells.columns:
        name += "_"
    return pl.DataFrame([rows["row_id"], *cells.get_columns(), label.alias(name)])
