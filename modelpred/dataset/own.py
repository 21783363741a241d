"""A table of the user's own, in files or from OpenML, as a Table: its rows chosen and its columns known.

The label column is read for all rows, everything else only for the rows that are taken.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool

from modelpred.dataset.columns import MISSING, Inspection, inspect_columns, typed
from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.encoding import WORDS
from modelpred.dataset.openml import PREFIX, fetch_openml_table
from modelpred.dataset.reading import RawTable, looks_like_path, open_table
from modelpred.dataset.seeds import seeded_generator
from modelpred.dataset.splitting import (
    MOST_CLASSES,
    held_out_groups,
    held_out_rows,
    taken_rows,
)
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput

TEST_SHARE = 0.2  # what dataset.test: auto means
FEW_NUMBERS = 20  # different whole numbers up to which a label is a class
FIRST_SHOWN = 10
ROW = "__row__"
TEST_WORDS = {
    **dict.fromkeys(("test", "true", "1"), True),
    **dict.fromkeys(("train", "training", "false", "0"), False),
}


@dataclass(frozen=True)
class Looked:
    """A table of the user's own, looked at.

    Attributes:
        table: as the pipeline takes it.
        inspection: its columns, what must be mended, what was left out.
        rows: how many rows the source has, test rows in a second file among them.
    """

    table: Table
    inspection: Inspection
    rows: int


def own_table(config: DatasetConfig) -> Looked:
    """The table that `config.source` names in files or at OpenML.

    Problems with its columns are told, not raised: the caller decides.

    Raises:
        InvalidInput: the source or a named column is not there, or a label or row id is missing.
    """
    raw, config, attribution = _opened(config)
    _require_columns(raw, config)
    raw = replace(raw, columns=tuple(name for name in raw.columns if name not in config.drop))
    second = _second_file(raw, config)
    taken, height = _taken(raw, config, part="")
    held_out = None
    if second is not None:
        test, test_height = _taken(second, config, part="test")
        held_out = np.repeat([False, True], [len(taken), len(test)])
        taken, height = pl.concat([taken, test]), height + test_height
    where = _names_of_rows(raw, second, taken)
    rows = _typed(taken, config, text=raw.text)
    if config.row_id is None:
        rows = rows.with_columns(_row_numbers(taken, second).alias("row_id"))
    else:
        rows = _with_ids(rows, config.row_id, raw.name, where)
    label = str(config.label)
    rows, classes = _with_label(rows, label, raw.name, where)
    if second is None:
        held_out = _held_out(rows, config, classes, raw.name)
    roles = {label, config.row_id, config.group, _test_column(raw, config)}
    names = [name for name in raw.columns if name not in roles]
    inspection = inspect_columns(
        rows, names, source=raw.name, categories=config.categories, where=where
    )
    features = [column.name for column in inspection.columns]
    unused = [name for name in names if name in inspection.left_out]
    kept = [config.group] if config.group else []
    table = Table(
        name=_name(config.source),
        rows=rows.select("row_id", *features, *unused, *kept, label),
        label=label,
        classes=classes,
        points=len(rows),
        test=max(1, round(TEST_SHARE * len(rows))),
        attribution=attribution,
        kept=tuple(kept),
        unused=tuple(unused),
        held_out=None if held_out is None else tuple(held_out.tolist()),
    )
    return Looked(table, inspection, height)


def _opened(config: DatasetConfig) -> tuple[RawTable, DatasetConfig, str]:
    """The source, with the label that it declares itself where none is asked for."""
    if config.source.startswith(PREFIX):
        fetched = fetch_openml_table(config.source.removeprefix(PREFIX))
        raw = RawTable(config.source, fetched.rows.lazy(), tuple(fetched.rows.columns), text=False)
        config = config.model_copy(update={"label": config.label or fetched.label})
        return raw, config, fetched.attribution
    return open_table(config.source, delimiter=config.delimiter), config, config.source


def _name(source: str) -> str:
    """A short name for titles and for the registry: `people` of data/people.csv."""
    if source.startswith(PREFIX):
        return source.removeprefix(PREFIX)
    name = Path(source).name.partition(".")[0]
    words = "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in name).strip("-")
    return words or Path(source).absolute().parent.name or "table"


def _require_columns(raw: RawTable, config: DatasetConfig) -> None:
    """Refuses a parameter that names a column which is not there, or no label at all."""
    if config.label is None:
        raise InvalidInput(
            f"dataset.label is not set; name the column of {raw.name} to predict: "
            f"{_listed(raw.columns)}"
        )
    asked = {"label": (config.label,), "row_id": (config.row_id,), "group": (config.group,)}
    asked |= {"drop": config.drop, "categories": config.categories}
    for key, names in asked.items():
        for name in names:
            if name is not None and name not in raw.columns:
                close = difflib.get_close_matches(name, raw.columns, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {_listed(raw.columns)}"
                raise InvalidInput(f"dataset.{key}: {raw.name} has no column {name!r}; {hint}")
    if config.label in config.drop:
        raise InvalidInput(f"dataset.drop: {config.label!r} is the label; drop another column")
    reserved = [name for name in ("row_id", ROW) if name in raw.columns]
    if reserved and config.row_id != reserved[0] and reserved[0] not in config.drop:
        raise InvalidInput(
            f"{raw.name}: the name {reserved[0]!r} of a column is taken; set dataset.row_id to it, "
            "drop it, or rename it"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:FIRST_SHOWN])
    return shown + (f" and {len(names) - FIRST_SHOWN} more" if len(names) > FIRST_SHOWN else "")


def _test_column(raw: RawTable, config: DatasetConfig) -> str | None:
    """The column that says which rows are for testing; None where there is none."""
    if not isinstance(config.test, str) or config.test == AUTO:
        return None
    if config.test in raw.columns:
        return config.test
    if looks_like_path(config.test):
        return None
    raise InvalidInput(
        f"dataset.test: {config.test!r} is neither a column of {raw.name} nor a file; expected a "
        "share such as 0.2, a number of rows, a column, or a file"
    )


def _second_file(raw: RawTable, config: DatasetConfig) -> RawTable | None:
    """The table of test rows in a file of its own; None where dataset.test names none."""
    if not isinstance(config.test, str) or config.test == AUTO or _test_column(raw, config):
        return None
    second = open_table(config.test, delimiter=config.delimiter)
    missing = [name for name in raw.columns if name not in second.columns]
    if missing or second.text != raw.text:
        what = f"has no column {missing[0]!r}" if missing else "is another kind of file"
        raise InvalidInput(
            f"dataset.test: {second.name} {what} than {raw.name} has; make them alike"
        )
    return replace(second, columns=raw.columns)


def _taken(raw: RawTable, config: DatasetConfig, *, part: str) -> tuple[pl.DataFrame, int]:
    """The rows that are taken, with their number in the source, and how many there are in all."""
    label = str(config.label)
    named = [label, *filter(None, [_test_column(raw, config) if not part else None])]
    read = _collected(raw, raw.frame.select(named))
    labels = read[label]
    words = labels.cast(pl.String).str.strip_chars() if raw.text else labels
    missing = words.is_null() | (words.is_in(MISSING) if raw.text else _not_a_number(words))
    if missing.any():
        count, first = int(missing.sum()), missing.to_list().index(True)
        raise InvalidInput(
            f"{raw.name}: the label {label!r} is missing in {count:,} row{'s'[: count > 1]} "
            f"(first in {raw.where(first)}); fill or remove"
        )
    if not len(words):
        raise InvalidInput(f"{raw.name} has no rows")
    parts = _is_test(read[named[1]], raw) if len(named) > 1 else np.zeros(len(words), dtype=bool)
    ranks = seeded_generator(config.seed, "taken", part).random(len(words))
    chosen = np.sort(
        np.concatenate(
            [
                taken_rows(np.flatnonzero(parts == of_test), words, ranks, most=config.max_points)
                for of_test in (False, True)
            ]
        )
    )
    frame = raw.frame.select(raw.columns).with_row_index(ROW)
    if len(chosen) < len(words):
        frame = frame.filter(pl.col(ROW).is_in(pl.Series(chosen, dtype=pl.UInt32).implode()))
    return _collected(raw, frame), len(words)


def _not_a_number(cells: pl.Series) -> pl.Series:
    if cells.dtype.is_float():
        return cells.is_nan().fill_null(value=False)
    return pl.Series([False]).new_from_index(0, len(cells))


def _collected(raw: RawTable, frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows, read; InvalidInput where the file turns out to be damaged."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InvalidInput(f"{raw.name} cannot be read to its end: {first}") from error


def _names_of_rows(raw: RawTable, second: RawTable | None, taken: pl.DataFrame) -> list[str]:
    """Each row as messages name it; those of a second file with its name."""
    numbers = taken[ROW].to_list()
    if second is None:
        return [raw.where(row) for row in numbers]
    first = _first_of_second(taken)
    return [
        raw.where(row) if at < first else f"{second.where(row)} of {second.name}"
        for at, row in enumerate(numbers)
    ]


def _first_of_second(taken: pl.DataFrame) -> int:
    """Where the rows of the second file begin: there the numbers fall back."""
    numbers = taken[ROW].to_numpy().astype(np.int64)
    falls = np.flatnonzero(np.diff(numbers) <= 0)
    return int(falls[0]) + 1 if len(falls) else len(numbers)


def _row_numbers(taken: pl.DataFrame, second: RawTable | None) -> pl.Series:
    """The number of each row in its file, as text; `test-3` in a second file."""
    numbers = taken[ROW].cast(pl.String)
    if second is None:
        return numbers
    first = _first_of_second(taken)
    return pl.concat([numbers[:first], "test-" + numbers[first:]])


def _typed(taken: pl.DataFrame, config: DatasetConfig, *, text: bool) -> pl.DataFrame:
    """The rows with every column as what it means; categories as text."""
    columns: list[pl.Series] = []
    for cells in taken.drop(ROW):
        category = cells.name in config.categories
        if text:
            columns.append(typed(cells, category=category))
        elif category or cells.dtype in WORDS:
            columns.append(cells.cast(pl.String))
        elif cells.dtype.is_decimal():
            columns.append(cells.cast(pl.Float64))
        else:
            columns.append(cells.fill_nan(None) if cells.dtype.is_float() else cells)
    return pl.DataFrame(columns)


def _with_ids(rows: pl.DataFrame, name: str, source: str, where: Sequence[str]) -> pl.DataFrame:
    """The rows with that column as their ids.

    Raises:
        InvalidInput: an id is missing or stands twice.
    """
    ids = rows[name].cast(pl.String)
    if ids.null_count():
        first = ids.is_null().to_list().index(True)
        raise InvalidInput(f"{source}: the row id {name!r} is missing in {where[first]}; fill it")
    twice = ids.is_duplicated()
    if twice.any():
        told = ids[twice.to_list().index(True)]
        first, second = [at for at, row_id in enumerate(ids) if row_id == told][:2]
        raise InvalidInput(
            f"{source}: the row id {told!r} ({name!r}) stands in {where[first]} and in "
            f"{where[second]}; ids must be unique"
        )
    return rows.with_columns(ids.alias("row_id"))


def _with_label(
    rows: pl.DataFrame, label: str, source: str, where: Sequence[str]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows with a usable label, and its classes in order; none where it is a number to predict.

    Text, true and false, and up to FEW_NUMBERS different whole numbers are classes.
    """
    cells = rows[label]
    kind = cells.dtype
    if kind.is_float():
        infinite = cells.is_infinite()
        if infinite.any():
            first = infinite.to_list().index(True)
            raise InvalidInput(
                f"{source}: the label {label!r} is {cells[first]} in {where[first]}; mend or remove"
            )
        return rows, ()
    if kind.is_integer() and cells.n_unique() > FEW_NUMBERS:
        return rows.with_columns(cells.cast(pl.Float64)), ()
    if not (kind.is_integer() or kind == pl.Boolean or kind in WORDS):
        raise InvalidInput(
            f"{source}: the label {label!r} holds {kind}, expected text, numbers, or true and false"
        )
    classes = tuple(cells.unique().sort().cast(pl.String).to_list())
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(
            f"{source}: the label {label!r} has {len(classes):,} classes in {len(cells):,} rows, "
            f"expected {MOST_CLASSES} at most; name another column as dataset.label"
        )
    if len(classes) < 2:
        raise InvalidInput(
            f"{source}: the label {label!r} is {str(cells[0])!r} in every row; a classifier needs at "
            "least two classes"
        )
    return rows, classes


