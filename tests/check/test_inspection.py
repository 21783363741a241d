"""`modelpred check` says what the pipeline would make of a file, and gives its section."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpred.check import check, config_of, family
from modelpred.check.decisions import is_id_name
from modelpred.dataset import DatasetConfig, prepare, prepare_table
from modelpred.errors import InvalidInput
from modelpred.targets.families import fitting_families

ROOT = Path(__file__).parents[2]


@pytest.fixture
def people(tmp_path, monkeypatch):
    """people.csv in the working folder, with a column that names the rows."""
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


def chosen(found):
    return [(decision.about, decision.choice) for decision in found.decisions]


def test_the_answer_names_what_a_person_asks_for(people):
    found = check(config(drop=("name",)))
    for told in (
        "people.csv: 60 rows",
        "label rich: 2 classes, no 66.7%, yes 33.3%",
        "age     number          1 ",
        "column 'part' marks training and test rows; use it with --test part",
    ):
        assert told in found.found
    assert found.family == "logistic"
    assert chosen(found) == [
        ("rows", "all 60"),
        ("test rows", "20% of the rows of each class"),
        ("left out", "column 'planet' is 'earth' in every row"),
    ]


def test_a_column_that_cannot_be_used_is_told_in_full(people):
    people.with_columns(
        born=pl.Series(["2024-02-30" if row == 7 else "2024-01-05" for row in range(60)])
    ).write_csv("people.csv")
    found = check(config())
    [problem] = found.problems
    assert "row 7 (line 9), '2024-02-30'" in problem
    assert problem.endswith("or name it in dataset.categories")
    assert problem in found.found
    assert check(config(drop=("born",))).problems == ()


def test_the_section_to_paste_reads_the_table(people):
    found = check(config())
    section = yaml.safe_load(found.section)["dataset"]
    assert section["row_id"] == "name"
    assert section["watch"] == "people.csv"
    lists = {key: tuple(section[key]) for key in ("drop", "categories")}
    dataset = prepare(DatasetConfig.model_validate({**section, **lists}))
    assert dataset.column_names == ("age", "work", "part")
    assert dataset.row_ids[0].startswith("person ")
    assert (
        f"{len(dataset.row_ids)} training rows, {len(dataset.test_row_ids)} test rows"
        in found.found
    )
    assert f"{len(dataset.feature_names)} features" in found.found


UNUSABLE = {
    "notes": [
        f"{row} a long remark on what this customer said when we met, in words" for row in range(60)
    ],
    "price": [f"{row},{row % 10}" for row in range(60)],
    "seen": [f"{1 + row % 28}.{1 + row % 12}.2021" for row in range(60)],
    "empty": [None] * 60,
    "number": list(range(60)),
    "size": [*map(str, range(40)), *["big"] * 20],
}
IDS = {
    "customer_id": [f"c{row * 7 % 60:03}" for row in range(60)],
    "orderNo": [row * 3 for row in range(60)],
    "email": [f"p{row}@example.org" for row in range(60)],
}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    bad=st.sets(st.sampled_from(sorted(UNUSABLE))),
    ids=st.sets(st.sampled_from(sorted(IDS))),
    shift=st.integers(0, 10_000),
)
def test_a_table_is_taken_whatever_columns_are_unusable(people, bad, ids, shift):
    columns = {name: UNUSABLE[name] for name in bad} | {name: IDS[name] for name in ids}
    columns = dict(sorted(columns.items(), key=lambda item: (len(item[0]) * 31 + shift) % 7))
    people.drop("name").with_columns(
        *(pl.Series(name, cells) for name, cells in columns.items())
    ).write_csv("people.csv")

    found = check(config())

    named = [name for name in columns if name in ids]
    # A column whose name says that it holds ids goes before other unique texts.
    named.sort(key=lambda name: name == "email")
    numbered = "number" in bad  # a running number under a name of ids
    if named and (named[0] != "email" or not numbered):
        expected = {named[0]} | ({"number"} if numbered and named[0] != "email" else set())
        assert found.config.row_id in expected
    else:
        assert found.config.row_id == ("number" if numbered else None)
    left_out = {*columns} - {found.config.row_id}
    assert {*found.config.drop} == left_out | {"planet"}
    assert found.table.feature_names == ("age", "work", "part")
    told = [choice for about, choice in chosen(found) if about == "left out"]
    assert all(any(repr(name) in line for line in told) for name in left_out)
    assert prepare_table(found.table, found.config).column_names == ("age", "work", "part")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", True), ("customerId", True), ("order no.", True), ("ROW", True), ("patient_key", True),
        ("width", False), ("idle", False), ("node", False), ("price", False), ("valid", False),
    ],
)  # fmt: skip
def test_names_of_ids(name, expected):
    assert is_id_name(name) == expected


@pytest.mark.parametrize("sign", [";", "|", "\t"])
def test_another_delimiter_is_found(people, sign):
    people.write_csv("people.csv", separator=sign)
    found = check(config())
    assert found.config.delimiter == sign
    assert prepare(found.config).column_names == ("age", "work", "part")


def test_a_column_row_id_names_the_rows(people):
    people.rename({"name": "row_id"}).write_csv("people.csv")
    assert check(config()).config.row_id == "row_id"


@pytest.mark.parametrize("classes", [0, 2, 3, 10])
def test_the_family_is_the_one_that_auto_means(classes):
    assert family(classes) == fitting_families(classes)[0]


def test_what_cannot_be_looked_at_is_one_line(people):
    for keys, told in {
        "spam": "spam: there is no such file; tables that need no check: spam, iris",
        "none.csv": "none.csv is not there; relative paths start at the current folder",
    }.items():
        with pytest.raises(InvalidInput, match=told):
            check(config(source=keys))
    with pytest.raises(InvalidInput, match=r"^max_points: [^\n]*got 1$"):
        config(max_points=1)


def test_the_command_takes_what_run_takes(people):
    def said(*arguments: str):
        command = [sys.executable, "-m", "modelpred.cli", "check", "people.csv", "--no-trial"]
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, env=environment
        )

    taken = said("--label", "rich")
    assert taken.returncode == 0, taken.stderr
    assert "column 'name', different in every row" in taken.stdout
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
