"""With max_points, columns are judged by all rows of the table, and only the selected rows are used."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, own, prepare
from modelpred.dataset.own import own_table


def table(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "x": rng.normal(size=rows).round(3),
            "kind": rng.choice(["a", "b", "c"], size=rows),
            "y": rng.choice(["no", "yes"], size=rows),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@given(
    odd=st.sampled_from(["1,5", "12 kg", "n.a. (see note)", "2016-13-45"]),
    row=st.integers(0, 299),
    seed=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_one_odd_cell_counts_whether_it_is_selected_or_not(folder, odd, row, seed):
    cells = table(300)["x"].cast(pl.String).to_list()
    cells[row] = odd
    path = folder / "odd.csv"
    table(300).with_columns(x=pl.Series(cells)).write_csv(path)
    config = DatasetConfig(source=str(path), label="y", seed=seed)
    judged = own_table(config).inspection
    assert judged.problems  # numbers mixed with another kind of cell
    limited = own_table(config.model_copy(update={"max_points": 60})).inspection
    assert (limited.problems, limited.columns) == (judged.problems, judged.columns)


def test_whole_numbers_are_classes_or_not_whatever_is_selected(folder):
    path = folder / "scores.csv"
    table(600).with_columns(y=pl.int_range(600) % 30).write_csv(path)
    config = DatasetConfig(source=str(path), label="y", max_points=50)
    assert own_table(config).table.classes == ()


def test_a_column_that_varies_only_outside_of_the_selection_is_used(folder):
    path = folder / "rare.csv"
    rare = pl.Series([0.0] * 499 + [1.0])
    table(500).with_columns(rare=rare, word=pl.Series(["same"] * 499 + ["other"])).write_csv(path)
    config = DatasetConfig(source=str(path), label="y", max_points=50)
    names = [column.name for column in own_table(config).inspection.columns]
    assert names == ["x", "kind", "rare", "word"]
    dataset = prepare(config)
    assert bool(dataset.features.isfinite().all())
    assert dataset.rows.height + len(dataset.test_row_ids) == 50


def test_a_table_too_large_is_judged_by_the_selection_and_says_so(folder, monkeypatch):
    monkeypatch.setattr(own, "MOST_JUDGED", 100)
    path = folder / "large.csv"
    table(300).write_csv(path)
    found = own_table(DatasetConfig(source=str(path), label="y", max_points=60))
    assert any("checked by the 60 selected rows of 300" in note for note in found.inspection.notes)
    assert found.rows == 300
