"""The linear datamodel on linear truths and against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from modelpred.errors import InvalidInput
from modelpred.refits import LinearDatamodel


def bank(subsets=60, points=12, parameters=3, noise=0.0):
    draws = np.random.default_rng(0)
    weights = torch.tensor(draws.integers(0, 3, size=(subsets, points)), dtype=torch.uint8)
    slope = torch.tensor(draws.normal(size=(points, parameters)))
    errors = torch.tensor(draws.normal(size=(subsets, parameters)))
    return weights, weights.double() @ slope + 5 + noise * errors, slope


def test_exact_on_a_linear_truth():
    weights, parameters, slope = bank()
    fitted = LinearDatamodel.fit(weights, parameters, penalty=0.0)
    assert torch.allclose(fitted.coefficients, slope, atol=1e-10)
    unseen = torch.full((1, 12), 7)
    assert torch.allclose(fitted(unseen), unseen.double() @ slope + 5, atol=1e-9)


def test_the_chosen_penalty_is_least_on_a_linear_truth():
    weights, parameters, _ = bank()
    fitted = LinearDatamodel.fit(weights, parameters)
    assert fitted.penalty == pytest.approx(1e-5)
    # So small a penalty still shrinks by 1e-5, of parameters of order ten.
    assert torch.allclose(fitted(weights), parameters, rtol=0, atol=1e-3)


def test_noise_raises_the_penalty():
    weights, parameters, _ = bank(noise=30.0)
    assert LinearDatamodel.fit(weights, parameters).penalty > 0.1


def test_it_is_scikit_learns_ridge():
    weights, parameters, _ = bank(noise=1.0)
    centred = weights.double() - weights.double().mean(dim=0)
    alpha = 0.3 * float((centred**2).sum()) / 12  # the mean eigenvalue is the trace over points
    trusted = Ridge(alpha=alpha).fit(weights.numpy(), parameters.numpy())
    fitted = LinearDatamodel.fit(weights, parameters, penalty=0.3)
    assert fitted(weights).numpy() == pytest.approx(trusted.predict(weights.numpy()), abs=1e-9)


def test_a_point_in_every_subset_carries_nothing():
    weights, parameters, _ = bank()
    weights[:, 4] = 1
    fitted = LinearDatamodel.fit(weights, parameters, penalty=0.0)
    assert fitted.coefficients[4].abs().max() < 1e-9


def test_fewer_subsets_than_points_are_fine():
    weights, parameters, _ = bank(subsets=11, points=30)
    assert LinearDatamodel.fit(weights, parameters)(weights).isfinite().all()


def test_a_bank_too_small_to_hold_rows_out_is_refused():
    weights, parameters, _ = bank(subsets=9)
    with pytest.raises(InvalidInput, match="expected 10 or more weight rows"):
        LinearDatamodel.fit(weights, parameters)


@given(st.integers(10, 30), st.integers(0, 2**31), st.sampled_from([1e-3, 0.1, 10.0]))
@settings(deadline=None, max_examples=40)
def test_fewer_subsets_than_points_give_the_ridge_of_scikit_learn(subsets, seed, penalty):
    draws = np.random.default_rng(seed)
    weights = draws.integers(0, 3, size=(subsets, 40)).astype(float)
    parameters = draws.normal(size=(subsets, 3))
    fitted = LinearDatamodel.fit(torch.tensor(weights), torch.tensor(parameters), penalty=penalty)
    centred = weights - weights.mean(0)
    expected = Ridge(alpha=penalty * (centred**2).sum() / 40, solver="svd").fit(weights, parameters)
    np.testing.assert_allclose(fitted.coefficients.T, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fitted.intercept, expected.intercept_, rtol=1e-6, atol=1e-8)


def test_equal_subsets_explain_nothing():
    weights = torch.ones(20, 40, dtype=torch.uint8)
    fitted = LinearDatamodel.fit(weights, torch.ones(20, 2, dtype=torch.float64))
    assert not bool(fitted.coefficients.any())
