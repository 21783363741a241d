"""The recurring run: `dvc repro`, then the registry, then `dvc push` if there is a remote.

    python -m flows.pipeline     once, now
    python -m flows.schedule     at the times in schedule.yaml

A Prefect flow with one task for each stage that `dvc repro` reports, one for publishing and one for
pushing. A task's state message gives its time and headline numbers, or its error. A stage that fails
fails the run with the message of the stage. Two runs never overlap: a second one ends at once.
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.artifacts import ARTIFACTS, headline_file
from flows.run_lock import AlreadyRunning, Holder, run_lock
from flows.runtime import OWNER, end_with_owner, one_line_errors, this_process
from flows.server import prefect_api
from flows.stale_runs import close_stale_runs, remove_stale_locks
from modelpred.errors import InvalidInput
from modelpred.launching import ends_with_this_process
from modelpred.sealed import parse_json, read_file

# What `dvc repro` writes when it comes to a stage.
HEADER = re.compile(r"(Running stage|Stage) '([^']+)'(?:|:|.* skipping.*|.* checking out outputs)$")
SHOWN_NUMBERS = 6


class CommandFailed(RuntimeError):  # noqa: N818 - the message is the command's own
    """A command of the run failed; the message is the last line of its own output."""


class Command:
    """A running command whose output is passed on to stderr and can be read line by line.

    The command ends when this process ends, and holds the run lock until then.
    """

    def __init__(self, *words: str, lock: int) -> None:
        self.words = words
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            ends_with_this_process(words),
            env=environment(),
            pass_fds=[lock],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def __iter__(self) -> Iterator[str]:
        for line in self._process.stdout or ():
            sys.stderr.write(line)
            self.lines.append(line.strip())
            yield self.lines[-1]

    def finish(self) -> list[str]:
        """Read the remaining output and wait for the end; returns the lines that are not empty.

        Raises:
            CommandFailed: the exit status is not 0.
        """
        for _ in self:
            pass
        if status := self._process.wait():
            message = own_message(self.lines) or f"exit status {status}"
            get_run_logger().error("%s: %s", " ".join(self.words), message)
            raise CommandFailed(message)
        return [line for line in self.lines if line]


class Reproduction:
    """A running `dvc repro`, divided into its stages."""

    def __init__(self, *, lock: int) -> None:
        self._command = Command("dvc", "repro", lock=lock)
        self._lines = iter(self._command)
        self.header: tuple[str, bool] | None = None
        self.advance()

    def advance(self) -> None:
        """Read on to the next stage; sets `header` to (name, whether it runs), None at the end.

        Raises:
            CommandFailed: `dvc repro` ended with an error.
        """
        for line in self._lines:
            if found := HEADER.match(line):
                self.header = found[2], found[1] == "Running stage"
                return
        self.header = None
        self._command.finish()


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def stage(name: str, reproduction: Reproduction, *, runs: bool) -> State[str]:
    """Follow one stage of `dvc repro` to its end; the state's message sums it up."""
    began = time.monotonic()
    reproduction.advance()
    if not runs:
        return Completed(message="unchanged", data=name)
    numbers = headline(name)
    return Completed(
        message=f"{time.monotonic() - began:.1f} s{': ' if numbers else ''}{numbers}", data=name
    )


def headline(name: str) -> str:
    """The first numbers of a stage's metrics as one line; empty if it writes none."""
    stage_name, _, study = name.partition("@")
    path = headline_file(study) if study else ARTIFACTS / stage_name / "metrics.json"
    try:
        content = parse_json(read_file(path, again=""), path, again="")
    except InvalidInput:  # the stage writes none
        return ""
    numbers = {k: v for k, v in content.items() if isinstance(v, (int, float))}
    return ", ".join(f"{k} {v:.4g}" for k, v in list(numbers.items())[:SHOWN_NUMBERS])


@task(cache_policy=NO_CACHE)
def publish(lock: int) -> State[str]:
    """Register the predictor, unless this very one is registered; the message says which version."""
    line = Command(sys.executable, "-m", "flows.publish", lock=lock).finish()[-1]
    return Completed(message=line, data=line)


@task(cache_policy=NO_CACHE)
def push(lock: int) -> None:
    """Send the data of this version to the remote: the cache may be the only other copy."""
    Command("dvc", "push", lock=lock).finish()


@flow
def pipeline() -> State[Any]:
    """Reproduce, publish and, if there is a remote, push; the state's message says what was done."""
    end_with_owner()
    try:
        with recurring("pipeline") as lock:
            reproduction, rows = Reproduction(lock=lock), list[dict[str, str]]()
            while reproduction.header is not None:
                name, runs = reproduction.header
                state: Any = stage(name, reproduction, runs=runs, return_state=True)
                rows.append({"stage": name, "result": str(state.message)})
                if not state.is_completed():
                    create_table_artifact(rows, key="pipeline", description="Stages of this run")
                    return Failed(message=state_error(state))
            state = publish(lock, return_state=True)
            registered: str = state.result()
            rows.append({"stage": "publish", "result": registered})
            create_table_artifact(rows, key="pipeline", description="Stages of this run")
            if remotes():
                push(lock)
    except AlreadyRunning as other:
        return Cancelled(message=str(other))
    except CommandFailed as failure:
        return Failed(message=str(failure))
    ran = [row["stage"] for row in rows[:-1] if row["result"] != "unchanged"]
    done = f"ran {', '.join(ran)}" if ran else "nothing changed, no stage ran"
    return Completed(message=f"{done}; {registered}")


def state_error(state: State[Any]) -> str:
    """The message of the error that failed a task."""
    return str(state.result(raise_on_failure=False))


@contextmanager
def recurring(kind: str) -> Generator[int]:
    """Hold the run lock during the block, and close the records of killed runs first."""

    def waiting(other: Holder | None) -> None:
        get_run_logger().warning("waiting for %s", other)

    with run_lock(kind, waiting=waiting) as lock:
        close_stale_runs()
        remove_stale_locks()
        yield lock


def remotes() -> list[str]:
    """The DVC remotes of this project."""
    listed = subprocess.run(
        ["dvc", "remote", "list"], env=environment(), capture_output=True, text=True, check=True
    )
    return [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    """The environment of a command of the run: this process owns it, and it uses the same Prefect API."""
    # Variables that mark this process as a flow run must not mark the stages.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT__")}
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, inherited.get("PATH", os.defpath)])
    return {**inherited, "PATH": path, OWNER: this_process()}


def own_message(lines: list[str]) -> str:
    """The last line that the stage wrote, before DVC reports its failure; DVC's first error if no stage ran into it."""
    errors = [at for at, line in enumerate(lines) if line.startswith("ERROR: ")]
    reported = errors[0] if errors else len(lines)
    if errors and not lines[reported].startswith("ERROR: failed to reproduce"):
        return lines[reported]
    return next((line for line in reversed(lines[:reported]) if line), "")


def print_outcome(kind: str, state: State[Any]) -> None:
    """Print the last message of a recurring run; exits with it if the run did not complete."""
    if state.is_completed():
        sys.stdout.write(f"{kind}: {state.message}{os.linesep}")
        return
    if state.message is None or state.is_crashed():
        state.result()  # raises the error
    sys.exit(f"{kind}: {state.message}")


def main() -> None:
    """Run the pipeline once."""
    with one_line_errors("pipeline"), prefect_api():
        state: State[Any] = pipeline(return_state=True)
        print_outcome("pipeline", state)


if __name__ == "__main__":
    typer.run(main)
