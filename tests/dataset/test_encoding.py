"""Cells become numbers by rules that the training rows fix, and JSON brings the rules back."""

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder

from modelpred.dataset import Encoding
from modelpred.dataset.encoding import fit_encoding
from modelpred.errors import InvalidInput

ROWS = pl.DataFrame(
    {
        "age": [31, None, 57, 44],
        "owner": [True, False, None, True],
        "work": ["office", "shop", None, "office"],
        "sex": ["f", "m", "m", "f"],
        "since": [dt.date(2024, 1, 1), dt.date(2024, 1, 3), None, dt.date(2024, 3, 1)],
    }
)


def test_each_kind_of_column_by_hand():
    encoding = fit_encoding(ROWS, ROWS.columns, levels=20)
    features = dict(zip(encoding.feature_names, encoding.encode(ROWS).T.tolist(), strict=True))
    assert features == {
        "age": [31, 44, 57, 44],  # the median of 31, 44, 57
        "age is missing": [0, 1, 0, 0],
        "owner": [1, 0, 0, 1],
        "owner is missing": [0, 0, 1, 0],
        "work=office": [1, 0, 0, 1],
        "work=shop": [0, 1, 0, 0],
        "work is missing": [0, 0, 1, 0],
        "sex=m": [0, 1, 1, 0],
        "since: days since 2024-01-01": [0, 2, 2, 60],
        "since: month": [1, 1, 1, 3],
        "since: weekday": [1, 3, 3, 5],  # Monday, Wednesday, the median, Friday
        "since is missing": [0, 0, 1, 0],
    }


@given(
    st.lists(st.sampled_from("abcde"), min_size=6, max_size=30).filter(lambda w: len(set(w)) > 2)
)
def test_levels_are_those_of_scikit_learn(words):
    rows = pl.DataFrame({"word": words})
    expected = OneHotEncoder(sparse_output=False).fit_transform(np.array(words)[:, None])
    np.testing.assert_array_equal(fit_encoding(rows, ["word"], levels=20).encode(rows), expected)


def test_beyond_the_cap_the_most_frequent_levels_stay_and_the_rest_are_one():
    training = pl.DataFrame({"town": ["a"] * 5 + ["b"] * 4 + ["c", "d", "other"]})
    encoding = fit_encoding(training, ["town"], levels=2)
    assert encoding.feature_names == ("town=a", "town=b", "town=(other)")
    later = pl.DataFrame({"town": ["b", "d", "never seen", None]})
    assert encoding.encode(later).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_a_level_of_later_rows_is_none_of_those_of_the_training_rows():
    encoding = fit_encoding(pl.DataFrame({"town": ["a", "b", "c"]}), ["town"], levels=20)
    assert encoding.encode(pl.DataFrame({"town": ["d"]})).tolist() == [[0, 0, 0]]


def test_what_json_brings_back_encodes_alike():
    encoding = fit_encoding(ROWS, ROWS.columns, levels=20)
    again = Encoding.model_validate_json(encoding.model_dump_json())
    assert again == encoding
    later = ROWS.with_columns(age=pl.lit(None, pl.Int64), since=pl.lit("2025-01-01T12:00:00"))
    np.testing.assert_array_equal(again.encode(later), encoding.encode(later))
    assert again.encode(later)[0, encoding.feature_names.index("age")] == 44


def test_moments_with_a_zone_are_those_of_utc():
    naive = pl.Series(
        "at", [dt.datetime.fromisoformat(f"2024-01-0{day}T12:00") for day in (1, 2, 5)]
    )
    zoned = naive.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    encodings = [fit_encoding(cells.to_frame(), ["at"], levels=20) for cells in (naive, zoned)]
    assert encodings[0] == encodings[1]
    one, other = (encodings[0].encode(cells.to_frame()) for cells in (naive, zoned))
    assert one.tolist() == other.tolist()


def test_not_a_number_is_missing():
    rows = pl.DataFrame({"x": [1.0, math.nan, 4.0]})
    encoding = fit_encoding(rows, ["x"], levels=20)
    assert encoding.encode(rows).tolist() == [[1, 0], [2.5, 1], [4, 0]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"age": ["31", "old"]}, "column 'age' holds 'old' in row r1, expected a number"),
        ({"age": [1.0, math.inf]}, "column 'age' holds inf in row r1, expected a finite number"),
        ({"owner": ["true", "maybe"]}, "column 'owner' holds 'maybe' in row r1, expected true or"),
        (
            {"since": ["2024-01-01", "soon"]},
            "column 'since' holds 'soon' in row r1, expected a date",
        ),
        ({"work": None}, "column 'work' is not there; expected the columns of the training rows"),
    ],
)
def test_cells_of_another_kind_are_named(cells, message):
    encoding = fit_encoding(ROWS, ROWS.columns, levels=20)
    later = ROWS.head(2).with_columns(row_id=pl.Series(["r0", "r1"]))
    for name, values in cells.items():
        later = later.drop(name) if values is None else later.with_columns(pl.Series(name, values))
    with pytest.raises(InvalidInput) as error:
        encoding.encode(later)
    assert message in str(error.value)


def test_features_of_one_name_are_refused():
    rows = pl.DataFrame({"a": ["x", "y", "z"], "a=x": [1, 2, 3]})
    with pytest.raises(InvalidInput, match="two columns become features called 'a=x'"):
        fit_encoding(rows, rows.columns, levels=20).encode(rows)
