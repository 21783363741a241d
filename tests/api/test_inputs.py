"""Arguments that cannot be used are refused in one line that says what was expected."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from modelpred.api.frames import polars_column, polars_frame, row_names, usable_columns
from modelpred.api.inputs import (
    array_of,
    frame_of,
    listed,
    one_row,
    positions_of,
    read_weights,
    unique_ids,
)
from modelpred.errors import InvalidInput

IDS = ("a", "b", "c")
GAPS = np.array([[0.0, np.nan], [np.inf, 1.0]])
UNNAMED = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index(["a", None], dtype=object))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: frame_of(np.zeros(3), what="X"), r"X has shape \[3\], expected \[rows, columns\]"),
        (lambda: frame_of(np.zeros((0, 2)), what="X"), r"X has shape \[0, 2\], expected"),
        (lambda: frame_of(pl.DataFrame({"x": []}), what="X"), r"X has shape \[0, 1\], expected"),
        (lambda: frame_of([["a", "b"]], what="X"), r"X holds <U1, expected numbers; encode it"),
        (
            lambda: frame_of(GAPS, what="X"),
            r"X has 2 missing .* values \(first in row 0, column 1\)",
        ),
        (lambda: frame_of(GAPS[:1], what="X"), r"X has 1 missing .* value \(first in row 0, col"),
        (lambda: frame_of(np.ones((2, 2)) * 1j, what="X"), "X holds complex128, expected numbers"),
        (
            lambda: frame_of(np.array([[{}], [1]], dtype=object), what="X"),
            "X holds object, expected numbers",
        ),
        (
            lambda: read_weights([1, 0, 1]),
            r"weights have shape \[3\], expected \[subsets, points\]",
        ),
        (lambda: read_weights([["x"]]), "weights hold <U1, expected numbers"),
        (lambda: positions_of("a", IDS), "expected one or more rows in a list, got 'a'"),
        (lambda: positions_of([], IDS), r"expected one or more rows in a list, got \[\]"),
        (lambda: positions_of(7, IDS), "expected one or more rows in a list, got 7"),
        (
            lambda: positions_of([True], IDS),
            r"row True is neither a position .*flatnonzero\(mask\)",
        ),
        (lambda: positions_of([1.5], IDS), "row 1.5 is neither a position"),
        (lambda: positions_of([3], IDS), "there is no row 3; positions run from 0 to 2"),
        (lambda: positions_of([-1], IDS), "there is no row -1; positions run from 0 to 2"),
        (lambda: positions_of(["d"], IDS), "no row has the id 'd'; ids run from 'a' to 'c'"),
        (lambda: positions_of([1, "b"], IDS), r"row 1 \(id 'b'\) is named more than once"),
        (lambda: unique_ids(["a"], rows=2), "1 ids for 2 rows; pass one a row"),
        (lambda: unique_ids(["a", "a"], rows=2), "the id 'a' is the id of several rows"),
        (lambda: unique_ids(["a", None], rows=2), "the id of row 1 is missing; name every row"),
        (lambda: unique_ids(["a", "\ud800"], rows=2), "the id of row 1 is .* no text of Unicode"),
        (lambda: polars_frame(UNNAMED, what="X"), "the index of X misses the name of row 1"),
        (
            lambda: polars_frame(pa.table([[1], [2]], names=["x", "x"]), what="X"),
            "X has 2 columns called 'x'; rename them",
        ),
        (
            lambda: polars_column(pd.Series([1j, 2j]), what="y"),
            "y holds complex128, expected real numbers; pass its parts",
        ),
        (
            lambda: polars_column(pd.Series([1, "a"], dtype=object), what="y"),
            "y cannot be read .*; give all its cells one type",
        ),
        (
            lambda: usable_columns(pl.DataFrame({"x": [1, 1], "y": ["a", "a"]}), what="X"),
            "X has no column to learn from; each is constant",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(call, told):
    with pytest.raises(InvalidInput, match=told) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_numbers_in_any_container_are_numbers():
    expected = [[1.0, 0.0], [2.0, 1.0]]
    for table in (
        expected,
        np.array([[1, False], [2, True]], dtype=object),
        torch.tensor(expected),
        pd.DataFrame(expected).astype("float16"),
        pd.DataFrame({"a": pd.arrays.SparseArray([1, 2]), "b": [0, 1]}),
        pl.DataFrame(expected, orient="row").lazy(),
    ):
        frame, _ = frame_of(table, what="X")
        assert frame.cast(pl.Float64).rows() == [(1.0, 0.0), (2.0, 1.0)]
    assert read_weights(expected).tolist() == expected
    assert listed(3) == []
    assert listed(np.array([1, 2])) == listed(torch.tensor([1, 2])) == [1, 2]
    assert array_of(pd.Series([1, 2])).tolist() == [1, 2]
    assert one_row([1.0, 2.0]).shape == (1, 2)
    assert one_row({"x": 1}) == {"x": 1}


def test_rows_are_named_by_their_index_unless_it_counts_them(caplog):
    table = pd.DataFrame({"x": [1.0, 2.0]})
    assert row_names(table, what="X") is None
    assert row_names(table.set_axis([3, 4]), what="X") == ("3", "4")
    levels = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    assert row_names(table.set_axis(levels), what="X") == ("a, 1", "b, 2")
    # An index of pyarrow that names no single row is left out.
    arrow = pa.Table.from_pandas(table.set_axis(["a", "a"]))
    frame, names = polars_frame(arrow, what="X")
    assert (frame.columns, names) == (["x"], None)
    assert "is the index of a pandas table; left out" in caplog.text
