"""Only the predictor that DVC knows is published: a flipped bit in a tensor shows nowhere else."""

import hashlib
import json

import pytest
import yaml

from flows import publish
from modelpred.errors import InvalidInput


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A predictor's folder as DVC tracks it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "artifacts" / "predictor"
    folder.mkdir(parents=True)
    (folder / "predictor.safetensors").write_bytes(b"numbers")
    digest = hashlib.md5(b"numbers").hexdigest()
    listing = json.dumps([{"md5": digest, "relpath": "predictor.safetensors"}])
    name = hashlib.md5(listing.encode()).hexdigest()
    cached = tmp_path / f".dvc/cache/files/md5/{name[:2]}/{name[2:]}.dir"
    cached.parent.mkdir(parents=True)
    cached.write_text(listing)
    stages = {"predictor": {"outs": [{"path": "artifacts/predictor", "md5": f"{name}.dir"}]}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    return folder


def test_the_predictor_that_dvc_knows_passes(project):
    publish.check_as_written()


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_another_one_is_refused_by_name(project, damage):
    path = project / "predictor.safetensors"
    path.write_bytes(b"numberz") if damage == "flipped" else path.unlink()
    with pytest.raises(InvalidInput, match=r"predictor\.safetensors is not the one that dvc\.lock"):
        publish.check_as_written()


def test_a_damaged_list_of_files_is_refused_by_name(project):
    [listed] = (project.parents[1] / ".dvc/cache/files/md5").rglob("*.dir")
    listed.write_text(listed.read_text().replace("predictor", "predicted"))
    with pytest.raises(InvalidInput, match=rf"{listed.name} cannot be used.*run dvc repro"):
        publish.check_as_written()


def test_without_a_lock_there_is_nothing_to_compare_with(project):
    (project.parents[1] / "dvc.lock").unlink()
    (project / "predictor.safetensors").write_bytes(b"others")
    publish.check_as_written()
