"""The recurring comparison: one study over the last tagged versions of the data and the working copy.

    python -m flows.evaluation --last 4 --study valuation

Versions are git tags, newest first. flows/versions.py does the comparison and writes its files. A
version that cannot be read is named, and the others are compared. The run waits for a pipeline that is
in progress.
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows.pipeline import Command, CommandFailed, print_outcome, recurring
from flows.revisions import WORKSPACE
from flows.run_lock import AlreadyRunning
from flows.runtime import end_with_owner, one_line_errors
from flows.server import prefect_api
from flows.versions import FOLDER, SUMMARY
from modelpred.sealed import read_sealed


@task(task_run_name="{study}", cache_policy=NO_CACHE)
def compare(study: str, revisions: list[str], lock: int) -> Path:
    """Run the study on every version; returns the folder of the comparison."""
    named = [part for revision in revisions for part in ("--rev", revision)]
    program = (sys.executable, "-m", "flows.versions")
    Command(*program, *named, "--study", study, lock=lock).finish()
    folder = FOLDER / study
    create_markdown_artifact(
        read_sealed(folder / SUMMARY, again="compare again").decode(),
        key=f"versions-{study}",
        description=f"{study} over versions",
    )
    return folder


@flow
def evaluation(last: int = 4, study: str = "valuation") -> State[Any]:
    """Compare the newest `last` versions and the working copy; the message names the folder."""
    end_with_owner()
    try:
        with recurring("evaluation") as lock:
            revisions = [*newest_tags(last), WORKSPACE]
            folder = compare(study, revisions, lock)
    except AlreadyRunning as other:
        return Cancelled(message=str(other))
    except CommandFailed as failure:
        return Failed(message=str(failure))
    return Completed(message=f"{study} over {', '.join(revisions)}; written: {folder}")


def newest_tags(count: int) -> list[str]:
    """The newest tags of the project's git, oldest first; empty without git."""
    if count < 1:
        return []
    listed = subprocess.run(
        ["git", "tag", "--sort=-creatordate"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split()[:count][::-1]


def main(
    *,
    last: Annotated[int, typer.Option(help="Number of tags to compare, the newest.", min=0)] = 4,
    study: Annotated[str, typer.Option(help="The study to run on each version.")] = "valuation",
) -> None:
    """Compare the last versions once."""
    with one_line_errors("evaluation"), prefect_api():
        state: State[Any] = evaluation(last, study, return_state=True)
        print_outcome("evaluation", state)


if __name__ == "__main__":
    typer.run(main)
