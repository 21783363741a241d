"""Files of the user's own as lazy tables: CSV and Parquet, one file, a folder of Parquet, a glob.

Nothing of a table is held but what is asked for. A CSV is looked through once, byte by byte and
record by record, before anything is taken from it: polars fills a short record with nulls and
splits a file at the wrong sign without a word. Every cell of a CSV is read as text; what the text
means is decided on the rows that are taken (modelpred.dataset.columns).
"""

import codecs
import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import polars as pl

from modelpred.errors import InvalidInput

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_CELL = 2**24  # characters; csv's own limit of 131,072 is less than some texts have


@dataclass(frozen=True)
class RawTable:
    """A table as it lies in files.

    Attributes:
        name: what messages call it: the file, the folder or the glob.
        frame: its rows in order, unread.
        columns: names of its columns.
        text: whether every cell is text, as in a CSV.
        lines: whether row r stands in line r + 2 of one file.
    """

    name: str
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    text: bool
    lines: bool = False

    def where(self, row: int) -> str:
        """A row, counted from zero, as a person finds it."""
        return f"row {row} (line {row + 2})" if self.lines else f"row {row}"


def looks_like_path(source: str) -> bool:
    """Whether the text names files rather than a table that ships."""
    return (
        "/" in source
        or has_magic(source)
        or source.lower().endswith((*CSV_ENDINGS, *PARQUET_ENDINGS))
        or Path(source).exists()
    )


def open_table(source: str, *, delimiter: str) -> RawTable:
    """The table in a file, a folder of Parquet files, or the files that a glob matches.

    Raises:
        InvalidInput: nothing there, not readable, or not one table; one line that says where.
    """
    paths = _paths(source)
    try:
        if all(_is_parquet(path) for path in paths):
            return _open_parquet(source, paths)
        for path in paths:
            if not path.name.lower().endswith(CSV_ENDINGS):
                known = ", ".join((*CSV_ENDINGS, *PARQUET_ENDINGS))
                raise InvalidInput(f"{path}: expected a file whose name ends in one of {known}")
        return _open_csv(source, paths, delimiter)
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror or error}") from error


