"""How a stage's process runs: its environment, its owner and its exit.

A process that works for another one ends when that one has ended, however it ended (`end_with_owner`).
The owners are the `dvc` process that runs the stage, and the process that MODELPRED_OWNER names as
"<process number> <start time>". The start time distinguishes a process from a later one with the same
number.
"""

import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from flows.artifacts import PARAMS
from modelpred.errors import InvalidInput, refusal
from modelpred.progress import progress_bar

ENVIRONMENT = {
    "DO_NOT_TRACK": "true",  # MLflow accepts only the word
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_UI_ENABLED": "false",
    # A run prints its own message or traceback; Prefect would print it a second time.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "WARNING",  # else two lines for each task
    # Prefect stores the exception of a failed flow in a file: as text, not as a pickle.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # The server may be stopped right after the last task: write the records of short tasks at once.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # Whole seconds: Prefect 3.8 truncates a fraction, and with 0 its server never sleeps.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
DVC_STATE = Path(".modelpred/dvc")  # core.site_cache_dir in .dvc/config
OWNER = "MODELPRED_OWNER"
OWNER_SECONDS = 0.5  # between two checks of the owners


def settle_environment() -> None:
    """Set the variables that are not set: telemetry off, quiet logs, Prefect's files in the project."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    home = Path(".modelpred/prefect").absolute()
    os.environ.setdefault("PREFECT_HOME", str(home))
    # Requests to servers on this machine must not go through a proxy.
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" not in hosts.split(","):
        os.environ["no_proxy"] = ",".join(filter(None, (hosts, "127.0.0.1", "localhost")))
    if PARAMS.is_file():  # in a project; Prefect makes its folder, but not the one above
        with suppress(OSError):  # a later write reports the error
            home.parent.mkdir(exist_ok=True)


def run_stage(stage: str, run: Callable[[], None]) -> None:
    """Run a stage as the only work of this process; an error becomes the exit status.

    Invalid input and a disk that refuses to write end the process with one line on stderr, other
    errors with a traceback.
    """
    from modelpred.params import read_params  # noqa: PLC0415 - `--help` does not wait for it

    show_warnings(stage)
    end_with_owner()
    with one_line_errors(stage):
        keep_private(DVC_STATE)
        read_params(PARAMS)  # a mistake in any section is reported before anything is computed
        with progress_bar(stage):
            run()


def keep_private(folder: Path) -> None:
    """Close DVC's state folder to other users: DVC opens it to all, and unpickles what is in it.

    DVC also opens the folder above if it makes it. Others must not be able to replace what is in that one.

    Raises:
        InvalidInput: one of the two is no folder, or belongs to another user.
    """
    for each, closed in ((folder.parent, 0o022), (folder, 0o077)):
        with suppress(FileNotFoundError):
            found = each.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise InvalidInput(
                    f"{each} is not a folder of this user; move it away and run again"
                )
            each.chmod(found.st_mode & 0o777 & ~closed)


@contextmanager
def one_line_errors(program: str) -> Generator[None]:
    """End the process with one line on stderr for invalid input and for a disk that refuses."""
    try:
        yield
    except InvalidInput as error:
        sys.exit(f"{program}: {error}")
    except Exception as error:
        message = refusal(error)
        if message is None:
            raise
        sys.exit(f"{program}: {message}")


def show_warnings(program: str) -> None:
    """Print the library's warnings on stderr, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s" if program else "%(message)s"))
    logger = logging.getLogger("modelpred")
    logger.addHandler(handler)
    logger.propagate = False


def this_process() -> str:
    """The value of MODELPRED_OWNER for children of this process."""
    return f"{os.getpid()} {psutil.Process().create_time():.2f}"


def end_with_owner() -> None:
    """Start a thread that ends this process when an owner has ended."""
    owners = [*_dvc(), *_named_owner()]

    def watch() -> None:
        while all(owner is not None and _runs(owner) for owner in owners):
            time.sleep(OWNER_SECONDS)
        os._exit(1)

    if owners:
        threading.Thread(target=watch, daemon=True).start()


def _dvc() -> list[psutil.Process]:
    """The `dvc` process above this one, if there is one."""
    for ancestor in psutil.Process().parents():
        try:
            command = ancestor.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in command[:3]):  # dvc, python dvc, python -m dvc
            return [ancestor]
    return []


def _named_owner() -> list[psutil.Process | None]:
    """The process that MODELPRED_OWNER names: [None] if it has ended, [] if there is no such name."""
    named = os.environ.get(OWNER)
    if not named:
        return []
    try:
        number, started = named.split()
        process = psutil.Process(int(number))
        # Clocks are adjusted, hence the two seconds.
        return [process if abs(process.create_time() - float(started)) < 2 else None]
    except (psutil.Error, ValueError):
        return [None]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
