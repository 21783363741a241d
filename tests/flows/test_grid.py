"""The grid's cells and their names, and what it makes of DVC's answers; a real queue is slow."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import grid
from flows.grid import experiments
from modelpred.errors import InvalidInput
from modelpred.sealed import seal
from modelpred.studies.results import write_result
from tests.projects import small_project
from tests.studies.whole import whole

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


def test_a_failed_cell_without_a_log_is_told_with_the_command_that_shows_it(monkeypatch):
    monkeypatch.setattr(grid, "_output", lambda *_: sys.exit("grid: no such task"))
    cell = grid.Experiment("iris", "svm", (), "grid-iris-svm-0")
    assert grid._reason(cell) == "see: dvc queue logs grid-iris-svm-0"


class Revision:
    """The files of a commit, as DVC gives them."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, path, mode):
        """A file of the commit."""
        return (self.folder / path).open(mode)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The files that the grid reads of a finished cell."""
    folder = tmp_path_factory.mktemp("cell")
    (folder / "params.yaml").write_text("targets: {model: svm}\n")
    for study in ("edits", "lds"):
        write_result(whole(study), folder / "artifacts" / "studies" / study)
    for stage, name in (("dataset", "dataset.json"), ("predictor", "fidelity.parquet")):
        place = folder / "artifacts" / stage
        place.mkdir()
        if name.endswith(".json"):
            (place / name).write_text('{"name": "iris"}')
        else:
            pl.DataFrame({"method": ["predictor"]}).write_parquet(place / name)
        seal(place)
    return folder


def read_cell(folder, monkeypatch):
    monkeypatch.setattr("dvc.api.DVCFileSystem", lambda **_: Revision(folder))
    return grid._read(grid.Experiment("iris", "svm", (), "grid-iris-svm-0"), "abc")


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_result_of_a_cell_is_one_line_that_names_it(finished, monkeypatch, data):
    whole_cell = read_cell(finished, monkeypatch)
    paths = [path for path in finished.rglob("*") if path.suffix in (".json", ".parquet", "")]
    path = data.draw(st.sampled_from(sorted(path for path in paths if path.is_file())))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    changed = data.draw(st.sampled_from([None, content[:at], flipped]))
    path.write_bytes(changed) if changed is not None else path.unlink()
    try:
        again, said = read_cell(finished, monkeypatch), ""
    except InvalidInput as error:
        again, said = None, str(error)
    finally:
        path.write_bytes(content)
    if again is None:
        assert "\n" not in said
        assert path.parent.name in said
        assert "remove the experiment (grid-iris-svm-0) and run the grid again" in said
    else:  # a table that the grid does not use, or a name in a list of hashes that it does not look up
        assert again.edits == whole_cell.edits
        assert again.lds.equals(whole_cell.lds)


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
