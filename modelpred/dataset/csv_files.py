r"""CSV files, read with Python's csv module, which checks every record each time it is read.

No other parser splits a file into cells, so the cells that are checked are the cells that are used. Lines
end in \n, \r\n or \r. The encoding is UTF-8 with or without a byte order mark. A file may be gzipped.
Blank lines at the end are ignored; blank lines elsewhere are refused.
"""

import codecs
import csv
import gzip
import io
import itertools
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from modelpred.errors import InvalidInput
from modelpred.progress import open_progress
from modelpred.sealed import open_file
from modelpred.wording import counted

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_CELL = 2**24  # characters; csv's own limit of 131,072 is less than some texts have
INDEX = "Unnamed: 0"  # pandas' name for the column that DataFrame.to_csv writes without a name
AT_ONCE = 20_000  # records that are lists of cells at a time
REPORTED = 500_000  # characters between two reports of the progress
_BYTE_ORDER_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@dataclass(frozen=True)
class CsvFile:
    """A file whose records have all been checked.

    Attributes:
        path: of the file.
        delimiter: the separator of its cells.
        columns: names of its columns.
        lines: the line in which each record begins, counted from 1.
    """

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    lines: "array[int]"

    def read(
        self, columns: Sequence[str], rows: Int64[np.ndarray, " rows"] | None
    ) -> Iterator[pl.DataFrame]:
        """Yield tables of these columns as text, of all rows or of these, in ascending order."""
        pick: Any = itemgetter(*(self.columns.index(name) for name in columns))
        wanted = None if rows is None else iter(rows.tolist())
        following = None if wanted is None else next(wanted, -1)
        batch: list[Any] = []
        for number, (_, record) in enumerate(_records(self.path, self.delimiter)):
            if following is not None:
                if number != following:
                    continue
                following = next(wanted, -1) if wanted is not None else None
            batch.append(pick(record))
            if len(batch) == AT_ONCE:
                yield _frame(columns, batch)
                batch = []
        yield _frame(columns, batch)


def _frame(columns: Sequence[str], records: list[Any]) -> pl.DataFrame:
    cells: list[Any] = [records] if len(columns) == 1 else list(zip(*records, strict=True))
    return pl.DataFrame(
        [
            pl.Series(name, cells[at] if records else [], dtype=pl.String)
            for at, name in enumerate(columns)
        ]
    )


def look_through(path: Path, delimiter: str) -> CsvFile:
    """Check every record of the file; returns the file's columns and lines.

    Raises:
        InvalidInput: bytes are not UTF-8, the delimiter is another one, column names are missing or
            repeated, a record has more or fewer cells than the header, or there are no records.
    """
    if path.name.lower().endswith((".tsv", ".tsv.gz")):
        delimiter = "\t"
    if delimiter in '"\r\n':
        raise InvalidInput(f"dataset.delimiter is {delimiter!r}, which separates no cells")
    records = _records(path, delimiter, header=True)
    columns = _columns(path, next(records)[1], delimiter)
    lines = array("q", (line for line, _ in records))
    if not lines:
        raise InvalidInput(f"{path} has a header but no rows")
    return CsvFile(path, delimiter, columns, lines)


