"""A table of one's own: types, rows and roles of columns, and what about them is refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelpred.dataset import DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.dataset.own import own_table
from modelpred.dataset.splitting import held_out_groups, held_out_rows, selected_rows
from modelpred.errors import InvalidInput

ADULT = Path(__file__).parents[3] / "shared" / "data" / "adult.parquet"


def people(count=100):
    """A table of every kind of column."""
    generator = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "person": [f"p{row:03}" for row in range(count)],
            "age": generator.integers(18, 90, count),
            "height": generator.normal(170, 10, count).round(2),
            "work": generator.choice(["office", "shop", "road"], count),
            "member": generator.choice(["true", "false"], count),
            "since": [f"20{10 + row % 9}-0{1 + row % 8}-11" for row in range(count)],
            "zip": [f"0{1000 + row % 7}" for row in range(count)],
            "home": [f"h{row // 3}" for row in range(count)],
            "rich": generator.choice(["no", "yes"], count, p=[0.7, 0.3]),
        }
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a table as a.csv or a.parquet and gives the config that reads it."""
    monkeypatch.chdir(tmp_path)

    def make(table, *, name="a.csv", **keys):
        table.write_parquet(name) if name.endswith("parquet") else table.write_csv(name)
        return DatasetConfig(**{"source": name, "label": "rich", **keys})

    return make


KEYS = {"row_id": "person", "group": "home"}


def test_types_are_those_that_a_person_would_say(write):
    looked = own_table(write(people(), **KEYS))
    assert {column.name: column.kind for column in looked.inspection.columns} == {
        "age": "number", "height": "number", "work": "category", "member": "boolean",
        "since": "date", "zip": "category",
    }  # fmt: skip
    assert looked.inspection.problems == looked.inspection.notes == ()
    assert looked.table.classes == ("no", "yes")


def test_csv_and_parquet_are_the_same_points(write):
    typed = people().with_columns(
        pl.col("member") == "true",
        pl.col("since").str.to_date(),
        pl.col("work").cast(pl.Categorical),
    )
    one = prepare(write(people(), **KEYS))
    other = prepare(write(typed, name="a.parquet", **KEYS))
    assert one.encoding == other.encoding
    np.testing.assert_array_equal(one.features, other.features)
    assert one.row_ids == other.row_ids
    assert one.rows["person" if "person" in one.rows.columns else "row_id"][0].startswith("p")


def test_rows_keep_their_ids_their_cells_and_their_labels(write, tmp_path):
    config = write(
        people().with_columns(age=pl.when(pl.col("age") > 80).then(None).otherwise("age")), **KEYS
    )
    dataset = prepare(config)
    original = pl.read_csv("a.csv", schema_overrides={"zip": pl.String})
    for rows, ids in ((dataset.rows, dataset.row_ids), (dataset.test_rows, dataset.test_row_ids)):
        assert rows["row_id"].to_list() == list(ids)
        told = original.filter(pl.col("person").is_in(ids)).sort("person")
        for name in ("age", "height", "work", "zip", "home", "rich"):
            assert rows.sort("row_id")[name].to_list() == told[name].to_list()
    assert "age is missing" in dataset.feature_names
    write_dataset(dataset, tmp_path / "written")
    again = read_dataset(tmp_path / "written")
    assert again.fingerprint == dataset.fingerprint
    kept = json.loads((tmp_path / "written" / "encoding.json").read_text())
    assert [column["name"] for column in kept["columns"]] == list(dataset.column_names)
    np.testing.assert_array_equal(
        dataset.scaling(pl_tensor(again.encoding.encode(again.test_rows))), dataset.test_features
    )


def pl_tensor(values):
    import torch  # noqa: PLC0415

    return torch.from_numpy(values)


def test_groups_stay_whole(write):
    dataset = prepare(write(people(), **KEYS))
    groups = dict(people().select("person", "home").iter_rows())
    of = [{groups[row_id] for row_id in ids} for ids in (dataset.row_ids, dataset.test_row_ids)]
    assert not of[0] & of[1]
    assert of[1]


def test_test_rows_from_a_column_a_share_a_number_and_a_second_file(write):
    table = people().drop("person", "home").with_columns(part=pl.Series(["train", "Test"] * 50))
    by_column = prepare(write(table, test="part"))
    assert sorted(map(int, by_column.test_row_ids)) == list(range(1, 100, 2))
    assert "part" not in by_column.column_names
    counts = [len(prepare(write(table, test=test)).test_row_ids) for test in (0.1, 7, "auto")]
    assert counts[1] == 7
    assert abs(counts[0] - 10) <= 2
    assert abs(counts[2] - 20) <= 2
    table.write_csv("second.csv")
    second = prepare(write(table, test="second.csv", drop=("part",)))
    assert len(second.row_ids) == 100
    assert sorted(second.test_row_ids) == sorted(f"test-{row}" for row in range(100))


