"""The pipeline as its user runs it, and the names that must agree wherever they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil
import pytest
import yaml

from flows.artifacts import STAGES
from modelpred.params import Params
from modelpred.studies import STUDIES
from tests.projects import small_project, write_params
from tests.studies.small import SMALL

ROOT = Path(__file__).parents[1]
TINY = {
    "dataset": {"source": "iris", "watch": "data"},
    "subsets": {
        "fit": {"uniform": 400, "bootstrap": 50},
        "validation": {"uniform": 50},
        "test": {"uniform": 50, "deletion": 50},
        "block": 25,
    },
    "targets": {"model": "logistic"},
    "predictor": {"epochs": 2},
    **SMALL,
    "report": {"rows": 5},
    "gates": {"parameter_error": 0.9, "beats": [], "calibration": 1.0},
}
BLOCKS = 24


def test_no_study_is_imported_by_another_and_all_other_modules_have_a_layer():
    """So that a new study needs no entry in pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (
        each for each in settings["contracts"] if "modelpred.studies" in each.get("containers", ())
    )
    shared = set(re.findall(r"\w+", " ".join(contract["layers"])))
    modules = {
        path.stem: path.read_text() for path in (ROOT / "modelpred/studies").glob("[a-z]*.py")
    }
    assert set(modules) == shared | set(STUDIES)
    imports = {
        name: set(re.findall(r"(?:from|import) modelpred\.studies\.(\w+)", text))
        for name, text in modules.items()
    }
    assert [
        name for name, found in imports.items() if found & set(STUDIES) and name != "running"
    ] == []
    assert [name for name in STUDIES if "running" in imports[name]] == []


