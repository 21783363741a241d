"""What single cells say, the same whatever they were read from: missing, names, numbers, moments.

missing   null, nan, NaT, and the texts in MISSING, with or without spaces around them
names     the text, without spaces around it; 3.0 is called 3, true and false so
numbers   whole numbers beyond 2^53 are names: float64 makes one number of several of them
moments   ISO 8601: a day, or a day and a time with or without seconds, fraction and zone, which
          UTC tells; slashes may separate year, month and day. Or the format that the user gives
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from modelpred.wording import one_line

# What pandas.read_csv takes for missing, and three more.
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "NAN", "NaT", "?",
)  # fmt: skip
MOST_QUOTED = 80  # characters of a cell that a message quotes
LARGEST_WHOLE = 2**53  # up to here float64 has every whole number
# Any: polars types compare with classes of types, which type checkers do not accept.
WORDS: tuple[Any, ...] = (pl.String, pl.Categorical, pl.Enum)
DAYS: tuple[Any, ...] = (pl.Date, pl.Datetime)
LONG: tuple[Any, ...] = (pl.Int64, pl.UInt64, pl.Int128, pl.UInt128)
NAMELESS: tuple[Any, ...] = (pl.Binary, pl.Object, pl.Duration)
TRUTHS: tuple[Any, ...] = (pl.Boolean, pl.Null)
MOMENT = r"^[0-9]{4}([-/])[0-9]{2}[-/][0-9]{2}([T ].*)?$"  # what is meant as a day or a moment
# Days that programs write for a missing one, counted from 1970: the first and the last year that
# there is, the first and the last day that nanoseconds reach.
FIRST_YEAR, LAST_YEAR = -719_162 + 364, 2_932_896 - 364
NANOSECOND_DAYS = (-106_752, 106_751)
PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_HALF = re.compile("[\ud800-\udfff]")
_ISO = re.compile(
    r"([0-9]{4})([-/])([0-9]{2})\2([0-9]{2})"
    r"(?:[T ]([0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?)?)"
    r"(?: ?(Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?))?)?",
    re.IGNORECASE,
)


class Unusable(ValueError):  # noqa: N818 - a state of a cell, reported further up
    """A cell cannot be what its column is."""

    def __init__(self, row: int, expected: str) -> None:
        super().__init__(expected)
        self.row = row
        self.expected = expected


def is_missing(value: Any) -> bool:  # noqa: ANN401 - whatever a person's table holds
    """Whether one value of Python, NumPy or pandas is a missing one."""
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType":
        return True
    if isinstance(value, str):
        return value.strip() in MISSING
    if isinstance(value, Decimal):
        return value.is_nan()
    # nan and NaT, of whatever library, differ from themselves.
    return np.ndim(value) == 0 and bool(value != value)  # noqa: PLR0124


def first_no_text(words: Sequence[str]) -> int | None:
    """The place of the first text that UTF-8 cannot write, such as half of a pair of surrogates; None if there is none."""
    return next((at for at, word in enumerate(words) if _HALF.search(word)), None)


def quoted(cell: Any) -> str:  # noqa: ANN401 - whatever a person's table holds
    """A cell as a message quotes it: on one line, shortened if it is long."""
    value = cell.to_list() if isinstance(cell, pl.Series) else cell  # a list of Parquet
    return one_line(repr(value), most=MOST_QUOTED)


def column_of(rows: pl.DataFrame, name: str) -> pl.Series:
    """The column under a plain name.

    polars interprets a name such as `^x$`, also in the methods of a series.
    """
    return rows[name].alias("cells")


def known(cells: pl.Series) -> pl.Series:
    """The cells with every missing one as null, in types that can be calculated with.

    Text loses the spaces around it. Decimal numbers become floats, or whole numbers where they have
    no decimals; a column with whole numbers beyond LARGEST_WHOLE becomes text.
    """
    kind = cells.dtype
    if kind in WORDS:
        words = cells.cast(pl.String).str.strip_chars()
        return words.set(words.is_in(MISSING), None)
    if kind.is_float():
        return cells.fill_nan(None)
    if isinstance(kind, pl.Decimal):
        words = cells.cast(pl.String)  # by way of text: rounded once
        return words.cast(pl.Float64) if kind.scale else known(words.cast(pl.Int128))
    if kind in LONG:
        return cells.cast(pl.Int64 if _are_exact(cells) else pl.String)
    return cells


def _are_exact(cells: pl.Series) -> bool:
    """Whether float64 holds whole numbers of this size exactly."""
    low, high = cells.min(), cells.max()
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return True  # no cell
    return low >= -LARGEST_WHOLE and high <= LARGEST_WHOLE


def names_of(cells: pl.Series) -> pl.Series:
    """The cells as text; null for missing cells.

    Raises:
        Unusable: cells that cannot be converted to text, such as lists.
    """
    if isinstance(cells.dtype, pl.Decimal):
        return cells.cast(pl.String)  # with all decimals, as written
    cells = known(cells)
    kind = cells.dtype
    if kind.is_nested() or kind in NAMELESS:
        raise Unusable(_first_present(cells), "a name")
    if kind.is_float() and bool((cells == cells.round()).all()) and _are_exact(cells):
        return cells.cast(pl.Int64).cast(pl.String)
    return cells.cast(pl.String)


def numbers_of(cells: pl.Series) -> pl.Series:
    """The cells as numbers; Unusable for dates."""
    kind = cells.dtype
    if not (kind.is_numeric() or kind in TRUTHS or kind == pl.String):
        raise Unusable(_first_present(cells), "a number")
    return _all_of(cells, cells.cast(pl.Float64, strict=False), "a number").fill_nan(None)


def truths_of(cells: pl.Series) -> pl.Series:
    """The cells as booleans; the numbers 1 and 0 are true and false."""
    kind = cells.dtype
    if kind in TRUTHS:
        return cells.cast(pl.Boolean)
    if not (kind.is_numeric() or kind == pl.String):
        raise Unusable(_first_present(cells), "true or false")
    words = cells.str.to_lowercase() if kind == pl.String else cells.cast(pl.Float64)
    values = {"true": True, "false": False} if kind == pl.String else {1.0: True, 0.0: False}
    truths = words.replace_strict(values, default=None, return_dtype=pl.Boolean)
    return _all_of(cells, truths, "true or false")


def moments_of(cells: pl.Series, *, form: str | None = None) -> pl.Series:
    """The cells as datetimes without zone; Unusable for numbers, unless there is a format."""
    kind = cells.dtype
    if kind in DAYS:
        if isinstance(kind, pl.Datetime) and kind.time_zone:
            cells = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return cells.cast(pl.Datetime("us"))
    if kind == pl.String or (form is not None and kind.is_integer()):
        expected = "a date" if form is None else f"a date written as {form}"
        return _all_of(cells, read_moments(cells.cast(pl.String), form=form), expected)
    if kind != pl.Null:
        raise Unusable(_first_present(cells), "a date")
    return cells.cast(pl.Datetime("us"))


def day_numbers(cells: pl.Series) -> pl.Series:
    """The days of dates or datetimes, counted from 1970, for any year."""
    days = cells.to_physical().cast(pl.Int64)
    if isinstance(cells.dtype, pl.Datetime):
        return days // PER_DAY[cells.dtype.time_unit]
    return days


def are_days(cells: pl.Series) -> pl.Series:
    """Whether each date or datetime is plausible or missing."""
    days = day_numbers(cells)
    odd = (days <= FIRST_YEAR) | (days >= LAST_YEAR) | days.is_in(NANOSECOND_DAYS)
    return ~odd.fill_null(value=False)


def _all_of(cells: pl.Series, converted: pl.Series, expected: str) -> pl.Series:
    """The converted cells; Unusable if a cell that is not missing could not be converted."""
    require(converted.is_not_null() | cells.is_null(), expected)
    return converted


def require(usable: pl.Series, expected: str) -> None:
    """Raise Unusable for the first unusable cell."""
    if not usable.all():
        raise Unusable(usable.to_list().index(False), expected)


def _first_present(cells: pl.Series) -> int:
    present = cells.is_not_null().to_list()
    return present.index(True) if True in present else 0


def read_moments(words: pl.Series, *, form: str | None = None) -> pl.Series:
    """The texts as datetimes in UTC without zone; null for texts that are none.

    Args:
        words: texts; a day becomes its first moment, and a time without zone is treated as UTC.
        form: a format of datetime.strptime; None: ISO 8601.
    """
    texts = words.unique().drop_nulls().to_list()
    moments = {text: _moment(text, form) for text in texts}
    values = [None if text is None else moments[text] for text in words.to_list()]
    return pl.Series(words.name, values, dtype=pl.Datetime("us"))


def _moment(text: str, form: str | None) -> datetime | None:
    try:
        moment = _iso_moment(text) if form is None else datetime.strptime(text, form)  # noqa: DTZ007
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return moment


def _iso_moment(text: str) -> datetime | None:
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    year, _, month, day, time, zone = found.groups()
    if zone is not None:
        zone = zone if zone[0] in "+-" else "+00:00"
    return datetime.fromisoformat(f"{year}-{month}-{day}T{time or '00:00'}{zone or ''}")
