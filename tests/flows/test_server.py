"""The server: private, gone with its process. Its scheduler guards the SQLAlchemy bound."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule

from flows import server
from modelpred.errors import InvalidInput

HOLD = """
import flows, sys
from flows.server import prefect_api
with prefect_api() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path / "prefect"


@pytest.mark.e2e
def test_it_asks_for_a_password_runs_schedules_and_stops(home):
    with server.prefect_api(schedules=True) as url:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/admin/version")
        assert _scheduled_runs() > 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/health")
    assert "PREFECT_API_URL" not in os.environ


@pytest.mark.e2e
def test_it_goes_with_a_killed_process_and_takes_it_along(home):
    for victim in ("process", "server"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        (started,) = psutil.Process(process.pid).children()
        (started if victim == "server" else process).kill()
        assert process.wait(60)
        _until(lambda started=started: not started.is_running() or started.status() == "zombie")
        process.communicate()


def test_the_password_is_private_and_stays(tmp_path):
    first = server.password(tmp_path)
    assert server.password(tmp_path) == first
    tmp_path.chmod(0o777)
    assert server.password(tmp_path) == first
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    (tmp_path / "password").chmod(0o644)
    with pytest.raises(InvalidInput, match="not a private file"):
        server.password(tmp_path)


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(server.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        server.password(tmp_path)


def test_a_server_that_cannot_start_is_one_line_at_once(home, monkeypatch):
    monkeypatch.setattr(server, "COMMAND", "import sys; sys.exit('no such database')")
    with pytest.raises(InvalidInput, match="did not start: no such database"), server.prefect_api():
        pass


def test_without_loopback_it_is_one_line_at_once(home, monkeypatch):
    def refused(*_: object):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(server.socket, "create_server", refused)
    with pytest.raises(InvalidInput, match=r"127\.0\.0\.1"), server.prefect_api():
        pass


def _scheduled_runs() -> int:
    """The number of runs that the scheduler inserted for a deployment that runs every minute."""
    with get_client(sync_client=True) as client:
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