def _paths(source: str) -> list[Path]:
    """The files that a source names, in order of their names."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for end in PARQUET_ENDINGS for p in path.rglob(f"*{end}") if p.is_file())
        if not found:
            raise InvalidInput(
                f"{source} is a folder without Parquet files; name a file, a folder of Parquet "
                f"files, or a glob such as {path / '*.csv'}"
            )
        return found
    if has_magic(source) and not path.exists():
        # Path.glob takes relative patterns only.
        names = sorted(glob(source, recursive=True))  # noqa: PTH207
        found = [path for path in map(Path, names) if path.is_file()]
        if not found:
            raise InvalidInput(f"{source} matches no file; relative paths start at the project")
        return found
    if not path.exists():
        raise InvalidInput(f"{source} is not there; relative paths start at the project's folder")
    return [path]


def _is_parquet(path: Path) -> bool:
    if path.name.lower().endswith(PARQUET_ENDINGS):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _open_parquet(source: str, paths: list[Path]) -> RawTable:
    """The rows of Parquet files that have the same columns."""
    schemas: list[dict[str, Any]] = []
    for path in paths:
        with path.open("rb") as file:
            if not file.read(1):
                raise InvalidInput(f"{path} is empty; expected a Parquet file")
        try:
            schemas.append(dict(pl.scan_parquet(path).collect_schema()))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InvalidInput(
                f"{path} is not a whole Parquet file ({_first_line(error)}); write it again"
            ) from error
    for path, schema in zip(paths, schemas, strict=True):
        if schema != schemas[0]:
            raise InvalidInput(_differing(path, schema, paths[0], schemas[0]))
    return RawTable(source, pl.scan_parquet(paths), tuple(schemas[0]), text=False)


def _differing(path: Path, schema: dict[str, Any], first: Path, like: dict[str, Any]) -> str:
    for name in (*like, *schema):
        if like.get(name) != schema.get(name):
            there, here = like.get(name, "no such column"), schema.get(name, "no such column")
            return (
                f"{path}: column {name!r} is {here}, but in {first} it is {there}; make them equal"
            )
    return f"{path}: its columns stand in another order than those of {first}; make them equal"


def _open_csv(source: str, paths: list[Path], delimiter: str) -> RawTable:
    """The rows of CSV files that have the same header, each looked through first."""
    checks = [_check_csv(path, "\t" if path.suffix == ".tsv" else delimiter) for path in paths]
    for path, check in zip(paths, checks, strict=True):
        if check.columns != checks[0].columns:
            raise InvalidInput(
                f"{path}: its header differs from that of {paths[0]}; make them equal"
            )
    frames = [
        pl.scan_csv(
            path,
            separator="\t" if path.suffix == ".tsv" else delimiter,
            infer_schema=False,
            has_header=True,
            new_columns=list(check.columns),
        )
        for path, check in zip(paths, checks, strict=True)
    ]
    return RawTable(
        source,
        pl.concat(frames) if len(frames) > 1 else frames[0],
        checks[0].columns,
        text=True,
        lines=len(paths) == 1 and checks[0].lines,
    )


@dataclass(frozen=True)
class _CsvCheck:
    """What looking through a CSV found: its columns, and whether every record is one line."""

    columns: tuple[str, ...]
    lines: bool


def _check_csv(path: Path, delimiter: str) -> _CsvCheck:
    """Looks through every record.

    Raises:
        InvalidInput: bytes that are not UTF-8, another delimiter, names that are missing or stand
            twice, a record with more or fewer cells than the header, or no record at all.
    """
    csv.field_size_limit(LONGEST_CELL)
    records = 0
    # Any: gzip's file is one of bytes, but not to a type checker.
    opened: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opened(path, "rb") as file:
        reader = csv.reader(_utf8_lines(path, file), delimiter=delimiter, strict=True)
        begun = 1
        try:
            header = next(reader, None)
            if not header:
                raise InvalidInput(f"{path} is empty; expected a header line and rows")
            columns = _columns(path, header, delimiter)
            begun = reader.line_num + 1
            for record in reader:
                if len(record) != len(columns) and not (not record and len(columns) == 1):
                    raise InvalidInput(
                        f"{path}: line {reader.line_num} has {len(record)} "
                        f"cell{'s'[: len(record) != 1]}, the header {len(columns)}; "
                        "mend the line, or quote cells that hold the delimiter"
                    )
                records += 1
                begun = reader.line_num + 1
        except csv.Error as error:
            raise InvalidInput(
                f"{path}: the record that begins in line {begun} is not CSV ({error}); is a quote "
                "not closed, or doubled?"
            ) from error
        except (EOFError, zlib.error) as error:
            raise InvalidInput(
                f"{path} is not a whole gzip file ({error}); write or copy it again"
            ) from error
        lines_read = reader.line_num
    if not records:
        raise InvalidInput(f"{path} has a header but no rows")
    return _CsvCheck(columns, lines=lines_read == records + 1)


def _columns(path: Path, header: list[str], delimiter: str) -> tuple[str, ...]:
    """The names of the columns, once they can be told apart."""
    if len(header) == 1:
        counts = {sign: header[0].count(sign) for sign in DELIMITERS if sign != delimiter}
        likely = max(counts, key=lambda sign: counts[sign])
        if counts[likely]:
            raise InvalidInput(
                f"{path}: one column when split at {delimiter!r}, {counts[likely] + 1} when split "
                f"at {likely!r}; save it with {DELIMITERS.get(delimiter, 'that sign')}, or set "
                f"dataset.delimiter to {likely!r}"
            )
    names = tuple(name.strip() for name in header)
    if "" in names:
        raise InvalidInput(
            f"{path}: column {names.index('') + 1} of {len(names)} has no name in line 1; name it"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = [str(at + 1) for at, name in enumerate(names) if name == twice[0]]
        raise InvalidInput(
            f"{path}: line 1 names {twice[0]!r} more than once (columns {', '.join(places)}); "
            "give each column a name of its own"
        )
    return names


def _utf8_lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    """Lines of the file, without a byte order mark; InvalidInput where they stop being UTF-8."""
    for number, read in enumerate(file, start=1):
        if number == 1 and read.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidInput(f"{path} is UTF-16; save it as UTF-8")
        line = read.removeprefix(codecs.BOM_UTF8) if number == 1 else read
        if b"\0" in line:
            raise InvalidInput(f"{path}: line {number} holds a zero byte; not a CSV file")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{path}: line {number} is not UTF-8 (byte 0x{line[error.start]:02x} at "
                f"{error.start + 1}); save the whole file as UTF-8"
            ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
