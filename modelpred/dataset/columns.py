"""Infers the types of columns, and reports columns that cannot be used.

Reported as problems: columns without values, numbers or dates mixed with words, numbers with commas,
units or the digits of another script, infinite numbers, dates that are not ISO or that stand for
missing ones, times of day, free text, and ids. Dropped with a note: constant columns, and columns that
repeat another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import polars as pl

from modelpred.dataset.cells import (
    DAYS,
    FIRST_YEAR,
    LARGEST_WHOLE,
    LAST_YEAR,
    MOMENT,
    WORDS,
    are_days,
    column_of,
    day_numbers,
    quoted,
    read_moments,
)
from modelpred.dataset.meanings import NUMBER, PADDED, WHOLE
from modelpred.progress import tracked

_MINUS = r"\x{2212}\x{2013}\x{FE63}\x{FF0D}-"  # - and the signs that word processors make of it
# Numbers in digits of any script (\d), with other signs, in parentheses, or with thousands set apart.
ODD_NUMBERS = (
    rf"^(\(\d+[.\x{{66B}}]?\d*\)|[+{_MINUS}]?(\d+[.\x{{66B}}]?\d*|[.\x{{66B}}]\d+)[{_MINUS}]?"
    rf"|[+{_MINUS}]?\d{{1,3}}([ _'\x{{2019}}\x{{A0}}\x{{202F}}]\d{{3}})+([.\x{{66B}}]\d+)?)$"
)
COMMAS = r"^[+-]?([0-9]+,[0-9]+|[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?)$"
UNITS = r"^([$€£]\s?[+-]?[0-9][0-9,.]*|[+-]?[0-9][0-9,.]*\s?[%$€£])$"
_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
OTHER_DATES = (
    r"(?i)^([0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}|[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2}"
    r"|[0-9]{8}(?:T[0-9]{4})|[0-9]{4}-?W[0-9]{2}(?:-?[1-7])?"
    rf"|[0-9]{{1,2}}[ .-]+{_MONTH}[ .,-]+[0-9]{{2,4}}|{_MONTH}[ .-]+[0-9]{{1,2}},? +[0-9]{{4}})"
    r"([\sT:0-9].*)?$"
)
TIMES = r"^[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?$"
MIXED = 0.5  # smallest share of numbers or dates to report a text column as mixed
MANY = 0.5  # smallest share of distinct values to report a text column as ids or free text
CERTAIN = 7  # probabilities below exp(-7) count as zero
FEWEST_TO_JUDGE = 20  # values; with fewer, the number of distinct values shows nothing
LONG_TEXT = 60  # characters on average: sentences, not categories
SHOWN_LEVELS = 4


@dataclass(frozen=True)
class Column:
    """Description of a column.

    Attributes:
        name: its name.
        kind: number, boolean, category or date.
        missing: number of missing cells.
        distinct: number of different values.
        summary: its range or its levels, in words.
    """

    name: str
    kind: str
    missing: int
    distinct: int
    summary: str


@dataclass(frozen=True)
class Inspection:
    """Result of the inspection of columns.

    Attributes:
        columns: columns that become features, in order.
        problems: one line for each problem that must be fixed.
        notes: one line for each column that is dropped.
        left_out: names of the dropped columns.
        refused: names of the columns with problems, in the order of the problems.
        ids: those of them that hold another id in every row.
    """

    columns: tuple[Column, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    refused: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def with_notes(self, notes: Iterable[str], *, left_out: Iterable[str] = ()) -> "Inspection":
        """A copy with these notes and dropped columns before its own."""
        return replace(self, notes=(*notes, *self.notes), left_out=(*left_out, *self.left_out))


def inspect_columns(
    rows: pl.DataFrame,
    names: Sequence[str],
    *,
    source: str,
    categories: Sequence[str],
    where: Sequence[str],
) -> Inspection:
    """Inspect columns.

    Args:
        rows: typed rows.
        names: columns that should become features.
        source: name of the table in messages.
        categories: columns that the user set as categories.
        where: name of each row in messages.
    """
    columns: list[Column] = []
    problems: dict[str, str] = {}
    ids: list[str] = []
    notes: dict[str, str] = {}
    known: dict[tuple[pl.DataType, int], list[str]] = {}  # by type and content
    for name in tracked(names, "checking columns"):
        cells = column_of(rows, name)
        problem = _problem(name, cells, where, category=name in categories)
        if problem:
            problems[name] = f"{source}: column {name!r} {problem}"
            advised = _id_advice(name) in problem
            if advised and not cells.null_count() and cells.n_unique() == len(cells):
                ids.append(name)
            continue
        alike = known.setdefault((cells.dtype, int(cells.hash().sum())), [])
        copied = next((other for other in alike if _same(column_of(rows, other), cells)), None)
        if cells.n_unique() == 1:
            notes[name] = f"{source}: column {name!r} is {quoted(cells[0])} in every row; left out"
        elif copied is not None:
            notes[name] = f"{source}: column {name!r} repeats {copied!r}; left out"
        else:
            columns.append(describe(name, cells))
            alike.append(name)
    return Inspection(
        tuple(columns),
        tuple(problems.values()),
        tuple(notes.values()),
        tuple(notes),
        tuple(problems),
        tuple(ids),
    )


def describe(name: str, cells: pl.Series) -> Column:
    """Describe one column."""
    kind = kind_of(cells)
    present = cells.drop_nulls()
    distinct = present.n_unique()
    if kind == "category":
        counts = present.cast(pl.String).value_counts(sort=True)
        shown = [str(level) for level in counts["cells"].head(SHOWN_LEVELS)]
        summary = ", ".join(shown) + (", ..." if distinct > SHOWN_LEVELS else "")
    elif kind == "boolean":
        summary = f"true in {int(present.sum()):,}"
    else:
        summary = f"{_short(present.min())} to {_short(present.max())}"
    return Column(name, kind, cells.null_count(), distinct, summary)


def kind_of(cells: pl.Series) -> str:
    """number, boolean, category, date, or the name of another type."""
    kind = cells.dtype
    if kind.is_numeric():
        return "number"
    if kind == pl.Boolean:
        return "boolean"
    if kind in WORDS:
        return "category"
    return "date" if kind in DAYS else str(kind)


def _short(value: object) -> str:
    # Without separators of thousands: a number may be a year.
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _same(one: pl.Series, other: pl.Series) -> bool:
    return one.dtype == other.dtype and one.equals(other, check_names=False)


def _problem(name: str, cells: pl.Series, where: Sequence[str], *, category: bool) -> str:
    """What is wrong with a column, and what to do; nothing where it can be used."""
    kind = kind_of(cells)
    drop = "drop it (dataset.drop)"
    if cells.null_count() == len(cells):
        return f"has no value in any of the {len(cells):,} rows; {drop}"
    if kind == "number":
        return _number_problem(name, cells, where)
    if kind == "category":
        return "" if category else _text_problem(name, cells, where)
    if kind == "date":
        return _date_problem(cells, where)
    if kind == "boolean":
        return ""
    return f"holds {kind}, expected numbers, text, true and false, or dates; {drop}"


def _number_problem(name: str, cells: pl.Series, where: Sequence[str]) -> str:
    if cells.dtype.is_float():
        infinite = cells.is_infinite().fill_null(value=False)
        if infinite.any():
            first = infinite.to_list().index(True)
            return (
                f"holds {cells[first]} in {where[first]}; write a number there, or leave it empty"
            )
    return _running_number(name, cells.drop_nulls())


def _running_number(name: str, present: pl.Series) -> str:
    """Whole numbers that count the rows, in any order, all of them or a sample; or nothing.

    Of n numbers drawn from a range r, all differ with a chance below exp(-n (n - 1) / 2r).
    """
    count, low, high = len(present), present.min(), present.max()
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return ""
    if count < FEWEST_TO_JUDGE or not bool((present == present.round()).all()):
        return ""
    width = high - low + 1
    if present.n_unique() < count or count * (count - 1) <= 2 * CERTAIN * width:
        return ""
    counts = "counts the rows" if width == count else "counts the rows, with gaps,"
    return f"{counts} from {low:.0f} to {high:.0f}: {_id_advice(name)}"


def _date_problem(cells: pl.Series, where: Sequence[str]) -> str:
    odd = ~are_days(cells)
    if not odd.any():
        return ""
    first = odd.to_list().index(True)
    day = int(day_numbers(cells)[first])
    within = FIRST_YEAR - 365 < day < LAST_YEAR + 365
    words = str(date(1970, 1, 1) + timedelta(day)) if within else "a day beyond the years 1 to 9999"
    return f"holds {words} in {where[first]}, which marks a missing day; leave the cell empty"


def _text_problem(name: str, cells: pl.Series, where: Sequence[str]) -> str:
    words = cells.cast(pl.String)
    present = words.drop_nulls()
    problem = _written_otherwise(present) or _mixed(words, where)
    if problem:
        return f"{problem}, or name it in dataset.categories"
    distinct = present.n_unique()
    if len(present) < FEWEST_TO_JUDGE:
        return ""
    if _is_long(present):
        return "holds free text; drop it (dataset.drop), or make categories or numbers of it first"
    if distinct > MANY * len(present):
        large = _whole(words) is not None and not present.str.contains(PADDED).any()
        what = "whole numbers beyond 2^53, where a number is not exact," if large else "texts"
        return (
            f"has {distinct:,} different {what} in {len(present):,} rows, ids or names: "
            f"{_id_advice(name)}, or name it in dataset.categories"
        )
    return ""


def _mixed(words: pl.Series, where: Sequence[str]) -> str:
    """The first cell that is no number or date in a column of mostly such cells, in words; else empty."""
    numbers, whole = words.str.contains(NUMBER), _whole(words)
    one_kind = "make it one kind"
    form = "mend it, or say how they are written in dataset.dates"
    # What is held, which cells look like it, which are it, and what to do.
    looks = [("dates and,", words.str.contains(MOMENT), read_moments(words).is_not_null(), form)]
    if not words.str.contains(PADDED).any():
        looks.append(("numbers and,", numbers, numbers, one_kind))
    if whole is not None:
        looks.append(("whole numbers and, beyond 2^53 and so not exact,", whole, whole, one_kind))
    for what, like, good, advice in looks:
        if like.sum() < MIXED * words.count() or good.sum() == words.count():
            continue
        first = (words.is_not_null() & ~good.fill_null(value=False)).to_list().index(True)
        return f"holds {what} in {where[first]}, {quoted(words[first])}; {advice}"
    return ""


def _whole(words: pl.Series) -> pl.Series | None:
    """Which whole numbers a number holds exactly; None where the words are not all whole numbers."""
    if not words.drop_nulls().str.contains(WHOLE).all():
        return None
    whole = words.cast(pl.Int128, strict=False)
    return ((whole >= -LARGEST_WHOLE) & (whole <= LARGEST_WHOLE)).fill_null(value=False)


def _written_otherwise(present: pl.Series) -> str:
    """What numbers or dates in another way of writing need; nothing where the cells are words."""
    commas = present.str.contains(COMMAS)
    shown = repr(present[0])
    if commas.any() and (commas | present.str.contains(NUMBER)).all():
        shown = repr(present.filter(commas)[0])
        return (
            f"writes numbers with commas, such as {shown}; write a point before decimals and "
            "nothing between thousands"
        )
    if present.str.contains(UNITS).all():
        return f"writes numbers with a unit, such as {shown}; write the number alone"
    moments = present.str.contains(MOMENT)
    if present.str.contains(OTHER_DATES).all() and not moments.all():
        shown = repr(present.filter(~moments)[0])
        return (
            f"holds dates such as {shown}; write them as 2024-12-31, or say how they are written in "
            "dataset.dates"
        )
    if present.str.contains(TIMES).all():
        return f"holds times of day such as {shown}; write hours as a number"
    odd = present.str.contains(ODD_NUMBERS) & ~present.str.contains(NUMBER)
    if odd.any() and (odd | present.str.contains(NUMBER)).all():
        return (
            f"writes numbers such as {present.filter(odd)[0]!r}; write the digits 0 to 9, - before "
            "negative ones, and nothing between thousands"
        )
    return ""


def _is_long(present: pl.Series) -> bool:
    mean = present.str.len_chars().mean()
    return isinstance(mean, float) and mean > LONG_TEXT


def _id_advice(name: str) -> str:
    return f"drop it (dataset.drop), or let it name the rows (dataset.row_id: {name})"
