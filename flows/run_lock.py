"""At most one recurring run at a time, by a lock that the kernel frees when its holder ends.

    .modelpred/run.lock     locked during a run; content: {"kind", "pid", "since"} of the holder

A run that finds another run of its own kind ends at once. A run of another kind is waited for. The
lock is passed to the commands that the run starts, so it is held until they have ended, too. They end
within seconds after their run (flows/runtime.py), and for so long a new run waits.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from modelpred.errors import InvalidInput

LOCK = Path(".modelpred/run.lock")
POLL_SECONDS = 1.0
ENDING_SECONDS = 30.0  # for the commands of a run that was killed


@dataclass(frozen=True)
class Holder:
    """The run that holds the lock."""

    kind: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.kind} (process {self.pid}, since {self.since})"


class AlreadyRunning(Exception):  # noqa: N818 - not an error of the program
    """Another run of this kind holds the lock; the message says which."""


@contextmanager
def run_lock(
    kind: str, *, path: Path = LOCK, waiting: Callable[[Holder | None], None] = lambda _: None
) -> Generator[int]:
    """Hold the lock during the block; gives the descriptor to pass to child processes.

    Args:
        kind: name of the kind of run.
        path: the lock file.
        waiting: called once with the run that is waited for.

    Raises:
        AlreadyRunning: a run of the same kind holds the lock.
        InvalidInput: the path is not an ordinary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path} is not an ordinary file; remove it and run again")
    # Opened for appending: the content of another run stays until this run holds the lock.
    with path.open("a+") as file:
        began, reported = time.monotonic(), False
        while not _lock(file.fileno()):
            holder = _holder(path)
            ending = holder is not None and not psutil.pid_exists(holder.pid)
            patient = ending and time.monotonic() - began < ENDING_SECONDS
            if holder is not None and holder.kind == kind and not patient:
                raise AlreadyRunning(f"another run is under way: {holder}; nothing was started")
            if not reported:
                waiting(holder)
                reported = True
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        holder = Holder(kind, os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
        file.write(json.dumps(asdict(holder)))
        file.flush()
        yield file.fileno()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> Holder | None:
    """The holder of the lock; None if the file does not say it yet."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
