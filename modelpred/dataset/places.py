"""The files that a source names, and the columns that the names of their folders add.

A path that exists is that file or folder, whatever characters it contains. Only a path that does not
exist is a glob, starting at the first part that does not exist. A folder `region=north` adds a column
`region` with the cell `north` to the files below it (Hive partitioning).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import has_magic, iglob
from pathlib import Path
from urllib.parse import unquote

from modelpred.errors import InvalidInput

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")
MOST_FILES = 10_000
MOST_NAMES = 200_000  # most names in the folders of a source
HIVE_MISSING = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Places:
    """The files of a source.

    Attributes:
        files: in order of their names.
        partitions: cells of the columns that folder names add, one for each file.
    """

    files: tuple[Path, ...]
    partitions: dict[str, tuple[str | None, ...]]


def looks_like_path(source: str) -> bool:
    """Whether the text is a path or glob, and not the name of a built-in table."""
    return (
        "/" in source
        or has_magic(source)
        or source.lower().endswith((*CSV_ENDINGS, *PARQUET_ENDINGS))
        or _exists(source)
    )


def place_of(source: str) -> Path:
    """The file or folder that a source names; for a glob, the folder that it searches."""
    return Path(source) if _exists(source) else _split(source)[0]


def files_of(source: str) -> Places:
    """The files of a path, a folder of Parquet, or a glob.

    Raises:
        InvalidInput: there are none, too many, or folders that name different columns.
    """
    path = Path(source)
    if _exists(source):
        if not path.is_dir():
            return Places((path,), {})
        root, files = path, _parquet_below(path)
        if not files:
            raise InvalidInput(
                f"{source} is a folder without Parquet files; name a file, a folder of Parquet "
                f"files, or a glob such as {path / '*.csv'}"
            )
    elif has_magic(source):
        root, files = _matching(source)
        if not files:
            raise InvalidInput(
                f"{source} matches no file; relative paths start at the current folder"
            )
    else:
        raise InvalidInput(f"{source} is not there; relative paths start at the current folder")
    return Places(tuple(files), _partitions(files, root))


def _exists(source: str) -> bool:
    # Path.exists raises for a name that no file can have: too long, or with a zero byte.
    return bool(source) and os.path.exists(source)  # noqa: PTH110


def _parquet_below(folder: Path) -> list[Path]:
    """The Parquet files in the folder and below it, but for hidden ones; links are followed."""
    files: list[Path] = []
    count, visited = 0, set[str]()
    for path, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        count += len(folders) + len(names)
        if count > MOST_NAMES or len(files) > MOST_FILES:
            raise InvalidInput(f"{folder} holds too many files; name the folder of the table alone")
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        files += [
            Path(path) / name
            for name in names
            if name.lower().endswith(PARQUET_ENDINGS) and not name.startswith((".", "_"))
        ]
    return sorted(files)


def _matching(source: str) -> tuple[Path, list[Path]]:
    """The folder that a glob searches, and the files that it matches."""
    root, pattern = _split(source)
    files: list[Path] = []
    for name in _names(root, pattern):
        if len(files) == MOST_FILES:
            raise InvalidInput(f"{source} matches more than {MOST_FILES:,} files; name fewer")
        if not (root / name).is_dir():
            files.append(root / name)
    return root, sorted(files)


def _names(root: Path, pattern: str) -> Iterator[str]:
    return iglob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - Path.glob follows no links


def _split(source: str) -> tuple[Path, str]:
    """The part of a glob that exists as a folder, and the pattern below it."""
    folder, parts = Path(), Path(source).parts
    for at, part in enumerate(parts):
        if not _exists(str(folder / part)):
            return folder, os.path.join(*parts[at:])  # noqa: PTH118 - a pattern is no path
        folder /= part
    return folder, ""


def _partitions(files: Sequence[Path], root: Path) -> dict[str, tuple[str | None, ...]]:
    """Cells of the columns that the folders between the root and each file add."""
    cells = [_cells(file.parent.relative_to(root)) for file in files]
    for file, found in zip(files, cells, strict=True):
        if list(found) != list(cells[0]):
            raise InvalidInput(
                f"the folders of {file} name the columns {_listed(found)}, those of {files[0]} "
                f"{_listed(cells[0])}; make them alike"
            )
    return {name: tuple(found[name] for found in cells) for name in cells[0]}


def _cells(folders: Path) -> dict[str, str | None]:
    cells: dict[str, str | None] = {}
    for part in folders.parts:
        name, sign, cell = part.partition("=")
        if sign and name:
            cells[unquote(name)] = None if cell == HIVE_MISSING else unquote(cell)
    return cells


def _listed(names: dict[str, str | None]) -> str:
    return ", ".join(map(repr, names)) or "none"
