"""What cells mean, whatever they are read from, against Python's and pandas' own reading."""

import io
import math
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, prepare
from modelpred.dataset.cells import MISSING, is_missing, known, names_of, read_moments
from modelpred.dataset.columns import inspect_columns
from modelpred.dataset.encoding import fit_encoding
from modelpred.dataset.meanings import typed
from modelpred.errors import InvalidInput

ROWS = 40
MOMENTS = st.datetimes(datetime.fromisoformat("1800-01-01"), datetime.fromisoformat("2200-01-01"))


def problems(cells):
    """What inspecting the cells as a column finds wrong."""
    where = [f"row {row}" for row in range(len(cells))]
    found = inspect_columns(cells.to_frame(), [cells.name], source="t", categories=(), where=where)
    return found.problems


def test_missing_words_are_those_of_pandas_and_two_more():
    quoted = "\n".join(["a", *(f'"{word}"' for word in MISSING), "word"])
    read = pd.read_csv(io.StringIO(quoted), skip_blank_lines=False)["a"]
    told = [word for word, missing in zip(MISSING, read.isna(), strict=False) if not missing]
    assert told == ["NAN", "NaT", "?"]
    from pandas._libs.parsers import STR_NA_VALUES  # noqa: PLC0415 - pandas' own list

    assert set(STR_NA_VALUES) <= set(MISSING)


def test_missing_values_of_every_library():
    values = [
        None, math.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"),
        np.timedelta64("NaT"), Decimal("NaN"),
    ]  # fmt: skip
    assert all(pd.isna(value) and is_missing(value) for value in values)
    assert all(map(is_missing, [*MISSING, " NA ", np.str_("null"), np.ma.masked]))


@given(
    st.one_of(
        st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.datetimes(),
        st.decimals(allow_nan=False),
    )
)  # fmt: skip
def test_other_values_are_there(value):
    assume(not (isinstance(value, str) and value.strip() in MISSING))
    assert not is_missing(value)


def check_labelled_rows(config, missing):
    try:
        data = prepare(config)
    except InvalidInput:  # a class has one row
        return
    there = {str(row) for row in range(ROWS) if not missing[row]}
    assert {*data.row_ids, *data.test_row_ids} == there
    assert (data.unlabelled or 0) == sum(missing)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.one_of(st.sampled_from(["red", "blue", "a b"]), st.sampled_from(MISSING), st.none()),
        min_size=ROWS,
        max_size=ROWS,
    ).filter(lambda words: len(set(words) - {*MISSING, None}) > 1),
    st.sampled_from(["csv", "parquet", "categorical", "pandas"]),
    st.sampled_from(["label", "feature", "group", "row_id"]),
)
def test_the_same_cells_are_missing_from_every_reader(tmp_path_factory, words, reader, role):
    x = np.arange(ROWS) % 7
    table = pl.DataFrame({"x": x, "w": pl.Series(words, dtype=pl.String), "y": ["u", "v"] * 20})
    path = tmp_path_factory.mktemp("t") / ("t.csv" if reader == "csv" else "t.parquet")
    if reader == "csv":
        table.write_csv(path)
    elif reader == "pandas":
        table.to_pandas().to_parquet(path, index=False)
    else:
        kind = pl.Categorical if reader == "categorical" else pl.String
        table.with_columns(pl.col("w").cast(kind)).write_parquet(path)
    missing = [word is None or word in MISSING for word in words]
    keys = {"label": {"label": "w"}, "group": {"group": "w"}, "row_id": {"row_id": "w"}}
    config = DatasetConfig(**{"source": str(path), "label": "y", **keys.get(role, {})})
    if role == "label" and 2 * sum(missing) < ROWS:
        check_labelled_rows(config, missing)
    elif role != "feature" and any(missing):
        with pytest.raises(InvalidInput, match="missing in") as error:
            prepare(config)
        assert "\n" not in str(error.value)
        assert f"row {missing.index(True)}" in str(error.value)
    elif role == "feature":
        data = prepare(config)
        assert not any(f"w={word}" in data.feature_names for word in MISSING)
        cells = pl.concat([data.rows, data.test_rows])
        null = dict(zip(cells["row_id"], cells["w"].is_null(), strict=True))
        assert [null[str(row)] for row in range(ROWS)] == missing


