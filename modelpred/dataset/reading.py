"""Files of the user as raw tables: CSV and Parquet, one file, a folder of Parquet, or a glob.

A table is checked when it is opened and read by columns and rows when they are needed. Every cell of a
CSV is text; its meaning is decided later, from the rows that are used (modelpred.dataset.columns).
"""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from jaxtyping import Int64

from modelpred.dataset.csv_files import CsvFile, is_index, look_through
from modelpred.dataset.places import CSV_ENDINGS, PARQUET_ENDINGS, Places, files_of
from modelpred.errors import InvalidInput
from modelpred.sealed import open_file

ROW = "__row__"  # reserved name of the column of row numbers
Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class RawTable:
    """A table in files, before types are decided.

    Attributes:
        name: its name in messages: the file, the folder or the glob.
        columns: names of its columns.
        text: whether every cell is text, as in a CSV.
        read: function of columns and of rows in ascending order (None: all rows); returns the cells.
        where: function of a row counted from zero; returns its name in messages.
        index: columns that pandas wrote for an index without a name.
    """

    name: str
    columns: tuple[str, ...]
    text: bool
    read: Callable[[Sequence[str], Rows | None], pl.DataFrame]
    where: Callable[[int], str]
    index: tuple[str, ...] = ()

    def without(self, columns: Sequence[str]) -> "RawTable":
        """The same table without these columns."""
        return replace(self, columns=tuple(name for name in self.columns if name not in columns))


def table_of(name: str, frame: pl.DataFrame) -> RawTable:
    """A table in memory as a raw table."""

    def read(columns: Sequence[str], rows: Rows | None) -> pl.DataFrame:
        chosen = frame[list(columns)]
        return chosen if rows is None else chosen[rows]

    return RawTable(
        name, tuple(frame.columns), text=False, read=read, where=lambda row: f"row {row}"
    )


def open_table(source: str, *, delimiter: str) -> RawTable:
    """Open a table: a file, a folder of Parquet files, or the files that match a glob.

    Raises:
        InvalidInput: the source does not exist, is not readable, or is not one table.
    """
    try:
        places = files_of(source)
        if all(_is_parquet(path) for path in places.files):
            return _open_parquet(source, places)
        for path in places.files:
            if not path.name.lower().endswith(CSV_ENDINGS):
                known = ", ".join((*CSV_ENDINGS, *PARQUET_ENDINGS))
                raise InvalidInput(f"{path}: expected a file whose name ends in one of {known}")
        return _open_csv(source, places, delimiter)
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror or error}") from error


def _is_parquet(path: Path) -> bool:
    with open_file(path, again="name a CSV or Parquet file") as file:
        return path.name.lower().endswith(PARQUET_ENDINGS) or file.read(4) == b"PAR1"


