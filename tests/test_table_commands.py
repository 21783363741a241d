"""`modelpred run`, `suspects` and `values`, as a user calls them in a folder with a file."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelpred import cli, table_commands
from modelpred.dataset import grouping
from modelpred.params import read_params
from modelpred.row_commands import value_words, with_certainty
from modelpred.studies import ANSWERS, STUDIES

ROOT = Path(__file__).parents[1]
ROWS, UNLABELLED = 90, 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with people.csv: ids, missing cells, a column of free text, a few wrong labels."""
    folder = tmp_path_factory.mktemp("stranger")
    draws = np.random.default_rng(2)
    cells = draws.normal(size=(ROWS, 2))
    rich = np.where(cells[:, 0] > 0, "yes", "no")
    wrong = draws.choice(ROWS, 5, replace=False)
    rich[wrong] = np.where(rich[wrong] == "yes", "no", "yes")
    people = pl.DataFrame(
        {
            "personId": [f"p{row:03}" for row in range(ROWS)],
            "wage": [None, *cells[1:, 0].round(3).tolist()],
            "age": cells[:, 1].round(3),
            "vendor": ["acme", "bolt", "core"] * (ROWS // 3),
            "remark": [
                f"number {row}: said that the letter of last week came late, again, and asked why"
                for row in range(ROWS)
            ],
            "rich": rich,
        }
    )
    asked = people.head(UNLABELLED).with_columns(
        personId=pl.format("q{}", pl.int_range(UNLABELLED)), rich=pl.lit(None, dtype=pl.String)
    )
    pl.concat([people, asked]).write_csv(folder / "people.csv")
    return folder


def said(place, *words):
    return subprocess.run(
        [sys.executable, "-m", "modelpred.cli", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MODELPRED_DEVICES": "cpu:1"},
        capture_output=True,
        text=True,
        check=False,
    )


def said_here(place, *words):
    """What a command prints in this process, which has imported everything already."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(place),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.app(words, prog_name="modelpred")
        except SystemExit as end:  # as the interpreter ends: a text is an error
            status = 1 if isinstance(end.code, str) else end.code or 0
            if isinstance(end.code, str):
                err.write(f"{end.code}\n")
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def answers_come_first(done):
    """Ten lines of answers at the end, and before the studies that they do not need, if there was time for any."""
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    topics = ["rows", "wrong labels", "values of rows", "worst rows", "probabilities"]
    assert [line[:16].strip() for line in lines[1:] if line[0] != " "] == [
        *topics,
        "report",
        "page",
    ]
    assert lines[-1].endswith("modelpred explore people-modelpred")
    answers, _, others = done.stderr.partition("Other studies follow:")
    assert all(f"studies@{study} " in answers for study in ANSWERS)
    ran = {study for study in STUDIES if f"studies@{study} " in done.stderr}
    assert (lines[0] in answers) == ("studies@" in others) == bool(ran - {*ANSWERS})
    assert "\x1b" not in done.stderr + done.stdout  # no colours, no bars: not a terminal


def test_run_answers_and_a_second_run_changes_nothing(place):
    command = ("run", "people.csv", "--label", "rich", "--minutes", "0.5", "--C", "0.5")
    first = said(place, *command)
    assert first.returncode == 0, first.stderr
    folder = place / "people-modelpred"
    params = read_params(folder / "params.yaml")
    assert (params.dataset.source, params.dataset.row_id) == ("../people.csv", "personId")
    assert params.dataset.drop == ("remark",)
    assert yaml.safe_load((folder / "params.yaml").read_text())["targets"]["C"] == 0.5
    for told in ("--label", "--C", "--test", "--row-id", "--drop", "report"):
        assert told in first.stderr
    answers_come_first(first)
    page = (folder / "artifacts" / "report" / "index.html").read_text()
    for surface in (first.stderr, first.stdout, page):
        assert f"{UNLABELLED} rows without a label are left out" in surface

    again = said(place, *command, "--json")

    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert len(summary["answers"]) == 4
    assert f"{UNLABELLED} rows without a label are left out" in summary["rows"]
    assert again.stderr == ""
    inside = said(folder, "run")
    assert inside.stderr.count("unchanged") >= 8
    assert " s\n" not in inside.stderr.partition("Finished")[0]  # no stage ran
    assert "artifacts/report/index.html" in inside.stdout
    assert inside.stdout.endswith(" modelpred explore\n")


def test_suspects_writes_ids_labels_suggestions_and_cells(place):
    found = said(place, "suspects", "people.csv", "--label", "rich", "--json")
    assert found.returncode == 0, found.stderr
    table = pl.read_csv(place / "people-suspects.csv")
    assert table.height == ROWS
    assert {"row_id", "label", "suggested", "wrong", "wage", "age", "vendor"} <= set(table.columns)
    assert table["row_id"].str.starts_with("p").all()
    labels = dict(pl.read_csv(place / "people.csv").select("personId", "rich").iter_rows())
    assert all(labels[row] == label for row, label in table.select("row_id", "label").iter_rows())
    assert [row["row_id"] for row in json.loads(found.stdout)["rows"]] == table["row_id"].head(
        10
    ).to_list()


@pytest.mark.parametrize("groups", [(), ("--groups", "vendor")])
def test_values_writes_values_and_marks_those_that_may_be_zero(place, groups, monkeypatch):
    monkeypatch.setattr(grouping, "LARGE", ROWS // 3)
    found = said_here(
        place, "values", "people.csv", "--label", "rich", "--permutations", "4", "--quiet", *groups
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    table = pl.read_csv(place / "people-values.csv")
    assert table["value"].is_sorted(descending=True)
    error = table["standard_error"].fill_null(0.0)
    assert (table["differs_from_zero"] == (table["value"].abs() > 2 * error)).all()
    unclear = int((~table["differs_from_zero"]).sum())
    assert "e-0" not in found.stdout  # no exponents
    assert f"the values of the other {unclear} cannot be told from zero" in found.stdout
    assert ("'vendor' (3 groups)" in found.stdout) == (not groups)
    if groups:
        assert sorted(table["group"]) == ["acme", "bolt", "core"]


@pytest.mark.parametrize("words", [("values", "--permutations", "6"), ("suspects",)])
def test_rows_and_orders_that_are_asked_for_are_used_whatever_they_take(place, words):
    command, *options = words
    chosen = ("--label", "rich", "--max-points", "0", "--minutes", "0.5")
    found = said_here(place, command, "people.csv", *chosen, *options)
    assert found.returncode == 0, found.stderr
    assert f"all {ROWS} that have a label" in found.stderr
    assert ("for 6 random orders" in found.stderr) == (command == "values")
    assert re.search(r"time +about \d+ s", found.stderr)


@given(
    value=st.floats(-1e12, 1e12), error=st.none() | st.floats(0, 1e12), scale=st.integers(-15, 0)
)
def test_values_are_printed_without_exponents_to_the_digits_of_their_error(value, error, scale):
    value *= 10.0**scale
    error = None if error is None else error * 10.0**scale
    words = value_words(value, error)
    assert re.fullmatch(r"[+-]\d+(\.\d+)?( ± \d+(\.\d+)?)?", words)
    shown = float(words.split()[0])
    assert abs(shown - value) <= (0.05 * error if error else 0.005 * abs(value)) + 1e-15 * abs(
        value
    )


def test_values_are_differs_from_zero_by_two_standard_errors():
    table = pl.DataFrame(
        {"value": [0.1, -0.3, 0.2, 0.0], "standard_error": [0.06, 0.1, None, None]}
    )
    assert dict(with_certainty(table).select("value", "differs_from_zero").iter_rows()) == {
        0.2: True, 0.1: False, 0.0: False, -0.3: True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "none.csv", "--label", "rich"), "none.csv is not there"),
        (("run", "people.csv"), "set it to the column of people.csv to predict"),
        (("run", "people.csv", "--label", "rich", "--C", "-1"), "C"),
        (("run", "people.csv", "--label", "rich", "--model", "ridge"), "does not fit the label"),
        (("run", "people.csv", "--label", "rich", "--out", "."), "was not made by modelpred run"),
        (("values", "people.csv", "--label", "rich", "--groups", "shop"), "there is no column 'shop'"),
        (("suspects", "people.csv", "--label", "rihc"), "did you mean 'rich'?"),
        (("suspects", "people.csv", "--label", "rich", "--out", "none/s.csv"), "no folder none"),
        (("values", "people.csv", "--label", "rich", "--out", "."), ". is a folder"),
        (("values", "none.csv", "--label", "rich", "--permutations", "5"), "must be even"),
        (("suspects", "people.csv", "--label", "rich", "--out", "pipe"), "pipe is a pipe"),
        (("run", "--project", "none"), "no folder none"),
        (("run", "people.csv", "--label", "rich", "--out", "people.csv/run"), "Not a directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(place, words, told):
    if not (place / "pipe").exists():
        os.mkfifo(place / "pipe")
    done = said_here(place, *words, "--quiet")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr


def test_a_project_runs_with_this_python_where_its_environment_is_not_activated(
    tmp_path, monkeypatch
):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setenv("PATH", "/elsewhere")
    found = []

    def run(command, **options):
        found.append(options["env"]["PATH"].split(os.pathsep))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit):
        table_commands._run_stages(tmp_path, [], quiet=False)
    assert found == [[str(Path(sys.executable).parent), "/elsewhere"]]
