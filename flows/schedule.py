"""Runs the pipeline and the evaluation at the times in schedule.yaml: `python -m flows.schedule`.

The process stays in the foreground, creates the runs and starts each in a process of its own. It uses
the Prefect server that PREFECT_API_URL names. Without one, it starts a server that ends with it and
keeps its record in .modelpred/prefect, or in the database that PREFECT_API_DATABASE_CONNECTION_URL
names. Runs never overlap (flows/run_lock.py).
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import typer
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.server.schemas.schedules import CronSchedule
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flows.evaluation import evaluation
from flows.pipeline import pipeline
from flows.runtime import one_line_errors
from flows.server import prefect_api
from modelpred.errors import InvalidInput
from modelpred.studies import STUDIES
from modelpred.wording import one_line
from modelpred.yaml_files import read_yaml

CONFIG = Path("schedule.yaml")
FIELDS = 5
LONGEST_MESSAGE = 400


class Recurring(BaseModel):
    """When a run starts, as cron fields; None: it is not scheduled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str | None = Field(default=None, max_length=100)

    @field_validator("cron")
    @classmethod
    def _has_a_next_time(cls, cron: str | None) -> str | None:
        """Parse with Prefect's own parser: six fields would be seconds, and 31 February never comes."""
        if cron is None:
            return None
        try:
            schedule = CronSchedule(cron=cron)
            dates = asyncio.run(schedule.get_dates(n=1, start=datetime.now(UTC)))
        except ValueError:
            dates = []
        if not dates or len(cron.split()) != FIELDS:
            raise ValueError(
                "expected five cron fields (minute, hour, day, month, weekday) of a time that comes, "
                f"such as 0 3 * * *, got {cron!r}"
            )
        return cron


class Evaluation(Recurring):
    """When the last versions are compared, the number of versions, and the study."""

    last: int = Field(default=4, ge=0)
    study: str = "valuation"

    @field_validator("study")
    @classmethod
    def _is_one(cls, name: str) -> str:
        if name not in STUDIES:
            raise ValueError(f"unknown study {name!r}; known: {', '.join(STUDIES)}")
        return name


class ScheduleConfig(BaseModel):
    """schedule.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: str = "UTC"
    pipeline: Recurring = Recurring()
    evaluation: Evaluation = Evaluation()

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"expected a time zone such as Europe/Berlin, got {name!r}") from error
        return name


def read_schedule(path: Path) -> ScheduleConfig:
    """The schedule; exits with one line if the file is invalid."""
    try:
        return ScheduleConfig.model_validate(read_yaml(path, again="restore it with git"))
    except InvalidInput as error:
        sys.exit(str(error))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        sys.exit(one_line(f"{path}: {where}: {first['msg']}", most=LONGEST_MESSAGE))


def deployments(config: ScheduleConfig) -> dict[str, RunnerDeployment]:
    """The deployments of the two flows, by the lines that describe them."""
    compared = {"last": config.evaluation.last, "study": config.evaluation.study}
    flows: list[tuple[Any, str, Recurring, dict[str, Any]]] = [
        (pipeline, "nightly", config.pipeline, {}),
        (evaluation, "weekly", config.evaluation, compared),
    ]
    found: dict[str, RunnerDeployment] = {}
    for each, name, when, parameters in flows:
        schedules = [Cron(when.cron, timezone=config.timezone, slug=name)] if when.cron else []
        times = f"{when.cron} ({config.timezone})" if when.cron else "not scheduled"
        found[f"{each.name}/{name}: {times}"] = each.to_deployment(
            name=name, schedules=schedules, parameters=parameters
        )
    return found


def main() -> None:
    """Start the recurring runs at the times in schedule.yaml, until stopped with Ctrl-C."""
    config = read_schedule(CONFIG)
    with one_line_errors("schedule"), prefect_api(schedules=True) as url:
        planned = deployments(config)
        for line in planned:
            sys.stdout.write(f"scheduled: {line}{os.linesep}")
        sys.stdout.write(f"Prefect API: {url}; stop with Ctrl-C{os.linesep}")
        sys.stdout.flush()
        # A stopped schedule must not stay paused in the database.
        serve(*planned.values(), pause_on_shutdown=False, print_starting_message=False)


if __name__ == "__main__":
    typer.run(main)
