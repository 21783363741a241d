"""Describes how the pipeline would read a file, as text for `modelpred check FILE --label COLUMN`.

It reads the table with the code of the stage `dataset` and takes about a second. trial.py estimates
the time of a run.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl
from pydantic import ValidationError

from modelpred.check.decisions import Decision, decide
from modelpred.dataset.cells import column_of
from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.encoding import Encoding, fit_encoding
from modelpred.dataset.holding_out import says_test
from modelpred.dataset.labels import labels_of
from modelpred.dataset.own import OwnTable
from modelpred.dataset.sources import is_own, known_sources, places_of, require_plain_paths
from modelpred.dataset.splitting import split
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput
from modelpred.wording import counted, one_line

SHOWN_CLASSES = 8
WIDEST_CELL = 44
WIDEST_CHOICE = 90


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        head: the table and its label, as text.
        columns: all columns, as text.
        problems: one line for each column that cannot be used: why, where, and what to do.
        outlook: training rows, test rows and features, as text.
        config: the config with everything decided.
        decisions: what was decided, the model among it.
        table: the table without the columns that cannot be used.
        points: number of training rows.
        tests: number of test rows.
        features: number of features.
    """

    head: str
    columns: str
    problems: tuple[str, ...]
    outlook: str
    config: DatasetConfig
    decisions: tuple[Decision, ...]
    table: Table
    points: int
    tests: int
    features: int

    @property
    def found(self) -> str:
        """The table, its columns and what becomes of them, as text."""
        problems = "".join(f"\n  {line}" for line in self.problems)
        refused = f"\n\nLeft out, as they cannot be used:{problems}" if problems else ""
        return f"{self.head}\n\n{self.columns}{refused}\n\n{self.outlook}"

    @property
    def family(self) -> str:
        """The family that `auto` selects."""
        return family(len(self.table.classes))

    @property
    def section(self) -> str:
        """The section `dataset` of params.yaml for this table."""
        return section_text("dataset", self.config.model_dump())


