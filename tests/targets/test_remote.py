"""A store at a URL gives the bytes that a store in a folder gives, and carries what training needs."""

import os
import shutil
import uuid
from pathlib import Path

import fsspec
import pytest

from modelpred.errors import InvalidInput
from modelpred.subsets import SubsetsConfig
from modelpred.targets import remote, target_model
from modelpred.targets.jobs import BlockJob, carry_inputs
from modelpred.targets.remote import UrlStore, fetched
from modelpred.targets.store import collect_shards, train_block
from tests.targets.job_inputs import jobs_of, write_inputs

MODEL = target_model("logistic", C=1.0)


@pytest.fixture
def url():
    """A store in memory, empty."""
    return f"memory://{uuid.uuid4().hex}/shards"


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """Data and subsets; what is fetched lies in this test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = SubsetsConfig(
        fit={"uniform": 20}, validation={"uniform": 5}, test={"uniform": 5}, block=10
    )
    write_inputs(tmp_path, config)
    return tmp_path


def jobs_in(place: Path, store: str | Path) -> list[BlockJob]:
    return jobs_of(place, store, MODEL)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_come_out_of_a_url_also_where_the_inputs_are_not(inputs, url):
    local = jobs_in(inputs, inputs / "store")
    planned = jobs_in(inputs, url)
    remote = [BlockJob.model_validate_json(job.model_dump_json()) for job in carry_inputs(planned)]
    assert not any(str(inputs) in job.model_dump_json() for job in remote)
    for folder in ("dataset", "subsets"):
        shutil.copytree(inputs / folder, inputs / "elsewhere" / folder)
        shutil.rmtree(inputs / folder)  # as on a machine that has no copy of the project

    for job in remote:
        train_block(job)
    for folder in ("dataset", "subsets"):
        shutil.copytree(inputs / "elsewhere" / folder, inputs / folder)
    for job in local:
        train_block(job)
    collect_shards(local, inputs / "local")
    collect_shards(remote, inputs / "remote")
    assert contents(inputs / "remote") == contents(inputs / "local")


def test_inputs_that_are_not_what_their_name_says_are_refused(inputs, url):
    kept = UrlStore(url).carry_folder(inputs / "dataset")
    files, place = fsspec.url_to_fs(kept)
    files.pipe_file(f"{place}/dataset.json", b"{}")
    with pytest.raises(InvalidInput, match="is not what its name says"):
        fetched(kept)
    with pytest.raises(InvalidInput, match="is no folder of inputs"):
        fetched(f"{url}/inputs/../../etc")


def test_an_unknown_kind_of_url_is_told():
    with pytest.raises(InvalidInput, match="cannot be used"):
        UrlStore("nosuch://bucket/shards")


@pytest.mark.parametrize("there", ["nothing", "whole", "damaged", "a file"])
def test_a_copy_that_another_worker_makes_meanwhile_is_used(inputs, url, monkeypatch, there):
    """Whatever lies at the place when the download has ended, a whole copy lies there afterwards."""
    kept = UrlStore(url).carry_folder(inputs / "dataset")
    place = inputs / f"modelpred-inputs-{os.getuid()}" / kept.rpartition("/")[2]
    download = remote._downloaded

    def downloaded(where):
        files = download(where)
        if there == "a file":
            place.write_text("not a folder")
        elif there != "nothing":
            shutil.copytree(inputs / "dataset", place)
        if there == "damaged":
            (place / "dataset.json").write_text("{}")
        return files

    monkeypatch.setattr(remote, "_downloaded", downloaded)
    assert fetched(kept) == place
    assert contents(place) == contents(inputs / "dataset")
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_place_that_cannot_be_written_to_is_an_error(inputs, url, monkeypatch):
    kept = UrlStore(url).carry_folder(inputs / "dataset")

    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        fetched(kept)
