"""Recurring runs: when they start stands in schedule.yaml.

    python -m flows.schedule register    once, and again after a change of schedule.yaml
    python -m flows.schedule work        stays, and does the runs when their time comes

Both use the Prefect server that PREFECT_API_URL names. Without one, `work` brings a server of its own that schedules
and keeps its record in .modelpred/prefect (or in the database that PREFECT_API_DATABASE_CONNECTION_URL names), and
`register` writes into the same database. Runs never overlap (flows/alone.py).
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import typer
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment, deploy
from prefect.exceptions import ObjectAlreadyExists
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flows.runtime import shared_api

CONFIG = Path("schedule.yaml")
POOL = "modelpred"

application = typer.Typer(add_completion=False, no_args_is_help=True)


class Recurring(BaseModel):
    """One deployment's time; null: it does not run by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str | None = Field(default=None, max_length=100)

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str | None) -> str | None:
        if cron is not None:
            try:
                CronSchedule(cron=cron)
            except ValueError as error:
                raise ValueError(
                    f"expected five cron fields such as 0 3 * * *, got {cron!r}"
                ) from error
        return cron


class Evaluation(Recurring):
    """When the last versions are compared, how many of them, and by which study."""

    last: int = Field(default=4, ge=0)
    study: str = "valuation"


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
    """The schedule; ends the process with one line where the file is not one."""
    try:
        return ScheduleConfig.model_validate(yaml.safe_load(path.read_text()) or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        sys.exit(f"{path}: {where}: {first['msg']}")
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f"{path}: {' '.join(str(error).split())}")


def deployments(config: ScheduleConfig) -> dict[str, RunnerDeployment]:
    """What is registered, by what is said of it: a deployment of each recurring flow, run from this folder."""
    compared = {"last": config.evaluation.last, "study": config.evaluation.study}
    planned = [
        ("flows/pipeline.py:pipeline", "nightly", config.pipeline, {}),
        ("flows/evaluation.py:evaluation", "weekly", config.evaluation, compared),
    ]
    told: dict[str, RunnerDeployment] = {}
    for entrypoint, name, when, parameters in planned:
        source: Any = flow.from_source(source=str(Path.cwd()), entrypoint=entrypoint)
        schedules = [Cron(when.cron, timezone=config.timezone, slug=name)] if when.cron else []
        times = f"{when.cron} ({config.timezone})" if when.cron else "by hand only"
        told[f"{source.name}/{name}: {times}"] = source.to_deployment(
            name=name, schedules=schedules, parameters=parameters, work_pool_name=POOL
        )
    return told


@application.command()
def register() -> None:
    """Registers the deployments of schedule.yaml; safe to repeat."""
    config = read_schedule(CONFIG)
    with shared_api():
        _make_pool()
        told = deployments(config)
        deploy(
            *told.values(),
            work_pool_name=POOL,
            build=False,
            push=False,
            print_next_steps_message=False,
            ignore_warnings=True,
        )
    for line in told:
        sys.stdout.write(f"registered: {line}{os.linesep}")


def _make_pool() -> None:
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


@application.command()
def work() -> None:
    """Does the runs when their time comes, until it is stopped."""
    with shared_api(schedules=True):
        sys.stdout.write(f"working for {PREFECT_API_URL.value()}, stop with Ctrl-C{os.linesep}")
        sys.stdout.flush()
        _make_pool()
        os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())  # for the runs' processes
        asyncio.run(_work())


async def _work() -> None:
    from prefect.workers.process import ProcessWorker  # noqa: PLC0415

    await ProcessWorker(work_pool_name=POOL).start()


if __name__ == "__main__":
    application()
