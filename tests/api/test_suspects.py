"""Suspicious labels in a notebook: which are first, how many, rows outside, and a forest."""

import numpy as np
import polars as pl
import pytest

from modelpred import InvalidInput, ModelPred
from tests.api.conftest import ROWS, SMALL, TEST, make_rows


@pytest.mark.parametrize("engine", ["predicted", "exact"])
def test_a_turned_label_is_the_first_suspect_and_its_class_is_suggested(engine):
    cells, labels = make_rows(2)
    surest = int(np.argmax(cells @ [1, 0.1, 0.01]))
    named = np.array(["low", "high"])[labels]
    named[surest] = "low"
    estimator = ModelPred(subsets=150, predictor=SMALL, progress=False).fit(cells, named)
    found = estimator.suspects(engine=engine)
    table = found.rows
    first = table.row(0, named=True)
    assert (first["position"], first["label"], first["suggested"]) == (surest, "low", "high")
    assert table["wrong"].is_sorted(descending=True)
    assert table["cutoff"].is_sorted(descending=True)
    assert table["cutoff"].sum() == round(found.count)
    assert found.count == pytest.approx(table["wrong"].sum())
    assert "are wrong (95% interval" in str(found)
    disagreed = table.filter(pl.col("label") != pl.col("suggested"))
    assert (disagreed["confidence"] < 0).all()
    assert table.equals(estimator.suspects(engine=engine).rows)


@pytest.mark.parametrize("family", ["svm", "ridge", "softmax"])
def test_suspects_of_every_family(family, request):
    estimator = request.getfixturevalue(family)
    found = estimator.suspects()
    table = found.rows
    assert sorted(table["position"].to_list()) == list(range(ROWS))
    assert np.isfinite(table["confidence"].to_numpy()).all()
    assert ("suggested" in table.columns) == (family == "softmax")
    assert (found.count is None) == (family == "ridge")
    assert table["cutoff"].null_count() == table["wrong"].null_count() == (family == "ridge") * ROWS
    assert str(found)


def test_rows_outside_of_the_fit_are_judged_too(logistic):
    cells, labels = make_rows(2, TEST, seed=5)
    turned = int(np.argmax(cells @ [1, 0.1, 0.01]))
    labels[turned] = 1 - labels[turned]
    table = logistic.suspects((cells, labels), engine="exact").rows
    assert table.height == ROWS + TEST
    outside = table.filter(pl.col("position").is_null())
    assert sorted(outside["row_id"].to_list()) == sorted(f"other-{row}" for row in range(TEST))
    assert outside["row_id"][0] == f"other-{turned}"
    inside = table.filter(pl.col("position").is_not_null()).sort("position")
    alone = logistic.suspects(engine="exact").rows.sort("position")
    assert inside["confidence"].equals(alone["confidence"])
    named = logistic.suspects((cells, labels), other_ids=range(100, 100 + TEST)).rows
    assert set(named["row_id"]) >= {"100", str(99 + TEST)}


def test_a_forest_finds_what_no_linear_score_can():
    """Classes divided by a product of two columns."""
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(400, 2))
    labels = (cells[:, 0] * cells[:, 1] > 0).astype(int)
    wrong = draws.choice(400, 20, replace=False)
    labels[wrong] = 1 - labels[wrong]
    estimator = ModelPred(subsets=100, predictor=SMALL, progress=False).fit(cells, labels)

    def found(**options):
        table = estimator.suspects(**options).rows
        return len(set(table["position"][:20]) & set(wrong.tolist()))

    assert found(forest=True) >= 10 > found()


@pytest.mark.parametrize("family", ["svm", "ridge"])
def test_a_forest_needs_probabilities(family, request):
    with pytest.raises(InvalidInput, match="no probabilities to average"):
        request.getfixturevalue(family).suspects(forest=True)
