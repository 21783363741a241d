"""What seeds leave to be known of a recipe, and predictions of scores, on recipes with known answers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelpred.errors import InvalidInput
from modelpred.metrics import lds, relative_errors
from modelpred.predictor.recipe_fidelity import FidelityPlan, recipe_fidelity
from modelpred.predictor.score_prediction import _fitted, fit_scores
from modelpred.predictor.subset_scores import subset_scores
from modelpred.refits.projected_gradients import RIDGES, projected_gradients
from modelpred.targets import TorchTarget, points_of, target_model
from tests.targets.conftest import pool

FEATURES = 4
GENERATORS = st.integers(0, 10**6).map(np.random.default_rng)


def line():
    """A linear model that starts at zero, so that its seed decides the order of rows only."""
    module = nn.Linear(FEATURES, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def hidden():
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 3))


def numbers(rows, *, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, FEATURES))
    return points_of(features, features @ np.arange(FEATURES) + generator.normal(size=rows), 0)


def classes(rows, *, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, FEATURES))
    scores = features @ generator.normal(size=(FEATURES, 3)) + generator.normal(size=(rows, 3))
    return points_of(features, scores.argmax(1), 3)


def measured(target, points, tested, **plan):
    table = recipe_fidelity(target, points, tested, FidelityPlan(**plan))
    return dict(zip(table["measure"], table.iter_rows(named=True), strict=True))


def value(table, start):
    return next(row["value"] for name, row in table.items() if name.startswith(start))


def test_a_recipe_without_luck_agrees_with_itself_and_is_smooth():
    # All rows in each step: the seed changes nothing, and least squares are nearly linear in weights.
    target = TorchTarget(
        build=line, loss="mse", batch_size=400, epochs=60, learning_rate=0.05, precision="float64"
    )
    table = measured(target, numbers(400), numbers(20, seed=1), fit=30, held_out=12, changes=6)
    assert value(table, "agreement of two seeds") > 0.999
    assert value(table, "ceiling") > 0.999
    # That of a mean is 0.5 / 0.95 over 1 / 0.9; six sets of 40 rows measure it to about a hundredth.
    assert abs(value(table, "smoothness") - 0.474) < 0.03
    assert value(table, "LDS, predictor") > 0.9
    assert value(table, "LDS, projected gradients") > 0.9


def test_a_recipe_of_luck_alone_agrees_with_nothing():
    # One step on one row at a high rate: the model is that of the row that the seed puts last.
    target = TorchTarget(
        build=line, loss="mse", batch_size=1, epochs=1, learning_rate=0.15, precision="float64"
    )
    plain = TorchTarget(build=line, loss="mse", batch_size=100, epochs=20, precision="float64")
    points, tested = numbers(40), numbers(20, seed=1)
    lucky = measured(target, points, tested, fit=5, held_out=20, changes=2)
    known = measured(plain, points, tested, fit=5, held_out=20, changes=2)
    assert value(lucky, "agreement of two seeds") < value(known, "agreement of two seeds") - 0.3


def test_gradients_of_a_network_rank_its_scores(monkeypatch):
    monkeypatch.setattr("modelpred.predictor.recipe_fidelity.WATCHED", 8)
    target = TorchTarget(build=hidden, batch_size=100, epochs=40, learning_rate=0.5)
    plan = {"fit": 60, "held_out": 20, "changes": 3}
    table = measured(target, classes(80), classes(30, seed=1), followed=6, **plan)
    assert value(table, "LDS, predictor") > value(table, "LDS, linear datamodel")
    assert value(table, "LDS, effects of training") > value(table, "LDS, projected gradients")
    shares = [row["share_of_ceiling"] for row in table.values()]
    assert [share is None for share in shares] == [True] * 4 + [False] * 5


def test_many_rows_are_predicted_by_projected_gradients(monkeypatch):
    monkeypatch.setattr("modelpred.predictor.recipe_fidelity.MOST_ROWS", 79)
    monkeypatch.delattr("modelpred.predictor.recipe_fidelity.subset_sums")
    target = TorchTarget(build=hidden, batch_size=100, epochs=40, learning_rate=0.5)
    table = measured(target, classes(80), classes(30, seed=1), fit=60, held_out=20, changes=3)
    methods = [name for name in table if name.startswith("LDS, ")]
    assert methods == ["LDS, predictor", "LDS, linear datamodel", "LDS, projected gradients"]
    assert value(table, "LDS, predictor") > value(table, "LDS, linear datamodel")


@given(GENERATORS)
@settings(max_examples=8, deadline=None)
def test_scores_that_are_linear_in_the_weights_are_predicted_exactly(generator):
    weights = torch.from_numpy(generator.integers(0, 3, (60, 8)))
    slopes = torch.from_numpy(generator.normal(size=(5, 8)))
    scores = 3 + weights.double() @ slopes.T
    new = torch.from_numpy(generator.integers(0, 3, (10, 8)))
    found = fit_scores(weights, scores, features=torch.from_numpy(generator.normal(size=(8, 3))))
    errors = relative_errors(found(new), 3 + new.double() @ slopes.T)
    assert errors.max() < 0.01  # the least penalty is a thousandth of the mean diagonal


@given(GENERATORS)
@settings(max_examples=10, deadline=None)
def test_attributions_that_are_right_are_taken_over(generator):
    weights = torch.from_numpy(generator.integers(0, 2, (12, 40)))
    slopes = torch.from_numpy(generator.normal(size=(30, 40)))
    new = torch.from_numpy(generator.integers(0, 2, (20, 40)))
    scores, truth = weights.double() @ slopes.T, new.double() @ slopes.T
    both = torch.cat([weights, new]).double() - weights.double().mean(0)
    linear = both @ both.T
    sums = [both @ (0.1 * slopes).T, torch.zeros(32, 30)]
    assert lds(subset_scores(sums, linear, None, scores), truth).mean > 0.99
    assert lds(subset_scores([], linear, None, scores), truth).mean < 0.9


@given(seed=st.integers(0, 10**6), subsets=st.integers(6, 40), gamma=st.sampled_from([0.0, 0.5]))
@settings(max_examples=20, deadline=None)
def test_predicted_scores_have_the_posterior_mean_as_slopes(seed, subsets, gamma):
    """With a kernel over 15 points, from fewer subsets or more."""
    generator = np.random.default_rng(seed)
    weights = torch.from_numpy(generator.integers(0, 3, (subsets, 15))).double()
    scores = torch.from_numpy(generator.normal(size=(subsets, 4)))
    features = torch.from_numpy(generator.normal(size=(15, 3)))
    found = _fitted(weights, scores, features, (gamma, 0.1))
    kernel = (1 - gamma) * torch.eye(15).double() + gamma * features @ features.T
    rows = weights - weights.mean(0)
    inner = rows @ kernel @ rows.T
    inner += 0.1 * inner.diagonal().mean() * torch.eye(subsets).double()
    slopes = kernel @ rows.T @ torch.linalg.solve(inner, scores - scores.mean(0))
    new = torch.from_numpy(generator.integers(0, 3, (7, 15)))
    exact = scores.mean(0) + (new - weights.mean(0)) @ slopes
    torch.testing.assert_close(found(new), exact)
    assert found.directions.shape[0] == min(subsets, 15)


@given(seed=st.integers(0, 10**6), folds=st.booleans())
@settings(max_examples=10, deadline=None)
def test_subset_scores_without_sums_are_those_of_the_fitted_slopes(seed, folds):
    generator = np.random.default_rng(seed)
    weights = torch.from_numpy(generator.integers(0, 2, (25, 12)))
    scores = torch.from_numpy(generator.normal(size=(20, 6)))
    every = weights.double()
    found = subset_scores(
        [], every @ every.T, None, scores, folds=torch.arange(20) % 5 if folds else None
    )
    torch.testing.assert_close(found, fit_scores(weights[:20], scores)(weights[20:]))


def test_without_a_projection_attributions_are_influences():
    """At the optimum of ridge regression with a Gauss-Newton matrix, tau is the influence function."""
    points = pool(0)
    model = target_model("ridge", C=1e6)
    full = torch.linalg.lstsq(
        torch.cat([points.features, torch.ones(len(points.labels), 1)], 1).double(),
        points.labels[:, None],
    ).solution[:, 0]
    size = len(full)
    gradients = projected_gradients(model, points, points, full, dimensions=60 * size, seed=0)
    found = gradients.features(RIDGES[0])
    design = torch.cat([points.features, torch.ones(len(points.labels), 1)], 1)
    margins = design @ full - points.labels
    exact = design @ torch.linalg.solve(design.T @ design, design.T * -margins)
    correlation = np.corrcoef(found.attributions().flatten(), exact.flatten())[0, 1]
    assert correlation > 0.95  # a projection to 60 times as many dimensions keeps products to 13%


def test_a_plan_out_of_range_is_refused():
    with pytest.raises(InvalidInput, match="seeds is 1; expected 2 or more"):
        FidelityPlan(seeds=1)
    with pytest.raises(InvalidInput, match="followed is 101; expected 0 to 100"):
        FidelityPlan(followed=101)


def test_a_diverging_recipe_is_refused():
    target = TorchTarget(build=line, loss="mse", learning_rate=1e6)
    with pytest.raises(InvalidInput, match="lower the learning rate"):
        measured(target, numbers(30), numbers(5, seed=1), fit=5, held_out=5, changes=2)
