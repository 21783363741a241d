"""Numbers that are not written as computers read them are told, and words stay words."""

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.dataset.columns import inspect_columns

ROWS = 40
# Those of full width, of Arabic and of Devanagari.
DIGITS = ["".join(chr(zero + digit) for digit in range(10)) for zero in (0xFF10, 0x660, 0x966)]
MINUS = ["-", "\u2212", "\u2013", "\uff0d"]
GROUPED = [" ", "_", "'", "\u2019", "\u00a0", "\u202f"]


def problems_of(cells):
    rows = pl.DataFrame({"n": cells}, schema={"n": pl.String})
    where = [f"row {row}" for row in range(len(cells))]
    return inspect_columns(rows, ["n"], source="t", categories=(), where=where).problems


@st.composite
def odd(draw):
    """A way to write a number that is not Python's, as a function of the number."""
    match draw(st.sampled_from(["digits", "minus", "behind", "parentheses", "grouped"])):
        case "digits":
            table = str.maketrans("0123456789", draw(st.sampled_from(DIGITS)))
            return lambda number: str(number).translate(table)
        case "minus":
            sign = draw(st.sampled_from(MINUS[1:]))
            return lambda number: f"{sign}{number}.5"
        case "behind":
            sign = draw(st.sampled_from(MINUS))
            return lambda number: f"{number}{sign}"
        case "parentheses":
            return lambda number: f"({number}.25)"
        case _:
            between = draw(st.sampled_from(GROUPED))
            return lambda number: f"{number + 1}{between}{number:03d}"


@given(odd(), st.integers(1, ROWS), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_odd_numbers_are_told_with_one_of_them(write, count, random):
    cells = [write(row) if row < count else str(row) for row in range(ROWS)]
    shown = [cell for row, cell in enumerate(cells) if row < count]
    random.shuffle(cells)
    [problem] = problems_of(cells)
    assert "writes numbers such as" in problem
    assert any(repr(cell) in problem for cell in shown)


words = st.text(st.sampled_from("Aab01-\u2212_ ()'/x"), min_size=1, max_size=5)


@given(st.lists(words, min_size=2, max_size=6))
@example(["A0", "A1"])
@example(["1-2", "3-4"])
@example(["0x1F", "0x2"])
@example(["1 2", "3 4"])
@settings(max_examples=200, deadline=None)
def test_words_with_digits_are_words(levels):
    marked = [f"b{level}" for level in levels]  # no number begins with a letter
    assert not any("writes numbers" in problem for problem in problems_of(marked * ROWS))
    assert not any(
        "writes numbers" in problem for problem in problems_of(["1-2", "3/4", "0x1F"] * 9)
    )