ZONES = st.one_of(
    st.just(""), st.sampled_from(["Z", " UTC", "+00", "-05", "+0530"]),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: iso_zone(timedelta(minutes=minutes))),
)  # fmt: skip


def iso_zone(offset):
    return datetime(2000, 1, 1, tzinfo=timezone(offset)).isoformat()[-6:]


@st.composite
def iso_texts(draw):
    """A moment as ISO 8601 lets it be written, and the moment in UTC as Python reads it."""
    moment = draw(MOMENTS)
    form = draw(st.sampled_from(["%Y-%m-%d", "%Y/%m/%d"]))
    day = moment.strftime(form)
    clock_form = draw(st.sampled_from(["", "%H", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f"]))
    if not clock_form:
        return day, datetime.fromisoformat(day.replace("/", "-"))
    clock = moment.strftime(clock_form)
    if clock_form.endswith("%f"):
        clock = clock[: draw(st.sampled_from([-5, -3, 15]))]
    zone = draw(ZONES)
    told = f"{day.replace('/', '-')}T{clock}{zone.replace(' UTC', 'Z')}"
    read = datetime.fromisoformat(told)
    if read.tzinfo:
        read = read.astimezone(UTC).replace(tzinfo=None)
    return f"{day}{draw(st.sampled_from('T '))}{clock}{zone}", read


@settings(deadline=None, max_examples=100)
@given(st.lists(iso_texts(), min_size=1, max_size=20), st.booleans())
def test_iso_dates_are_what_python_reads(drawn, numbers):
    texts, expected = zip(*drawn, strict=True)
    column = typed(pl.Series("t", [*texts, None, " NA"]), numbers=numbers)
    assert column.dtype in (pl.Date, pl.Datetime)
    assert column.cast(pl.Datetime("us")).to_list() == [*expected, None, None]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(iso_texts(), min_size=5, max_size=20),
    st.sampled_from(
        ["2024-02-30", "2023-02-29T10:00", "0000-00-00", "2024-13-01 00:00", "2024-01-01T25:00",
         "2024-01-01 00:00:00+99:99", "0001-01-01", "9999-12-31", "1677-09-21", "2262-04-11",
         "soon", "2024-01-0\uff11", "0001-01-01T00:00+14:00"]
    ),
    st.integers(0, 4),
)  # fmt: skip
def test_a_cell_that_is_no_day_is_named(drawn, odd, place):
    texts = [text for text, _ in drawn]
    texts[place] = odd
    found = problems(typed(pl.Series("t", texts), numbers=True))
    assert len(found) == 1
    assert f"row {place}" in found[0]


@given(MOMENTS)
def test_dates_in_a_form_that_the_user_gives(moment):
    for form in ("%d.%m.%Y", "%m/%d/%Y %H:%M:%S", "%Y%m%d", "%d %b %Y"):
        text = moment.strftime(form)
        cells = pl.Series("t", [text, text, None])
        expected = datetime.strptime(text, form)  # noqa: DTZ007 - the oracle
        column = typed(cells, form=form, numbers=True)
        assert column.to_list() == [expected, expected, None]
        encoding = fit_encoding(column.to_frame(), ["t"], levels=5, dates={"t": form})
        assert (
            encoding.encode(cells.to_frame()).tolist()
            == encoding.encode(column.to_frame()).tolist()
        )
    assert read_moments(pl.Series(["31.02.2024"]), form="%d.%m.%Y").to_list() == [None]


@settings(max_examples=100)
@given(
    st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=8),
    st.sampled_from(["text", "integer", "decimal"]),
)
def test_whole_numbers_are_exact_or_names(values, kind):
    texts = [str(value) for value in values]
    if kind == "text":
        column = typed(pl.Series("t", texts), numbers=True)
    elif kind == "integer":
        column = typed(pl.Series("t", values, dtype=pl.Int128))
    else:
        column = typed(pl.Series("t", [Decimal(text) for text in texts], dtype=pl.Decimal(38, 0)))
    if all(abs(value) <= 2**53 for value in values):
        assert column.dtype == pl.Int64
        assert [Fraction(value) for value in column.cast(pl.Float64)] == values
    else:
        assert column.to_list() == texts


@settings(max_examples=100)
@given(st.lists(st.decimals(-(10**20), 10**20, places=6), min_size=1, max_size=8))
def test_decimals_are_the_nearest_floats(values):
    column = known(pl.Series("t", values, dtype=pl.Decimal(38, 6)))
    assert column.to_list() == [float(value) for value in values]


DIGITS = tuple("".join(chr(zero + at) for at in range(10)) for zero in (0xFF10, 0x660, 0x966))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.decimals(0, 999, places=1), min_size=20, max_size=30), st.sampled_from(DIGITS),
    st.booleans(),
)  # fmt: skip
def test_digits_of_other_scripts_are_refused_in_one_line(values, digits, every):
    other = str.maketrans("0123456789", digits)
    texts = [str(value) for value in values]
    texts = [text.translate(other) if every or row == 3 else text for row, text in enumerate(texts)]
    found = problems(typed(pl.Series("t", texts), numbers=True))
    assert len(found) == 1
    assert repr(texts[0 if every else 3]) in found[0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pl.Series([1.0, None, 3.0]), ["1", None, "3"]),
        (pl.Series([1.5, math.nan]), ["1.5", None]),
        (pl.Series([Decimal("0.20"), None]), ["0.20", None]),
        (pl.Series([True, False]), ["true", "false"]),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), [str(2**64 - 1)]),
        (pl.Series([" a", "NA"]), ["a", None]),
    ],
)
def test_names(cells, expected):
    assert names_of(cells).to_list() == expected


