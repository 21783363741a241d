"""Runs that Prefect and DVC still record as running although their processes were killed."""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import fcntl
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Crashed

from modelpred.errors import InvalidInput
from modelpred.sealed import parse_json, read_file

CLOCK_SECONDS = 2.0  # clocks are adjusted


def close_stale_runs() -> None:
    """Mark earlier runs of this flow that did not end as crashed.

    Called only by the run that holds the run lock, so no other run of the flow is in progress.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    this = context.flow_run
    with get_client(sync_client=True) as client:
        running = client.read_flow_runs(
            flow_filter=FlowFilter(id=FlowFilterId(any_=[this.flow_id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
            ),
        )
        for run in running:
            before = run.start_time and this.start_time and run.start_time < this.start_time
            if run.id != this.id and before:
                state = Crashed(message="its process was killed; found by a later run")
                client.set_flow_run_state(run.id, state, force=True)


def remove_stale_locks(folder: Path = Path(".dvc/tmp")) -> None:
    """Remove DVC's record of which paths are in use if it is unreadable or no process in it still runs.

    DVC identifies a process by its number alone. After a restart, above all of a container, another
    process may have it. A process that began after the record was written is not the one that it names.
    """
    path = folder / "rwlock"
    try:
        with (folder / "rwlock.lock").open("a") as guard:  # DVC holds it while it reads and writes
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            written = path.stat().st_mtime
            if not any(_older(number, written) for number in _numbers(path)):
                path.unlink()
    except OSError:  # no record, or a process uses it now
        return


def _numbers(path: Path) -> list[int]:
    """The process numbers in DVC's record; none if it cannot be read."""
    try:
        content: Any = parse_json(read_file(path, again=""), path, again="")
        readers = [reader for readers in content["read"].values() for reader in readers]
        return [int(one["pid"]) for one in (*content["write"].values(), *readers)]
    except (InvalidInput, ValueError, TypeError, KeyError, AttributeError):
        return []


def _older(number: int, seconds: float) -> bool:
    """Whether a process of that number runs since before that time."""
    try:
        return psutil.Process(number).create_time() < seconds + CLOCK_SECONDS
    except (psutil.Error, ValueError, OverflowError):
        return False
