"""What the columns of a table are, and what about them cannot be used or deserves a word.

Text becomes what it means: whole numbers, numbers, true and false, dates; the rest are categories.
Told as missing are empty cells and the words of MISSING. A number with a leading zero (007) is a
name, not a number, and so is a whole number of 19 digits or more, which no number holds exactly.
Refused, each by name: a column without any value, numbers mixed with words or written with commas
or units, infinite numbers, dates that are not ISO, free text, and ids. Left out, and told: a constant column, and one that repeats
another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from modelpred.dataset.encoding import DAYS, WORDS

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
LONG_WHOLE = r"^[+-]?\d{19,}$"
COMMAS = r"^[+-]?(\d+,\d+|\d{1,3}(,\d{3})+(\.\d+)?)$"
UNITS = r"^([$€£]\s?[+-]?\d[\d,.]*|[+-]?\d[\d,.]*\s?[%$€£])$"
OTHER_DATES = r"^(\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./]\d{1,2}[./]\d{1,2})([ T]\d.*)?$"
INFINITE = r"^(?i)[+-]?inf(inity)?$"
DATES = ("%Y-%m-%d",)
MOMENTS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f")
MIXED = 0.5  # share of numbers from which a column of text is taken for one of numbers gone wrong
MANY = 0.5  # share of distinct values from which text is an id or free text
FEWEST_TO_JUDGE = 20  # values; with fewer, distinct ones say nothing
LONG_TEXT = 60  # characters on average: sentences, not categories
SHOWN_LEVELS = 4


@dataclass(frozen=True)
class Column:
    """One column as a person would describe it.

    Attributes:
        name: its name.
        kind: number, boolean, category or date.
        missing: how many cells it misses.
        distinct: how many different values it has.
        told: its range or its levels, in words.
    """

    name: str
    kind: str
    missing: int
    distinct: int
    told: str


@dataclass(frozen=True)
class Inspection:
    """What looking at the columns found.

    Attributes:
        columns: those that become features, in order.
        problems: what must be mended, a line each.
        notes: what was left out and why, a line each.
        left_out: the names of those columns.
    """

    columns: tuple[Column, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def typed(cells: pl.Series, *, category: bool) -> pl.Series:
    """A column of text as what it means; as text without missing words where it is a category."""
    words = cells.cast(pl.String).str.strip_chars()
    words = words.set(words.is_in(MISSING), None)
    if category or words.null_count() == len(words):
        return words
    present = words.drop_nulls()
    if (present.str.contains(r"^0\d") | present.str.contains(LONG_WHOLE)).any():
        return words
    if present.str.contains(r"^[+-]?\d{1,18}$").all():
        return words.cast(pl.Int64)
    if (present.str.contains(NUMBER) | present.str.contains(INFINITE)).all():
        return words.cast(pl.Float64)
    if present.str.to_lowercase().is_in(["true", "false"]).all():
        return words.str.to_lowercase() == "true"
    return _dates(words)


def _dates(words: pl.Series) -> pl.Series:
    """Dates where every cell is one in ISO form, or the words themselves."""
    if not words.drop_nulls().str.contains(r"^\d{4}-\d{2}-\d{2}").all():
        return words
    for form in DATES:
        found = words.str.to_date(form, strict=False)
        if found.null_count() == words.null_count():
            return found
    for form in MOMENTS:
        moments = words.str.to_datetime(form, strict=False, time_unit="us")
        if moments.null_count() == words.null_count():
            return moments
    return words


def inspect_columns(
    rows: pl.DataFrame,
    names: Sequence[str],
    *,
    source: str,
    categories: Sequence[str],
    where: Sequence[str],
) -> Inspection:
    """What these columns are.

    Args:
        rows: typed rows.
        names: the columns that are to become features.
        source: what messages call the table.
        categories: columns that the user calls categories, whatever they look like.
        where: each row as messages name it.
    """
    columns: list[Column] = []
    problems: list[str] = []
    notes: dict[str, str] = {}
    for name in names:
        cells = rows[name]
        problem = _problem(cells, where, category=name in categories)
        if problem:
            problems.append(f"{source}: column {name!r} {problem}")
            continue
        copied = next((c.name for c in columns if _same(rows[c.name], cells)), None)
        if cells.n_unique() == 1:
            notes[name] = f"{source}: column {name!r} is {cells[0]!r} in every row; left out"
        elif copied is not None:
            notes[name] = f"{source}: column {name!r} repeats {copied!r}; left out"
        else:
            columns.append(describe(cells))
    return Inspection(tuple(columns), tuple(problems), tuple(notes.values()), tuple(notes))


def describe(cells: pl.Series) -> Column:
    """One column in words."""
    kind = kind_of(cells)
    present = cells.drop_nulls()
    distinct = present.n_unique()
    if kind == "category":
        counts = present.cast(pl.String).value_counts(sort=True)
        shown = [str(level) for level in counts[cells.name].head(SHOWN_LEVELS)]
        told = ", ".join(shown) + (", ..." if distinct > SHOWN_LEVELS else "")
    elif kind == "boolean":
        told = f"true in {int(present.sum()):,}"
    else:
        told = f"{_short(present.min())} to {_short(present.max())}"
    return Column(cells.name, kind, cells.null_count(), distinct, told)


def kind_of(cells: pl.Series) -> str:
    """number, boolean, category, date, or the type that has no kind."""
    kind = cells.dtype
    if kind.is_numeric():
        return "number"
    if kind == pl.Boolean:
        return "boolean"
    if kind in WORDS:
        return "category"
    return "date" if kind in DAYS else str(kind)


def _short(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _same(one: pl.Series, other: pl.Series) -> bool:
    return one.dtype == other.dtype and one.equals(other, check_names=False)


def _problem(cells: pl.Series, where: Sequence[str], *, category: bool) -> str:
    """What is wrong with a column, and what to do; nothing where it can be used."""
    kind = kind_of(cells)
    drop = "drop it (dataset.drop)"
    if cells.null_count() == len(cells):
        return f"has no value in any of the {len(cells):,} rows; {drop}"
    if kind == "number":
        return _number_problem(cells, where)
    if kind == "category":
        return "" if category else _text_problem(cells, where)
    if kind in ("boolean", "date"):
        return ""
    return f"holds {kind}, expected numbers, text, true and false, or dates; {drop}"


def _number_problem(cells: pl.Series, where: Sequence[str]) -> str:
    if cells.dtype.is_float():
        infinite = cells.is_infinite().fill_null(value=False)
        if infinite.any():
            first = infinite.to_list().index(True)
            return (
                f"holds {cells[first]} in {where[first]}; write a number there, or leave it empty"
            )
        return ""
    present = cells.drop_nulls()
    low, high = present.min(), present.max()
    if (
        len(present) >= FEWEST_TO_JUDGE
        and isinstance(low, int)
        and isinstance(high, int)
        and high - low + 1 == len(present)
        and present.n_unique() == len(present)
    ):
        return f"counts the rows from {low} to {high}: {_id_advice(cells.name)}"
    return ""


def _text_problem(cells: pl.Series, where: Sequence[str]) -> str:
    words = cells.cast(pl.String)
    present = words.drop_nulls()
    written = _written_otherwise(present)
    if written:
        return f"{written}, or name it in dataset.categories"
    numbers = present.str.contains(NUMBER)
    padded = present.str.contains(r"^0\d").any()
    if not padded and MIXED <= float(numbers.sum()) / len(present) < 1:
        odd = (words.is_not_null() & ~words.str.contains(NUMBER)).fill_null(value=False)
        first = odd.to_list().index(True)
        return (
            f"holds numbers and, in {where[first]}, {words[first]!r}; make it one kind, or name it "
            "in dataset.categories"
        )
    distinct = present.n_unique()
    if len(present) < FEWEST_TO_JUDGE:
        return ""
    if _is_long(present):
        return "holds free text; drop it (dataset.drop), or make categories or numbers of it first"
    if distinct > MANY * len(present):
        return (
            f"has {distinct:,} different texts in {len(present):,} rows, ids or names: "
            f"{_id_advice(cells.name)}, or name it in dataset.categories"
        )
    return ""


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
    if present.str.contains(OTHER_DATES).all():
        return f"holds dates such as {shown}; write them as 2024-12-31"
    return ""


def _is_long(present: pl.Series) -> bool:
    mean = present.str.len_chars().mean()
    return isinstance(mean, float) and mean > LONG_TEXT


def _id_advice(name: str) -> str:
    return f"drop it (dataset.drop), or let it name the rows (dataset.row_id: {name})"
