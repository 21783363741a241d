"""Reads a user's table from files or from OpenML, inspects columns and selects rows.

All rows of the table decide which columns can be used, also where `max_points` selects some of them, unless the
table has more than `MOST_JUDGED` cells; then by the selected rows, and a note says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelpred.dataset.cells import Unusable, column_of, known, quoted
from modelpred.dataset.columns import Inspection, inspect_columns
from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.holding_out import (
    TEST_SHARE,
    marked_rows,
    require_whole_groups,
    test_rows,
)
from modelpred.dataset.label_column import class_names, require_label_type, with_label
from modelpred.dataset.meanings import typed
from modelpred.dataset.openml import PREFIX, fetch_openml_table
from modelpred.dataset.places import looks_like_path
from modelpred.dataset.reading import ROW, RawTable, open_table, table_of
from modelpred.dataset.roles import names_test_column, require_roles
from modelpred.dataset.row_names import places_of_rows, require_unique, required_names, row_numbers
from modelpred.dataset.seeds import seeded_generator
from modelpred.dataset.splitting import (
    selected_rows,
)
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput
from modelpred.progress import tracked

MOST_UNLABELLED = 0.5  # share of rows without a label from which the table is refused
MOST_JUDGED = 50_000_000  # cells that are read to check columns; about 1 GB


@dataclass(frozen=True)
class OwnTable:
    """A user's table and the inspection of its columns.

    Attributes:
        table: the table for the pipeline.
        inspection: its columns, problems to fix, and dropped columns.
        rows: number of rows of the source that have a label, with the test rows of a second file.
    """

    table: Table
    inspection: Inspection
    rows: int


def own_table(config: DatasetConfig) -> OwnTable:
    """Read the table of `config.source` from files or from OpenML.

    Problems with columns are returned, not raised.

    Raises:
        InvalidInput: the source or a named column does not exist, a row id is missing, or too many
            labels are.
    """
    raw, config, attribution = _opened(config)
    require_roles(raw.columns, config, source=raw.name, text=raw.text)
    index = _unused_index(raw, config)
    raw = raw.without((*config.drop, *index))
    second = _second_file(raw, config)
    read = _read(raw, config, part="")
    in_second = None
    if second is not None:
        first, read = read, _joined(read, _read(second, config, part="test"))
        in_second = np.arange(len(read.rows)) >= len(first.rows)
    where = places_of_rows(raw, second, read.rows)
    rows = _with_ids(read.rows, config, raw, second, where)
    label = str(config.label)
    rows = with_label(rows, label, raw.name, where)
    roles = {label, config.row_id, config.group, _test_column(raw, config)}
    names = [name for name in raw.columns if name not in roles]
    inspection = inspect_columns(
        rows, names, source=raw.name, categories=config.categories, where=where
    ).with_notes([*map(_index_note, index), *_judged_note(raw.name, read)], left_out=index)
    rows = rows.filter(read.chosen)
    where = [name for name, taken in zip(where, read.chosen, strict=True) if taken]
    in_second = None if in_second is None else in_second[read.chosen]
    classes = class_names(column_of(rows, label), label, raw.name)
    held_out = test_rows(rows, config, classes, raw.name) if in_second is None else in_second
    if config.group and held_out is not None:
        require_whole_groups(column_of(rows, config.group), held_out, config, raw.name, where)
    unused = [name for name in names if name in inspection.left_out]
    group = [config.group] if config.group else []
    features = [column.name for column in inspection.columns]
    table = Table(
        name=_name(config.source),
        rows=rows[["row_id", *features, *unused, *group, label]],
        label=label,
        classes=classes,
        points=len(rows),
        test=max(1, round(TEST_SHARE * len(rows))),
        attribution=attribution,
        extra=tuple(group),
        unused=tuple(unused),
        held_out=None if held_out is None else tuple(held_out.tolist()),
        available=read.height,
        unlabelled=read.unlabelled or None,
    )
    return OwnTable(table, inspection, read.height)


def _opened(config: DatasetConfig) -> tuple[RawTable, DatasetConfig, str]:
    """The source, the config with the source's own label if none is set, and the attribution."""
    if config.source.startswith(PREFIX):
        fetched = fetch_openml_table(config.source.removeprefix(PREFIX))
        raw = table_of(config.source, fetched.rows)
        config = config.model_copy(update={"label": config.label or fetched.label})
        return raw, config, fetched.attribution
    return open_table(config.source, delimiter=config.delimiter), config, config.source


def _name(source: str) -> str:
    """A short name for titles and for the registry, such as `people` for data/people.csv."""
    if source.startswith(PREFIX):
        return source.removeprefix(PREFIX)
    name = Path(source).name.partition(".")[0]
    words = "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in name).strip("-")
    return words or Path(source).absolute().parent.name or "table"


def _test_column(raw: RawTable, config: DatasetConfig) -> str | None:
    """The column that marks test rows, or None."""
    if not isinstance(config.test, str) or config.test == AUTO:
        return None
    if names_test_column(raw.columns, config):
        return config.test
    if looks_like_path(config.test):
        return None
    raise InvalidInput(
        f"dataset.test: {config.test!r} is neither a column of {raw.name} nor a file; expected a "
        "share such as 0.2, a number of rows, a column, or a file"
    )


