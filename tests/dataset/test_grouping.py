"""Columns that look like groups of rows."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred.dataset.grouping import (
    LARGE,
    MOST_GROUPS,
    NAMES,
    ROWS_OF_GROUP,
    GroupColumn,
    group_columns,
    suggestion,
)


@pytest.mark.parametrize(
    "name", ["vendor", "Vendor ID", "source_name", "hospitals", "batchNumber", "visit.day"]
)
def test_names_of_groups_are_found_as_words(name):
    rows = pl.DataFrame({name: [1, 1, 1, 2, 2, 2], "age": [1, 1, 1, 2, 2, 2]})
    assert group_columns(rows, rows.columns) == (GroupColumn(name, 2),)


@pytest.mark.parametrize("name", ["age", "birthday", "resource", "daylight", "capital"])
def test_other_names_are_not(name):
    rows = pl.DataFrame({name: [1, 1, 1, 2, 2, 2]})
    assert group_columns(rows, rows.columns) == ()


@given(st.sampled_from(sorted(NAMES)), st.integers(1, 260), st.integers(1, 6), st.booleans())
def test_there_are_several_groups_of_several_rows_and_no_gaps(name, groups, rows, gap):
    cells = [f"g{number}" for number in range(groups)] * rows
    table = pl.DataFrame({name: cells, "x": range(len(cells))})
    if gap:
        table = pl.concat([table, pl.DataFrame({name: [None], "x": [0]}, schema=table.schema)])
    found = group_columns(table, table.columns)
    expected = not gap and 2 <= groups <= MOST_GROUPS and rows >= ROWS_OF_GROUP
    assert found == ((GroupColumn(name, groups),) if expected else ())


@given(st.sampled_from(sorted(NAMES)), st.integers(1, 210), st.integers(0, 700))
def test_groups_of_large_tables_are_suggested(name, groups, rows):
    table = pl.DataFrame({name: [row % groups for row in range(rows)], "x": range(rows)})
    found = suggestion(table, table.columns)
    large = rows > LARGE and 2 <= groups <= min(MOST_GROUPS, rows // ROWS_OF_GROUP)
    assert (f"{name!r} ({groups} groups)" in found) == large
    assert bool(found) == large
