"""Frames of pandas, pyarrow and polars say the same, and their columns go by name."""

import contextlib
import logging
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred import InvalidInput, ModelPred
from modelpred.api.frames import polars_frame, require_same_rows, usable_columns
from modelpred.api.inputs import frame_of
from modelpred.api.labels import learn_labels
from tests.api.conftest import COLUMNS, ROWS, SMALL, make_rows

NAMES = st.text(min_size=1, max_size=6).filter(lambda name: name != "row_id")
MISSING = [None, np.nan, pd.NA, pd.NaT]


def column(draws, kind, rows):
    """One column as pandas has it, with gaps."""
    gaps = draws.random(rows) < 0.2
    gaps[:2] = False
    if kind == "float":
        return pd.Series(np.where(gaps, np.nan, draws.normal(size=rows)))
    if kind == "Int64":
        return pd.Series(draws.integers(0, 5, rows)).astype("Int64").mask(gaps)
    if kind == "boolean":
        return pd.Series(draws.random(rows) < 0.5).astype("boolean").mask(gaps)
    if kind == "date":
        days = pd.Timestamp("2024-01-01") + pd.to_timedelta(draws.integers(0, 90, rows), unit="D")
        return pd.Series(days).mask(gaps)
    words = pd.Series(draws.choice(["office", "shop", "sea"], rows))
    if kind == "object":
        missing = MISSING[draws.integers(len(MISSING))]
        return pd.Series(
            [missing if gap else word for gap, word in zip(gaps, words, strict=True)], dtype=object
        )
    return words.mask(gaps).astype(kind)


KINDS = ("float", "Int64", "boolean", "date", "object", "category", "string", "str")


@given(st.lists(NAMES, min_size=2, max_size=5, unique=True), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_all_kinds_of_frames_say_the_same_whatever_the_index(names, seed):
    draws = np.random.default_rng(seed)
    rows = 30
    table = pd.DataFrame({name: column(draws, draws.choice(KINDS), rows) for name in names})
    table = table.set_index(pd.Index(draws.permutation(1000)[:rows]))
    expected = {name: table[name].astype(object).where(table[name].notna(), None) for name in names}
    frames = {
        "pandas": table,
        "pyarrow": pa.Table.from_pandas(table),
        "polars": pl.from_pandas(table.reset_index(drop=True)),
    }
    taken = {kind: polars_frame(frame, what="X") for kind, frame in frames.items()}
    for frame, _ in taken.values():
        assert frame.columns == names
        for name in names:
            told = [None if cell is None else str(cell) for cell in frame[name].to_list()]
            want = [None if cell is None else cell for cell in expected[name]]
            assert [cell is None for cell in told] == [cell is None for cell in want]
    assert taken["pandas"][1] == tuple(map(str, table.index))
    assert taken["pyarrow"][1] == taken["pandas"][1]
    left = [usable_columns(frame, what="X") for frame, _ in taken.values()]
    polars.testing.assert_frame_equal(left[0], left[1], check_dtypes=False)
    polars.testing.assert_frame_equal(left[0], left[2], check_dtypes=False)


def people(rows=ROWS, seed=0):
    draws = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": draws.integers(18, 80, rows).astype(float),
            "work": draws.choice(["office", "shop", "sea"], rows),
            "since": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(draws.integers(0, 900, rows), "D"),
            "member": draws.random(rows) < 0.5,
        },
        index=[f"person {number}" for number in draws.permutation(rows)],
    )
    table.loc[table.index[3], "age"] = np.nan
    return table, pd.Series(np.where(draws.random(rows) < 0.5, "no", "yes"), index=table.index)


def fit(cells, labels, **options):
    return ModelPred(subsets=40, predictor=SMALL, progress=False).fit(cells, labels, **options)


@pytest.fixture(scope="module")
def fitted_people():
    return fit(*people())


def test_a_fit_is_the_same_from_any_frame(fitted_people):
    cells, labels = people()
    others = {
        "polars": (pl.from_pandas(cells.reset_index(drop=True)), pl.Series(labels.to_list())),
        "pyarrow": (pa.Table.from_pandas(cells), pa.array(labels)),
        "categorical": (cells.astype({"work": "category"}), labels.astype("category")),
    }
    assert fitted_people.row_ids == tuple(cells.index)
    for kind, (table, named) in others.items():
        mp = fit(table, named, ids=list(cells.index))
        assert mp.row_ids == fitted_people.row_ids, kind
        np.testing.assert_array_equal(mp.full_parameters, fitted_people.full_parameters)
        assert mp.classes.tolist() == fitted_people.classes.tolist()


