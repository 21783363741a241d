"""The parts of a section: texts, tables and figures.

The template escapes all text. Only `Markup`, which is built with escaped arguments, is inserted as
it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from markupsafe import Markup

from modelpred.report.methods import name_words
from modelpred.report.words import number, plain


@dataclass(frozen=True)
class Text:
    """A paragraph; `finding` marks a sentence that states a result."""

    text: str
    finding: bool = False
    kind: str = "text"


class Column(NamedTuple):
    """Head of a table column; numeric columns are right-aligned."""

    title: str
    numeric: bool = True


def columns_of(texts: str, *numbers: str) -> list[Column]:
    """Return a column of texts, then columns of numbers, with these titles."""
    return [Column(texts, numeric=False), *map(Column, numbers)]


class Cell(NamedTuple):
    """One cell: its text, a smaller note, and whether it is the best of its column."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is the row's header.

    `folded` hides it until it is clicked; `stacked` shows each row as a card on a narrow page;
    `highlighted` has the indices of the rows to highlight.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False
    stacked: bool = False
    highlighted: frozenset[int] = frozenset()
    kind: str = "table"


class Panel(NamedTuple):
    """One drawing: inline SVG, and a description for screen readers."""

    title: str
    svg: Markup
    description: str


class Key(NamedTuple):
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


@dataclass(frozen=True)
class Folded:
    """Blocks that are hidden until the reader opens them."""

    summary: str
    blocks: Sequence[Block]
    kind: str = "folded"


Block = Text | Table | Figure | Folded


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `key` is its anchor."""

    key: str
    title: str
    blocks: Sequence[Block]


def flat(
    values: Mapping[str, object],
    prefix: str = "",
    *,
    show: Callable[[object], str] = plain,
    named: Callable[[str], str] = str,
    between: str = ".",
) -> list[tuple[str, str]]:
    """A nested mapping as pairs of a joined name and a value as text."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix}{named(name)}"
        if isinstance(value, Mapping):
            nested = cast("Mapping[str, object]", value)
            pairs += flat(nested, f"{path}{between}", show=show, named=named, between=between)
        else:
            pairs.append((path, show(value)))
    return pairs


def facts_table(
    caption: str, values: Mapping[str, object], *, folded: bool = False, measured: bool = False
) -> Table:
    """A table of names and values.

    Values that were measured have three significant digits, and their names are in words; others are
    settings, with the names and digits of params.yaml.
    """
    pairs = (
        flat(values, show=_rounded, named=name_words, between=": ") if measured else flat(values)
    )
    return Table(
        caption,
        [Column("Name", numeric=False), Column("Value", numeric=False)],
        [[Cell(name), Cell(text)] for name, text in pairs],
        folded=folded,
    )


def _rounded(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_rounded(item) for item in cast("Sequence[object]", value))
    return number(value) if isinstance(value, float) else plain(value)
