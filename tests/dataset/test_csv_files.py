"""The cells of a CSV are those that Python's csv finds, or the file is refused."""

import csv
import gzip
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.dataset.csv_files import look_through
from modelpred.dataset.reading import open_table
from modelpred.errors import InvalidInput

cells = st.text(st.sampled_from([*'a1 ",;\n\r\té', "\ufeff", "\0", "\u2028"]), max_size=5)


@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=6),
    st.tuples(
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"]),
        st.sampled_from(["", "\n", '"', "\n\n", "x\n", "x,y,z\n"]),
    ),
    st.booleans(),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_every_cell_arrives_or_a_line_is_named(rows, form, packed, data):
    ending, encoding, tail = form
    text = io.StringIO()
    csv.writer(text, lineterminator=ending).writerows([["c0", "c1"], *rows])
    content = (text.getvalue() + tail).encode(encoding, errors="replace")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("t.csv.gz" if packed else "t.csv")
        path.write_bytes(gzip.compress(content) if packed else content)
        file, refusal = _looked_through(path)
        if file is None:
            assert str(path) in refusal
            assert len(refusal.splitlines()) == 1
            return
        found = pl.concat(file.read(file.columns, None))
        oracle = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
        while oracle and not oracle[-1]:
            oracle.pop()
        assert [list(row) for row in found.rows()] == oracle[1:]
        chosen = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1))))
        some = pl.concat(file.read(["c1"], np.array(chosen, dtype=np.int64)))
        assert some["c1"].to_list() == [oracle[1 + row][1] for row in chosen]


def _looked_through(path):
    try:
        return look_through(path, ","), ""
    except InvalidInput as error:
        return None, str(error)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path, ending):
    pipe, device = tmp_path / f"pipe.{ending}", tmp_path / f"zero.{ending}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(InvalidInput, match="not an ordinary file"):
            open_table(str(path), delimiter=",")


def test_folders_of_a_partitioned_table_are_columns(tmp_path):
    rows = pl.DataFrame({"x": range(6), "year": [1, 1, 2, 2, 3, 3], "region": list("aabbab")})
    for (year, region), part in rows.partition_by("year", "region", as_dict=True).items():
        folder = tmp_path / f"year={year}" / f"region={region}"
        folder.mkdir(parents=True)
        part.select("x").write_parquet(folder / "part.parquet")
    found = open_table(str(tmp_path), delimiter=",")
    assert found.columns == ("x", "year", "region")
    read = found.read(found.columns, None).sort("x")
    assert read.rows() == rows.rows()
    assert found.read(["region"], np.array([0, 5])).rows() == [("a",), ("b",)]