@given(st.permutations(["age", "work", "since", "member"]), st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_columns_go_by_name_in_every_question(fitted_people, order, kind):
    cells, labels = people()
    model = fitted_people.without([0])
    turned = [
        lambda table: table,
        lambda table: pl.from_pandas(table.reset_index(drop=True)),
        lambda table: pa.Table.from_pandas(table, preserve_index=False),
    ][kind](cells[order])
    np.testing.assert_array_equal(model.predict_proba(turned), model.predict_proba(cells))
    assert model.loss(turned, labels.to_numpy()) == model.loss(cells, labels)
    renamed = cells[order].rename(columns={order[0]: "other"})
    with pytest.raises(InvalidInput, match=f"no column {order[0]!r}"):
        model.predict(renamed)
    with pytest.raises(InvalidInput, match=f"no column {order[0]!r}"):
        fitted_people.with_points(renamed, labels)


def test_one_row_of_pandas_is_explained_by_its_names(fitted_people):
    cells, _ = people()
    found = fitted_people.explain(cells.iloc[4][["member", "since", "age", "work"]])
    assert found.margin == fitted_people.explain(cells.iloc[[4]]).margin


def test_added_rows_keep_the_names_of_their_index(fitted_people):
    cells, labels = people(4, seed=5)
    cells.index = labels.index = ["a", "b", "c", "d"]
    added = fitted_people.with_points(cells, labels)
    assert added.row_ids[-4:] == ("a", "b", "c", "d")


def test_rows_in_another_order_than_their_labels_are_refused():
    cells, labels = people()
    with pytest.raises(InvalidInput, match=r"y names the rows of X in another order; .*y\.loc"):
        fit(cells, labels.sort_index())
    with pytest.raises(InvalidInput, match="'person 0' is the id of several rows"):
        fit(cells.rename(index=lambda _: "person 0"), labels.to_numpy())


def test_weights_whose_columns_name_rows_go_by_these_names(fitted_people):
    weights = np.random.default_rng(0).integers(0, 3, (3, ROWS))
    table = pd.DataFrame(weights, columns=list(fitted_people.row_ids))
    np.testing.assert_array_equal(
        fitted_people.predict_parameters(table[sorted(table)]),
        fitted_people.predict_parameters(weights),
    )


@pytest.mark.parametrize(
    ("name", "cells", "told"),
    [
        ("id", np.arange(ROWS), "counts the rows from 0 to 39: drop it, or pass it as ids="),
        ("text", [f"a long sentence number {n} " * 4 for n in range(ROWS)], "free text; drop it"),
        ("key", [f"k{n}" for n in range(ROWS)], "pass it as ids=, or make it categorical"),
        ("size", ["1,5", "2,5"] * (ROWS // 2), "numbers with commas"),
        ("none", [None] * ROWS, "has no value in any"),
        ("mixed", [1, "a"] * (ROWS // 2), "column 'mixed' cannot be read"),
        ("wave", np.ones(ROWS) * 1j, "expected real numbers"),
        ("size", [{"a": 1}] * ROWS, "holds Struct"),
    ],
)
def test_columns_are_judged_as_those_of_a_file(name, cells, told):
    table, labels = people()
    with pytest.raises(InvalidInput) as caught:
        fit(table.assign(**{name: cells}), labels)
    assert told in str(caught.value)
    assert "dataset." not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_constant_column_is_left_out_and_told(caplog):
    table, labels = people()
    mp = fit(table.assign(same=1, again=table["age"]), labels)
    assert "'same' is 1 in every row; left out" in caplog.text
    assert "'again' repeats 'age'; left out" in caplog.text
    np.testing.assert_array_equal(mp.full_parameters, fit(table, labels).full_parameters)


def test_columns_with_one_name_are_refused():
    table, labels = people()
    with pytest.raises(InvalidInput, match="X has 2 columns called 'age'; rename them"):
        fit(pd.concat([table, table[["age"]]], axis=1), labels)


def test_whole_numbers_of_pandas_name_the_columns_of_an_array():
    cells, labels = make_rows(2)
    by_array, by_frame = fit(cells, labels), fit(pd.DataFrame(cells), labels)
    for mp in (by_array, by_frame):
        model = mp.without([1])
        turned = pd.DataFrame(cells)[list(reversed(range(COLUMNS)))]
        np.testing.assert_array_equal(model.predict_proba(turned), model.predict_proba(cells))


def test_levels_that_no_row_of_the_fit_had_are_counted(fitted_people, caplog):
    cells, _ = people(12, seed=3)
    cells["work"] = ["moon", "mars", "moon"] + ["shop"] * 9
    with caplog.at_level(logging.WARNING):
        fitted_people.without([0]).predict(cells)
    assert "X: 3 cells of column 'work' no row of the fit had ('moon', 'mars')" in caplog.text


LABELS = {
    "decimals": ([Decimal("1.5"), Decimal(2)] * 20, "number"),
    "prices": (list(range(40)), "number"),
    "few whole numbers": ([1, 2, 3] * 20, "integer"),
    "numpy": ([np.int64(1), np.int64(2)] * 20, "integer"),
    "truths": (pd.Series([True, False] * 20, dtype="boolean"), "boolean"),
    "categories": (pd.Series([1, 2] * 20, dtype="category"), "text"),
    "nullable": (pd.Series([1, 2] * 20, dtype="Int64"), "integer"),
    "arrow": (pa.chunked_array([["a", "b"] * 20]), "text"),
    "spaces": (["yes ", " yes", "no"] * 20, "text"),
}


@pytest.mark.parametrize("name", sorted(LABELS))
def test_labels_are_what_a_file_would_make_of_them(name):
    values, kind = LABELS[name]
    labels = learn_labels(values, what="y", regression=None)
    assert labels.kind == kind
    assert len(labels.encode(values, what="y", rows=len(values))) == len(values)


@given(st.sampled_from([*MISSING, "", "NA", " n/a ", "NaT", Decimal("nan")]), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_missing_label_or_id_is_never_a_name(missing, at):
    labels = ["yes", "no"] * 5
    labels[at] = missing
    for values in (labels, np.array(labels, dtype=object), pd.Series(labels, dtype=object)):
        with pytest.raises(InvalidInput, match=r"1 missing or not finite labels"):
            learn_labels(values, what="y", regression=None)
    with pytest.raises(InvalidInput, match=f"the id of row {at} is missing"):
        fit(np.zeros((10, 1)), [0, 1] * 5, ids=[*range(at), missing, *range(at + 1, 10)])


@given(st.permutations(range(12)), st.permutations(range(12)))
@settings(max_examples=60, deadline=None)
@example(list(range(12)), list(range(12)))
@example(list(range(12)), [1, 0, *range(2, 12)])
@example([1, 0, *range(2, 12)], list(range(12)))
def test_rows_of_pandas_in_another_order_are_refused_also_where_an_index_counts(rows, labels):
    table = pd.DataFrame({"a": range(12)}).iloc[rows]
    column = pd.Series(range(12)).iloc[labels]
    told = pytest.raises(
        InvalidInput, match=r"another order; .*y\.loc\[X\.index\], or pass y\.to_numpy"
    )
    with contextlib.nullcontext() if rows == labels else told:
        require_same_rows(table, column, what="y", of="X")
    require_same_rows(table, column.to_numpy(), what="y", of="X")


@pytest.mark.parametrize("kind", ["categories of intervals", "intervals"])
def test_intervals_are_categories(kind):
    numbers = pd.Series(np.arange(60.0))
    cut = pd.cut(numbers, 3)
    cells = (
        cut if kind == "categories of intervals" else pd.Series(pd.arrays.IntervalArray(list(cut)))
    )
    frame, _ = polars_frame(pd.DataFrame({"band": cells}), what="X")
    assert frame["band"].cast(pl.String).to_list() == [str(band) for band in cut]


def test_categories_of_a_type_without_text_are_one_line():
    months = pd.Categorical(pd.period_range("2020", periods=3, freq="M"))
    with pytest.raises(InvalidInput, match=r"column 'month' holds .*, expected text or numbers"):
        polars_frame(pd.DataFrame({"month": months}), what="X")


@pytest.mark.parametrize("dtype", [np.float64, np.int64, object])
def test_what_lies_under_a_mask_is_missing(dtype):
    cells = np.ma.array(
        np.arange(6).reshape(3, 2).astype(dtype), mask=np.arange(6).reshape(3, 2) == 3
    )
    with pytest.raises(
        InvalidInput, match=r"1 missing or not finite value .first in row 1, column 1"
    ):
        frame_of(cells, what="X")
    unmasked = np.ma.array(cells.data, mask=False)
    assert frame_of(unmasked, what="X")[0].to_numpy().tolist() == cells.data.tolist()
