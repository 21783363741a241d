"""What the pipeline would make of a file: `modelpred check FILE --label COLUMN`, as text.

Looks at the table with the code of the dataset stage and computes nothing further, so that the
answer comes in a second. What it would cost is measured in trial.py.
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
from modelpred.dataset.own import Looked, own_table
from modelpred.dataset.sources import is_own, known_sources, places_of, require_plain_paths
from modelpred.dataset.splitting import split
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput

SHOWN_CLASSES = 8
WIDEST_CELL = 44


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        found: the table, its columns and the model, as text.
        section: the section of params.yaml that reads the table so, as text.
        problems: what must be mended first, a line each.
        table: the table without the columns to be mended; None where nothing can be trained on it.
        config: what the section says.
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
    """The section `dataset` that options of the command line ask for.

    Raises:
        InvalidInput: a value out of range.
    """
    number: int | float | str = test
    for kind in (float, int):
        with contextlib.suppress(ValueError):
            number = kind(test)
    unclear = [told for told in dates if "=" not in told]
    if unclear:
        raise InvalidInput(
            f"dates: expected COLUMN=FORMAT, such as born=%d.%m.%Y, got {unclear[0]}"
        )
    forms = dict(told.split("=", maxsplit=1) for told in dates)
    try:
        return DatasetConfig(
            test=number, drop=tuple(drop), categories=tuple(categories), dates=forms, **keys
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error


def check(config: DatasetConfig) -> Checked:
    """What the pipeline would make of the config's table.

    Args:
        config: names a file, a folder, a glob or a table of OpenML.

    Raises:
        InvalidInput: the table cannot be looked at; one line that says why.
    """
    if not is_own(config.source):
        known = ", ".join(known_sources())
        raise InvalidInput(
            f"{config.source}: there is no such file; tables that need no check: {known}"
        )
    require_plain_paths(config)
    looked = own_table(config)
    label = looked.table.label
    config = config.model_copy(update={"label": label, "watch": _watched(config)})
    parts = [_head(looked, config), _columns(looked), *_notes(looked)]
    if looked.table.feature_names:
        parts.append(_outlook(looked, config))
    elif not looked.inspection.problems:
        raise InvalidInput(
            f"{config.source} has no column beside the label {label!r} to learn from"
        )
    refused = tuple(_names_in(looked.inspection.problems))
    mended = config.model_copy(update={"drop": (*config.drop, *refused)})
    return Checked(
        found="\n\n".join(parts),
        section=_section(mended, refused),
        problems=looked.inspection.problems,
        table=looked.table if looked.table.feature_names else None,
        config=mended,
    )


def _watched(config: DatasetConfig) -> str:
    """What DVC is to watch: the file, or the folder that holds all that is read.

    Never the project's own folder: it holds what the stages write.
    """
    places = [str(place) for place in places_of(config)]
    if not places:
        return config.watch
    return os.path.commonpath(places) or places[0]


def _head(looked: Looked, config: DatasetConfig) -> str:
    table, taken = looked.table, len(looked.table.rows)
    words = f"{config.source}: {looked.rows:,} rows"
    if taken < looked.rows:
        most = f"{config.max_points:,}{_of_each_part(config)}"
        words += f", of which {taken:,} are taken (dataset.max_points: {most})"
    cells = column_of(table.rows, table.label)
    if not table.classes:
        return f"{words}\nlabel {table.label}: a number, {cells.min():,.6g} to {cells.max():,.6g}"
    counts = cells.cast(pl.String).value_counts(sort=True).rows()
    shown = [f"{name} {count / taken:.1%}" for name, count in counts[:SHOWN_CLASSES]]
    more = f" and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
    told = f"{words}\nlabel {table.label}: {len(counts)} classes, {', '.join(shown)}{more}"
    fewest, count = counts[-1]
    return f"{told}\n  only {count} rows of class {fewest}" if count < 10 else told


def _of_each_part(config: DatasetConfig) -> str:
    """Words for a limit that holds for training and for test rows that a column or file tells apart."""
    told_apart = isinstance(config.test, str) and config.test != AUTO
    return " of the training rows and as many of the test rows" if told_apart else ""


def _columns(looked: Looked) -> str:
    """Every column that becomes features, as a table."""
    rows = [("column", "type", "missing", "distinct", "what it holds")]
    rows += [
        (column.name, column.kind, f"{column.missing:,}", f"{column.distinct:,}", column.told)
        for column in looked.inspection.columns
    ]
    rows = [(*(_short(cell, WIDEST_CELL) for cell in row[:4]), _short(row[4], 66)) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "\n".join(
        f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {missing:>{widths[2]}}  "
        f"{distinct:>{widths[3]}}  {told}"
        for name, kind, missing, distinct, told in rows
    )


def _short(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 3] + "..."


def _notes(looked: Looked) -> list[str]:
    """What is left out, and what must be mended."""
    found = looked.inspection
    hints = [
        f"column {name!r} says which rows are for training and testing: dataset.test: {name} uses it"
        for name in looked.table.feature_names
        if says_test(column_of(looked.table.rows, name))
    ]
    parts = {"Left out:": found.notes, "To be mended first:": found.problems, "Hint:": hints}
    return [
        "\n".join([head, *(f"  {line}" for line in lines)])
        for head, lines in parts.items()
        if lines
    ]


def _outlook(looked: Looked, config: DatasetConfig) -> str:
    """Sizes and the model."""
    table = looked.table
    labels, classes = labels_of(table)
    pool, test = split(table, labels, classes, config)
    encoding = fit_encoding(
        table.rows[pool], table.feature_names, levels=config.levels, dates=config.dates
    )
    features, points = len(encoding.feature_names), len(pool)
    model = family(len(classes))
    parameters = (features + 1) * (len(classes) if model == "softmax" else 1)
    made = f"{features} feature{'s'[: features != 1]}"
    told = [
        f"{points:,} rows to train on, {len(test):,} to test on, {made} {_from(encoding)}",
        f"targets.model: auto is {model}, {parameters:,} parameters",
    ]
    absent = [name for at, name in enumerate(classes) if not np.any(labels[test] == at)]
    if absent:
        told.append(f"no test row of class {', '.join(absent[:SHOWN_CLASSES])}")
    return "\n".join(told)


def family(classes: int) -> str:
    """The family that `auto` stands for, without waiting for what trains it."""
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
    """The columns that the problems name."""
    return [match[1] for line in problems if (match := re.search(r": column '(.*?)' ", line))]


def _section(config: DatasetConfig, refused: tuple[str, ...]) -> str:
    """The section of params.yaml that reads the table so."""
    lines = ["The section for params.yaml:", "", "dataset:"]
    for key, value in config.model_dump().items():
        told = _yaml(value)
        reason = (
            "  # the columns to be mended are dropped here" if key == "drop" and refused else ""
        )
        lines.append(f"  {key}: {told}{reason}")
    return "\n".join(lines)


def _yaml(value: object) -> str:
    """A value as YAML, plain where that is safe."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value):
        reserved = value.lower() in ("null", "true", "false", "yes", "no", "on", "off")
        return json.dumps(value) if reserved else value
    return json.dumps(value, ensure_ascii=False)
