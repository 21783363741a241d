"""Tables and settings that cannot be used are refused in one line that says what is wrong."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpred.dataset import DatasetConfig, csv_files, places, prepare, reading
from modelpred.errors import InvalidInput

ROWS = 24
TABLE = pl.DataFrame(
    {
        "size": np.arange(ROWS) * 0.5,
        "day": pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 1, ROWS), eager=True),
        "cells": [[row] for row in range(ROWS)],
        "part": ["test" if row % 4 == 0 else "train" for row in range(ROWS)],
        "y": ["u", "v"] * (ROWS // 2),
    }
)
FLAT = TABLE.drop("cells")


def refused(**settings) -> str:
    with pytest.raises(InvalidInput) as caught:
        prepare(DatasetConfig(**settings))
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    return line


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    FLAT.write_csv("t.csv")
    FLAT.write_parquet("t.parquet")
    TABLE.write_parquet("lists.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"source": "t.parquet", "delimiter": ";"},
            "dataset.delimiter is ';', but t.parquet is no CSV; leave it out",
        ),
        (
            {"source": "t.csv", "categories": ("day",), "dates": {"day": "%Y-%m-%d"}},
            "dataset.dates: 'day' is in dataset.categories, too; name it once",
        ),
        (
            {"source": "lists.parquet", "test": "cells", "drop": ("day",)},
            "column 'cells'",
        ),
        ({"source": "t.csv", "test": "t.parquet"}, "t.parquet is another kind of file than t.csv"),
        (
            {"source": "t.csv", "test": "part", "points": 20},
            "t has 18 rows beside its test rows, but dataset.points is 20; set it to fewer",
        ),
        (
            {"source": "iris", "label": None, "test": "part"},
            "dataset.test is 'part', but 'iris' has neither such a column nor a second file",
        ),
        ({"source": "openml:"}, "dataset.source: openml: names no table; write openml:adult"),
        (
            {"source": "t.csv", "drop": ("size", "day", "part")},
            "t has no feature columns beside the label 'y'",
        ),
    ],
)
def test_settings_that_do_not_fit_the_table(here, settings, told):
    assert told in refused(**{"label": "y"} | settings)


LONG = "a line,\nand another one: " * 10_000
# A cell of every kind that a column of Parquet may have, most of them in no way a name or a number.
CELLS = {
    "list": pl.Series([[row, row] for row in range(ROWS)]),
    "long list": pl.Series([list(range(5_000))] * ROWS),
    "struct": pl.Series([{"a": LONG, "b": row} for row in range(ROWS)]),
    "bytes": pl.Series([b"\n\0" * 500 + bytes([row]) for row in range(ROWS)]),
    "long text": pl.Series([f"{row} {LONG}" for row in range(ROWS)]),
    "same long text": pl.Series([LONG] * ROWS),
    "duration": pl.Series(list(range(ROWS))).cast(pl.Duration("us")),
    "truth": pl.Series([row % 2 == 0 for row in range(ROWS)]),
}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(CELLS)),
    role=st.sampled_from(["label", "row_id", "group", "test", "dates", "categories", None]),
)
def test_whatever_a_cell_holds_its_message_is_one_short_line(tmp_path_factory, kind, role):
    path = tmp_path_factory.mktemp("cells") / "c.parquet"
    FLAT.with_columns(odd=CELLS[kind]).write_parquet(path)
    listed = {"dates": {"odd": "%Y"}, "categories": ("odd",)}
    settings = {"label": "y"} | ({role: listed.get(role, "odd")} if role else {})
    told = ""
    try:
        prepare(DatasetConfig(source=str(path), **settings))
    except InvalidInput as error:
        told = str(error)
    # One line, or one for each column that cannot be used.
    assert all(len(line) < 400 for line in told.splitlines())
    assert "\n" not in told or "columns" in told.splitlines()[0]


def test_a_second_file_without_a_column(here):
    FLAT.drop("size").write_csv("other.csv")
    told = refused(source="t.csv", label="y", test="other.csv")
    assert told == "dataset.test: other.csv has no column 'size', other than t.csv; make them equal"


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_label_is_named_with_its_row(here, value):
    numbers = np.arange(ROWS) + 0.25
    numbers[7] = value
    FLAT.with_columns(y=pl.Series(numbers)).write_parquet("n.parquet")
    assert f"label 'y' is {value} in row 7; mend or remove" in refused(
        source="n.parquet", label="y"
    )


def test_a_label_of_too_many_classes(here):
    names = [f"class {row // 2}" for row in range(600)]
    pl.DataFrame({"size": [row * 0.5 for row in range(600)], "y": names}).write_csv("many.csv")
    told = refused(source="many.csv", label="y")
    assert "the label 'y' has 300 classes in 600 rows, expected" in told
    assert "name another column as dataset.label" in told


def test_folders_of_parquet_whose_columns_differ(here):
    for folder in ("year=2024/month=1", "year=2025"):
        (here / "in" / folder).mkdir(parents=True)
        FLAT.write_parquet(here / "in" / folder / "t.parquet")
    assert "make them alike" in refused(source="in", label="y")


@pytest.mark.parametrize("limit", ["MOST_NAMES", "MOST_FILES"])
def test_too_many_files(here, monkeypatch, limit):
    monkeypatch.setattr(places, limit, 2)
    for number in range(4):
        (here / "in" / "below").mkdir(parents=True, exist_ok=True)
        FLAT.write_parquet(here / "in" / "below" / f"{number}.parquet")
        (here / "in" / f"{number}").mkdir()
    assert "in holds too many files; name the folder of the table alone" in refused(
        source="in", label="y"
    )
    if limit == "MOST_FILES":
        assert "in/below/*.parquet matches more than 2 files; name fewer" in refused(
            source="in/below/*.parquet", label="y"
        )


def test_a_line_that_is_too_long(here, monkeypatch):
    monkeypatch.setattr(csv_files, "LONGEST_CELL", 50)
    (here / "long.csv").write_text("size,y\n1,u\n" + "2" * 60 + ",v\n")
    told = "long.csv: line 3 has more than 50 characters; not a CSV file"
    assert refused(source="long.csv", label="y") == told


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_changes_between_its_two_readings(here, ending):
    raw = reading.open_table(f"t.{ending}", delimiter=",")
    shorter = FLAT.head(ROWS - 1)
    shorter.write_csv("t.csv") if ending == "csv" else shorter.write_parquet("t.parquet")
    with pytest.raises(
        InvalidInput, match=rf"^t\.{ending} (changed while it was read; run again|cannot)"
    ):
        raw.read(("size",), None)


@pytest.mark.parametrize("sign", ['"', "\n", "a", "é", "."])
def test_a_sign_that_separates_no_cells(sign):
    with pytest.raises(ValidationError, match=r"expected a sign such as , ; \| or a tab"):
        DatasetConfig(source="t.csv", label="y", delimiter=sign)