# Any: pydantic checks the keys.
def config_of(
    *,
    test: str,
    drop: Sequence[str],
    categories: Sequence[str],
    dates: Sequence[str] = (),
    **keys: Any,  # noqa: ANN401
) -> DatasetConfig:
    """The config from the options of the command line.

    Raises:
        InvalidInput: a value is out of range.
    """
    number: int | float | str = test
    for kind in (float, int):
        with contextlib.suppress(ValueError):
            number = kind(test)
    invalid = [option for option in dates if "=" not in option]
    if invalid:
        raise InvalidInput(
            f"dates: expected COLUMN=FORMAT, such as born=%d.%m.%Y, got {invalid[0]}"
        )
    formats = dict(option.split("=", maxsplit=1) for option in dates)
    try:
        return DatasetConfig(
            test=number, drop=tuple(drop), categories=tuple(categories), dates=formats, **keys
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error


def check(config: DatasetConfig) -> Checked:
    """Check the table of the config.

    Args:
        config: with a source that is a file, a folder, a glob or a table of OpenML.

    Raises:
        InvalidInput: the table cannot be read; one line with the reason.
    """
    if not is_own(config.source):
        known = ", ".join(known_sources())
        raise InvalidInput(
            f"{config.source}: there is no such file; tables that need no check: {known}"
        )
    require_plain_paths(config)
    decided = decide(config)
    own, config = decided.own, decided.config
    config = config.model_copy(update={"watch": _watched(config)})
    pool, test, encoding, absent = _split(own, config)
    hints = "".join(f"\n\nHint: {hint}" for hint in _hints(own))
    features = len(encoding.feature_names)
    rows = f"{len(pool):,} training rows, {len(test):,} test rows"
    return Checked(
        head=_head(own, config),
        columns=f"{_columns(own)}{hints}",
        problems=decided.problems,
        outlook=f"{rows}, {counted(features, 'feature')} {_from(encoding)}{absent}",
        config=config,
        decisions=decided.decisions,
        table=own.table,
        points=len(pool),
        tests=len(test),
        features=features,
    )


def _watched(config: DatasetConfig) -> str:
    """The path for DVC to watch: the file, or the folder of all files that are read.

    The project's own folder is never watched, since the stages write into it.
    """
    places = [str(place) for place in places_of(config)]
    if not places:
        return config.watch
    return os.path.commonpath(places) or places[0]


def _head(own: OwnTable, config: DatasetConfig) -> str:
    table, used = own.table, len(own.table.rows)
    words = f"{config.source}: {own.rows:,} rows"
    if used < own.rows:
        most = f"{config.max_points:,}{_of_each_part(config)}"
        words += f", of which {used:,} are used (dataset.max_points: {most})"
    cells, label = column_of(table.rows, table.label), one_line(table.label, most=WIDEST_CELL)
    if not table.classes:
        return f"{words}\nlabel {label}: a number, {cells.min():,.6g} to {cells.max():,.6g}"
    counts = cells.cast(pl.String).value_counts(sort=True).rows()
    shown = [
        f"{one_line(name, most=WIDEST_CELL)} {count / used:.1%}"
        for name, count in counts[:SHOWN_CLASSES]
    ]
    more = f" and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
    words += f"\nlabel {label}: {len(counts)} classes, {', '.join(shown)}{more}"
    fewest, count = counts[-1]
    rare = one_line(fewest, most=WIDEST_CELL)
    return f"{words}\n  only {count} rows of class {rare}" if count < 10 else words


def _of_each_part(config: DatasetConfig) -> str:
    """Words for a limit on training rows and on test rows, if a column or a file separates them."""
    separate = isinstance(config.test, str) and config.test != AUTO
    return " of the training rows and as many of the test rows" if separate else ""


def _columns(own: OwnTable) -> str:
    """All columns that become features, as a table."""
    rows = [("column", "type", "missing", "distinct", "values")]
    rows += [
        (column.name, column.kind, f"{column.missing:,}", f"{column.distinct:,}", column.summary)
        for column in own.inspection.columns
    ]
    rows = [
        (*(one_line(cell, most=WIDEST_CELL) for cell in row[:4]), one_line(row[4], most=66))
        for row in rows
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "\n".join(
        f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {missing:>{widths[2]}}  "
        f"{distinct:>{widths[3]}}  {summary}"
        for name, kind, missing, distinct, summary in rows
    )


def _hints(own: OwnTable) -> list[str]:
    return [
        f"column {name!r} marks training and test rows; use it with --test {name}"
        for name in own.table.feature_names
        if says_test(column_of(own.table.rows, name))
    ]


def _split(
    own: OwnTable, config: DatasetConfig
) -> tuple[Sequence[int], Sequence[int], Encoding, str]:
    """Training rows, test rows, how columns become features, and a line on classes without test rows."""
    table = own.table
    labels, classes = labels_of(table)
    pool, test = split(table, labels, classes, config)
    encoding = fit_encoding(
        table.rows[pool], table.feature_names, levels=config.levels, dates=config.dates
    )
    absent = [name for at, name in enumerate(classes) if not np.any(labels[test] == at)]
    shown = ", ".join(one_line(name, most=WIDEST_CELL) for name in absent[:SHOWN_CLASSES])
    line = f"\nno test row of class {shown}" if absent else ""
    return pool.tolist(), test.tolist(), encoding, line


def family(classes: int) -> str:
    """The family that `auto` selects; does not import torch."""
    return {0: "ridge", 2: "logistic"}.get(classes, "softmax")


def _from(encoding: Encoding) -> str:
    kinds = [column.kind for column in encoding.columns]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    plural = {"category": "categories"}
    words = (
        f"{count} {kind if count == 1 else plural.get(kind, kind + 's')}"
        for kind, count in counts.items()
    )
    return f"(from {', '.join(words)})"


def decisions_text(decisions: Sequence[Decision]) -> str:
    """All decisions as a table, each with the options that change it."""
    head = Decision("Decided for you", "", "change with")
    rows = [head, *decisions]
    about = max(len(row.about) for row in rows)
    choices = [one_line(row.choice, most=WIDEST_CHOICE) for row in rows]
    width = max(map(len, choices))
    return "\n".join(
        f"  {row.about:<{about}}  {choice:<{width}}  {row.option}".rstrip()
        for row, choice in zip(rows, choices, strict=True)
    )


def section_text(name: str, content: Mapping[str, object]) -> str:
    """A section of params.yaml."""
    return "\n".join([f"{name}:", *(f"  {key}: {_yaml(value)}" for key, value in content.items())])


def _yaml(value: object) -> str:
    """A value as YAML, without quotes if that is safe."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return f"{{{', '.join(f'{json.dumps(key)}: {_yaml(item)}' for key, item in items)}}}"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value):
        reserved = value.lower() in ("null", "true", "false", "yes", "no", "on", "off")
        return json.dumps(value) if reserved else value
    return json.dumps(value, ensure_ascii=False)
