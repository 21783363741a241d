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
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from modelpred.errors import InvalidInput

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
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
    present = all((folder / file).is_file() for file in PREDICTOR_FILES)
    return present and predictor_fingerprint(folder) == fingerprint


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
            if not (root / DATABASE).is_file():
                _make_database(root)
            yield from _quiet_client(tracking_uri(root))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