def says_test(cells: pl.Series) -> bool:
    """Whether a column holds the words train and test, and nothing else."""
    if cells.dtype not in WORDS:
        return False
    words = set(cells.cast(pl.String).str.to_lowercase().unique().to_list())
    return "test" in words and words <= set(TEST_WORDS)


def _is_test(cells: pl.Series, raw: RawTable) -> Bool[np.ndarray, " rows"]:
    """Which rows a column marks as test rows."""
    words = cells.cast(pl.String).str.strip_chars().str.to_lowercase()
    known = words.is_in(list(TEST_WORDS))
    if not known.fill_null(value=False).all():
        first = known.fill_null(value=False).to_list().index(False)
        raise InvalidInput(
            f"{raw.name}: column {cells.name!r} (dataset.test) holds {cells[first]!r} in "
            f"{raw.where(first)}; expected train and test, true and false, or 1 and 0"
        )
    return words.replace_strict(TEST_WORDS, return_dtype=pl.Boolean).to_numpy()


def _held_out(
    rows: pl.DataFrame, config: DatasetConfig, classes: tuple[str, ...], source: str
) -> Bool[np.ndarray, " rows"] | None:
    """Which rows are for testing; None where the number of them is asked for."""
    if isinstance(config.test, int):
        if config.group:
            raise InvalidInput(
                "dataset.group keeps groups whole, which no exact number of test rows can; set "
                "dataset.test to a share such as 0.2"
            )
        return None
    if isinstance(config.test, str) and config.test != AUTO:
        return _is_test(rows[config.test], RawTable(source, rows.lazy(), (), text=False))
    share = config.test if isinstance(config.test, float) else TEST_SHARE
    if config.group:
        groups = rows[config.group].cast(pl.String).fill_null("")
        return held_out_groups(groups, share=share, seed=config.seed)
    labels = rows[str(config.label)].cast(pl.String) if classes else None
    return held_out_rows(labels, rows=len(rows), share=share, seed=config.seed)
