"""The snippets of README and docs run as they are; their commands exist with the options that are shown."""

import contextlib
import io
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from modelpred import ModelPred
from modelpred.cli import app
from tests.fixtures import without_drawings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN_PAGES = {"your-model.md": 8, "notebook.md": 3}  # their snippets stand alone
# Snippets that need what a test does not have, by their first line.
ELSEWHERE = {
    "import mlflow": "a registry: tests/registry and tests/test_pipeline.py",
    "from pathlib import Path": "a finished run: tests/studies/test_lds.py",
    "@final": "docs/families.md is tested in tests/targets/test_model.py",
}
ROWS = 120


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


SNIPPETS = [
    (page, number, code)
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"))
    if code.splitlines()[0] not in ELSEWHERE
]
NAMES = [f"{page.name}-{number}" for page, number, _ in SNIPPETS]


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the snippets of a page may use: rows of patients, a test set, and a fit."""
    monkeypatch.chdir(tmp_path)
    without_drawings(monkeypatch)  # tests/api/test_report.py draws the report
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(ROWS + 60, 3))
    columns = ["income", "age", "size"]
    ids = [f"patient {row}" for row in range(ROWS)]
    rows = pd.DataFrame(cells[:ROWS], columns=columns, index=ids)
    others = pd.DataFrame(cells[ROWS:], columns=columns)
    y = np.where(cells.sum(axis=1) + draws.normal(size=len(cells)) > 0, "yes", "no")
    mp = ModelPred(target="logistic", C=1.0, subsets=200).fit(
        rows, y[:ROWS], test=(others, y[ROWS:])
    )
    return {
        "ModelPred": ModelPred,
        "mp": mp,
        "X": rows,
        "y": y[:ROWS],
        "X_test": others.to_numpy(),
        "y_test": y[ROWS:],
        "X_val": others.to_numpy(),
        "y_val": y[ROWS:],
        "X_new": others.to_numpy(),
        "weights": draws.integers(0, 2, size=(20, ROWS)).astype(float),
        "vendor_of_each_row": ["a", "b", "c"] * (ROWS // 3),
    }


@pytest.mark.parametrize(("page", "number", "code"), SNIPPETS, ids=NAMES)
def test_a_snippet_runs(page, number, code, names):
    alone = page.name in OWN_PAGES
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # Few subsets: what a snippet shows does not depend on their number.
        exec(
            compile(code.replace("subsets=8000", "subsets=200"), f"{page.name}-{number}", "exec"),
            {} if alone else names,
        )
    defines = code.startswith("# models/")  # a file that others import
    assert printed.getvalue() or not alone or defines


def test_the_pages_that_stand_alone_have_their_snippets():
    found = {page: len(blocks(ROOT / "docs" / page, "python")) for page in OWN_PAGES}
    assert found == OWN_PAGES


HERE = ("check", "suspects", "values")  # commands on a file alone, which run here
# The test that runs the other commands, by the first words of a line.
RUN_BY = {
    "modelpred run": "tests/test_table_commands.py::test_run_answers_and_a_second_run_changes_nothing",
    "modelpred explore": "tests/page/test_running.py::test_the_command_serves_until_it_is_interrupted",
    "modelpred lds": "tests/studies/test_lds.py::test_the_command_scores_a_matrix_from_any_of_three_kinds_of_file",
    "modelpred serve": "tests/registry/test_registry.py::test_the_command_serves_the_champion",
    "modelpred registry": "tests/registry/test_registry.py::test_the_commands_of_the_registry_run_as_documented",
    "python -m flows.pipeline": "tests/flows/test_recurring.py::test_an_unchanged_run_says_so",
    "python -m flows.grid": "tests/flows/test_grid.py::test_the_grid_runs_names_what_failed_and_resumes",
    "python -m flows.versions": "tests/test_pipeline.py::test_versions_are_compared_without_a_checkout_and_missing_ones_are_named",
    "dvc repro": "tests/test_pipeline.py::test_a_second_run_finds_nothing_to_do",
    "dvc exp run": "tests/flows/test_grid.py::test_the_grid_runs_names_what_failed_and_resumes",
    "dvc exp show; dvc metrics diff; dvc plots show": "tests/test_pipeline.py::test_metrics_and_plots_show",
    "dvc add": "tests/flows/test_revisions.py::test_versions_are_read_from_cache_or_remote_and_nothing_is_checked_out",
    "dvc push": "tests/flows/test_revisions.py::test_versions_are_read_from_cache_or_remote_and_nothing_is_checked_out",
}
# Lines that no test runs, and why.
NOT_RUN = {
    "make": "the targets exist; make test runs these tests, make dist and make run build environments",
    "pip install": "needs a package index; make dist installs both distributions into a new environment",
    "cd ": "a change of folder",
    "cp ": "the user's own file",
    ". .venv/bin/activate": "an environment",
    "$EDITOR": "an editor",
    "git ": "git's own command",
    "export ": "a setting; those of modelpred are read in tests/flows",
    "apt install": "a server of the user's own",
    "su postgres": "a server of the user's own",
    "PREFECT_HOME": "a server for other machines; tests/flows/test_server.py runs that of the schedule",
    "curl": "tests/registry/test_serving.py sends the same body",
    "python - >": "writes the body that tests/registry/test_serving.py sends",
    "rm -r": "deletes",
    "find ": "deletes",
    "tar ": "a copy; tests/recovery restores one",
    "dvc gc": "DVC's own command, which deletes",
    "dvc remote": "DVC's own command",
    "dvc pull": "DVC's own command",
    "python -m flows.schedule": "never ends; tests/flows/test_schedule.py and test_server.py run its parts",
    "MLFLOW_TRACKING_URI": "MLflow's own command, which deletes",
}


def lines():
    """Every command line of the pages, without comments and the bodies of here-documents."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            text = re.sub(r"(<<'?(\w+)'?\n).*?^\2$", r"\1", block, flags=re.DOTALL | re.MULTILINE)
            for line in text.replace("\\\n", " ").splitlines():
                shown = re.sub(r"\s+#.*|^#.*", "", line).strip()
                if shown:
                    yield page.name, shown