def _schema_and_height(path: Path) -> tuple[dict[str, Any], int]:
    """Types by column, and the number of rows."""
    if not path.stat().st_size:
        raise InvalidInput(f"{path} is empty; expected a Parquet file")
    frame = pl.scan_parquet(path.absolute(), glob=False, hive_partitioning=False)
    try:
        return dict(frame.collect_schema()), int(frame.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InvalidInput(
            f"{path} is not a whole Parquet file ({_first_line(error)}); write it again"
        ) from error


def _open_parquet(source: str, places: Places) -> RawTable:
    """The rows of Parquet files that have the same columns."""
    schemas, heights = zip(*map(_schema_and_height, places.files), strict=True)
    for path, schema in zip(places.files, schemas, strict=True):
        if schema != schemas[0]:
            raise InvalidInput(_differing(path, schema, places.files[0], schemas[0]))

    def read_file(at: int, columns: Sequence[str], rows: Rows | None) -> pl.DataFrame:
        path = places.files[at]
        # glob=False: polars would read `s1.csv` for a path `s[1].csv`.
        frame = pl.scan_parquet(
            path.absolute(), glob=False, hive_partitioning=False, row_index_name=ROW
        )
        if rows is not None:
            wanted = pl.Series(rows, dtype=pl.get_index_type()).implode()
            frame = frame.filter(cs.by_name(ROW).is_in(wanted))
        try:
            return frame.select(cs.by_name(*columns)).collect(engine="streaming")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise InvalidInput(f"{path} cannot be read to its end: {_first_line(error)}") from error

    return _joined(
        source,
        places,
        tuple(schemas[0]),
        heights,
        read_file,
        text=False,
        where=lambda row: f"row {row}",
        index=_pandas_index(places.files[0], tuple(schemas[0])),
    )


def _differing(path: Path, schema: dict[str, Any], first: Path, like: dict[str, Any]) -> str:
    for name in (*like, *schema):
        if like.get(name) != schema.get(name):
            expected, got = like.get(name, "no such column"), schema.get(name, "no such column")
            return f"{path}: column {name!r} is {got}, but in {first} it is {expected}; make them equal"
    return f"{path}: the order of its columns differs from {first}; make them equal"


def _pandas_index(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that pandas wrote for an unnamed index."""
    try:
        metadata = pl.read_parquet_metadata(path.absolute())
        stored = json.loads(metadata.get("pandas", "{}")).get("index_columns", [])
    except (pl.exceptions.PolarsError, OSError, ValueError, AttributeError):
        stored = []
    named = {name for name in stored if isinstance(name, str)}
    return tuple(
        name
        for name in columns
        if name in named or (name.startswith("__index_level_") and name.endswith("__"))
    )


def _open_csv(source: str, places: Places, delimiter: str) -> RawTable:
    """The rows of CSV files that have the same header, after every record has been checked."""
    files = [look_through(path, delimiter) for path in places.files]
    for file in files:
        if file.columns != files[0].columns:
            raise InvalidInput(
                f"{file.path}: its header differs from that of {files[0].path}; make them equal"
            )

    def read_file(at: int, columns: Sequence[str], rows: Rows | None) -> pl.DataFrame:
        return pl.concat(files[at].read(columns, rows))

    return _joined(
        source,
        places,
        files[0].columns,
        [len(file.lines) for file in files],
        read_file,
        text=True,
        where=lambda row: _line(files, row),
        index=tuple(name for name in files[0].columns if is_index(name)),
    )


def _line(files: Sequence[CsvFile], row: int) -> str:
    at, within = row, 0
    while at >= len(files[within].lines):
        at, within = at - len(files[within].lines), within + 1
    name = "" if len(files) == 1 else f"{files[within].path.name}, "
    return f"row {row} ({name}line {files[within].lines[at]})"


def _joined(
    source: str,
    places: Places,
    columns: tuple[str, ...],
    heights: Sequence[int],
    read_file: Callable[[int, Sequence[str], Rows | None], pl.DataFrame],
    *,
    text: bool,
    where: Callable[[int], str],
    index: tuple[str, ...],
) -> RawTable:
    """One table of several files, with the columns that the names of their folders add."""
    added = {
        name: _partition(cells, text=text)
        for name, cells in places.partitions.items()
        if name not in columns
    }
    starts = np.cumsum([0, *heights])

    def read(names: Sequence[str], rows: Rows | None) -> pl.DataFrame:
        in_file = [name for name in names if name not in added]
        parts: list[pl.DataFrame] = []
        for at, (first, end) in enumerate(itertools.pairwise(starts.tolist())):
            chosen = None if rows is None else rows[(rows >= first) & (rows < end)] - first
            height = int(end - first) if chosen is None else len(chosen)
            # A file may consist of partition columns: its height is known all the same.
            part = read_file(at, in_file, chosen) if in_file else pl.DataFrame(height=height)
            if part.height != height:
                raise InvalidInput(f"{places.files[at]} changed while it was read; run again")
            cells = [
                added[name][at].new_from_index(0, height).alias(name)
                for name in names
                if name in added
            ]
            parts.append(part.hstack(cells))
        return pl.concat(parts)[list(names)]

    return RawTable(source, (*columns, *added), text, read, where, index)


def _partition(cells: Sequence[str | None], *, text: bool) -> list[pl.Series]:
    """The cell of each file as a series of one value: text, or whole numbers where all are."""
    whole = not text and all(cell is None or re.fullmatch(r"-?[0-9]{1,18}", cell) for cell in cells)
    return [
        pl.Series(
            [None if cell is None else int(cell) if whole else cell],
            dtype=pl.Int64 if whole else pl.String,
        )
        for cell in cells
    ]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
