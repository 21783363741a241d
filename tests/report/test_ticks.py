"""Numbers of figures are written as they are: only lengths of the drawing are rounded."""

import re

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.report.figures import ranked_values
from modelpred.report.words import small_percent

TEXTS = re.compile(r"<text[^>]*>([^<]*)</text>")


@settings(max_examples=15, deadline=None)
@given(power=st.integers(-4, 3), first=st.floats(1, 9), middle=st.floats(-1, 1))
@example(power=-2, first=1.0, middle=0.0)
def test_ticks_are_different_and_in_the_range_of_the_values(power, first, middle):
    size = first * 10.0**power
    value = [size * (middle + step / 10) for step in range(10)]
    table = pl.DataFrame({"value": value, "standard_error": [size / 20] * 10})
    drawn = str(ranked_values("ranked", "All rows by rank", table).svg)
    texts = [text.strip().replace("\N{MINUS SIGN}", "-") for text in TEXTS.findall(drawn)]
    ticks = texts[texts.index("rank, most valuable first") + 1 : -1]
    assert len(set(ticks)) == len(ticks) >= 3
    assert all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", tick) for tick in ticks)
    lengths = re.findall(r"[\d.]+", " ".join(re.findall(r' d="([^"]*)"', drawn)))
    assert lengths
    assert all(len(length.partition(".")[2]) <= 2 for length in lengths)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000015, "less than 0.1%"), (0.0125, "1.2%"), (0.5, "50%"), (0.99996, "more than 99.9%")],
)
def test_probabilities_near_zero_and_one_have_a_limit(value, text):
    assert small_percent(value) == text
