# ruff: noqa: PLC0415 - mlflow and torch take seconds to import: listing versions must not wait for torch.
"""MLflow's store in the project's root: its paths, a lock for writers, and a quiet client.

The store is `mlflow.db` in the project's root, where a plain `mlflow.pyfunc.load_model("models:/<name>@champion")`
finds it by MLflow's own default; files lie under `mlruns` beside it. Paths in it are absolute.
"""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import warnings
from collections.abc import Generator
from importlib.machinery import ModuleSpec
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from modelpred.errors import InvalidInput
from modelpred.sealed import open_file, refuse

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
REBUILD = "move it away and run python -m flows.publish, which rebuilds the registry"
SQLITE = b"SQLite format 3\0"
SQLITE_HEADER = 100  # bytes: sqlite.org/fileformat.html
SCHEMAS = "store/db_migrations/versions"  # in MLflow's package
DISK_WORDS = ("disk is full", "readonly", "read-only", "unable to open", "locked", "disk I/O")
FILES = "mlruns"
PREDICTOR = "predictor"  # its folder among the artifacts of a version


def registered_name(dataset: str, target: str) -> str:
    """`modelpred-<dataset>-<target>` in letters, digits, dots, dashes and underscores."""
    return "modelpred-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{dataset}-{target}")[:200]


def checked_name(name: str) -> str:
    """The name, if it is one that a registered model can have; InvalidInput otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,250}", name):
        raise InvalidInput(f"registry: not a name of a registered model: {name[:100]!r}")
    return name


def tracking_uri(root: Path) -> str:
    """MLflow's store in this project's root."""
    return f"sqlite:///{(root.absolute() / DATABASE).as_posix()}"


def local_folder(source: str) -> Path:
    """The folder of a version's files, from its source in MLflow."""
    parts = urlsplit(source)
    return Path(unquote(parts.path) if parts.scheme == "file" else source)


def predictor_folder(source: str) -> Path:
    """The predictor's own files inside a version's files."""
    return local_folder(source) / "artifacts" / PREDICTOR


def intact(source: str, fingerprint: str) -> bool:
    """Whether a version's predictor files exist and match the fingerprint."""
    from modelpred.predictor.files import PREDICTOR_FILES, predictor_fingerprint

    folder = predictor_folder(source)
    try:
        present = all((folder / file).is_file() for file in PREDICTOR_FILES)
        return present and predictor_fingerprint(folder) == fingerprint
    except InvalidInput:  # not as it was sealed
        return False


@contextlib.contextmanager
def locked(root: Path) -> Generator[None]:
    """Hold the lock for writers, which the kernel frees when the process ends."""
    place = root / ".modelpred"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "registry.lock"):
        yield


@contextlib.contextmanager
def opened(root: Path) -> Generator["MlflowClient"]:
    """A client of the project's store without MLflow's logs and telemetry during the block."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        # MLflow warns of type hints in its own modules as it is imported.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")
            if has_database(root):
                _check_database(root / DATABASE)
            else:
                _make_database(root)
            with _one_line_errors(root / DATABASE):
                yield from _quiet_client(tracking_uri(root))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def has_database(root: Path) -> bool:
    """Whether there is anything in the database's place, whatever it is."""
    return os.path.lexists(root / DATABASE)


def _check_database(path: Path) -> None:
    """Refuse a file that is no database of SQLite, is damaged, or has a schema of another MLflow."""
    try:
        with open_file(path, again=REBUILD) as file:
            start = file.read(len(SQLITE))
    except OSError as error:  # a link to itself, or no permission
        raise refuse(path, error.strerror or str(error), again=REBUILD) from error
    if start != SQLITE:
        raise refuse(path, "it is no SQLite database", again=REBUILD)
    schemas = _schemas(path)
    if schemas is None:
        return  # MLflow waits for the lock, or fails with the same error
    for (schema,) in schemas:
        if not _known_schema(str(schema)):
            version = installed_version("mlflow")
            why = f"MLflow {version} does not know its schema {schema}; install the MLflow that made it, or"
            raise refuse(path, why, again=REBUILD)


def _schemas(path: Path) -> list[tuple[str]] | None:
    """The schemas that the database names; None where not the file but the disk refuses.

    Raises:
        InvalidInput: the file is damaged.
    """
    try:
        # For writing, too: what a killed process left half done is taken back first.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            schemas = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    # SQLite's own message may quote damaged bytes, which are then no UTF-8.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if _refused_by_disk(error):
            return None
        raise refuse(path, str(error), again=REBUILD) from error
    if state == "ok" and _is_cut(path):
        state = "its end is missing"
    if state != "ok":
        raise refuse(path, state, again=REBUILD)
    return schemas


def _is_cut(path: Path) -> bool:
    """Whether the file has fewer bytes than its header counts pages; SQLite overlooks part of a page."""
    with open_file(path, again=REBUILD) as file:
        header = file.read(SQLITE_HEADER)
    page, pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
    counted = header[24:28] == header[92:96]  # older versions of SQLite do not keep the count
    return counted and path.stat().st_size < pages * (65536 if page == 1 else page)


def _known_schema(schema: str) -> bool:
    """Whether the installed MLflow can read or upgrade it; each of its schemas has a file of its own."""
    folders = (find_spec("mlflow") or ModuleSpec("mlflow", None)).submodule_search_locations or ()
    files = (path for each in folders for path in Path(each, SCHEMAS).glob("*.py"))
    return any(path.name.startswith(f"{schema}_") for path in files)


def _refused_by_disk(error: BaseException) -> bool:
    return any(words in str(error) for words in DISK_WORDS)


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Generator[None]:
    """Turn errors of MLflow and of the database below it into one line that names the file."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, UnicodeDecodeError) as error:
        if _refused_by_disk(error):
            raise
        why = str(getattr(error, "orig", None) or error)
        if "out-of-date database schema" in why:
            again = f"run: mlflow db upgrade sqlite:///{path}"
            raise refuse(path, "its schema is of an older MLflow", again=again) from error
        raise refuse(path, why, again=REBUILD) from error


def _make_database(root: Path) -> None:
    """An empty store, made elsewhere and renamed: MLflow cannot use one whose making was cut short."""
    place = root / ".modelpred" / "new-database"
    shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
    place.mkdir(parents=True)
    for client in _quiet_client(tracking_uri(place)):
        client.search_experiments()
    (place / DATABASE).replace(root / DATABASE)
    shutil.rmtree(place)


def _quiet_client(uri: str) -> Generator["MlflowClient"]:
    """A client while MLflow logs only warnings and errors."""
    from mlflow import MlflowClient  # sets the levels of its loggers, so it comes first

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
