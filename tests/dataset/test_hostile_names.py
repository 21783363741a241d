"""Names and paths of the user are data: nothing interprets them, wherever they go."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import ModelPred
from modelpred.check import check, config_of
from modelpred.dataset import DatasetConfig, prepare
from modelpred.dataset.own import own_table
from modelpred.report.versions import SHOWN_MOVERS, write_figure
from modelpred.studies.versions import Drift

ROWS = 120
HOSTILE = [
    *("*", "^x$", "^.*$", "count", "len", "cells", "level", "literal", "x", "", "index", "pl.col"),
    *("$a_b$", "$\\\\foo$", "a|b", "<b>", "${x}", "[red]", "`rm`", "a=b", "{}", "%s", "é", "名"),
]
names = st.lists(st.sampled_from([n for n in HOSTILE if n]), min_size=3, max_size=3, unique=True)


def table(label, number, category, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ROWS)
    return pl.DataFrame(
        {
            number: x,
            category: rng.choice(["few", "some", "many"], ROWS),
            label: np.where(x + rng.normal(size=ROWS) > 0, "u", "v"),
        }
    )


@given(names, st.sampled_from(["csv", "parquet"]))
@settings(max_examples=40, deadline=None)
def test_columns_of_any_name_are_looked_at_and_prepared(names, ending):
    label, number, category = names
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.{ending}"
        frame = table(label, number, category)
        frame.write_csv(path) if ending == "csv" else frame.write_parquet(path)
        config = DatasetConfig(source=str(path), label=label)
        data = prepare(config)
        checked = check(
            config_of(
                source=str(path), label=label, test="auto", drop=(), categories=(),
                max_points=None, delimiter=",",
            )
        )  # fmt: skip
    assert checked.features == len(data.feature_names)
    assert set(data.classes) == {"u", "v"}
    assert data.feature_names[0] == number
    assert {name.removeprefix(category)[:1] for name in data.feature_names[1:]} == {"="}
    assert data.rows.columns == ["row_id", number, category, label]


@given(names)
@settings(max_examples=4, deadline=None)
def test_columns_of_any_name_are_fitted_and_predicted(names):
    frame = table(*names)
    cells, labels = frame[list(names[1:])], frame[names[0]].to_list()
    mp = ModelPred(subsets=40, progress=False).fit(cells, labels)
    edited = mp.without([0])
    expected = edited.predict_proba(cells)
    np.testing.assert_array_equal(edited.predict_proba(cells[:, ::-1]), expected)


@given(st.text("ab[]*?{}!^$ .-", min_size=1, max_size=8), st.sampled_from(["csv", "parquet"]))
@settings(max_examples=60, deadline=None)
def test_an_existing_path_is_that_file(name, ending):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"in {name}".replace("..", "")
        place.mkdir()
        path = place / f"{name}.{ending}"
        for other in (place / f"{name.replace('[', '').replace(']', '')}.{ending}", path):
            frame = table("y", "x", "c")[: 50 if other != path else 100]
            with other.open("wb") as file:
                frame.write_csv(file) if ending == "csv" else frame.write_parquet(file)
        assert own_table(DatasetConfig(source=str(path), label="y")).rows == 100


def test_row_ids_and_versions_of_any_text_are_drawn(tmp_path):
    shown = [name for name in HOSTILE if name != "名"]  # not in the font
    drifts = [
        Drift(
            before=row_ids[0],
            after=row_ids[-1],
            shared=len(row_ids),
            spearman=None,
            rows=pl.DataFrame({"row_id": row_ids}).with_columns(before=0.1, after=0.3, move=0.2),
        )
        for row_ids in (
            shown[first : first + SHOWN_MOVERS] for first in range(0, len(shown), SHOWN_MOVERS)
        )
    ]
    scores = pl.DataFrame({"model_of": shown, "test_rows_of": shown}).with_columns(
        loss=1.0, exact_loss=1.0
    )
    write_figure(scores, drifts, tmp_path, value="value")
    assert (tmp_path / "versions.svg").stat().st_size
