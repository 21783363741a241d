"""The pipeline with a target of the user's own: it runs to its report, and again when the code changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import publish, run
from modelpred.params import read_params
from modelpred.studies import STUDIES
from tests.projects import ROOT, write_params
from tests.studies.small import SMALL

NETS = """
from torch import nn
from modelpred.targets import TorchTarget

def build():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

target = TorchTarget(build=build, batch_size=20)
"""
PARAMS = {
    "dataset": {"source": "iris", "points": 40, "test": 20},
    "subsets": {
        "fit": {"uniform": 30},
        "validation": {"uniform": 10},
        "test": {"uniform": 10},
        "block": 30,
    },
    "targets": {"model": "models.nets:target", "settings": {"epochs": 2}},
    **SMALL,
}
RUN_HERE = ("lds", "calibration")  # one that runs, and one that needs parameters


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder, with a target and params."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "nets.py").write_text(NETS)
    write_params(tmp_path, PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.e2e
def test_it_runs_to_the_report_and_says_what_does_not_apply(project, capsys):
    skipped = [part for study in STUDIES if study not in RUN_HERE for part in ("--skip", study)]
    environment = os.environ | {"MODELPRED_DEVICES": "cpu:1"}
    command = [sys.executable, "-m", "flows.run", "--quiet", *skipped]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

    studies = Path("artifacts", "studies")
    assert -1 <= json.loads((studies / "lds.json").read_text())["lds.direct"] <= 1
    skipped = json.loads((studies / "calibration" / "metrics.json").read_text())["skipped"]
    assert "needs parameters, and those of models.nets:target are not predicted" in skipped
    page = Path("artifacts", "report", "index.html").read_text()
    assert "predicts the outputs, for the training and test rows, of retrained models" in page
    assert skipped in page
    publish.main()
    assert capsys.readouterr().out.startswith("not registered: targets.model is code of your own")


def test_its_code_makes_the_stages_stale_that_import_it(project):
    params = read_params(Path("params.yaml"))
    stale = {stage.name for stage in run.stages() if run.files_of_stage(stage, params)}
    assert stale == {stage.name for stage in run.stages()} - {"dataset", "subsets"}


def test_the_project_of_the_docs_is_one(project):
    page = (ROOT / "docs" / "your-model.md").read_text()
    section = page.partition("## A torch module in the pipeline")[2]
    nets, params = (
        section.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("python", "yaml")
    )
    Path("models", "documented.py").write_text(nets)
    Path("params.yaml").write_text(params.replace("models.nets", "models.documented"))
    config = read_params(Path("params.yaml")).targets
    assert config.build(classes=2).parameter_count(57, 2) == 16 * 58 + 2 * 17
