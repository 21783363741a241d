"""Converts text columns to numbers, booleans or dates; other text columns are categories.

Numbers with a leading zero (007) are text, and so are whole numbers beyond 2^53, which float64 cannot
represent exactly.
"""

import polars as pl

from modelpred.dataset.cells import (
    DAYS,
    MOMENT,
    Unusable,
    known,
    moments_of,
    names_of,
    read_moments,
    truths_of,
)

WHOLE = r"^[+-]?[0-9]+$"
PADDED = r"^[+-]?0[0-9]"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
INFINITE = r"^(?i)[+-]?inf(inity)?$"
DAY_LENGTH = len("2024-12-31")


def typed(
    cells: pl.Series, *, category: bool = False, numbers: bool = False, form: str | None = None
) -> pl.Series:
    """A column converted to its type; text if it is a category.

    Args:
        cells: of any type.
        category: whether the user set it as a category.
        numbers: whether text may be numbers, as in a CSV; other tables have types of their own.
        form: the date format that the user set, if any.

    Raises:
        Unusable: a cell is not a date of this format.
    """
    if category:
        try:
            return names_of(cells)
        except Unusable:
            return cells  # refused as any column of that type
    if form is not None and cells.dtype not in DAYS:
        return moments_of(names_of(cells), form=form)
    if cells.dtype != pl.String:
        return known(cells)
    return _read(known(cells), numbers=numbers)


def _read(words: pl.Series, *, numbers: bool) -> pl.Series:
    """The words as numbers, booleans or dates if all can be converted; otherwise unchanged."""
    present = words.drop_nulls()
    if not len(present):
        return words
    converted = _numbers(words, present) if numbers else None
    if converted is not None:
        return converted
    if present.str.to_lowercase().is_in(["true", "false"]).all():
        return truths_of(words)
    return _dates(words, present)


def _numbers(words: pl.Series, present: pl.Series) -> pl.Series | None:
    """The words as numbers; None if they are not numbers, or must stay text."""
    if present.str.contains(PADDED).any():
        return None
    if present.str.contains(WHOLE).all():
        whole = words.cast(pl.Int128, strict=False)
        exact = known(whole) if whole.null_count() == words.null_count() else words
        return exact if exact.dtype.is_integer() else None
    if (present.str.contains(NUMBER) | present.str.contains(INFINITE)).all():
        return words.cast(pl.Float64)
    return None


def _dates(words: pl.Series, present: pl.Series) -> pl.Series:
    """Dates if every cell is an ISO date; otherwise the words."""
    if not present.str.contains(MOMENT).all():
        return words
    moments = read_moments(words)
    if moments.null_count() > words.null_count():
        return words
    return moments.cast(pl.Date) if present.str.len_chars().max() == DAY_LENGTH else moments
