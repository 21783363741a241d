"""The recurring run: `dvc repro`, then the registry, then `dvc push` where a remote is set.

    python -m flows.pipeline                                     once, now
    python -m flows.pipeline --serve --cron "0 3 * * *"          every night at three, until stopped

The stages run in a subprocess and share one Prefect API: the one that PREFECT_API_URL names, or else
a server that lives as long as this process. A stage that fails fails the run with the stage's own
message. Two runs never overlap.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.logging import get_run_logger

from flows.runtime import shared_api

NAME = "recurring"


class CommandFailed(RuntimeError):  # noqa: N818 - said as it is, like WorkerFailed
    """A command of the run failed; the message is what it said last."""


@task(cache_policy=NO_CACHE)
def reproduce() -> None:
    """Runs every stage that is out of date."""
    run_command("dvc", "repro")


@task(cache_policy=NO_CACHE)
def publish() -> None:
    """Registers the predictor, unless this very one is registered already."""
    run_command(sys.executable, "-m", "flows.publish")


@task(cache_policy=NO_CACHE)
def push() -> None:
    """Sends the data of this version to the remote: what was not pushed is lost with the cache."""
    run_command("dvc", "push")


@flow
def pipeline() -> None:
    """Reproduces, publishes and, where a remote is set, pushes."""
    reproduce()
    publish()
    if remotes():
        push()


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


def run_command(*command: str) -> None:
    """Runs a command to its end and passes its output on, line by line.

    Raises:
        CommandFailed: with the last line that the command's own work, not DVC about it, wrote.
    """
    log = get_run_logger()
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=environment(),
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


def own_message(lines: list[str]) -> str:
    """The last line before DVC reports the failure: what the stage itself said went wrong."""
    reported = next(
        (at for at, line in enumerate(lines) if line.startswith("ERROR: failed to reproduce")),
        len(lines),
    )
    return next((line for line in reversed(lines[:reported]) if line), "")


def main(
    *,
    serve: Annotated[bool, typer.Option(help="Stay and run on the schedule.")] = False,
    cron: Annotated[str, typer.Option(help="When, as five cron fields.")] = "0 3 * * *",
    timezone: Annotated[str, typer.Option(help="The zone that the cron fields mean.")] = "UTC",
) -> None:
    """Runs the pipeline once, or stays and runs it on a schedule."""
    from prefect.schedules import Cron  # noqa: PLC0415

    with shared_api(schedules=serve):
        if not serve:
            state = pipeline(return_state=True)
            failure = state.result(raise_on_failure=False)
            if isinstance(failure, CommandFailed):
                sys.exit(f"pipeline: {failure}")
            if isinstance(failure, BaseException):
                raise failure
            return
        pipeline.serve(
            name=NAME,
            schedule=Cron(cron, timezone=timezone),
            global_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
        )


if __name__ == "__main__":
    typer.run(main)
