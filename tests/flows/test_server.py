"""The shared server: one for all, gone after the last. Its scheduler guards the SQLAlchemy bound."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from flows import server


@pytest.fixture
def owner():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_one_server_for_all_owners_runs_schedules_and_goes_with_the_last(tmp_path, owner):
    folder = tmp_path / "server"
    watched = psutil.Process(owner.pid)

    with ThreadPoolExecutor(4) as pool:
        joined = list(
            pool.map(lambda _: server.join(watched, folder=folder, schedules=True), range(4))
        )
    address = joined[0]
    assert len(set(joined)) == 1
    assert server.wait_until_healthy(address)
    assert _scheduled_runs(address.url) > 0

    owner.kill()
    owner.wait()
    _until(lambda: not address.alive())
    assert not (folder / "address.json").exists()


def test_a_stale_address_is_not_believed(tmp_path, owner):
    folder = tmp_path / "server"
    first = server.join(psutil.Process(owner.pid), folder=folder)
    psutil.Process(first.pid).kill()
    _until(lambda: not first.alive())

    second = server.join(psutil.Process(owner.pid), folder=folder)

    assert second.pid != first.pid
    psutil.Process(second.pid).kill()
    assert not server.wait_until_healthy(second)


def _scheduled_runs(url: str) -> int:
    """How many runs the scheduler inserted for a deployment that runs every minute."""
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.client.schemas.actions import DeploymentScheduleCreate  # noqa: PLC0415
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("scheduled")
        client.create_deployment(
            flow_id=flow,
            name="every minute",
            schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * *"))],
        )
        _until(client.read_flow_runs)
        return len(client.read_flow_runs())


def _until(holds, *, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)
