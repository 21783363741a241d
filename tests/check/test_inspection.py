"""`modelpred check` says what the pipeline would make of a file, and gives its section."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from modelpred.check import check, config_of, family
from modelpred.dataset import DatasetConfig, prepare
from modelpred.errors import InvalidInput
from modelpred.targets.families import fitting_families

ROOT = Path(__file__).parents[2]


@pytest.fixture
def people(tmp_path, monkeypatch):
    """people.csv in the working folder, with a column that must be dropped."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "name": [f"person {row}" for row in range(60)],
            "age": [None, *generator.integers(18, 90, 59).tolist()],
            "work": generator.choice(["office", "shop", "road"], 60),
            "planet": ["earth"] * 60,
            "part": generator.choice(["train", "test"], 60),
            "rich": ["no", "yes", "no"] * 20,
        }
    )
    table.write_csv("people.csv")
    return table


def config(**keys):
    usual = {"source": "people.csv", "label": "rich", "test": "auto", "drop": (), "categories": ()}
    return config_of(**{**usual, **keys})


def test_the_answer_names_what_a_person_asks_for(people):
    found = check(config(drop=("name",)))
    for told in (
        "people.csv: 60 rows",
        "label rich: 2 classes, no 66.7%, yes 33.3%",
        "age     number          1 ",
        "column 'planet' is 'earth' in every row; left out",
        "column 'part' marks training and test rows",
        "targets.model: auto is logistic",
    ):
        assert told in found.found
    assert found.problems == ()


def test_the_section_to_paste_reads_the_table(people):
    found = check(config())
    assert [line.split("'")[1] for line in found.problems] == ["name"]
    section = yaml.safe_load(found.section)["dataset"]
    assert section["drop"] == ["name"]
    assert section["watch"] == "people.csv"
    pasted = {**section, "drop": tuple(section["drop"]), "categories": ()}
    dataset = prepare(DatasetConfig.model_validate(pasted))
    assert dataset.column_names == ("age", "work", "part")
    assert (
        f"{len(dataset.row_ids)} training rows, {len(dataset.test_row_ids)} test rows"
        in found.found
    )
    assert f"{len(dataset.feature_names)} features" in found.found


@pytest.mark.parametrize("classes", [0, 2, 3, 10])
def test_the_family_is_the_one_that_auto_means(classes):
    assert family(classes) == fitting_families(classes)[0]


def test_what_cannot_be_looked_at_is_one_line(people):
    for keys, told in {
        "spam": "spam: there is no such file; tables that need no check: spam, iris",
        "none.csv": "none.csv is not there; relative paths start at the project's folder",
    }.items():
        with pytest.raises(InvalidInput, match=told):
            check(config(source=keys))
    with pytest.raises(InvalidInput, match=r"^max_points: [^\n]*got 1$"):
        config(max_points=1)


def test_the_command_exits_with_1_where_something_must_be_mended(people):
    def said(*arguments: str):
        command = [
            sys.executable,
            "-m",
            "modelpred.cli",
            "check",
            "people.csv",
            "--no-trial",
            *arguments,
        ]
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    refused = said("--label", "rich")
    assert refused.returncode == 1
    assert "Problems to fix:" in refused.stdout
    assert "subsets" not in refused.stdout
    wrong = said("--label", "rihc")
    assert wrong.returncode == 1
    assert wrong.stderr == "dataset.label: people.csv has no column 'rihc'; did you mean 'rich'?\n"


def test_looking_waits_for_nothing_that_computes():
    program = "import sys, modelpred.check; sys.exit(str({'torch', 'sklearn', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr.strip() == "set()"


def test_what_is_to_be_watched_holds_all_that_is_read(people, tmp_path):
    (tmp_path / "more").mkdir()
    people.write_csv("more/part-1.csv")
    people.write_csv("more/second.csv")
    watched = {
        "more/part-1.csv": ("auto", "more/part-1.csv"),
        "more/*-1.csv": ("auto", "more"),
        "people.csv": ("more/second.csv", "people.csv"),
    }
    for source, (test, expected) in watched.items():
        found = check(config(source=source, test=test, drop=("name",)))
        assert f"\n  watch: {expected}\n" in found.section.replace('"', "")
