"""The page starts from a notebook, from a saved ModelPred and from a project, and ends when it is told to."""

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


@pytest.mark.e2e
@pytest.mark.parametrize("kind", [0, 1], ids=["saved", "project"])
def test_the_command_serves_until_it_is_interrupted(saved, kind):
    command = [sys.executable, "-m", "modelpred.cli", "explore", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        [*command, str(saved[kind])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as server:
        try:
            line = server.stdout.readline()
            assert line.startswith("What if? ")
            address = line[line.index("http") :].partition(" ")[0]
            about = httpx.get(f"{address}api/table", timeout=60).json()
            assert len(about["ids"]) == ROWS
            server.send_signal(signal.SIGINT)
            _, said = server.communicate(timeout=60)
            assert "Traceback" not in said
        finally:
            server.kill()


def test_a_port_that_is_used_is_told(mp):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InvalidInput, match="cannot be used"):
            explore(mp, port=other.getsockname()[1])


def test_a_notebook_starts_and_stops_the_page(mp):
    page = mp.explore()
    assert str(page).startswith(page.address)
    assert httpx.get(page.address, timeout=60).status_code == 200
    page.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.address, timeout=5)
