"""How a stage's process runs: its environment, its Prefect server, its progress, its end.

Imported before prefect: Prefect reads its settings when it is imported.
"""

import atexit
import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from flows import server
from flows.artifacts import PARAMS, STAGES

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Flow
    from prefect.task_runners import TaskRunner

ENVIRONMENT = {
    "DO_NOT_TRACK": "true",  # MLflow wants the word
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_UI_ENABLED": "false",
    # A stage ends with its own message or traceback; Prefect's would be a second one.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "WARNING",  # else two lines for each task
    # Prefect keeps the exception of a failed flow in a file of its own: as text, not as a pickle.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # A server that goes with its owner must not still hold the records of short tasks.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # Whole seconds: Prefect 3.8 cuts a fraction off, and with 0 its server never rests.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
PROGRESS_SECONDS = 1.0  # between two updates of the progress artifact
OWNER_SECONDS = 1.0

# What a disk says that is full, or that may not be written to: nothing is wrong with the program.
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

_went_well = threading.Event()


def settle_environment() -> None:
    """Sets what is not yet set: telemetry off, quiet logs, Prefect's files inside the project."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(Path(".modelpred/prefect").absolute()))


def settle_end() -> None:
    """A stage that went well leaves at once when everything that waits for its exit has run.

    Taking apart torch and Prefect object by object costs a second, for nothing. Exit handlers run
    last registered first, so this one comes after Prefect's, which send what it still holds.
    """

    def leave() -> None:
        if _went_well.is_set():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    atexit.register(leave)


def prepare_server() -> None:
    """Starts the shared server while this process imports, if it is `python -m flows.<stage>`.

    Only a head start: `run_stage` joins the server itself.
    """
    # While `python -m` looks for the module, argv[0] is "-m"; at any other import it is not.
    if sys.argv[:1] != ["-m"] or "PREFECT_API_URL" in os.environ:
        return
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    if module in {f"flows.{stage}" for stage in STAGES} and PARAMS.is_file():
        server.join(owner())


def owner() -> psutil.Process:
    """The `dvc` process that this one runs under, or this one when there is none."""
    this = psutil.Process()
    for ancestor in this.parents():
        try:
            command = ancestor.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in command[:3]):  # dvc, python dvc, python -m dvc
            return ancestor
    return this


def run_stage(
    stage: "Flow[..., None]",
    *,
    runner: "Callable[[], TaskRunner[Any]] | None" = None,
    **parameters: str,
) -> None:
    """Runs a stage's flow as the whole work of this process; a failure becomes its exit status.

    Input that is wrong, or a disk that refuses, ends it with one line on stderr; anything else with its traceback.

    Args:
        stage: the flow.
        runner: makes what runs the flow's tasks.
        parameters: the flow's own.
    """
    # Imported here: this module comes before prefect, and the server starts meanwhile.
    from modelpred.errors import InvalidInput  # noqa: PLC0415
    from modelpred.params import read_params  # noqa: PLC0415

    _show_warnings(stage.name)
    _end_with(owner())
    try:
        read_params(PARAMS)  # a mistake anywhere in the file is told before anything is computed
        if runner is not None:
            stage = stage.with_options(task_runner=runner())
        with shared_api():
            state: Any = stage(**parameters, return_state=True)
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            raise outcome
    except InvalidInput as error:
        sys.exit(f"{stage.name}: {error}")
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        sys.exit(f"{stage.name}: {refusal(error)}")
    _went_well.set()


def refusal(error: OSError) -> str:
    """What a disk refused, as one line that says where and what to do."""
    place = f" at {error.filename}" if error.filename else ""
    return f"cannot write{place}: {error.strerror}; make room or give permission, then run again"


def _show_warnings(stage: str) -> None:
    """The library's warnings go to stderr, one line each, whatever Prefect does with its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{stage}: %(message)s"))
    logger = logging.getLogger("modelpred")
    logger.addHandler(handler)
    logger.propagate = False


@contextmanager
def shared_api(*, schedules: bool = False) -> Generator[None]:
    """Prefect talks to the server that PREFECT_API_URL names, or else to the shared one.

    When the shared one cannot start, Prefect starts a temporary server of its own.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    if PREFECT_API_URL.value() is not None:
        yield
        return
    folder = server.FOLDER.with_name("schedule-server") if schedules else server.FOLDER
    address = server.join(owner(), folder=folder, schedules=schedules)
    if not server.wait_until_healthy(address):
        sys.stderr.write(f"the shared Prefect server did not start, see {folder / 'log'}\n")
        yield
        return
    with temporary_settings({PREFECT_API_URL: address.url}):
        yield


def _end_with(process: psutil.Process) -> None:
    """Ends this process when `process` has gone: nobody is left to record what it would write."""

    def watch() -> None:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(OWNER_SECONDS)
        os._exit(1)

    if process.pid != os.getpid():
        threading.Thread(target=watch, daemon=True).start()


class Progress:
    """A bar in the terminal and a progress artifact in Prefect, inside a `with` block.

    Attributes:
        what: the stage, as the bar and the artifact name it.
    """

    def __init__(self, what: str) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar  # noqa: PLC0415

        self.what = what
        self._bar = Bar(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(what, total=None, what="")
        self._artifact: UUID | None = None
        self._percent = 0.0
        self._updated = 0.0

    def __enter__(self) -> "Progress":
        from prefect.artifacts import create_progress_artifact  # noqa: PLC0415
        from prefect.context import FlowRunContext  # noqa: PLC0415

        if FlowRunContext.get() is not None:
            artifact: Any = create_progress_artifact(
                0.0, key=self.what, description=f"Progress of {self.what}"
            )
            self._artifact = artifact
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._record()

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Shows that `done` of `total` pieces are ready, and what is made now."""
        self._bar.update(self._task, completed=done, total=total, what=what)
        self._percent = 100.0 * done / total if total else 100.0
        if time.monotonic() - self._updated > PROGRESS_SECONDS:
            self._record()

    def _record(self) -> None:
        from prefect.artifacts import update_progress_artifact  # noqa: PLC0415

        self._updated = time.monotonic()
        if self._artifact is not None:
            update_progress_artifact(self._artifact, progress=self._percent)