def _second_file(raw: RawTable, config: DatasetConfig) -> RawTable | None:
    """The file of test rows that dataset.test names, or None."""
    if not isinstance(config.test, str) or config.test == AUTO or _test_column(raw, config):
        return None
    second = open_table(config.test, delimiter=config.delimiter)
    missing = [name for name in raw.columns if name not in second.columns]
    if missing or second.text != raw.text:
        what = f"has no column {missing[0]!r}, other" if missing else "is another kind of file"
        raise InvalidInput(f"dataset.test: {second.name} {what} than {raw.name}; make them equal")
    return replace(second, columns=raw.columns)


@dataclass(frozen=True)
class _Read:
    """Rows of a source.

    Attributes:
        rows: with their number in the source as the first column.
        chosen: which of them are selected, [rows].
        height: number of rows of the source that have a label.
        unlabelled: number of rows without a label, which are left out.
    """

    rows: pl.DataFrame
    chosen: NDArray[np.bool_]
    height: int
    unlabelled: int


def _joined(first: _Read, second: _Read) -> _Read:
    return _Read(
        pl.concat([first.rows, second.rows]),
        np.concatenate([first.chosen, second.chosen]),
        first.height + second.height,
        first.unlabelled + second.unlabelled,
    )


def _judged_note(source: str, read: _Read) -> list[str]:
    """A note if columns were checked by the selected rows only."""
    if len(read.rows) == read.height:
        return []
    judged = f"the {len(read.rows):,} selected rows of {read.height:,}"
    return [
        f"{source}: columns are checked by {judged}; the table is too large to check them by all"
    ]


def _read(raw: RawTable, config: DatasetConfig, *, part: str) -> _Read:
    """The rows of a source that have a label, those that are selected marked."""
    label = str(config.label)
    named = [label, *filter(None, [_test_column(raw, config) if not part else None])]
    read = raw.read(named, None)
    words = known(column_of(read, label))
    require_label_type(label, words, raw.name)
    missing = words.is_null().to_numpy()
    unlabelled = int(missing.sum())
    if unlabelled and unlabelled >= MOST_UNLABELLED * len(words):
        raise InvalidInput(
            f"{raw.name}: the label {label!r} is missing in {unlabelled:,} row{'s'[: unlabelled > 1]} "
            f"(first in {raw.where(int(missing.argmax()))}); fill or remove these rows: they are left "
            f"out only where fewer than half of the {len(words):,} lack it"
        )
    if not len(words):
        raise InvalidInput(f"{raw.name} has no rows")
    parts = np.zeros(len(words), dtype=bool)
    if len(named) > 1:
        parts = marked_rows(
            column_of(read, named[1]), name=named[1], source=raw.name, where=raw.where
        )
    ranks = seeded_generator(config.seed, "taken", part).random(len(words))
    chosen = np.sort(
        np.concatenate(
            [
                selected_rows(
                    np.flatnonzero((parts == of_test) & ~missing),
                    words,
                    ranks,
                    most=config.max_points,
                )
                for of_test in (False, True)
            ]
        )
    )
    labelled = np.flatnonzero(~missing)
    everything = len(chosen) == len(labelled) or len(words) * len(raw.columns) <= MOST_JUDGED
    numbers = labelled if everything else chosen
    frame = raw.read(raw.columns, None if len(numbers) == len(words) else numbers)
    frame = frame.insert_column(0, pl.Series(ROW, numbers, dtype=pl.UInt32))
    return _Read(frame, np.isin(numbers, chosen, assume_unique=True), len(labelled), unlabelled)


def _unused_index(raw: RawTable, config: DatasetConfig) -> tuple[str, ...]:
    """Columns that pandas wrote for an unnamed index, unless the config uses them."""
    roles = (config.label, config.row_id, config.group, config.test)
    named = {*roles, *config.drop, *config.categories, *config.dates}
    return tuple(name for name in raw.index if name not in named)


def _index_note(name: str) -> str:
    return (
        f"column {name!r} is left out: it is an index that pandas wrote; if it has the ids of the "
        f"rows, set dataset.row_id to {name!r}"
    )


def _with_ids(
    read: pl.DataFrame,
    config: DatasetConfig,
    raw: RawTable,
    second: RawTable | None,
    where: Sequence[str],
) -> pl.DataFrame:
    """The rows with typed columns, and their unique ids as `row_id`."""
    rows = _typed(read, config, raw, where)
    if config.row_id is None:
        return rows.with_columns(row_numbers(read, second).alias("row_id"))
    ids = column_of(rows, config.row_id)
    require_unique(config.row_id, ids, raw.name, where)
    return rows.with_columns(ids.alias("row_id"))


def _typed(
    selected: pl.DataFrame, config: DatasetConfig, raw: RawTable, where: Sequence[str]
) -> pl.DataFrame:
    """The rows with typed columns; categories, ids and groups are text."""
    named = {config.row_id: "row id", config.group: "group"}
    columns: list[pl.Series] = []
    for name in tracked(selected.columns[1:], "reading columns"):  # the first is ROW
        cells = column_of(selected, name)
        form = config.dates.get(name)
        try:
            if name in named:
                column = required_names(name, cells, named[name], raw.name, where)
            else:
                category = name in config.categories
                column = typed(cells, category=category, numbers=raw.text, form=form)
            columns.append(column.alias(name))
        except Unusable as error:
            raise InvalidInput(
                f"{raw.name}: column {name!r} holds {quoted(cells[error.row])} in {where[error.row]}, "
                f"expected {error.expected}; mend it, or drop the column (dataset.drop)"
            ) from error
    return pl.DataFrame(columns)
