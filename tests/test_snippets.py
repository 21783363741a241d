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

from modelpred import ModelPred
from modelpred.cli import app

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


def commands():
    """Every command line of the pages."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield page.name, words


COMMANDS = {
    f"{page}: {' '.join(words)}": words
    for page, words in commands()
    if words[0] in ("modelpred", "make", "python")
}


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
