"""`python -m flows.run` runs the stages of dvc.yaml in order, and again only what has changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import run
from flows.artifacts import PARAMS, STUDIES_FOLDER
from modelpred.params import read_params
from modelpred.sealed import seal
from modelpred.studies import ANSWERS, STUDIES
from tests.projects import ROOT


def stages_of_dvc():
    """Params, inputs and output of each stage, as dvc.yaml lists them."""
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in graph.items():
        found = stage.get("do", stage)
        for key in STUDIES if "foreach" in stage else ("",):
            text = json.dumps(found).replace("${key}", key)
            one = json.loads(text)
            inputs = [path for path in one["deps"] if path.startswith("artifacts/")]
            yield f"{name}@{key}" if key else name, one["params"], inputs, one["outs"]


def test_the_stages_are_those_of_dvc():
    listed = {name: rest for name, *rest in stages_of_dvc()}

    assert [stage.name for stage in run.stages()] == list(listed)
    for stage in run.stages():
        params, inputs, outs = listed[stage.name]
        folders = dict.fromkeys(
            str(
                STUDIES_FOLDER
                if stage.name == "report" and STUDIES_FOLDER in path.parents
                else path
            )
            for path in stage.inputs
        )
        assert list(stage.params) == params
        assert list(folders) == inputs
        assert [str(stage.output)] == outs


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content").write_text(content)
    seal(folder)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The names of the stages that ran; a stage writes the contents of its inputs and its params."""
    monkeypatch.chdir(tmp_path)
    names = []

    def pretend(stage):
        names.append(stage.name)
        inputs = [(path / "content").read_text() for path in stage.inputs]
        params = read_params(PARAMS)
        parts = [run.part_of(params, name) for name in stage.params]
        write(stage.output, run.sha256(json.dumps([stage.name, inputs, parts]).encode()))

    monkeypatch.setattr(run.Stage, "run", pretend)
    monkeypatch.setattr(run, "code_digest", lambda: "code")
    Path(".modelpred").mkdir()
    return names


EDITS = {
    "dataset.seed": 1,
    "subsets.seed": 2,
    "subsets.block": 100,
    "targets.C": 0.5,
    "targets.tolerance": 1e-5,
    "predictor.epochs": 3,
    "labels.permutations": 4,
    "report.rows": 3,
    "gates.champion": False,
}


def out_of_date(changed, damaged):
    """The stages of dvc.yaml that have to run: those with a changed part, and all that depend on one."""
    stale = []
    for name, params, inputs, (out,) in stages_of_dvc():
        mine = any(
            edit == part or edit.startswith(f"{part}.") for edit in changed for part in params
        )
        after = any(other.startswith(path) for path in inputs for other in stale_outputs(stale))
        if mine or after or name in damaged:
            stale.append((name, out, mine or after))
    names = {name for name, *_ in stale}
    return [stage.name for stage in run.answers_first() if stage.name in names]


def stale_outputs(stale):
    """Outputs that differ: a damaged one is made again as it was."""
    return [out for _, out, differs in stale if differs]


def run_once(ran, params):
    PARAMS.write_text(yaml.safe_dump(params))
    ran.clear()
    run.run_all(report=lambda _name, _seconds: None)
    return list(ran)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(
        st.tuples(
            st.sets(st.sampled_from(sorted(EDITS)), max_size=2),
            st.sets(st.sampled_from([stage.name for stage in run.stages()]), max_size=2),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_exactly_what_is_out_of_date_runs(ran, edits):
    params: dict = {"dataset": {"source": "iris"}}
    run_once(ran, params)
    assert run_once(ran, params) == []
    for changed, damaged in edits:
        new = {name: dict(section) for name, section in params.items()}
        for edit in changed:
            section, _, key = edit.partition(".")
            part = new.setdefault(section, {})
            part.pop(key) if key in part else part.update({key: EDITS[edit]})
        for stage in run.stages():
            if stage.name in damaged:
                (stage.output / "content").write_text("damaged")

        assert run_once(ran, new) == out_of_date(changed, damaged)
        params = new


def test_the_answers_are_shown_once_before_the_studies_that_they_do_not_need(ran):
    answering = {f"studies@{study}" for study in ANSWERS}
    others = {f"studies@{study}" for study in STUDIES} - answering

    def shown_after(params, **changes):
        PARAMS.write_text(yaml.safe_dump(params))
        ran.clear()
        found = []
        run.run_all(
            report=lambda _name, _seconds: None, answered=lambda: found.append(len(ran)), **changes
        )
        return found

    params = {"dataset": {"source": "iris"}}
    (first,) = shown_after(params)
    assert sorted(ran) == sorted(stage.name for stage in run.stages())
    assert set(ran[:first]) == {"dataset", "subsets", "targets", "predictor", *answering}
    assert set(ran[first:]) == {*others, "report"}
    assert shown_after(params) == []
    assert shown_after({**params, "labels": {"seed": 1}}) == []
    assert ran == ["studies@labels", "report"]
    assert shown_after({**params, "lds": {"seed": 1}, "labels": {"seed": 1}}) == [0]
    skipped = [study for study in STUDIES if study not in ANSWERS]
    assert shown_after({"dataset": {"source": "wine"}}, skip=skipped) == []


def test_a_stage_that_failed_runs_again_and_the_finished_ones_do_not(ran, monkeypatch):
    params: dict = {"dataset": {"source": "iris"}}
    pretend = run.Stage.run

    def fail(stage):
        if stage.name == "predictor":
            raise OSError("the disk is full")
        pretend(stage)

    monkeypatch.setattr(run.Stage, "run", fail)
    with pytest.raises(OSError, match="full"):
        run_once(ran, params)
    monkeypatch.setattr(run.Stage, "run", pretend)

    assert run_once(ran, params) == [stage.name for stage in run.answers_first()][3:]


def test_new_content_of_the_users_file_runs_the_stage_that_reads_it(ran):
    params = {"dataset": {"source": "./people.csv", "label": "rich"}}
    Path("people.csv").write_text("age,rich\n1,yes\n2,no\n")
    assert len(run_once(ran, params)) == len(run.stages())
    os.utime("people.csv", (0, 0))
    assert run_once(ran, params) == []
    Path("people.csv").write_text("age,rich\n1,yes\n3,no\n")

    assert run_once(ran, params) == ["dataset"]  # which writes here what it wrote before


def test_a_folder_without_params_is_one_line_and_nothing_is_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows.run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "params.yaml is missing" in done.stderr
    assert list(tmp_path.iterdir()) == []
