"""A recurring run ends in a state that says what it did, or the stage's own message."""

import pytest

from flows import pipeline as recurring
from flows.alone import alone


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of its own, where the commands of a run do nothing."""
    monkeypatch.chdir(tmp_path)
    said = {"dvc repro": ["Data and pipelines are up to date."], "publish": ["registered: x 1"]}

    def run_command(*command: str, lock: int) -> list[str]:
        assert lock > 2
        told = said["publish" if command[-1] == "flows.publish" else " ".join(command)]
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(recurring, "run_command", run_command)
    monkeypatch.setattr(recurring, "remotes", list)
    return said


def test_an_unchanged_run_says_so(project, prefect_api):
    state = recurring.pipeline(return_state=True)
    assert state.is_completed()
    assert state.message == "nothing changed, no stage ran; registered: x 1"


def test_a_run_names_the_stages_that_it_ran(project, prefect_api):
    project["dvc repro"] = ["Running stage 'dataset':", "> x", "Running stage 'studies@edits':"]
    state = recurring.pipeline(return_state=True)
    assert state.message == "ran dataset, studies@edits; registered: x 1"


def test_a_failed_stage_is_the_message_of_the_run(project, prefect_api):
    project["dvc repro"] = recurring.CommandFailed("dataset: unknown table 'irsi'")
    state = recurring.pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == "dataset: unknown table 'irsi'"


def test_a_second_run_is_cancelled_and_says_which_is_under_way(project, prefect_api):
    with alone("pipeline"):
        state = recurring.pipeline(return_state=True)
    assert state.is_cancelled()
    assert state.message.startswith("another run is under way: pipeline (process ")


def test_the_own_message_is_what_stood_before_dvc_reports_the_failure():
    said = [
        "Running stage 'dataset':",
        "> python -m flows.dataset",
        "dataset: unknown table",
        "",
        "ERROR: failed to reproduce 'dataset': failed to run: python -m flows.dataset",
    ]
    assert recurring.own_message(said) == "dataset: unknown table"
    assert recurring.own_message([]) == ""
