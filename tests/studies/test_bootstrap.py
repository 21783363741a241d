"""Predictive distributions: the plain loop, and the normal around an optimum."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies import bootstrap
from modelpred.studies.bootstrap import (
    NormalApproximation,
    laplace,
    predictive,
    resampled,
    resampled_models,
    summary,
)
from modelpred.targets import points_of, target_model


def test_resamples_are_draws_with_replacement():
    weights = resampled(resamples=4000, points=10, generator=np.random.default_rng(0)).double()
    assert (weights.sum(dim=1) == 10).all()
    # Binomial(10, 1/10): mean 1, variance 0.9; standard errors 0.015 and 0.02, four of them.
    assert weights.mean(dim=0).numpy() == pytest.approx(1, abs=0.06)
    assert weights.var(dim=0).numpy() == pytest.approx(0.9, abs=0.09)


def test_blocks_of_resamples_are_those_drawn_at_once(logistic, monkeypatch):
    together = resampled(resamples=9, points=logistic.pool, generator=np.random.default_rng(0))
    monkeypatch.setattr(bootstrap, "BLOCK", 4)
    found = resampled_models(
        logistic.truth, resamples=9, points=logistic.pool, generator=np.random.default_rng(0)
    )
    assert found.numpy() == pytest.approx(logistic.truth(together).numpy(), abs=1e-7)


def test_predictive_is_a_plain_loop_over_resamples(context, monkeypatch):
    weights = resampled(resamples=9, points=context.pool, generator=np.random.default_rng(0))
    parameters = context.truth(weights)
    test = context.test_points
    if context.model.name in {"svm", "ridge"}:
        with pytest.raises(InvalidInput, match="no probabilities"):
            predictive(context.model, parameters, test)
        return
    looped = np.stack(
        [
            context.model.probabilities(context.model.scores(row[None], test.features))[0].numpy()
            for row in parameters
        ]
    )
    for size in (1, 2**30):  # one test row a block, and all in one
        monkeypatch.setattr(bootstrap, "PROBABILITY_BYTES", size)
        found = predictive(context.model, parameters, test)
        assert found.mean == pytest.approx(looped.mean(axis=0), abs=1e-12)
        assert found.spread == pytest.approx(looped.std(axis=0, ddof=1), abs=1e-12)
        assert found.low == pytest.approx(np.quantile(looped, 0.05, axis=0), abs=1e-12)
        assert found.high == pytest.approx(np.quantile(looped, 0.95, axis=0), abs=1e-12)


def test_a_resample_that_misses_a_class_has_its_defined_model(logistic):
    one_class = (logistic.points.labels == 1).double()[None]
    found = predictive(logistic.model, logistic.truth(one_class), logistic.test_points)
    count = float(one_class.sum())
    assert found.mean[:, 1] == pytest.approx((count + 0.5) / (count + 1), abs=1e-12)


def test_one_test_row_is_enough(logistic):
    parameters = logistic.truth(torch.ones(3, logistic.pool))
    row = type(logistic.test_points)(
        logistic.test_points.features[:1], logistic.test_points.labels[:1], 2
    )
    assert predictive(logistic.model, parameters, row).mean.shape == (1, 2)


def test_without_any_model_there_is_nothing_to_say(logistic):
    with pytest.raises(InvalidInput, match="at least one"):
        predictive(logistic.model, torch.zeros(0, 4, dtype=torch.float64), logistic.test_points)


def test_one_model_is_its_own_interval(context):
    found = summary(context.truth(torch.ones(1, context.pool)))
    assert (found.mean == found.low).all()
    assert (found.mean == found.high).all()
    assert np.isnan(found.spread).all()


@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_laplace_of_ridge_is_the_posterior(strength):
    """Closed form: rows y = Xa + noise of variance 1, coefficients normal with variance C."""
    draws = np.random.default_rng(0)
    features, labels = draws.normal(size=(12, 2)), draws.normal(size=12)
    model, points = target_model("ridge", C=strength), points_of(features, labels, 0)
    full = Retraining(model, points, tolerance=1e-10)(torch.ones(1, 12))[0]
    found = laplace(model, points, full, draws=100_000, generator=draws)
    design = np.column_stack([features, np.ones(12)])
    posterior = np.linalg.inv(design.T @ design + np.diag([1 / strength, 1 / strength, 0]))
    # Standard errors of a variance are sqrt(2 / 100000) = 0.45% of it.
    assert np.cov(found.numpy().T) == pytest.approx(posterior, abs=0.02 * posterior.max())
    assert found.mean(dim=0).numpy() == pytest.approx(full.numpy(), abs=0.005)


def covariance(normal):
    """The covariance of the draws, [parameters, parameters]."""
    if normal.space is None:
        return normal.directions.T @ normal.directions
    directions, basis = normal.space.lifted(normal.directions), normal.space.basis
    outside = torch.zeros(len(basis) + 1, len(basis) + 1, dtype=torch.float64)
    outside[:-1, :-1] = normal.deviation**2 * (torch.eye(len(basis)) - basis @ basis.T)
    outputs = len(normal.optimum) // len(outside)
    return directions.T @ directions + torch.block_diag(*[outside] * outputs)


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.sampled_from(["logistic", "softmax", "ridge", "svm"]),
    st.sampled_from(["free", "penalised", "none"]),
    st.integers(0, 10**6),
    st.tuples(st.integers(5, 12), st.integers(1, 15)),
    st.floats(0.01, 100),
)
def test_more_features_than_rows_have_the_normal_of_all_features(
    name, intercept, seed, shape, strength
):
    draws, (rows, more) = np.random.default_rng(seed), shape
    classes = {"softmax": 3, "ridge": 0}.get(name, 2)
    labels = draws.normal(size=rows) if name == "ridge" else np.arange(rows) % classes
    points = points_of(draws.normal(size=(rows, rows + more)), labels, classes)
    model = target_model(name, C=strength, intercept=intercept)
    full = Retraining(model, points, tolerance=1e-6)(torch.ones(1, rows))[0]
    found = NormalApproximation.around(model, full, points, strength=strength)
    with patch("modelpred.studies.bootstrap.row_space_of", lambda *_: None):
        expected = NormalApproximation.around(model, full, points, strength=strength)
    assert found.space is not None
    assert expected.space is None
    error = covariance(found) - covariance(expected)
    assert float(error.norm() / covariance(expected).norm()) < 1e-9
    # A sum of logarithms of eigenvalues from 1 to 1e5.
    assert found.log_determinant == pytest.approx(expected.log_determinant, abs=1e-7)


def test_draws_with_more_features_than_rows_have_this_covariance():
    draws = np.random.default_rng(0)
    points = points_of(draws.normal(size=(6, 9)), np.arange(6) % 3, 3)
    model = target_model("softmax", C=4.0)
    full = Retraining(model, points)(torch.ones(1, 6))[0]
    normal = NormalApproximation.around(model, full, points, strength=4.0)
    found = (normal.draws(40_000, generator=draws) - full).T.cov()
    # The relative error of the covariance of n draws in 30 dimensions is about sqrt(30 / n).
    assert float((found - covariance(normal)).norm() / covariance(normal).norm()) < 0.05


def test_laplace_leaves_the_common_shift_of_softmax_where_it_is():
    draws = np.random.default_rng(0)
    features, labels = draws.normal(size=(40, 2)), draws.integers(0, 3, size=40)
    model, points = target_model("softmax"), points_of(features, labels, 3)
    full = Retraining(model, points)(torch.ones(1, 40))[0]
    found = laplace(model, points, full, draws=50, generator=draws)
    assert found[:, 2::3].sum(dim=1).numpy() == pytest.approx(0, abs=1e-9)


def test_a_network_has_no_laplace_approximation():
    model, points = target_model("mlp", hidden=2), points_of(np.eye(3), np.array([0, 1, 0]), 2)
    full = torch.zeros(model.parameter_count(3, 2), dtype=torch.float64)
    with pytest.raises(InvalidInput, match="mlp has no Laplace"):
        laplace(model, points, full, draws=2, generator=np.random.default_rng(0))
