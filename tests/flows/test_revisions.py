"""What DVC holds of a revision is copied out of cache or remote, or the revision is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.artifacts import DATASET
from flows.revisions import fetch
from modelpred.errors import InvalidInput


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two tagged versions of a data set in DVC's cache and in a remote."""
    place = tmp_path / "project"
    folder = place / DATASET
    folder.mkdir(parents=True)
    monkeypatch.chdir(place)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(*command: str) -> None:
        environment = {**os.environ, "PATH": programs}
        subprocess.run(command, check=True, capture_output=True, env=environment)

    run("git", "init")
    run("dvc", "init")
    run("dvc", "remote", "add", "-d", "store", str(tmp_path / "remote"))
    for version in ("v1", "v2"):
        (folder / "rows.txt").write_text(version)
        run("dvc", "add", str(DATASET))
        run("git", "add", ".")
        run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-m", version)
        run("git", "tag", version)
    run("dvc", "push")  # the second version alone
    return place


def test_versions_are_read_from_cache_or_remote_and_nothing_is_checked_out(project, tmp_path):
    copied = fetch("v1", (DATASET,), into=tmp_path / "first")
    assert (copied / DATASET.name / "rows.txt").read_text() == "v1"
    assert (DATASET / "rows.txt").read_text() == "v2"
    assert fetch("workspace", (DATASET,), into=tmp_path / "none") == DATASET.parent

    shutil.rmtree(project / ".dvc" / "cache")

    copied = fetch("v2", (DATASET,), into=tmp_path / "second")
    assert (copied / DATASET.name / "rows.txt").read_text() == "v2"
    with pytest.raises(InvalidInput, match=r"^v1: its data cannot be read .*dvc push where it was"):
        fetch("v1", (DATASET,), into=tmp_path / "third")


def test_what_is_no_revision_or_holds_nothing_is_told(project, tmp_path):
    with pytest.raises(InvalidInput, match=r"^nowhere: git has no such revision"):
        fetch("nowhere", (DATASET,), into=tmp_path)
    other = Path("artifacts/other")
    with pytest.raises(InvalidInput, match=r"^v1: its dvc.lock holds no artifacts/other"):
        fetch("v1", (other,), into=tmp_path)
    with pytest.raises(InvalidInput, match=r"^workspace: there is no artifacts/other"):
        fetch("workspace", (other,), into=tmp_path)
