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


class ScheduleConfig(BaseModel):
    """schedule.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: str = "UTC"
    pipeline: Recurring = Recurring()

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
    """What is registered, by when it runs: a deployment of each recurring flow, run from this folder."""
    planned = [("flows/pipeline.py:pipeline", "nightly", config.pipeline)]
    return {
        _told(when, config.timezone, entrypoint, name): _deployment(
            entrypoint, name, when, config.timezone
        )
        for entrypoint, name, when in planned
    }


def _told(when: Recurring, timezone: str, entrypoint: str, name: str) -> str:
    times = f"{when.cron} ({timezone})" if when.cron else "by hand only"
    return f"{entrypoint.partition(':')[2]}/{name}: {times}"


def _deployment(entrypoint: str, name: str, when: Recurring, timezone: str) -> RunnerDeployment:
    source: Any = flow.from_source(source=str(Path.cwd()), entrypoint=entrypoint)
    schedules = [Cron(when.cron, timezone=timezone, slug=name)] if when.cron else []
    return source.to_deployment(name=name, schedules=schedules, work_pool_name=POOL)


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
