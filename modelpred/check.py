"""What the pipeline would make of a file: `modelpred check FILE --label COLUMN`, as text.

Looks at the table with the code of the dataset stage and computes nothing further, so that the
answer comes in a second. Times and sizes are estimates from counts:

    training    subsets x (START + TRAINING points x parameters), times a family's own factor
    fit         epochs x subsets of the fit x (START + FITTING points x parameters)
    disk        subsets x (points / 4 + 8 parameters + 100 bytes), kept three times: in the store of
                shards, in artifacts/ and in DVC's cache
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

from modelpred.dataset.config import DatasetConfig
from modelpred.dataset.encoding import Encoding, fit_encoding
from modelpred.dataset.labels import labels_of
from modelpred.dataset.own import Looked, own_table, says_test
from modelpred.dataset.sources import is_own, places_of
from modelpred.dataset.splitting import split
from modelpred.dataset.tables import InvalidInput, known_sources

USUAL_SUBSETS = 6500  # what params.yaml asks for as it ships
FIT_SHARE = 0.77  # of these, how many the predictor is fitted to
EPOCHS = 20  # passes of the default network
CORES = 2
COPIES = 3
STAGE = 4.0  # seconds until a stage computes
START = 30e-6  # seconds a subset, whatever its size
CELL = 8e-9  # seconds of training for each point and parameter, logistic
TRAINING = {"softmax": 4.0, "ridge": 1.0}  # times that
FITTING = 1e-9  # seconds of an epoch for each point and parameter
SHOWN_CLASSES = 8
WIDEST_CELL = 44


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        text: the answer to print.
        problems: what must be mended first, a line each.
    """

    text: str
    problems: tuple[str, ...]


# Any: pydantic checks the keys.
def config_of(
    *,
    test: str,
    drop: Sequence[str],
    categories: Sequence[str],
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
    try:
        return DatasetConfig(test=number, drop=tuple(drop), categories=tuple(categories), **keys)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error


def check(config: DatasetConfig, *, subsets: int = USUAL_SUBSETS) -> Checked:
    """What the pipeline would make of the config's table.

    Args:
        config: names a file, a folder, a glob or a table of OpenML.
        subsets: how many models would be trained.

    Raises:
        InvalidInput: the table cannot be looked at; one line that says why.
    """
    if not is_own(config.source):
        known = ", ".join(known_sources())
        raise InvalidInput(
            f"{config.source}: there is no such file; tables that need no check: {known}"
        )
    looked = own_table(config)
    label = looked.table.label
    config = config.model_copy(update={"label": label, "watch": _watched(config)})
    parts = [_head(looked, config), _columns(looked), *_notes(looked)]
    if looked.table.feature_names:
        parts.append(_outlook(looked, config, subsets))
    elif not looked.inspection.problems:
        raise InvalidInput(
            f"{config.source} has no column beside the label {label!r} to learn from"
        )
    refused = tuple(_names_in(looked.inspection.problems))
    mended = config.model_copy(update={"drop": (*config.drop, *refused)})
    parts.append(_section(mended, refused))
    return Checked("\n\n".join(parts), looked.inspection.problems)


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
        words += f", of which {taken:,} are taken (dataset.max_points: {config.max_points})"
    cells = table.rows[table.label]
    if not table.classes:
        return f"{words}\nlabel {table.label}: a number, {cells.min():,.6g} to {cells.max():,.6g}"
    counts = cells.cast(pl.String).value_counts(sort=True).rows()
    shown = [f"{name} {count / taken:.1%}" for name, count in counts[:SHOWN_CLASSES]]
    more = f" and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
    told = f"{words}\nlabel {table.label}: {len(counts)} classes, {', '.join(shown)}{more}"
    fewest, count = counts[-1]
    return f"{told}\n  only {count} rows of class {fewest}" if count < 10 else told


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
        if says_test(looked.table.rows[name])
    ]
    parts = {"Left out:": found.notes, "To be mended first:": found.problems, "Hint:": hints}
    return [
        "\n".join([head, *(f"  {line}" for line in lines)])
        for head, lines in parts.items()
        if lines
    ]


def _outlook(looked: Looked, config: DatasetConfig, subsets: int) -> str:
    """Sizes, the model, and what the run would cost."""
    table = looked.table
    labels, classes = labels_of(table)
    pool, test = split(table, labels, classes, config)
    encoding = fit_encoding(table.rows[pool], table.feature_names, levels=config.levels)
    features, points = len(encoding.feature_names), len(pool)
    model = family(len(classes))
    parameters = (features + 1) * (len(classes) if model == "softmax" else 1)
    cost = costs(subsets, points=points, parameters=parameters, model=model)
    time = f"about {_time(cost.training)} to train, {_time(cost.fit)} to fit the predictor"
    told = [
        f"{points:,} rows to train on, {len(test):,} to test on, {features} features {_from(encoding)}",
        f"targets.model: auto is {model}, {parameters:,} parameters",
        f"{subsets:,} subsets: {time}, {cost.disk / 1e6:,.0f} MB of disk (a guess, to a factor of 3)",
    ]
    absent = [name for at, name in enumerate(classes) if not np.any(labels[test] == at)]
    if absent:
        told.append(f"no test row of class {', '.join(absent[:SHOWN_CLASSES])}")
    return "\n".join(told)


@dataclass(frozen=True)
class Costs:
    """Seconds of training and of the fit, and bytes on disk."""

    training: float
    fit: float
    disk: float


def costs(subsets: int, *, points: int, parameters: int, model: str) -> Costs:
    """What so many subsets would cost on two cores."""
    cells = points * parameters
    fitted = subsets * FIT_SHARE
    return Costs(
        training=STAGE + subsets * (START + TRAINING.get(model, 1.0) * CELL * cells) / CORES,
        fit=STAGE + EPOCHS * fitted * (START + FITTING * cells) / CORES,
        disk=COPIES * subsets * (points / 4 + 8 * parameters + 100),
    )


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


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
