"""The grid's cells and their names, and what it makes of DVC's answers; a real queue is slow."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows import grid
from flows.grid import experiments
from tests.projects import small_project

ROOT = Path(__file__).parents[2]
QUEUE = """Task     Name                Created    Status
d863e70  grid-iris-svm-00    10:28 AM   Failed
9277df4  grid-spam-svm-00    Nov 23     Success
0501c6f  grid-higgs-svm-00   10:28 AM   Running

Worker status: 1 active, 0 idle
"""


def test_a_cell_for_each_table_and_model_and_many_classes_take_softmax():
    cells = experiments(["iris", "mnist"], ["logistic", "svm"], ["dataset.points=50"], state="")
    assert [(cell.source, cell.model) for cell in cells] == [
        ("iris", "logistic"), ("iris", "svm"), ("mnist", "softmax"), ("mnist", "svm"),
    ]  # fmt: skip
    assert cells[2].settings == (
        "dataset.source=mnist", "targets.model=softmax", "dataset.points=50",
    )  # fmt: skip
    assert len({cell.name for cell in cells}) == 4


def test_a_name_changes_with_all_that_decides_the_numbers_and_with_nothing_else():
    def name(settings=(), state="params"):
        return experiments(["iris"], ["svm"], settings, state=state)[0].name

    assert name() == name()
    assert name().startswith("grid-iris-svm-")
    assert len({name(), name(["dataset.points=50"]), name(state="other")}) == 3


def test_a_setting_of_one_table_is_not_another_ones():
    cells = experiments(
        ["iris", "spam"], ["svm"], ["spam:dataset.points=90", "dataset.file=openml:7"], state=""
    )
    assert cells[0].settings[2:] == ("dataset.file=openml:7",)
    assert cells[1].settings[2:] == ("dataset.points=90", "dataset.file=openml:7")


def test_the_path_of_higgs_is_absolute():
    assert grid._file("spam", "table.csv") == []
    assert grid._file("higgs", "") == []
    assert grid._file("higgs", "openml:7") == ["dataset.file=openml:7"]
    (setting,) = grid._file("higgs", "table.csv")
    assert Path(setting.removeprefix("dataset.file=")).is_absolute()


def test_the_queue_is_read_from_what_dvc_says(monkeypatch):
    monkeypatch.setattr(grid, "_output", lambda *_: QUEUE)
    assert grid._status() == {
        "grid-iris-svm-00": "Failed",
        "grid-spam-svm-00": "Success",
        "grid-higgs-svm-00": "Running",
    }


def test_a_failed_cell_is_told_by_its_own_last_words(monkeypatch):
    said = "> python -m flows.dataset\ndataset: no such table\nERROR: failed to reproduce\n\n"
    monkeypatch.setattr(grid, "_output", lambda *_: said)
    (cell,) = experiments(["irsi"], ["svm"], [], state="")
    assert grid._reason(cell) == "dataset: no such table"


def test_a_command_that_fails_ends_the_grid_with_its_error():
    with pytest.raises(SystemExit, match="grid: git rev-parse nowhere: fatal"):
        grid._output("git", "rev-parse", "nowhere")


@pytest.fixture
def project(tmp_path):
    """A clone of the project with tiny params."""
    tiny = {
        "dataset": {"source": "iris", "watch": "data"},
        "targets": {"model": "auto"},
        "subsets": {
            "fit": {"uniform": 60}, "validation": {"uniform": 20},
            "test": {"uniform": 20, "deletion": 20}, "block": 50,
        },
        "predictor": {"epochs": 1},
        "edits": {"repeats": 2, "step": 15, "added": 15},
        "lds": {"subsets": 10},
    }  # fmt: skip
    return small_project(tmp_path, tiny)


@pytest.mark.slow
def test_the_grid_runs_names_what_failed_and_resumes(project):
    command = [sys.executable, "-m", "flows.grid", "--source", "iris", "--model", "svm"]
    first = subprocess.run(
        [*command, "--source", "irsi"], cwd=project, capture_output=True, text=True, check=False
    )
    assert first.returncode == 1, first.stderr
    assert "finished grid-iris-svm-" in first.stderr
    assert "irsi, svm failed: dataset: dataset.source: unknown table 'irsi'" in first.stderr
    page = (project / "artifacts" / "grid" / "grid.md").read_text()
    assert "## iris, svm" in page
    again = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "queued" not in again.stderr
    assert (project / "artifacts" / "grid" / "grid.md").read_text() == page
