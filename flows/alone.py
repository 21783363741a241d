"""One recurring run at a time: a lock of the kernel's, which goes with its process however that ends.

    .modelpred/run.lock     locked while a run is under way; says which one: {"kind", "pid", "since"}

A run that finds another of its own kind under way ends at once: the work is being done. Another kind is waited for.
The lock is handed down to the commands that the run starts: where the run is killed and its `dvc repro` works on, that
still is a run under way.
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

LOCK = Path(".modelpred/run.lock")
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """The run that is under way."""

    kind: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.kind} (process {self.pid}, since {self.since})"


class UnderWay(Exception):  # noqa: N818 - says what is the case, like WorkerFailed
    """Another run of this kind is under way; the message says which."""


@contextmanager
def alone(
    kind: str, *, path: Path = LOCK, waiting: Callable[[Holder | None], None] = lambda _: None
) -> Generator[int]:
    """Holds the lock inside the block; gives its descriptor, to be handed down.

    Args:
        kind: what runs.
        path: the lock's file.
        waiting: called once, with the run that is waited for.

    Raises:
        UnderWay: a run of the same kind is under way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened for appending: what another run wrote stays until this one holds the lock.
    with path.open("a+") as file:
        told = False
        while not _locks(file.fileno()):
            holder = _holder(path)
            if holder is not None and holder.kind == kind:
                raise UnderWay(f"another run is under way: {holder}; nothing was started")
            if not told:
                waiting(holder)
                told = True
            time.sleep(LOOK_SECONDS)
        file.truncate(0)
        holder = Holder(kind, os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
        file.write(json.dumps(asdict(holder)))
        file.flush()
        yield file.fileno()


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> Holder | None:
    """Who holds the lock; None in the moment before it has said so."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
