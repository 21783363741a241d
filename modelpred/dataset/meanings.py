"""Text becomes what it means, column by column: numbers, true and false, dates; the rest are categories.

A number with a leading zero (007) is a name, not a number, and so are whole numbers beyond 2^53, which
no number holds exactly.
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
    """A column as what it means; text where it is a category.

    Args:
        cells: of any type.
        category: whether the user calls it one.
        numbers: whether text may be numbers, as in a CSV; other tables say themselves what is one.
        form: how its dates are written, where the user says so.

    Raises:
        Unusable: a cell that is no date in that form.
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
    """What the words are, if all of them are one thing."""
    present = words.drop_nulls()
    if not len(present):
        return words
    found = _numbers(words, present) if numbers else None
    if found is not None:
        return found
    if present.str.to_lowercase().is_in(["true", "false"]).all():
        return truths_of(words)
    return _dates(words, present)


def _numbers(words: pl.Series, present: pl.Series) -> pl.Series | None:
    """The numbers that the words are; None where they are none, or names."""
    if present.str.contains(PADDED).any():
        return None
    if present.str.contains(WHOLE).all():
        whole = words.cast(pl.Int128, strict=False)
        told = known(whole) if whole.null_count() == words.null_count() else words
        return told if told.dtype.is_integer() else None
    if (present.str.contains(NUMBER) | present.str.contains(INFINITE)).all():
        return words.cast(pl.Float64)
    return None


def _dates(words: pl.Series, present: pl.Series) -> pl.Series:
    """Dates where every cell is one in ISO form, or the words themselves."""
    if not present.str.contains(MOMENT).all():
        return words
    moments = read_moments(words)
    if moments.null_count() > words.null_count():
        return words
    return moments.cast(pl.Date) if present.str.len_chars().max() == DAY_LENGTH else moments
