"""The automatic preparation: when it stops, what it trains, and that anchors alone answer."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import InvalidInput, ModelPred
from modelpred.engine import Plan, preparation, problem_of
from modelpred.engine.learning import FEWEST_LEARNED, LEAST_GAIN, doublings, reason_to_stop
from modelpred.engine.preparation import Bench
from modelpred.predictor import PredictorConfig
from modelpred.predictor.newton_network import ENOUGH
from modelpred.refits import silent
from modelpred.subsets import SubsetsConfig
from modelpred.targets import points_of, target_model
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


@settings(max_examples=15, deadline=None)
@given(
    st.integers(8, 40),
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_subsets_drawn_in_parts_are_those_of_one_draw_and_are_trained_once(rows, counts, seed):
    """Small pools, where the designs draw the same subsets and replace them."""
    draws = np.random.default_rng(seed)
    labels = draws.normal(size=rows)
    points = points_of(draws.normal(size=(rows, 2)), labels, 0)
    names = tuple(map(str, range(rows)))
    problem = problem_of(target_model("ridge"), points, tolerance=1e-6, row_ids=names)
    drawn = SubsetsConfig(
        fit={"uniform": 40, "bootstrap": 10}, validation={"uniform": 3}, test={"uniform": 3}
    ).for_points(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "DRAWN_FIRST", 8)
        bench = Bench(problem, Plan(drawn, PredictorConfig(), automatic=True))
    for count in counts:
        bench.train(bench.first(count), progress=silent)
        assert len(set(bench.rows)) == len(bench.rows)
    largest = Bench(problem, Plan(drawn, PredictorConfig()))
    largest.drawn = largest._draw(8)
    for count in counts:  # shares are rounded up, so that a draw may suffice for a few more
        if count > len(largest.role("fit")):
            largest.drawn = largest._draw(count)
    assert bench.drawn.ids == largest.drawn.ids
    assert torch.equal(bench.drawn.weights, largest.drawn.weights)
    if bench.rows:
        found = bench.targets
        assert torch.equal(found.subsets.weights, bench.drawn.weights[sorted(bench.rows)])
        exact = problem.truth.train(found.subsets.weights)
        assert torch.allclose(found.trained.parameters, exact.parameters, atol=1e-9)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8))
def test_rounds_end_where_more_targets_are_not_worth_it(errors):
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
    assert "fit" not in mp.trained_subsets.roles


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
    assert set(mp.trained_subsets.roles) == {"test", "validation", "fit"}
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
    assert again.trained_subsets.ids == mp.trained_subsets.ids


def test_what_cannot_answer_without_targets_says_so():
    mp = fit("mlp", hidden=2, steps=5, subsets=0)
    with pytest.raises(InvalidInput, match="mlp is learned from trained subsets; train 20 or more"):
        mp.predict_parameters(np.ones((1, ROWS)))
    with pytest.raises(InvalidInput, match="subsets is 'many'; expected a number or auto"):
        ModelPred(subsets="many")
