"""Tables are read as pandas and PyArrow read them, row by row and cell by cell, or refused in one line."""

import csv
import io
import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.dataset.reading import open_table
from modelpred.errors import InvalidInput

COLUMNS = ["c0", "c1"]
cells = st.text(st.sampled_from([*'a1 ",;\n\r\té', "\u2028"]), max_size=4)
rows = st.lists(st.tuples(cells, cells), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def read(path):
    table = open_table(str(path), delimiter=",")
    return table.read(table.columns, None)


def rows_or_refusal(path):
    try:
        return read(path).rows(), ""
    except InvalidInput as error:
        return None, str(error)


# Settings with which a reader takes every cell as text and no line as blank.
def by_pandas(path, engine):
    with warnings.catch_warnings():  # a line with more cells than the header
        warnings.simplefilter("error", pd.errors.ParserWarning)
        found = pd.read_csv(
            path, dtype=str, na_filter=False, skip_blank_lines=False, index_col=False, engine=engine
        )
    return list(found.fillna("").itertuples(index=False, name=None))


def by_pyarrow(path):
    found = pc.read_csv(
        path,
        parse_options=pc.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False
        ),
    )
    return [tuple(row.values()) for row in found.to_pylist()]


READERS = {
    "pandas, C": lambda path: by_pandas(path, "c"),
    "pandas, Python": lambda path: by_pandas(path, "python"),
    "PyArrow": by_pyarrow,
}
REFUSALS = (pd.errors.ParserError, pd.errors.ParserWarning, pa.ArrowInvalid)


@pytest.mark.parametrize("name", READERS)
@given(table=rows, ending=st.sampled_from(["\n", "\r\n"]), raw=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_csv_has_the_cells_that_other_readers_find(name, folder, table, ending, raw):
    """`raw` cells are joined without quotes, so that most of these files are damaged."""
    text = io.StringIO()
    if raw:
        text.writelines(",".join(row) + ending for row in [COLUMNS, *table])
    else:
        csv.writer(text, lineterminator=ending).writerows([COLUMNS, *table])
    path = folder / "a.csv"
    path.write_text(text.getvalue(), newline="")
    found, refusal = rows_or_refusal(path)
    if found is None:
        assert refusal.startswith(str(path))
        assert len(refusal.splitlines()) == 1
        return
    try:
        expected = READERS[name](path)
    except REFUSALS:
        return
    # Blank lines at the end are no rows here.
    blank = expected[len(found) :]
    assert found == expected[: len(found)]
    assert all(row == ("", "") for row in blank)


def write_csv(path, table):
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([COLUMNS, *table])


def write_pandas(path, table):
    pd.DataFrame(table, columns=COLUMNS).to_csv(path, index=False, quoting=csv.QUOTE_ALL)


def write_pyarrow(path, table):
    columns = [pa.array(column) for column in zip(*table, strict=True)]
    pc.write_csv(pa.table(columns, names=COLUMNS), path)


def write_polars(path, table):
    pl.DataFrame(table, schema=dict.fromkeys(COLUMNS, pl.String), orient="row").write_csv(path)


@pytest.mark.parametrize("write", [write_csv, write_pandas, write_pyarrow, write_polars])
@given(table=rows)
@settings(max_examples=100, deadline=None)
def test_a_csv_of_another_writer_arrives_whole(write, folder, table):
    path = folder / "b.csv"
    write(path, table)
    assert read(path).rows() == table


LENGTH = 6
COLUMN = st.sampled_from(
    [
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.booleans(),
        st.text(max_size=5),
        st.dates(),
        st.datetimes(),
        st.binary(max_size=3),
    ]
).flatmap(lambda kind: st.lists(st.none() | kind, min_size=LENGTH, max_size=LENGTH))
frames = st.dictionaries(
    st.text("abé *^[]$.", min_size=1, max_size=4), COLUMN, min_size=1, max_size=4
)


def written(writer, frame, path):
    table = pa.table({name: pa.array(column) for name, column in frame.items()})
    if writer == "PyArrow":
        pq.write_table(table, path)
    elif writer == "pandas":
        table.to_pandas(types_mapper=pd.ArrowDtype).to_parquet(path)
    else:
        pl.DataFrame(pl.from_arrow(table)).write_parquet(path)


def comparable(column):
    """Cells in which nan equals nan."""
    return ["nan" if isinstance(cell, float) and math.isnan(cell) else cell for cell in column]


@pytest.mark.parametrize("writer", ["PyArrow", "pandas", "polars"])
@given(frame=frames, chosen=st.sets(st.integers(0, LENGTH - 1)))
@settings(max_examples=60, deadline=None)
def test_a_parquet_file_has_the_cells_that_pyarrow_and_pandas_find(writer, folder, frame, chosen):
    path = folder / "c.parquet"
    written(writer, frame, path)
    places = sorted(chosen)
    table = open_table(str(path), delimiter=",")
    found, some = table.read(table.columns, None), table.read(table.columns, np.array(places, int))

    theirs = pq.read_table(path).to_pydict()
    others = pd.read_parquet(path, dtype_backend="pyarrow")
    assert found.columns == list(frame) == list(others.columns)
    for name, column in frame.items():
        cells = comparable(found[name].to_list())
        assert cells == comparable(column) == comparable(theirs[name])
        assert cells == comparable(pa.array(others[name]).to_pylist())
        assert comparable(some[name].to_list()) == [cells[place] for place in places]