def read_header(path: Path, delimiter: str) -> tuple[str, tuple[str, ...]]:
    """The delimiter of the file, and the names of its columns.

    The delimiter is another one than the given one if that one does not separate the header, and one
    of DELIMITERS does.

    Raises:
        InvalidInput: as `look_through`, for the header, or the file cannot be read.
    """
    try:
        [(_, header)] = itertools.islice(_records(path, delimiter, header=True), 1)
        if len(header) == 1 and (signs := [sign for sign in DELIMITERS if sign in header[0]]):
            delimiter = max(signs, key=header[0].count)
            [(_, header)] = itertools.islice(_records(path, delimiter, header=True), 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    return delimiter, _columns(path, header, delimiter)


def _records(
    path: Path, delimiter: str, *, header: bool = False
) -> Generator[tuple[int, list[str]]]:
    """Yield every record with the line in which it begins; the header first if requested."""
    csv.field_size_limit(LONGEST_CELL)
    with _text(path) as (file, tell):
        reader = csv.reader(_lines(path, file, tell), delimiter=delimiter, strict=True)
        begun, width, blank = 1, 0, 0
        try:
            for record in reader:
                first, line, begun = begun, reader.line_num, reader.line_num + 1
                if not record:
                    blank = blank or line
                    continue
                if blank:
                    raise InvalidInput(f"{path}: line {blank} is blank; remove it")
                _require_width(path, line, len(record), width or len(record))
                if width or header:
                    yield first, record
                width = width or len(record)
        except csv.Error as error:
            raise InvalidInput(
                f"{path}: the record that begins in line {begun} is not CSV ({error}); is a quote "
                "not closed, or doubled?"
            ) from error
        except (EOFError, zlib.error) as error:
            raise InvalidInput(
                f"{path} is not a whole gzip file ({error}); write or copy it again"
            ) from error
    if not width:
        raise InvalidInput(f"{path} is empty; expected a header line and rows")


def _require_width(path: Path, line: int, cells: int, width: int) -> None:
    if cells != width:
        raise InvalidInput(
            f"{path}: line {line} has {counted(cells, 'cell')}, the header {width}; mend the line, or "
            "quote cells that hold the delimiter"
        )


@contextmanager
def _text(path: Path) -> Generator[tuple[io.TextIOWrapper, Callable[[], int]]]:
    """Open the file as text, with a function that returns how many of its bytes are read.

    Bytes that are not UTF-8 become surrogates, which `_lines` refuses.
    """
    with open_file(path, again="name a CSV file") as raw:
        # Any: gzip's file is one of bytes, but not to a type checker.
        content: Any = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
        start = content.peek(4)
        for name, marks in _BYTE_ORDER_MARKS.items():
            if start.startswith(marks):
                raise InvalidInput(f"{path} is {name}; save it as UTF-8")
        # newline="": line ends inside quoted cells are kept, as csv requires.
        text = io.TextIOWrapper(content, "utf-8-sig", errors="surrogateescape", newline="")
        yield text, raw.tell


def _lines(path: Path, file: io.TextIOWrapper, tell: Callable[[], int]) -> Iterator[str]:
    """Yield the lines of the file; InvalidInput for a line that is not text or is too long."""
    number = unreported = 0
    progress = open_progress()
    while line := file.readline(LONGEST_CELL + 1):
        number += 1
        unreported += len(line)
        if unreported > REPORTED:
            progress(tell(), path.stat().st_size, "")
            unreported = 0
        if "\0" in line:
            raise InvalidInput(f"{path}: line {number} holds a zero byte; not a CSV file")
        if len(line) > LONGEST_CELL:
            raise InvalidInput(
                f"{path}: line {number} has more than {LONGEST_CELL:,} characters; not a CSV file"
            )
        if not line.isascii():
            _require_utf8(path, number, line)
        yield line


def _require_utf8(path: Path, number: int, line: str) -> None:
    content = line.encode("utf-8", "surrogateescape")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path}: line {number} is not UTF-8 (byte 0x{content[error.start]:02x} at "
            f"{error.start + 1}); save the whole file as UTF-8"
        ) from error


def _columns(path: Path, header: list[str], delimiter: str) -> tuple[str, ...]:
    """The names of the columns; a first column without a name, as pandas writes an index, is `INDEX`."""
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
    if len(names) > 1 and not names[0]:
        # pandas numbers the name when it is used already: the index of an index.
        taken = sum(is_index(name) for name in names)
        names = (f"{INDEX}.{taken}" if taken else INDEX, *names[1:])
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


def is_index(name: str) -> bool:
    """Whether pandas gives this name to a column of a CSV that has no name."""
    return name == INDEX or (name.startswith(f"{INDEX}.") and name[len(INDEX) + 1 :].isdecimal())
