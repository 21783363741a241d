"""The automatic preparation: when it stops, what it trains, and that anchors alone answer."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred import InvalidInput, ModelPred
from modelpred.engine.learning import FEWEST_LEARNED, LEAST_GAIN, doublings, reason_to_stop
from modelpred.predictor.newton_network import ENOUGH
from tests.api.conftest import ROWS, SMALL, make_rows

CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}


def fit(target="logistic", *, classes=2, rows=ROWS, **options):
    options = {"progress": False, "predictor": SMALL, **options}
    return ModelPred(target, **options).fit(*make_rows(classes, rows))


@given(st.integers(1, 1000), st.integers(0, 100_000))
def test_rungs_double_up_to_the_budget(first, last):
    counts = doublings(first, last)
    assert counts[-1:] == ([last] if last else [])
    assert all(later <= 2 * before for before, later in itertools.pairwise(counts))
    assert all(before < later for before, later in itertools.pairwise(counts))
    assert len(counts) <= 1 or counts[0] == first


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8))
def test_a_climb_ends_where_more_targets_are_not_worth_it(errors):
    """By the rule in words: near enough, or twice the targets took away less than a fifth."""
    for before, error in itertools.pairwise(errors):
        worth_it = error > ENOUGH and (before - error) >= LEAST_GAIN * before
        # The two forms of the rule round differently at its edge.
        if abs(before - error - LEAST_GAIN * before) > 1e-12:
            assert (reason_to_stop(error, before) is None) == worth_it
    assert (reason_to_stop(errors[0], math.inf) is None) == (errors[0] > ENOUGH)


@pytest.mark.parametrize("family", CLASSES)
def test_anchors_alone_answer_and_their_certificate_holds(family):
    mp = fit(family, classes=CLASSES[family], subsets=0)
    weights = np.random.default_rng(3).integers(0, 3, size=(12, ROWS))
    predicted, true = mp.predict_parameters(weights), mp.retrain(weights)
    error = np.linalg.norm(predicted - true, axis=1) / np.linalg.norm(true, axis=1)
    full = np.linalg.norm(mp.full_parameters - true, axis=1) / np.linalg.norm(true, axis=1)
    assert error.mean() < 0.5 * full.mean()
    # Retraining itself stops within 1e-4 of the optimum.
    bound = mp.certificate(weights)
    assert (np.linalg.norm(predicted - true, axis=1) <= bound + 1e-4).all()
    assert mp.learning["targets"].to_list() == [0]
    assert "fit" not in mp.bank.roles


def test_the_default_trains_judging_subsets_when_they_are_needed():
    mp = fit("svm", subsets="auto")
    assert mp.predictor is not None
    trained = mp._fitted.engine._prepared.targets.subsets
    assert set(trained.roles) == {"validation", "fit"}
    table = mp.learning
    assert table["targets"][0] <= FEWEST_LEARNED
    for network in table["network"].unique():
        assert table.filter(pl.col("network") == network)["targets"].is_sorted()
    assert table["seconds"].is_sorted()
    assert sum(role == "fit" for role in trained.roles) == pytest.approx(
        table["targets"].max(), abs=2
    )
    assert set(mp.bank.roles) == {"test", "validation", "fit"}
    assert mp.fidelity()["break_even"].dtype.is_integer()


def test_two_automatic_fits_give_the_same_numbers():
    weights = np.random.default_rng(0).integers(0, 3, size=(4, ROWS))
    first, second = (fit(subsets="auto").predict_parameters(weights) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("subsets", ["auto", 0])
def test_an_automatic_fit_is_saved_and_loaded(tmp_path, subsets):
    mp = fit("svm", subsets=subsets)
    mp.save(tmp_path / "saved")
    again = ModelPred.load(tmp_path / "saved")
    weights = np.random.default_rng(0).integers(0, 3, size=(4, ROWS))
    np.testing.assert_array_equal(mp.predict_parameters(weights), again.predict_parameters(weights))
    assert again.subsets == subsets
    assert again.bank.ids == mp.bank.ids


def test_what_cannot_answer_without_targets_says_so():
    mp = fit("mlp", hidden=2, steps=5, subsets=0)
    with pytest.raises(InvalidInput, match="mlp is learned from trained subsets; train 20 or more"):
        mp.predict_parameters(np.ones((1, ROWS)))
    with pytest.raises(InvalidInput, match="subsets is 'many'; expected a number or auto"):
        ModelPred(subsets="many")