@pytest.mark.parametrize(
    "cells",
    [
        pl.Series([[1], [2]] * 20), pl.Series([b"a", b"b"] * 20), pl.Series([{"a": 1}] * 40),
        pl.Series([timedelta(1), timedelta(2)] * 20), pl.Series([time.fromisoformat("12:30")] * 40),
        pl.Series([None] * 40), pl.Series(["12:30", "1:05:10"] * 20),
        pl.Series([2**31 - 1, 0] * 20, dtype=pl.Int32).cast(pl.Date),
        pl.Series([2**62, 0] * 20, dtype=pl.Int64).cast(pl.Datetime("ms")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("category", [False, True])
def test_columns_of_other_types_are_told_in_one_line(cells, category):
    cells = cells.alias("t")
    if category and not (cells.dtype.is_nested() or cells.dtype in (pl.Binary, pl.Duration)):
        return  # has a name, which a category needs
    found = problems(typed(cells, category=category, numbers=True))
    assert len(found) == 1
    assert "\n" not in found[0]


FORMS = (
    "%Y-%d-%m", "%d.%m.%Y", "%d/%m/%y", "%m/%d/%Y %H:%M", "%Y.%m.%d", "%d %b %Y", "%B %d, %Y",
    "%d-%b-%y", "%Y%m%dT%H%M%S", "%G-W%V-%u", "%Y/%m/%d\t%H:%M",
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(MOMENTS, min_size=25, max_size=30), st.sampled_from(FORMS), st.integers(1, 6))
def test_dates_in_other_forms_never_become_categories(drawn, form, levels):
    if form == "%Y-%d-%m":  # else it may be read as ISO
        drawn = [moment.replace(day=13 + moment.day // 2) for moment in drawn]
    texts = [drawn[row % levels].strftime(form) for row in range(len(drawn))]
    found = problems(typed(pl.Series("t", texts), numbers=True))
    assert len(found) == 1
    assert "dataset.dates" in found[0]


@given(st.sampled_from(["0001-01-01", "9999-12-31T10:00", "1677-09-21", "2262-04-11T23:47"]))
def test_days_that_stand_for_none_are_refused_later_too(text):
    column = typed(pl.Series("t", ["2024-01-01", "2024-01-05"]))
    encoding = fit_encoding(column.to_frame(), ["t"], levels=5)
    for cells in (pl.Series("t", [text]), read_moments(pl.Series("t", [text]))):
        with pytest.raises(InvalidInput, match="expected a day that could be"):
            encoding.encode(cells.to_frame())
