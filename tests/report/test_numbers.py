"""Numbers as the page writes them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred.report.words import microseconds, number, percent, percent_interval, plain


@given(st.floats(1e-300, 1e14) | st.floats(-1e14, -1e-300))
def test_a_number_keeps_three_digits(value: float):
    text = number(value).replace(",", "").replace("\N{MINUS SIGN}", "-")
    # Three significant digits round by at most half a unit of the third.
    assert float(text) == pytest.approx(value, rel=5.001e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (-0.0012, "\N{MINUS SIGN}0.00120"),
        (16.84, "16.8"),
        (0.9996, "1.00"),
        (12345.6, "12,346"),
        (3e-7, "3.00e\N{MINUS SIGN}7"),
        (math.nan, "\N{EN DASH}"),
        (None, "\N{EN DASH}"),
    ],
)
def test_how_a_number_is_written(value: float | None, text: str):
    assert number(value) == text


def test_shares_and_times_carry_their_unit():
    assert percent(0.0490) == "4.90%"
    assert percent_interval(0.047, 0.051) == "4.70 to 5.10%"
    assert percent_interval(None, 0.051) == ""
    space = "\N{NO-BREAK SPACE}"
    assert microseconds(0.02) == f"below 0.1{space}µs"
    assert microseconds(21.04) == f"21{space}µs"
    assert microseconds(2100.0) == f"2.10{space}ms"
    assert microseconds(3.5e6) == f"3.50{space}s"


def test_any_value_becomes_text():
    assert plain({"a": 1}) == "{'a': 1}"
    assert [plain(value) for value in (None, True, 0.542, 1e-6, 3.0, (1, 2.5), "x")] == [
        "none", "yes", "0.542", "1e-06", "3", "1, 2.5", "x",
    ]  # fmt: skip
