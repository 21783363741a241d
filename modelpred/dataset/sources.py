"""Loads the table of `dataset.source`: a built-in table, a table of OpenML, or a user's files.

SHIPPED and FROM_FILES list the built-in tables. To add one, write a function that returns a Table
and enter it there; the module of the table imports only tables.py.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.higgs import higgs_table
from modelpred.dataset.openml import PREFIX
from modelpred.dataset.own import own_table
from modelpred.dataset.places import files_of, looks_like_path, place_of
from modelpred.dataset.tables import PACKAGED, Table
from modelpred.errors import InvalidInput

OWN_KEYS = ("label", "row_id", "group", "drop", "categories", "dates", "since")

log = logging.getLogger(__name__)


def _mnist() -> Table:
    # Imported late: it imports torch, which other tables do not need.
    from modelpred.dataset.images import mnist_table  # noqa: PLC0415

    return mnist_table()


SHIPPED: dict[str, Callable[[], Table]] = {**PACKAGED, "mnist": _mnist}
FROM_FILES: dict[str, Callable[[str | None], Table]] = {"higgs": higgs_table}
"""Tables that are read from the path dataset.file."""


def known_sources() -> tuple[str, ...]:
    """Names of the built-in tables."""
    return (*SHIPPED, *FROM_FILES)


def load_table(source: str, *, file: str | None = None) -> Table:
    """The built-in table of that name; `file` is the path of a table that is not included.

    Raises:
        InvalidInput: there is no such table; the message lists the known ones.
    """
    if source in FROM_FILES:
        return FROM_FILES[source](file)
    if file is not None:
        raise InvalidInput(
            f"dataset.file is {file}, but the table {source!r} ships; set dataset.file to null"
        )
    if source not in SHIPPED:
        known = ", ".join(known_sources())
        raise InvalidInput(f"dataset.source: unknown table {source!r}; known: {known}")
    return SHIPPED[source]()


def source_table(config: DatasetConfig) -> Table:
    """The table of the config's source with its rows selected; dropped columns are logged.

    Raises:
        InvalidInput: there is no such source, or the table cannot be used (a line for each reason).
    """
    if not is_own(config.source):
        _require_no_own_keys(config)
        return load_table(config.source, file=config.file)
    if config.file is not None:
        raise InvalidInput(
            f"dataset.file is {config.file}, but dataset.source is a table of its own; set "
            "dataset.file to null"
        )
    own = own_table(config)
    if config.since is not None and len(own.table.rows) < own.rows:
        raise InvalidInput(
            f"dataset.since is {config.since}, which needs every row, but dataset.max_points takes "
            f"{len(own.table.rows):,} of {own.rows:,}; set it to null"
        )
    if own.inspection.problems:
        raise InvalidInput("\n".join(own.inspection.problems))
    for note in own.inspection.notes:
        log.warning("%s", note)
    return own.table


def _require_no_own_keys(config: DatasetConfig) -> None:
    """Raise InvalidInput for an unknown table, and for keys that built-in tables do not have."""
    if config.source not in known_sources():
        raise InvalidInput(
            f"dataset.source: unknown table {config.source!r}; known: {', '.join(known_sources())}, "
            f"{PREFIX}<name or number>, or a path to CSV or Parquet"
        )
    for key in OWN_KEYS:
        if getattr(config, key):
            raise InvalidInput(
                f"dataset.{key} is for a table of your own, but dataset.source is "
                f"{config.source!r}; leave it out"
            )
    if isinstance(config.test, str) and config.test != AUTO:
        raise InvalidInput(
            f"dataset.test is {config.test!r}, but {config.source!r} has neither such a column nor "
            "a second file; expected a number of rows, a share, or auto"
        )


def places_of(config: DatasetConfig) -> tuple[Path, ...]:
    """The files or folders that the config reads, without built-in tables and tables of OpenML."""
    return tuple(map(place_of, _paths(config)))


def files_read(config: DatasetConfig) -> tuple[Path, ...]:
    """Every file that the config reads, without built-in tables and tables of OpenML.

    Raises:
        InvalidInput: a path or glob names no file.
    """
    return tuple(file for path in _paths(config) for file in files_of(path).files)


def _paths(config: DatasetConfig) -> list[str]:
    named = [config.source, config.test if isinstance(config.test, str) else AUTO, config.file]
    return [
        name
        for name in named
        if name is not None
        and name != AUTO
        and not name.startswith(PREFIX)
        and name not in known_sources()
        and looks_like_path(name)
    ]


def require_plain_paths(config: DatasetConfig) -> None:
    """Refuse paths that DVC would replace.

    `dvc repro` takes a path in params.yaml as it is. `dvc exp run --set-param` replaces each `${...}`
    in the file, so that another file would be read.

    Raises:
        InvalidInput: a path contains `${`.
    """
    for key in ("source", "file", "watch", "test"):
        path = getattr(config, key)
        if isinstance(path, str) and "${" in path and (key != "test" or looks_like_path(path)):
            raise InvalidInput(
                f"dataset.{key}: expected a path without ${{, which dvc exp run replaces by another "
                f"text, got {path!r}; rename the file or folder"
            )


def is_own(source: str) -> bool:
    """Whether the source is a user's table: files, or a table of OpenML."""
    if source in known_sources():
        return False
    return source.startswith(PREFIX) or looks_like_path(source)