def test_at_most_max_points_are_taken_and_classes_keep_their_shares(write):
    dataset = prepare(write(people(1000).drop("home"), row_id="person", max_points=200))
    assert len(dataset.row_ids) + len(dataset.test_row_ids) == 200
    share = people(1000)["rich"].value_counts(normalize=True).filter(rich="yes")["proportion"][0]
    assert float(dataset.labels.double().mean()) == pytest.approx(share, abs=0.02)


def test_rows_appended_later_change_nothing_before_them():
    labels = pl.Series(np.random.default_rng(0).choice(["a", "b", "c"], 300))
    whole = held_out_rows(labels, rows=300, share=0.2, seed=0)
    for count in (20, 99, 250):
        part = held_out_rows(labels[:count], rows=count, share=0.2, seed=0)
        np.testing.assert_array_equal(part, whole[:count])
    for name in "abc":
        of_class = (labels == name).to_numpy()
        assert abs(whole[of_class].sum() - 0.2 * of_class.sum()) <= 1
    groups = pl.Series([f"g{row // 4}" for row in range(300)])
    np.testing.assert_array_equal(
        held_out_groups(groups[:200], share=0.3, seed=1),
        held_out_groups(groups, share=0.3, seed=1)[:200],
    )


def test_selected_rows_are_those_of_the_lowest_ranks_of_each_class():
    labels = pl.Series(["a"] * 8 + ["b"] * 4)
    ranks = np.arange(12)[::-1] / 12
    selected = selected_rows(np.arange(12), labels, ranks, most=6)
    assert sorted(selected) == [4, 5, 6, 7, 10, 11]
    assert list(selected_rows(np.arange(12), labels, ranks, most=None)) == list(range(12))


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ([True, False] * 30, ("false", "true")),
        ([3, 10, 2] * 20, ("2", "3", "10")),
        (["b", "a"] * 30, ("a", "b")),
        ([0.5, 1.0, 2.0] * 20, ()),
        (list(range(60)), ()),
    ],
)
def test_labels_of_any_type(write, label, classes):
    table = pl.DataFrame({"x": np.random.default_rng(0).normal(size=60), "rich": label})
    for name in ("a.csv", "a.parquet"):
        dataset = prepare(write(table, name=name))
        assert dataset.classes == classes
        if not classes:
            numbers = dict(zip(table["rich"].cast(float), range(60), strict=True))
            assert set(dataset.labels.tolist()) <= set(numbers)


def test_flipped_labels_are_told_in_the_label_s_own_type(write):
    table = pl.DataFrame(
        {"x": np.random.default_rng(0).normal(size=60), "rich": [True, False] * 30}
    )
    dataset = prepare(write(table, name="a.parquet", flip=0.1))
    assert dataset.rows["rich"].dtype == pl.Boolean
    told = [dataset.classes[index] == "true" for index in dataset.labels]
    assert dataset.rows["rich"].to_list() == told


