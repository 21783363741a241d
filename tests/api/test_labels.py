"""Labels are missing whatever library says so, and numbers whatever library wrote them."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred.api.labels import learn_labels
from modelpred.dataset.cells import MISSING
from modelpred.errors import InvalidInput

CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "numpy": lambda values: np.array(values, dtype=object),
    "masked": lambda values: np.ma.masked_array(
        ["hidden" if value is None else value for value in values],
        mask=[value is None for value in values],
    ),
    "pandas objects": lambda values: pd.Series(values, dtype=object),
    "pandas text": lambda values: pd.Series(values, dtype="string"),
    "pandas categories": lambda values: pd.Series(values, dtype="category"),
    "pandas index": lambda values: pd.Index(values, dtype=object),
    "polars text": lambda values: pl.Series(values, dtype=pl.String),
    "polars categories": lambda values: pl.Series(values, dtype=pl.Categorical),
    "arrow": lambda values: pd.Series(values, dtype="string[pyarrow]"),
}


@given(
    st.lists(st.sampled_from(["yes", "no", "maybe"]), min_size=3, max_size=9).filter(
        lambda words: len(set(words)) > 1
    ),
    st.none() | st.sampled_from([None, *MISSING, " NA "]),
    st.integers(0, 2),
    st.sampled_from(sorted(CONTAINERS)),
)
def test_a_missing_label_is_refused_from_every_container(words, missing, place, container):
    make = CONTAINERS[container]
    assert learn_labels(make(words), what="y", regression=None).classes == tuple(sorted(set(words)))
    words[place] = missing
    with pytest.raises(InvalidInput, match="y has 1 missing"):
        learn_labels(make(words), what="y", regression=None)


@given(st.lists(st.decimals(-1000, 1000, places=2), min_size=2, max_size=9))
def test_decimals_are_numbers(values):
    for labels in (values, pl.Series(values, dtype=pl.Decimal(10, 2)), np.array(values)):
        learned = learn_labels(labels, what="y", regression=None)
        assert learned.classes == ()
        encoded = learned.encode(labels, what="y", rows=len(values))
        assert encoded.tolist() == [float(value) for value in values]
    whole = [Decimal(0), Decimal(1)]
    assert learn_labels(whole, what="y", regression=None).classes == ("0", "1")


@given(st.sampled_from([1e160, -1.7e308, 1e36]), st.integers(0, 5))
def test_numbers_that_hide_the_others_are_refused(value, place):
    labels = [0.5, 1.25, 2.0, 7.5, 3.0, 4.0]
    labels[place] = value
    with pytest.raises(InvalidInput, match="too large to compute with"):
        learn_labels(labels, what="y", regression=True)


@pytest.mark.parametrize(
    ("labels", "regression", "told"),
    [
        (pd.DataFrame({"y": [0, 1]}), None, "y is a table, expected one column; pass a series"),
        (np.zeros((2, 2)), None, r"y has shape \[2, 2\], expected one label a row"),
        ([], None, r"y has shape \[0\], expected one label a row"),
        ([0.5, 1.5, 0.5], False, "y holds real numbers, expected classes; use target='ridge'"),
        (["a", "a"], None, r"y holds one class \('a'\) in all 2 rows; a classifier needs"),
        ([f"k{row}" for row in range(30)], None, "y has 30 classes in 30 rows, expected"),
        ([f"k{row % 101}" for row in range(500)], None, "y has 101 classes in 500 rows, expected"),
        (["a", "b"], True, "y holds text labels, expected numbers to predict"),
        ([True, False], True, "y holds boolean labels, expected numbers to predict"),
        (["a", "\ud800"], None, "in row 1, which is no text of Unicode"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(labels, regression, told):
    with pytest.raises(InvalidInput, match=told) as refused:
        learn_labels(labels, what="y", regression=regression)
    assert "\n" not in str(refused.value)
