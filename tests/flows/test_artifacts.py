"""Laws of the artifact folders: all or nothing, and the same words whoever writes them."""

import fcntl
import json
import math
import os
import subprocess

import pytest

from flows import artifacts
from modelpred.errors import InvalidInput
from modelpred.sealed import SEAL, changed_input, check_sealed, read_seal


def test_a_failed_stage_leaves_what_was_there(tmp_path):
    target = tmp_path / "artifacts" / "dataset"
    with artifacts.written(target) as folder:
        (folder / "points").write_text("old")

    def fail_in_the_middle():
        with artifacts.written(target) as folder:
            (folder / "points").write_text("half of the n")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail_in_the_middle()

    assert (target / "points").read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["dataset"]


def test_a_folder_is_sealed_with_every_file_of_it(tmp_path):
    with artifacts.written(tmp_path / "targets") as folder:
        for name in ("shard", "metrics"):
            (folder / name).write_text(name)
    check_sealed(tmp_path / "targets", again="")
    (tmp_path / "targets" / "metrics").write_text("metrisc")
    with pytest.raises(InvalidInput, match="metrics cannot be used"):
        check_sealed(tmp_path / "targets", again="")


def test_files_that_another_one_lists_are_not_hashed_twice(tmp_path):
    with artifacts.written(tmp_path / "targets", but="*.parquet") as folder:
        for name in ("a.parquet", "manifest.json"):
            (folder / name).write_text(name)
    assert list(read_seal(tmp_path / "targets", again="")) == ["manifest.json"]


@pytest.mark.parametrize("changed", [None, "dataset", "predictor", "edits"])
def test_a_folder_names_what_it_was_made_from(tmp_path, changed):
    places = [tmp_path / name for name in ("dataset", "predictor", "studies/edits")]
    for made, place in enumerate((*places, tmp_path / "report")):
        with artifacts.written(place, made_from=tuple(places[:made])) as folder:
            (folder / "numbers").write_text("1")
    check_sealed(tmp_path / "report", again="")
    for place in places:
        if place.name == changed:
            with artifacts.written(place) as folder:
                (folder / "numbers").write_text("2")
    assert changed_input(tmp_path / "report", again="") == changed


def test_a_new_version_leaves_no_file_of_the_old_one(tmp_path):
    target = tmp_path / "targets"
    for name in ("old", "new"):
        with artifacts.written(target) as folder:
            (folder / name).touch()

    assert {path.name for path in target.iterdir()} == {"new", SEAL}


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_stays(tmp_path):
    """Whatever the process numbers are: in a container every process may have the same."""
    running = tmp_path / f".subsets-a{artifacts.UNFINISHED}"
    abandoned = tmp_path / f".subsets-b{artifacts.UNFINISHED}"
    others = [tmp_path / ".subsets-old", tmp_path / ".subsets-1"]
    for folder in (running, abandoned, *others):
        folder.mkdir()
    lock = os.open(running, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with artifacts.written(tmp_path / "subsets"):
            pass
    finally:
        os.close(lock)

    assert set(tmp_path.iterdir()) == {tmp_path / "subsets", running, *others}


def test_a_file_in_place_of_the_folder_is_replaced(tmp_path):
    (tmp_path / "subsets").write_text("a file")
    with artifacts.written(tmp_path / "subsets") as folder:
        (folder / "new").touch()
    assert {path.name for path in (tmp_path / "subsets").iterdir()} == {"new", SEAL}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "stages",
        "stages: 3",
        "stages: {a: 1}",
        "stages: {a: {outs: [1]}}",
        "a: [\n",
        "\0",
    ],
)
def test_a_damaged_lock_file_is_one_line(tmp_path, text):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(InvalidInput, match=r"dvc\.lock cannot be used"):
        artifacts.locked_stages(root=tmp_path)


def test_json_has_no_numbers_that_json_does_not_know(tmp_path):
    artifacts.write_json({"a": {"b": math.nan, "c": math.inf, "d": 0.5}}, tmp_path / "m.json")

    assert json.loads((tmp_path / "m.json").read_text()) == {"a": {"b": None, "c": None, "d": 0.5}}


def test_lineage_names_commit_data_and_params(tmp_path):
    (tmp_path / "params.yaml").write_text("dataset: {source: iris}\nreport: {rows: 5}\n")
    (tmp_path / "dvc.lock").write_text(
        "stages: {dataset: {outs: [{path: artifacts/dataset, md5: abc.dir}]}}"
    )

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        answer = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, check=True, text=True
        )
        return answer.stdout.strip()

    assert artifacts.lineage(root=tmp_path)["git_commit"] is None
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert artifacts.lineage(root=tmp_path) == {
        "git_commit": commit,
        "dvc": {"artifacts/dataset": "abc.dir"},
        "params": {"dataset": {"source": "iris"}, "subsets": {}, "targets": {}, "predictor": {}},
    }

    # dvc.lock changes while stages run; params.yaml does not.
    (tmp_path / "dvc.lock").write_text("stages: {}")
    assert artifacts.lineage(root=tmp_path)["git_commit"] == commit
    (tmp_path / "params.yaml").write_text("dataset: {source: wine}\n")
    assert artifacts.lineage(root=tmp_path)["git_commit"] == f"{commit}-dirty"
