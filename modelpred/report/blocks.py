"""The parts that a section is made of, and how numbers are written on the page.

Text in a block is plain and escaped by the template; only `Markup`, built with escaped arguments,
passes through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph; `finding` marks a sentence that states a result."""

    text: str
    finding: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Column:
    """Head of a table column; numbers are set right-aligned."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller line below it, and whether it is the best of its column."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first cell of a row is the row's header.

    `folded` hides it behind a click; `stacked` sets each row as a card on a narrow page; `ours`
    are the rows to set off.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False
    stacked: bool = False
    ours: frozenset[int] = frozenset()
    kind: str = "table"


@dataclass(frozen=True)
class Panel:
    """One drawing: inline SVG and what it shows in words, for those who do not see it."""

    title: str
    svg: Markup
    description: str


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    label: str
    swatch: Markup


@dataclass(frozen=True)
class Figure:
    """Panels that share a caption and a legend."""

    caption: str
    panels: Sequence[Panel]
    keys: Sequence[Key] = ()
    kind: str = "figure"


Block = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `key` is its anchor."""

    key: str
    title: str
    blocks: Sequence[Block]


def number(value: int | float | None, digits: int = 3) -> str:
    """A number with that many significant digits, without exponents between 1e-4 and 1e15."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001  # the dash that a table shows for "no value"
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}")
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 0.9996 is 1.00
    places = max(digits - 1 - exponent, 0)
    return f"{value:,.{places}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: int | float | None, digits: int = 3) -> str:
    """A share as a percentage with that many significant digits."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{number(100 * value, digits)}%"


def percent_interval(low: int | float | None, high: int | float | None) -> str:
    """The two ends of an interval of shares; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(100 * low)} to {percent(high)}"


def number_interval(low: int | float | None, high: int | float | None) -> str:
    """The two ends of an interval of numbers; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low)} to {number(high)}"


def timing_words(*, busy: bool) -> str:
    """How times of a table were measured, and a warning where other work on the machine made them longer."""
    warning = " The machine was busy then (load average above its cores): they are too long."
    return "Times are medians of repeats on this machine." + warning * busy


def microseconds(value: int | float | None) -> str:
    """A time given in microseconds, in the unit that reads best."""
    if value is None or not math.isfinite(value):
        return number(value)
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if value >= size:
            return f"{number(value / size)}\N{NO-BREAK SPACE}{unit}"
    return (
        "below 0.1\N{NO-BREAK SPACE}µs"
        if value < 0.1
        else f"{number(value, 2 if value < 100 else 3)}\N{NO-BREAK SPACE}µs"
    )


def count(value: int | float) -> str:
    """A whole number with thousands separated."""
    return f"{value:,.0f}"


def plain(value: object) -> str:
    """Any value of a params or metrics file as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 or not math.isfinite(value) else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as names joined by dots and their values as text."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", plain(value)))
    return found


def facts_table(caption: str, values: Mapping[str, object], *, folded: bool = False) -> Table:
    """Names and values, one a row."""
    return Table(
        caption,
        [Column("Name", numeric=False), Column("Value", numeric=False)],
        [[Cell(name), Cell(text)] for name, text in flat(values)],
        folded=folded,
    )