X = [float(row % 17) for row in range(40)]
NO_YES = ["no", "yes"] * 20


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            {"word": [f"word {row}" for row in range(40)]},
            (
                "a.csv: column 'word' has 40 different texts in 40 rows, ids or names: drop it "
                "(dataset.drop), or let it name the rows (dataset.row_id: word), or name it in "
                "dataset.categories"
            ),
        ),
        (
            {
                "say": [
                    f"It was the {row}th time that they had heard of such a thing as this"
                    for row in range(40)
                ]
            },
            "a.csv: column 'say' holds free text; drop it (dataset.drop), or make categories or numbers",
        ),
        (
            {"number": list(range(100, 140))},
            "a.csv: column 'number' counts the rows from 100 to 139: drop it",
        ),
        (
            {"age": [*map(str, range(39)), "old"]},
            (
                "a.csv: column 'age' holds numbers and, in row 39 (line 41), 'old'; make it one kind, or "
                "name it in dataset.categories"
            ),
        ),
        (
            {"age": ["1,5"] * 20 + ["2,5"] * 20},
            "a.csv: column 'age' writes numbers with commas, such as '1,5'; write a point before",
        ),
        (
            {"age": ["900"] * 20 + ["1,234.50"] * 20},
            "a.csv: column 'age' writes numbers with commas, such as '1,234.50'; write a point",
        ),
        (
            {"age": ["12%"] * 20 + ["3.5 %"] * 20},
            "a.csv: column 'age' writes numbers with a unit, such as '12%'; write the number alone",
        ),
        (
            {"day": ["24.12.2024", "1.1.2025"] * 20},
            "a.csv: column 'day' holds dates such as '24.12.2024'; write them as 2024-12-31, or",
        ),
        ({"age": [None] * 40}, "a.csv: column 'age' has no value in any of the 40 rows; drop it"),
        (
            {"age": [1.5] * 7 + [np.inf] + [2.5] * 32},
            "a.csv: column 'age' holds inf in row 7 (line 9); write a number there, or leave it",
        ),
        (
            {"rich": ["no", None] * 20},
            "a.csv: the label 'rich' is missing in 20 rows (first in row 1 (line 3)); fill or remove",
        ),
        ({"rich": ["no"] * 40}, "a.csv: the label 'rich' is 'no' in every row; a classifier needs"),
    ],
)
def test_bad_columns_are_refused_by_name_in_one_line(write, columns, told):
    table = pl.DataFrame({"x": X, "rich": NO_YES, **columns})
    config = write(table)
    with pytest.raises(InvalidInput) as error:
        prepare(config)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_all_problems_are_told_at_once_a_line_each(write):
    table = pl.DataFrame({"x": X, "rich": NO_YES, "a": [None] * 40, "b": list(range(40))})
    with pytest.raises(InvalidInput) as error:
        prepare(write(table))
    assert [line.split("'")[1] for line in str(error.value).splitlines()] == ["a", "b"]


def test_constant_and_repeated_columns_are_left_out_and_told(write, caplog):
    table = pl.DataFrame({"x": X, "one": ["same"] * 40, "again": X, "rich": NO_YES})
    dataset = prepare(write(table))
    assert dataset.column_names == ("x",)
    assert caplog.messages == [
        "a.csv: column 'one' is 'same' in every row; left out",
        "a.csv: column 'again' repeats 'x'; left out",
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"label": None},
            "dataset.label (option --label) is not set; set it to the column of a.csv to predict, one of: person,",
        ),
        ({"label": "rihc"}, "dataset.label: a.csv has no column 'rihc'; did you mean 'rich'?"),
        ({"drop": ("nothing",)}, "dataset.drop: a.csv has no column 'nothing'; it has person, age"),
        ({"drop": ("rich",)}, "dataset.drop: 'rich' is the label; drop another column"),
        (
            {"row_id": "home"},
            "a.csv: the row id 'h0' ('home') is in row 0 (line 2) and in row 1",
        ),
        (
            {"test": "split"},
            "dataset.test: 'split' is neither a column of a.csv nor a file; expected",
        ),
        ({"test": "work"}, "a.csv: column 'work' (dataset.test) holds "),
        ({"test": 5, "group": "home"}, "dataset.group keeps groups whole, which no exact number"),
        ({"file": "b.csv"}, "dataset.file is b.csv, but dataset.source is a table of its own"),
        (
            {"source": "spam"},
            "dataset.label is for a table of your own, but dataset.source is 'spam'",
        ),
        ({"source": "spma"}, "dataset.source: unknown table 'spma'; known: spam, iris,"),
    ],
)
def test_wrong_wishes_are_told_in_one_line(write, keys, told):
    with pytest.raises(InvalidInput) as error:
        prepare(write(people(), **{"drop": ("person",), **keys}))
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_adult_with_its_categories_and_nulls():
    if not ADULT.is_file():
        pytest.skip(f"{ADULT} is not there")
    dataset = prepare(
        DatasetConfig(source=str(ADULT), label="income", test="split", max_points=500)
    )
    assert dataset.name == "adult"
    assert dataset.classes == ("<=50K", ">50K")
    assert {"age", "workclass=Private", "workclass is missing"} <= set(dataset.feature_names)
    assert len(dataset.row_ids) == len(dataset.test_row_ids) == 500
    split = pl.read_parquet(ADULT)["split"]
    assert {split[int(row)] for row in dataset.row_ids} == {"train"}


def test_whole_numbers_that_no_number_holds_are_names(write):
    long = [10**19 + row % 3 for row in range(40)]
    table = pl.DataFrame({"x": X, "code": [str(code) for code in long], "rich": NO_YES})
    assert prepare(write(table)).feature_names == ("x", *(f"code={10**19 + at}" for at in range(3)))