def test_one_word_for_each_stage_everywhere():
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    sections = [*STAGES[:4], *STUDIES, "report"]

    assert tuple(graph["stages"]) == STAGES
    # DVC reads the table of studies as it stands in the code.
    assert graph["vars"] == ["modelpred/studies/__init__.py:STUDIES"]
    assert graph["stages"]["studies"]["foreach"] == "${STUDIES}"
    assert list(Params.model_fields) == [*sections, "gates"]
    assert list(yaml.safe_load((ROOT / "params.yaml").read_text())) == [*sections, "gates"]
    for stage in STAGES:
        description = graph["stages"][stage]
        description = description.get("do", description)
        study = "/${key}" if stage == "studies" else ""
        assert description["cmd"] == f"python -m flows.{stage}{study.replace('/', ' ')}"
        assert description["outs"] == [f"artifacts/{stage}{study}"]
        assert f"flows/{stage}.py" in description["deps"]
        assert (ROOT / "flows" / f"{stage}.py").is_file()
        assert (ROOT / "modelpred" / stage).is_dir() or (
            ROOT / "modelpred" / f"{stage}.py"
        ).is_file()
        assert (ROOT / "tests" / stage).is_dir() or (ROOT / "tests" / f"test_{stage}.py").is_file()
    for study in STUDIES:
        assert (ROOT / "modelpred" / "studies" / f"{study}.py").is_file()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with tiny params, under git, as a user has it after cloning."""
    return small_project(tmp_path_factory.mktemp("project"), TINY)


@pytest.fixture(scope="module")
def reproduced(project):
    """The project after a run whose targets stage was killed in the middle, and run again."""
    store = project / ".modelpred" / "shards"
    first = subprocess.Popen(
        ["dvc", "repro"],
        cwd=project,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while len(list(store.rglob("*.parquet"))) < 3:
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    next(filter(_trains, psutil.Process(first.pid).children(recursive=True))).kill()
    said = first.communicate()[0].decode()
    assert first.returncode != 0, said
    finished = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    assert 3 <= len(finished) < BLOCKS

    again = _run(project, "dvc", "repro")

    assert again.returncode == 0, again.stderr
    assert "Stage 'dataset' didn't change, skipping" in again.stdout
    kept = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    assert len(kept) == BLOCKS
    assert finished.items() <= kept.items()
    return project


@pytest.mark.e2e
def test_a_second_run_finds_nothing_to_do(reproduced):
    began = time.monotonic()
    again = _run(reproduced, "dvc", "repro")

    assert "Data and pipelines are up to date." in again.stdout
    assert "Running stage" not in again.stdout
    assert time.monotonic() - began < 10  # 0.6 s on a quiet machine; a stage would take longer


@pytest.mark.e2e
def test_no_server_is_left(reproduced):
    left = [p.pid for p in psutil.process_iter(["cmdline", "cwd"]) if _serves(p, reproduced)]
    assert not left


@pytest.mark.e2e
def test_what_was_resumed_is_byte_for_byte_what_runs_through(reproduced, tmp_path, prefect_api):
    resumed = _contents(reproduced / "artifacts" / "targets")

    through = _run(
        reproduced, sys.executable, "-m", "flows.targets",
        MODELPRED_STORE=str(tmp_path), MODELPRED_DEVICES="cpu:1", PREFECT_API_URL=prefect_api,
    )  # fmt: skip

    assert through.returncode == 0, through.stderr
    assert _contents(reproduced / "artifacts" / "targets") == resumed


@pytest.mark.e2e
def test_a_shard_with_a_flipped_byte_is_named_and_made_again(reproduced, prefect_api):
    before = _contents(reproduced / "artifacts" / "targets")
    damaged = sorted((reproduced / ".modelpred" / "shards").rglob("*.parquet"))[5]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)

    again = _run(reproduced, sys.executable, "-m", "flows.targets", PREFECT_API_URL=prefect_api)

    assert again.returncode == 0, again.stderr
    assert damaged.name in again.stderr
    assert _contents(reproduced / "artifacts" / "targets") == before


@pytest.mark.e2e
def test_a_changed_study_concerns_nothing_before_it(reproduced):
    write_params(reproduced, {**TINY, "valuation": {"permutations": 6, "truth_permutations": 4}})
    try:
        changed = json.loads(_run(reproduced, "dvc", "status", "--json").stdout)
    finally:
        write_params(reproduced, TINY)

    assert list(changed) == ["studies@valuation"]


@pytest.mark.e2e
def test_metrics_and_plots_show(reproduced):
    metrics = json.loads(_run(reproduced, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    plots = _run(reproduced, "dvc", "plots", "show", "--out", "page")

    errors = metrics["artifacts/predictor/metrics.json"]["data"]
    assert {"predictor", "full_model", "influence", "newton_step", "linear_datamodel"} <= set(
        errors
    )
    assert plots.returncode == 0, plots.stderr
    page = (reproduced / "page" / "index.html").read_text()
    assert all(
        title in page for title in ("Validation error of the predictor", "Reliability diagram")
    )


@pytest.mark.e2e
def test_the_summary_answers_four_questions_and_names_the_report(reproduced):
    said = _run(reproduced, sys.executable, "-m", "modelpred.cli", "summary").stdout
    data = json.loads(
        _run(reproduced, sys.executable, "-m", "modelpred.cli", "summary", "--json").stdout
    )

    assert said.startswith("iris: ")
    assert len(data["answers"]) == 4
    assert len(said.splitlines()) == 10
    assert all(line in said for answer in data["answers"] for line in answer["brief"])
    assert "artifacts/report/index.html\n" in said
    assert said.endswith(" modelpred explore\n")


@pytest.mark.e2e
def test_publishing_again_makes_no_second_version(reproduced):
    database = reproduced / "mlflow.db"
    first = _run(reproduced, sys.executable, "-m", "flows.publish")
    assert "modelpred-iris-logistic version 1 (champion)" in first.stdout

    (reproduced / ".modelpred" / "published.json").unlink()
    assert _run(reproduced, sys.executable, "-m", "flows.publish").stdout == first.stdout

    database.unlink()
    rebuilt = _run(reproduced, sys.executable, "-m", "flows.publish")
    assert rebuilt.stdout == first.stdout, rebuilt.stderr
    assert database.is_file()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("section", "content", "told"),
    [
        ("dataset", {"source": "irsi"}, "irsi"),
        ("dataset", {"source": "iris", "points": 5000}, "5000"),
        ("targets", {"modell": "logistic"}, "params.yaml: unknown key targets.modell; known: "),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(reproduced, section, content, told):
    before = _contents(reproduced / "artifacts")
    write_params(reproduced, {**TINY, section: content})
    try:
        ended = _run(reproduced, sys.executable, "-m", "flows.dataset")
    finally:
        write_params(reproduced, TINY)

    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("dataset: ")
    assert told in ended.stderr
    assert _contents(reproduced / "artifacts") == before


@pytest.mark.e2e
def test_versions_are_compared_without_a_checkout_and_missing_ones_are_named(
    reproduced, prefect_api
):
    commit = "-c user.name=t -c user.email=t@example.org commit --message first"
    for command in ("add .", commit, "tag first"):
        subprocess.run(["git", *command.split()], cwd=reproduced, check=True, capture_output=True)
    before = _contents(reproduced / "artifacts")

    said = _run(
        reproduced, sys.executable, "-m", "flows.versions", "--study", "valuation",
        *("--rev", "first", "--rev", "workspace", "--rev", "nowhere"),
        PREFECT_API_URL=prefect_api,
    )  # fmt: skip

    assert said.returncode == 0, said.stderr
    assert "versions: nowhere: git has no such revision" in said.stderr
    assert "67 shared rows: rank correlation 1.000" in said.stdout
    assert "no row differs" in said.stdout
    written = reproduced / "artifacts" / "versions"
    found = json.loads((written / "valuation" / "versions.json").read_text())
    assert found["revisions"] == ["first", "workspace"]
    assert (written / "valuation" / "versions.png").stat().st_size > 10_000
    shutil.rmtree(written)
    assert _contents(reproduced / "artifacts") == before


def _serves(process, project):
    command, folder = process.info["cmdline"] or (), process.info["cwd"]
    return any("flows.server" in word for word in command) and folder == str(project)


def _trains(process):
    try:
        return "flows.targets" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def _contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _environment(**further):
    """The environment of a user's shell, with one core for the workers' sake."""
    ours = ("PREFECT_", "MLFLOW_", "MODELPRED_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": programs, "MODELPRED_DEVICES": "cpu:1", **further}


def _run(project, *command, **environment):
    return subprocess.run(
        command,
        cwd=project,
        env=_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
