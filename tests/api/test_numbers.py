"""Every numeric argument takes the numbers of any library by their value, and refuses all else in one line."""

import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import InvalidInput, ModelPred
from modelpred.numbers import LARGEST_SEED, plain, real_number, whole_number
from tests.api.conftest import ROWS, make_rows

CELLS, LABELS = make_rows(2, 10, seed=3)
ONES = np.ones((1, ROWS))

WAYS = {
    "float": float,
    "int64": np.int64,
    "uint16": np.uint16,
    "float32": np.float32,
    "float64": np.float64,
    "decimal": lambda number: Decimal(str(number)),
    "fraction": Fraction,
    "tensor": torch.tensor,
    "array": np.array,
    "pandas": lambda number: pd.Series([number]).iloc[0],
}
NO_NUMBERS = [
    "1", "", "one", None, True, np.True_, float("nan"), float("inf"), Decimal("nan"), -1,
    Decimal(-2), 10**400, 1e300, 1j, [1], {"a": 1}, np.array([1, 2]), pd.NA, pd.NaT, b"1",
]  # fmt: skip


@given(st.integers(0, 60_000), st.sampled_from(sorted(WAYS)))
@settings(max_examples=100, deadline=None)
def test_a_whole_number_is_one_by_its_value(number, way):
    found = whole_number(WAYS[way](number), "n")
    assert type(found) is int
    assert found == number


@given(
    st.one_of(
        st.floats(), st.integers(), st.decimals(allow_nan=False), st.fractions(), st.booleans()
    )
)
@settings(max_examples=100, deadline=None)
def test_a_number_keeps_its_value_or_is_refused(value):
    if isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        with pytest.raises(InvalidInput, match=r"^n is .*; expected a"):
            real_number(value, "n")
        return
    assert real_number(value, "n") == (value if isinstance(value, int) else float(value))


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_count_is_refused_in_one_line(value):
    with pytest.raises(InvalidInput) as caught:
        whole_number(value, "n", least=0, most=LARGEST_SEED)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("n is ")


# Every numeric argument of every public method: how to call it with a number, and one that it takes.
ARGUMENTS = {
    "subsets": (lambda _, n: ModelPred(subsets=n), 20),
    "seed": (lambda _, n: ModelPred(seed=n), 3),
    "tolerance": (lambda _, n: ModelPred(tolerance=n), 1),
    "C": (lambda _, n: ModelPred("svm", C=n), 2),
    "hidden": (lambda _, n: ModelPred("mlp", hidden=n), 2),
    "predict_parameters": (lambda mp, n: mp.predict_parameters(ONES, n), 1),
    "stages": (lambda mp, n: mp.predict_parameters(ONES, stages=n), 0),
    "certificate": (lambda mp, n: mp.certificate(ONES, n), 1),
    "without": (lambda mp, n: mp.without([1], refine=n), 1),
    "with_points": (lambda mp, n: mp.with_points(CELLS, LABELS, refine=n), 1),
    "permutations": (lambda mp, n: mp.values(CELLS, LABELS, permutations=n), 2),
    "values": (lambda mp, n: mp.values(CELLS, LABELS, permutations=2, refine=n), 1),
    "values seed": (lambda mp, n: mp.values(CELLS, LABELS, permutations=2, seed=n), 1),
    "suspects": (lambda mp, n: mp.suspects(refine=n), 1),
    "suspects seed": (lambda mp, n: mp.suspects(seed=n), 1),
    "k": (lambda mp, n: mp.select(n, CELLS, LABELS), 5),
    "swaps": (lambda mp, n: mp.select(5, CELLS, LABELS, swaps=n), 1),
    "select": (lambda mp, n: mp.select(5, CELLS, LABELS, refine=n), 1),
    "resamples": (lambda mp, n: mp.predictive(CELLS, resamples=n), 3),
    "predictive": (lambda mp, n: mp.predictive(CELLS, resamples=3, refine=n), 1),
    "predictive seed": (lambda mp, n: mp.predictive(CELLS, resamples=3, seed=n), 1),
    "memorization": (lambda mp, n: mp.memorization(subsets=n), 30),
    "strongest": (lambda mp, n: mp.memorization(subsets=30, strongest=n), 3),
    "memorization seed": (lambda mp, n: mp.memorization(subsets=30, seed=n), 3),
    "attribute": (lambda mp, n: mp.attribute(n), 1),
    "attribute refine": (lambda mp, n: mp.attribute(0, refine=n), 1),
    "explain": (lambda mp, n: mp.explain(CELLS[0], refine=n), 1),
}
SHARES = {
    "share": lambda mp, n: mp.memorization(subsets=30, share=n),
    "largest": lambda mp, n: mp.explain(CELLS[0], largest=n),
    "small": lambda mp, n: mp.values(CELLS, LABELS, permutations=2, small=n),
    "momentum": lambda _, n: ModelPred("mlp", momentum=n),
}


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_every_argument_takes_numbers_of_any_library(name, logistic):
    ask, number = ARGUMENTS[name]
    for way in np.random.default_rng(len(name)).choice(sorted(WAYS), 3, replace=False):
        ask(logistic, WAYS[way](number))


@pytest.mark.parametrize("name", sorted(ARGUMENTS | SHARES))
def test_every_argument_refuses_what_is_no_number(name, logistic):
    ask = (ARGUMENTS | dict.fromkeys(SHARES) | {k: (v, 0) for k, v in SHARES.items()})[name][0]
    for value in NO_NUMBERS:
        # Two of these mean something there: any size of a tolerance, no value of a share.
        if (name in ("tolerance", "C") and plain(value) == 1e300) or (
            name in ("small", "stages") and value is None
        ):
            continue
        with pytest.raises(InvalidInput) as caught:
            ask(logistic, value)
        assert len(str(caught.value).splitlines()) == 1, value


@pytest.mark.parametrize("name", sorted(SHARES))
def test_a_share_may_be_of_any_library(name, logistic):
    for way in (np.float32, np.float64, Fraction, torch.tensor, lambda n: Decimal(str(n))):
        SHARES[name](logistic, way(0.5))


def test_rows_are_named_by_whole_numbers_of_any_library(logistic):
    expected = logistic.without([3, 14]).parameters
    for rows in (
        [np.int64(3), np.uint8(14)],
        (3, 14),
        {3, 14},
        np.array([3, 14], dtype=np.uint16),
        torch.tensor([3, 14]),
        pd.Series([3, 14]),
        pd.Index([3, 14]),
        pd.Series([3, 14], dtype="Int64"),
        ["3", np.str_("14")],
    ):
        np.testing.assert_array_equal(logistic.without(rows).parameters, expected)


def test_cells_and_weights_that_are_text_are_no_numbers(logistic):
    with pytest.raises(InvalidInput, match="weights hold <U32, expected numbers"):
        logistic.predict_parameters(ONES.astype(str))
    with pytest.raises(InvalidInput, match="expected numbers"):
        logistic.without([1]).predict(CELLS.astype(str).astype(object))
    weights = np.full((1, ROWS), Decimal(2), dtype=object)
    np.testing.assert_array_equal(
        logistic.predict_parameters(weights), logistic.predict_parameters(2 * ONES)
    )
