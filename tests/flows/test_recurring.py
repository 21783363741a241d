"""A recurring run ends in a state that says what it did, or the stage's own message."""

import time

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows import pipeline as recurring
from flows.run_lock import run_lock


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder in which the commands of a run only print."""
    monkeypatch.chdir(tmp_path)
    outputs = {"dvc": ["Data and pipelines are up to date."], "publish": ["registered: x 1"]}

    class Command(recurring.Command):
        def __init__(self, *words: str, lock: int) -> None:
            assert lock > 2
            self._output = iter(outputs["publish" if words[-1] == "flows.publish" else words[0]])

        def __iter__(self):
            for line in self._output:
                if isinstance(line, Exception):
                    raise line
                yield line

        def finish(self):
            return list(self)

    monkeypatch.setattr(recurring, "Command", Command)
    monkeypatch.setattr(recurring, "remotes", list)
    return outputs


@pytest.mark.e2e
def test_an_unchanged_run_says_so(project, prefect_api):
    project["dvc"] = ["Stage 'dataset' didn't change, skipping", "", "Data and ..."]
    state = recurring.pipeline(return_state=True)
    assert state.is_completed()
    assert state.message == "nothing changed, no stage ran; registered: x 1"


@pytest.mark.e2e
def test_each_stage_is_a_task_with_its_numbers(project, prefect_api, tmp_path):
    folder = tmp_path / "artifacts" / "studies"
    folder.mkdir(parents=True)
    (folder / "edits.json").write_text('{"edits.parameter_error": 0.0125, "other": null}')
    project["dvc"] = ["Running stage 'dataset':", "> x", "Running stage 'studies@edits':", "> y"]

    state = recurring.pipeline(return_state=True)

    assert state.message == "ran dataset, studies@edits; registered: x 1"
    runs = _task_runs(state.state_details.flow_run_id, count=3)
    assert runs["studies@edits"].message.endswith(" s: edits.parameter_error 0.0125")
    assert runs["dataset"].message.endswith(" s")


def _task_runs(flow_run, *, count):
    """The states of a flow run's tasks by name; Prefect writes them with a delay."""
    this = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    end = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=this)
            finished = {run.name: run.state for run in runs if run.state.is_final()}
            if len(finished) == count or time.monotonic() > end:
                return finished
            time.sleep(0.2)


@pytest.mark.e2e
def test_a_failed_stage_is_a_failed_task_and_the_message_of_the_run(project, prefect_api):
    failure = recurring.CommandFailed("dataset: unknown table 'irsi'")
    project["dvc"] = ["Running stage 'dataset':", "> x", failure]
    state = recurring.pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == "dataset: unknown table 'irsi'"


@pytest.mark.e2e
def test_a_second_run_is_cancelled_and_names_the_first(project, prefect_api):
    with run_lock("pipeline"):
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
