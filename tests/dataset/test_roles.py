"""Every combination of roles of columns is taken with its meaning or refused in one line."""

from functools import cache
from itertools import product

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, own, prepare
from modelpred.dataset.roles import require_roles
from modelpred.dataset.splitting import held_out_groups
from modelpred.errors import InvalidInput

ROWS = 60
NAMES = ("name", "day", "part", "group", "x", "y")
generator = np.random.default_rng(0)
GROUPS = [f"g{row // 5}" for row in range(ROWS)]
TABLE = pl.DataFrame(
    {
        "name": [f"p{row}" for row in range(ROWS)],
        "day": [f"2024-0{1 + row % 9}-1{row % 7}" for row in range(ROWS)],
        "part": ["test" if row // 5 % 4 == 1 else "train" for row in range(ROWS)],
        "group": GROUPS,
        "x": generator.normal(size=ROWS).round(3),
        "y": ["u", "v"] * (ROWS // 2),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The table as CSV and Parquet, and one of other rows, in groups of their own and in the same."""
    place = tmp_path_factory.mktemp("roles")
    TABLE.write_csv(place / "t.csv")
    TABLE.write_parquet(place / "t.parquet")
    TABLE.write_csv(place / "bars.csv", separator="|")
    other = TABLE.with_columns(pl.col("name") + "'")
    other.write_csv(place / "same.csv")
    other.with_columns(pl.col("group") + "'").write_csv(place / "apart.csv")
    return place


@pytest.fixture
def opened_once(monkeypatch):
    """Each file is looked through once, whatever the roles of its columns are."""
    monkeypatch.setattr(own, "open_table", cache(own.open_table))


def told(config):
    """The data set, or the line that refuses it."""
    try:
        return prepare(config)
    except InvalidInput as error:
        return str(error)


def require_meaning(data, keys):
    """What was asked for holds."""
    label, row_id, group = keys["label"], keys.get("row_id"), keys.get("group")
    taken = {label, row_id, group, *keys.get("drop", ())} | (
        {keys["test"]} if keys.get("test") in NAMES else set()
    )
    assert not taken & set(data.column_names)
    assert not set(data.row_ids) & set(data.test_row_ids)
    if row_id:
        assert set(data.row_ids) <= {str(name) for name in TABLE[row_id]}
    if group:
        sides = [set(rows[group]) for rows in (data.rows, data.test_rows)]
        assert all(sides)
        assert not sides[0] & sides[1]
    for name in set(keys.get("categories", ())) & set(data.column_names):
        assert any(feature.startswith(f"{name}=") for feature in data.feature_names)


@pytest.mark.usefixtures("opened_once")
@pytest.mark.parametrize("label", NAMES)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_all_combinations_of_roles(folder, label, ending):
    one = (None, *NAMES)
    for row_id, group, test in product(one, one, ("auto", 0.3, *NAMES)):
        # Roles do not depend on the format: all combinations are tried in a CSV, single roles in Parquet.
        if ending == "parquet" and sum(role in NAMES for role in (row_id, group, test)) > 1:
            continue
        keys = {"label": label, "row_id": row_id, "group": group, "test": test}
        drop = tuple(name for name in ("name",) if name not in (label, row_id, group, test))
        found = told(DatasetConfig(source=str(folder / f"t.{ending}"), drop=drop, **keys))
        asked = [name for name in (label, row_id, group, test) if name in NAMES]
        if isinstance(found, str):
            assert found
            assert all(len(line) < 400 for line in found.splitlines())
            assert "Error" not in found
        else:
            assert len(asked) == len(set(asked))
            require_meaning(found, {**keys, "drop": drop})


@pytest.mark.usefixtures("opened_once")
@pytest.mark.parametrize("key", ["drop", "categories", "dates"])
def test_lists_of_columns_beside_every_role(folder, key):
    accepted = 0
    for name, other, role in product(NAMES, (None, "x", "day"), ("row_id", "group", "test", None)):
        for column in NAMES if role else (None,):
            named = tuple(filter(None, (name, other)))
            value = dict.fromkeys(named, "%Y-%m-%d") if key == "dates" else named
            keys = {"label": "y", key: value} | ({role: column} if role else {})
            found = told(DatasetConfig(source=str(folder / "t.csv"), **keys))
            if isinstance(found, str):
                assert found
                assert "Error" not in found
            else:
                accepted += 1
                require_meaning(found, keys)
    assert accepted


@settings(deadline=None, max_examples=60)
@given(
    roles=st.fixed_dictionaries(
        {},
        optional={
            "row_id": st.sampled_from(NAMES), "group": st.sampled_from(NAMES),
            "drop": st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
            "categories": st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
            "dates": st.dictionaries(st.sampled_from(NAMES), st.just("%Y-%m-%d"), max_size=2),
            "test": st.sampled_from(["auto", 0.2, 5, *NAMES, "same.csv", "apart.csv"]),
            "delimiter": st.sampled_from([",", "|", ";", "\t"]),
            "since": st.sampled_from([None, "v1"]), "points": st.sampled_from(["auto", 20]),
            "max_points": st.sampled_from([None, 30, 2000]), "flip": st.sampled_from([0.0, 0.1]),
        },
    ),
    label=st.sampled_from(NAMES),
    source=st.sampled_from(["t.csv", "t.parquet", "bars.csv", "spam", "iris"]),
)  # fmt: skip
def test_all_keys_together(folder, roles, label, source):
    keys = {"label": label, **roles}
    if "." in str(keys.get("test")):
        keys["test"] = str(folder / keys["test"]) if isinstance(keys["test"], str) else keys["test"]
    name = str(folder / source) if "." in source else source
    found = told(DatasetConfig(source=name, **keys))
    if isinstance(found, str):
        assert found
        assert "Error" not in found
    else:
        assert source in ("t.csv", "t.parquet", "bars.csv")
        if not keys.get("test") or str(keys["test"]) in (*NAMES, "auto", "0.2", "5"):
            require_meaning(found, keys)


def test_groups_that_a_second_file_splits_are_refused(folder):
    keys = {"source": str(folder / "t.csv"), "label": "y", "group": "group", "drop": ("name",)}
    data = prepare(DatasetConfig(test=str(folder / "apart.csv"), **keys))
    assert not set(data.rows["group"]) & set(data.test_rows["group"])
    found = told(DatasetConfig(test=str(folder / "same.csv"), **keys))
    assert "name whole groups" in found


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=60).filter(lambda of: len(set(of)) > 1),
    st.floats(0.001, 0.999),
    st.integers(0, 99),
)
def test_one_group_at_least_is_held_out_and_one_trained_on(groups, share, seed):
    names = pl.Series([f"g{group}" for group in groups])
    drawn = held_out_groups(names, share=share, seed=seed)
    sides = [set(names.filter(pl.Series(drawn == side))) for side in (False, True)]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_one_group_alone_is_refused(folder):
    TABLE.with_columns(group=pl.lit("all")).write_csv(folder / "one.csv")
    config = DatasetConfig(source=str(folder / "one.csv"), label="y", group="group", drop=("name",))
    assert "all 60 rows are of one group" in told(config)


@given(
    st.lists(st.text("abcXYZ ", min_size=1, max_size=6), min_size=1, max_size=40, unique=True),
    st.data(),
)
def test_a_missing_column_is_told_with_the_nearest_names_or_the_first_and_the_last(columns, data):
    known = data.draw(st.sampled_from(columns))
    asked = data.draw(st.sampled_from([known.swapcase(), f" {known}", "0123456789"]))
    hypothesis.assume(asked not in columns and not set(columns) & {"row_id", "row"})
    config = DatasetConfig(source="t.csv", label=asked)
    with pytest.raises(InvalidInput) as refused:
        require_roles(columns, config, source="t.csv", text=True)
    words = str(refused.value)
    if asked.isdigit():
        assert all(name in words for name in (*columns[:10], columns[-1]))
        assert len(columns) <= 11 or f"{len(columns) - 11} more" in words
    else:
        same = [name for name in columns if name.strip().casefold() == asked.strip().casefold()]
        assert any(repr(name) in words for name in same)
