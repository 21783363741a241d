"""The recurring comparison: one study over the last tagged versions of the data and the working copy.

    python -m flows.evaluation --last 4 --study valuation

Versions are git tags, the newest first; what is compared and written stands in flows/versions.py. A version that
cannot be read is named, the others still run. It waits for a pipeline that is under way.
"""

import subprocess
import sys
from typing import Annotated, Any

import typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.abandoned import close_abandoned_runs
from flows.alone import Holder, UnderWay, alone
from flows.pipeline import CommandFailed, run_command, say_how_it_ended
from flows.revisions import WORKSPACE
from flows.runtime import shared_api


@task(cache_policy=NO_CACHE)
def compare(study: str, revisions: list[str], lock: int) -> str:
    """Runs the study on every version; where the comparison lies."""
    named = [part for revision in revisions for part in ("--rev", revision)]
    return run_command(sys.executable, "-m", "flows.versions", *named, "--study", study, lock=lock)[
        -1
    ]


@flow
def evaluation(last: int = 4, study: str = "valuation") -> State[Any]:
    """Compares the newest `last` versions and the working copy; the run's last state says where it stands."""

    def waiting(other: Holder | None) -> None:
        get_run_logger().warning("waiting for %s", other)

    try:
        with alone("evaluation", waiting=waiting) as lock:
            close_abandoned_runs()
            revisions = [*newest_tags(last), WORKSPACE]
            written = compare(study, revisions, lock)
    except UnderWay as other:
        return Cancelled(message=str(other))
    except CommandFailed as failure:
        return Failed(message=str(failure))
    return Completed(message=f"{study} over {', '.join(revisions)}; {written}")


def newest_tags(count: int) -> list[str]:
    """The newest tags of the project's git, the oldest of them first; none without git."""
    if count < 1:
        return []
    listed = subprocess.run(
        ["git", "tag", "--sort=-creatordate"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split()[:count][::-1]


def main(
    *,
    last: Annotated[int, typer.Option(help="How many of the newest tags.", min=0)] = 4,
    study: Annotated[str, typer.Option(help="Which study to run on each.")] = "valuation",
) -> None:
    """Compares the last versions once."""
    with shared_api():
        state: State[Any] = evaluation(last, study, return_state=True)
    say_how_it_ended("evaluation", state)


if __name__ == "__main__":
    typer.run(main)
