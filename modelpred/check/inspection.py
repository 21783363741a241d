"""Describes how the pipeline would read a file, as text for `modelpred check FILE --label COLUMN`.

It reads the table with the code of the stage `dataset` and takes about a second. trial.py estimates
the time of a run.
"""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from modelpred.dataset.cells import column_of
from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.encoding import Encoding, fit_encoding
from modelpred.dataset.holding_out import says_test
from modelpred.dataset.labels import labels_of
from modelpred.dataset.own import OwnTable, own_table
from modelpred.dataset.sources import is_own, known_sources, places_of, require_plain_paths
from modelpred.dataset.splitting import split
from modelpred.dataset.tables import Table
from modelpred.dataset.usage import rows_used, unused_of
from modelpred.errors import InvalidInput

SHOWN_CLASSES = 8
WIDEST_CELL = 44


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        found: the table, its columns and the model, as text.
        section: the section `dataset` of params.yaml for this table, as text.
        problems: one line for each problem that must be fixed.
        table: the table without the columns that have problems; None if no column remains.
        config: the config that `section` writes.
    """

    found: str
    section: str
    problems: tuple[str, ...]
    table: Table | None
    config: DatasetConfig


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
    own = own_table(config)
    label = own.table.label
    config = config.model_copy(update={"label": label, "watch": _watched(config)})
    parts = [_head(own, config), _columns(own), *_notes(own)]
    if own.table.feature_names:
        parts.append(_outlook(own, config))
    elif not own.inspection.problems:
        raise InvalidInput(f"{config.source} has no column besides the label {label!r}")
    refused = tuple(_names_in(own.inspection.problems))
    usable = config.model_copy(update={"drop": (*config.drop, *refused)})
    return Checked(
        found="\n\n".join(parts),
        section=_section(usable, refused),
        problems=own.inspection.problems,
        table=own.table if own.table.feature_names else None,
        config=usable,
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
    cells = column_of(table.rows, table.label)
    if not table.classes:
        return f"{words}\nlabel {table.label}: a number, {cells.min():,.6g} to {cells.max():,.6g}"
    counts = cells.cast(pl.String).value_counts(sort=True).rows()
    shown = [f"{name} {count / used:.1%}" for name, count in counts[:SHOWN_CLASSES]]
    more = f" and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
    words += f"\nlabel {table.label}: {len(counts)} classes, {', '.join(shown)}{more}"
    fewest, count = counts[-1]
    return f"{words}\n  only {count} rows of class {fewest}" if count < 10 else words


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
    rows = [(*(_short(cell, WIDEST_CELL) for cell in row[:4]), _short(row[4], 66)) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "\n".join(
        f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {missing:>{widths[2]}}  "
        f"{distinct:>{widths[3]}}  {summary}"
        for name, kind, missing, distinct, summary in rows
    )


def _short(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 3] + "..."


def _notes(own: OwnTable) -> list[str]:
    """Notes on dropped columns, problems to fix, and hints."""
    inspection = own.inspection
    hints = [
        f"column {name!r} marks training and test rows; set dataset.test: {name} to use it"
        for name in own.table.feature_names
        if says_test(column_of(own.table.rows, name))
    ]
    parts = {
        "Dropped columns:": inspection.notes,
        "Problems to fix:": inspection.problems,
        "Hint:": hints,
    }
    return [
        "\n".join([head, *(f"  {line}" for line in lines)])
        for head, lines in parts.items()
        if lines
    ]


def _outlook(own: OwnTable, config: DatasetConfig) -> str:
    """Numbers of rows and features, and the model."""
    table = own.table
    labels, classes = labels_of(table)
    pool, test = split(table, labels, classes, config)
    encoding = fit_encoding(
        table.rows[pool], table.feature_names, levels=config.levels, dates=config.dates
    )
    features, points = len(encoding.feature_names), len(pool)
    model = family(len(classes))
    parameters = (features + 1) * (len(classes) if model == "softmax" else 1)
    count = f"{features} feature{'s'[: features != 1]}"
    used = rows_used(
        points,
        len(test),
        available=unused_of(table, points=points, test=len(test)),
        classes=bool(classes),
    )
    lines = [
        *([used] if used else []),
        f"{points:,} training rows, {len(test):,} test rows, {count} {_from(encoding)}",
        f"targets.model: auto is {model}, {parameters:,} parameters",
    ]
    absent = [name for at, name in enumerate(classes) if not np.any(labels[test] == at)]
    if absent:
        lines.append(f"no test row of class {', '.join(absent[:SHOWN_CLASSES])}")
    return "\n".join(lines)


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


def _names_in(problems: tuple[str, ...]) -> list[str]:
    """Names of the columns with problems."""
    return [match[1] for line in problems if (match := re.search(r": column '(.*?)' ", line))]


def _section(config: DatasetConfig, refused: tuple[str, ...]) -> str:
    """The section of params.yaml with a heading."""
    lines = ["The section for params.yaml:", "", "dataset:"]
    for key, value in config.model_dump().items():
        comment = "  # includes the columns with problems" if key == "drop" and refused else ""
        lines.append(f"  {key}: {_yaml(value)}{comment}")
    return "\n".join(lines)


def _yaml(value: object) -> str:
    """A value as YAML, without quotes if that is safe."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value):
        reserved = value.lower() in ("null", "true", "false", "yes", "no", "on", "off")
        return json.dumps(value) if reserved else value
    return json.dumps(value, ensure_ascii=False)
