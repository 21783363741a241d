"""The file .modelpred/plan.json of a project: what its settings were chosen for, and what the run leaves out."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from modelpred.errors import InvalidInput
from modelpred.sealed import hashed, parse_hashed, parse_model, read_file, write_atomically

PLAN = Path(".modelpred/plan.json")


class PlanFile(BaseModel):
    """Content of the file.

    Attributes:
        asked: the options of the command, the size of the table, and the section `dataset`.
        skipped: studies that are left out.
        seconds: estimated time by stage.
        decisions: what was decided, each with the options that change it.
        written: when.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    asked: dict[str, Any]
    skipped: list[str]
    seconds: dict[str, float]
    decisions: list[dict[str, str]]
    written: str


def write_plan(found: PlanFile, folder: Path) -> None:
    """Write the plan of a project, with its hash."""
    text = json.dumps(hashed(found.model_dump(mode="json")), indent=1)
    write_atomically(folder / PLAN, text.encode())


def read_plan(folder: Path, *, again: str) -> PlanFile:
    """The plan of a project, as it was written.

    Args:
        folder: the project.
        again: the advice where it cannot be read.

    Raises:
        InvalidInput: it is missing or damaged.
    """
    path = folder / PLAN
    found = parse_hashed(read_file(path, again=again), path, again=again)
    return parse_model(PlanFile, json.dumps(found).encode(), path, again=again)


def skipped_studies(folder: Path) -> tuple[str, ...]:
    """The studies that the plan of a folder leaves out; none if the folder has no plan.

    Raises:
        InvalidInput: the plan is damaged.
    """
    if not os.path.lexists(folder / PLAN):
        return ()
    return tuple(
        read_plan(folder, again="remove it and run again, then no study is left out").skipped
    )


def expected_seconds(folder: Path) -> dict[str, float]:
    """The estimated time of each stage of a folder; empty if the folder has no plan.

    Raises:
        InvalidInput: the plan is damaged.
    """
    if not os.path.lexists(folder / PLAN):
        return {}
    return dict(read_plan(folder, again="remove it and run again").seconds)


def known_plan(folder: Path) -> PlanFile | None:
    """The plan of an earlier run; None if the folder is new or empty.

    Raises:
        InvalidInput: the folder holds something else, or a damaged plan.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not os.path.lexists(folder / PLAN):
        raise InvalidInput(
            f"{folder} is there and was not made by modelpred run; choose another --out"
        )
    return read_plan(folder, again=f"choose another --out, or remove the folder {folder}")
