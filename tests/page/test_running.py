"""The page starts from a notebook, from a saved ModelPred and from a project, and ends when it is told to."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.page import explore
from tests.page.conftest import ROWS


@pytest.fixture(scope="module")
def saved(mp, tmp_path_factory):
    """What `save` wrote, and a project whose pipeline wrote the same."""
    folder = tmp_path_factory.mktemp("saved")
    mp.save(folder)
    project = tmp_path_factory.mktemp("project")
    for stage in ("dataset", "targets", "predictor"):
        shutil.copytree(folder / stage, project / "artifacts" / stage)
    return folder, project


def test_a_project_is_read_as_what_was_saved(mp, saved):
    for folder in saved:
        loaded = ModelPred.load(folder)
        assert loaded.row_ids == mp.row_ids
        edited = loaded.edit(weights={"p3": 0}, labels={"p4": "rich"})
        # The model of all rows is trained again, to the same optimum.
        assert np.array_equal(
            edited.parameters, mp.edit(weights={"p3": 0}, labels={"p4": "rich"}).parameters
        )


def test_a_folder_without_a_fit_is_told(tmp_path):
    with pytest.raises(InvalidInput, match=r"modelpred\.json is missing"):
        ModelPred.load(tmp_path)
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(InvalidInput, match="dataset"):
        ModelPred.load(tmp_path)


@contextlib.contextmanager
def serving(folder):
    """Run `modelpred explore`; gives the process and the address that it prints."""
    command = [sys.executable, "-m", "modelpred.cli", "explore", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        [*command, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as server:
        try:
            line = server.stdout.readline()
            assert line.startswith("What if? ")
            yield server, line[line.index("http") :].partition(" ")[0]
        finally:
            server.kill()


@pytest.mark.e2e
@pytest.mark.parametrize("kind", [0, 1], ids=["saved", "project"])
def test_the_command_serves_until_it_is_interrupted(saved, kind):
    with serving(saved[kind]) as (server, address):
        about = httpx.get(f"{address}api/table", timeout=60).json()
        assert len(about["ids"]) == ROWS
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)
        assert "Traceback" not in said


@pytest.mark.e2e
@pytest.mark.parametrize("held", [("slow body",), ("computed",), ("slow body", "computed", "idle")])
def test_the_command_ends_though_requests_are_held(saved, held):
    with serving(saved[0]) as (server, address), contextlib.ExitStack() as closed:
        url = httpx.URL(address)
        start = f"POST /api/answer HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
        sent = {
            "slow body": f"{start}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{",
            "computed": f"GET /api/scores/value HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n\r\n",
            "idle": "",
        }
        for kind in held:
            connection = socket.create_connection((url.host, url.port), 60)
            closed.enter_context(connection).sendall(sent[kind].encode())
        httpx.get(address, timeout=60)  # what was sent before has been read
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)
        assert "Traceback" not in said
        assert said.count("\n") <= 1  # uvicorn counts the requests that it ends


def test_a_port_that_is_used_is_told(mp):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InvalidInput, match="cannot be used"):
            explore(mp, port=other.getsockname()[1])


def test_two_pages_of_one_fit_answer_alike(mp, served):
    second = explore(mp, name="people")
    try:
        found = [
            httpx.get(f"{url}api/table", timeout=60).json() for url in (served, second.address)
        ]
    finally:
        second.stop()
    assert found[0] == found[1]


def test_an_upgrade_to_another_protocol_is_answered_as_what_it_asks_for(served):
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    key = {"sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw=="}
    found = httpx.get(f"{served}api/columns/0", headers=upgrade | key, timeout=60)
    assert found.status_code == 200


def test_a_notebook_starts_and_stops_the_page(mp):
    page = mp.explore()
    assert str(page).startswith(page.address)
    assert httpx.get(page.address, timeout=60).status_code == 200
    page.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.address, timeout=5)
