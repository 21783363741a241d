"""Numbers as the page writes them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred.report.blocks import facts_table
from modelpred.report.valuation import value_cell
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


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 10))
def test_a_value_beside_its_error_has_at_most_three_digits(value: float, error: float):
    cell = value_cell(value, error)
    digits = re.sub(r"\D", "", cell.text.split("e")[0]).lstrip("0")
    assert len(digits) <= 3 or abs(value) >= 1000
    written = float(cell.text.replace("\N{MINUS SIGN}", "-").replace(",", ""))
    assert written == pytest.approx(value, rel=0.005, abs=error)


@given(st.dictionaries(st.sampled_from("abcde"), st.floats(-1e3, 1e3) | st.integers(), min_size=1))
def test_measured_facts_have_three_digits_and_settings_all(facts: dict[str, float]):
    rounded, whole = (facts_table("", facts, measured=measured) for measured in (True, False))
    for value, (_, short), (_, full) in zip(facts.values(), rounded.rows, whole.rows, strict=True):
        assert full.text == plain(value)
        assert short.text == (number(value) if isinstance(value, float) else plain(value))