LINES = list(dict.fromkeys(f"{page}: {line}" for page, line in lines()))
COMMANDS = {
    f"{page}: {line}": shlex.split(line)
    for page, line in lines()
    if line.split()[0] in ("modelpred", "make", "python")
}
RUN_HERE = {line: words for line, words in COMMANDS.items() if words[1] in HERE}


def test_every_line_runs_in_a_test_or_has_a_reason():
    listed = (*RUN_BY, *NOT_RUN)
    for shown in LINES:
        starts = [start for start in listed if shown.partition(": ")[2].startswith(start)]
        assert len(starts) + (shown in RUN_HERE) == 1, (shown, starts)
    for start in listed:
        assert any(shown.partition(": ")[2].startswith(start) for shown in LINES), start
    for test in RUN_BY.values():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), test


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with the file of the pages, at both of its places."""
    folder = tmp_path_factory.mktemp("people")
    draws = np.random.default_rng(3)
    cells = draws.normal(size=(ROWS, 2))
    table = pd.DataFrame(cells, columns=["age", "hours"])
    table["vendor"] = draws.choice(["acme", "bolt"], ROWS)
    table["income"] = np.where(cells.sum(axis=1) + draws.normal(size=ROWS) > 0, "high", "low")
    (folder / "data").mkdir()
    for place in ("people.csv", "data/people.csv"):
        table.to_csv(folder / place, index=False)
    return folder


@pytest.mark.parametrize("shown", {" ".join(words): words for words in RUN_HERE.values()}.items())
def test_a_command_on_a_file_runs_as_shown(people, monkeypatch, shown):
    monkeypatch.chdir(people)
    _, words = shown
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    assert "income" in done.output
    assert words[1] == "check" or Path(f"people-{words[1]}.csv").is_file()


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_takes_what_is_shown(words):
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets
    elif program == "python":
        if arguments[0] == "-m":
            assert find_spec(arguments[1]) is not None
    else:
        parse(typer.main.get_command(app), arguments)


def parse(command, arguments):
    """Read the arguments as the command would, without running it."""
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    context = command.make_context(command.name, list(arguments))
    assert context.params


@pytest.mark.parametrize("command", ["run", "check", "suspects", "values"])
def test_every_option_of_a_decision_exists(command):
    """What the list of decisions names can be passed; `suspects` has no test rows."""
    found = typer.main.get_command(app).commands[command]
    options = {option for parameter in found.params for option in parameter.opts}
    named = {"--label", "--model", "--C", "--max-points", "--row-id", "--drop", "--categories"}
    named |= {"--dates", "--delimiter", "--minutes"}
    if command != "suspects":
        named |= {"--test", "--group"}
    assert named <= options
