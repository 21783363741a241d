"""The recurring run: `dvc repro`, then the registry, then `dvc push` where a remote is set.

    python -m flows.pipeline            once, now
    python -m flows.schedule register   every night, see flows/schedule.py

The stages run in a subprocess and share one Prefect API: the one that PREFECT_API_URL names, or else
a server that lives as long as this process. A stage that fails fails the run with the stage's own
message. Two runs never overlap: a run that finds another under way ends at once and says so.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.abandoned import close_abandoned_runs
from flows.alone import UnderWay, alone
from flows.runtime import shared_api

RUNNING_STAGE = "Running stage '"


class CommandFailed(RuntimeError):  # noqa: N818 - said as it is, like WorkerFailed
    """A command of the run failed; the message is what it said last."""


@task(cache_policy=NO_CACHE)
def reproduce(lock: int) -> list[str]:
    """Runs every stage that is out of date; which ones they were."""
    said = run_command("dvc", "repro", lock=lock)
    return [line.split("'")[1] for line in said if line.startswith(RUNNING_STAGE)]


@task(cache_policy=NO_CACHE)
def publish(lock: int) -> str:
    """Registers the predictor, unless this very one is registered already; what is registered."""
    return run_command(sys.executable, "-m", "flows.publish", lock=lock)[-1]


@task(cache_policy=NO_CACHE)
def push(lock: int) -> None:
    """Sends the data of this version to the remote: what was not pushed is lost with the cache."""
    run_command("dvc", "push", lock=lock)


@flow
def pipeline() -> State[Any]:
    """Reproduces, publishes and, where a remote is set, pushes; the run's last state says what it did."""
    try:
        with alone(
            "pipeline", waiting=lambda other: _log().warning("waiting for %s", other)
        ) as lock:
            close_abandoned_runs()
            stages = reproduce(lock)
            registered = publish(lock)
            if remotes():
                push(lock)
    except UnderWay as other:
        return Cancelled(message=str(other))
    except CommandFailed as failure:
        return Failed(message=str(failure))
    done = f"ran {', '.join(stages)}" if stages else "nothing changed, no stage ran"
    return Completed(message=f"{done}; {registered}")


def _log() -> Any:  # noqa: ANN401 - Prefect's loggers have no type of their own
    return get_run_logger()


def remotes() -> list[str]:
    """The DVC remotes of this project."""
    listed = subprocess.run(
        ["dvc", "remote", "list"], env=environment(), capture_output=True, text=True, check=True
    )
    return [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    """This process's environment for a command whose stages are to use the same Prefect API."""
    client = get_client(sync_client=True)
    kept = {
        # What marks this process as a flow run must not mark the stages.
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT__")
    }
    programs = str(Path(sys.executable).parent)
    return {
        **kept,
        "PREFECT_API_URL": str(client.api_url),
        "PATH": os.pathsep.join([programs, kept.get("PATH", os.defpath)]),
    }


def run_command(*command: str, lock: int) -> list[str]:
    """Runs a command to its end and passes its output on, line by line; returns the lines that are not empty.

    Raises:
        CommandFailed: with the last line that the command's own work, not DVC about it, wrote.
    """
    log = get_run_logger()
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=environment(),
        pass_fds=[lock],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            said.append(line.strip())
    if process.returncode:
        message = own_message(said) or f"exit status {process.returncode}"
        log.error("%s: %s", " ".join(command), message)
        raise CommandFailed(message)
    return [line for line in said if line]


def own_message(lines: list[str]) -> str:
    """The last line before DVC reports the failure: what the stage itself said went wrong."""
    reported = next(
        (at for at, line in enumerate(lines) if line.startswith("ERROR: failed to reproduce")),
        len(lines),
    )
    return next((line for line in reversed(lines[:reported]) if line), "")


def say_how_it_ended(kind: str, state: State[Any]) -> None:
    """Prints a recurring run's last message, or ends the process with it where it did not complete."""
    if state.is_completed():
        sys.stdout.write(f"{kind}: {state.message}{os.linesep}")
        return
    if state.message is None or state.is_crashed():
        state.result()  # raises what went wrong
    sys.exit(f"{kind}: {state.message}")


def main() -> None:
    """Runs the pipeline once."""
    with shared_api():
        state: State[Any] = pipeline(return_state=True)
    say_how_it_ended("pipeline", state)


if __name__ == "__main__":
    typer.run(main)
