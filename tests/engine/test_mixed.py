"""Mixed predictions: small subsets are retrained, and values are corrected for the predictions' error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import ModelPred
from modelpred.api.contexts import context_of
from modelpred.api.values import _corrected, checked_orders, estimated_values
from modelpred.engine import EngineChoice, Mixed
from modelpred.studies.valuation import ValuationConfig, values_of
from tests.api.conftest import ROWS, SMALL, TEST, make_rows


@pytest.fixture(scope="module")
def mp():
    test = make_rows(2, TEST, seed=1)
    return ModelPred(subsets=100, predictor=SMALL, progress=False).fit(*make_rows(2), test=test)


def mixed_context(mp, *, least, progress=None):
    choice = EngineChoice("predicted", models=1, retrained_below=least)
    points = mp._ready.scored_points
    return context_of(mp._ready, points, choice=choice, scored=(points,))


@settings(deadline=None, max_examples=30)
@given(
    least=st.floats(0.5, 60),
    sizes=st.lists(st.integers(0, ROWS), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_small_subsets_are_retrained_and_others_predicted(mp, least, sizes, seed):
    draws = np.random.default_rng(seed)
    weights = np.zeros((len(sizes), ROWS), dtype=np.uint8)
    for row, size in enumerate(sizes):
        weights[row, draws.permutation(ROWS)[:size]] = 1
    mixed = Mixed(mp.predictor, mp._ready.problem.truth, least)
    found = mixed(torch.from_numpy(weights)).numpy()
    for row, size in enumerate(sizes):
        one = weights[row : row + 1]
        expected = mp.retrain(one) if size < least else mp.predict_parameters(one)
        # A product of another number of rows rounds otherwise in single precision.
        np.testing.assert_allclose(found[row : row + 1], expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), orders=st.sampled_from([4, 20, 60]))
def test_an_additive_error_of_predictions_is_corrected_to_the_last_digits(mp, seed, orders):
    """Values of the corrected game are those of the exact one on the same orders."""
    draws = np.random.default_rng(seed)
    bias = torch.from_numpy(draws.normal(size=ROWS))
    strength = torch.from_numpy(draws.uniform(size=ROWS))

    def exact(weights):
        return torch.log1p(weights.double() @ strength)

    def predicted(weights):
        return exact(weights) - weights.double() @ bias

    # Whole orders count every gain once, so that an additive game has no variance.
    config = ValuationConfig(permutations=orders, seed=seed, sampler="antithetic")

    def values(game):
        return values_of(
            game, config, points=ROWS, permutations=orders,
            generator=np.random.default_rng(seed), progress=lambda *_: None,
        )  # fmt: skip

    with mixed_context(mp, least=0.5) as context:
        found = _corrected(values(predicted), predicted, exact, config, context)
    true = values(exact)
    np.testing.assert_allclose(found.values, true.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.standard_errors, true.standard_errors, rtol=1e-6, atol=1e-9)


def test_corrected_values_agree_with_exact_ones_within_their_standard_errors(mp):
    settings = {"semivalue": "shapley", "permutations": 120}
    options = {"groups": None, "utility": "loss", "settings": settings}
    with mixed_context(mp, least=8.0) as context:
        mixed, _ = estimated_values(context, seed=1, **options)
    points = mp._ready.scored_points
    exact_choice = EngineChoice("exact", models=1)
    with context_of(mp._ready, points, choice=exact_choice, scored=(points,)) as context:
        exact, _ = estimated_values(context, seed=2, **options)
    error = np.hypot(mixed["standard_error"].to_numpy(), exact["standard_error"].to_numpy())
    off = (mixed["value"].to_numpy() - exact["value"].to_numpy()) / error
    # 40 numbers of about unit variance: their mean square is above 3 once in millions of draws,
    # but the errors' own errors, from a dozen orders, make the tails longer.
    assert np.mean(off**2) < 3


def test_predicting_a_subset_smaller_than_any_of_the_fit_warns(mp, caplog):
    mp.without(range(ROWS - 2), engine="predicted")
    assert "fewer than any subset that the predictor was fitted to" in caplog.text
    caplog.clear()
    mp.without([1], engine="predicted")
    assert "fewer" not in caplog.text


@given(st.integers(1, 5000))
def test_a_tenth_of_the_orders_is_checked_and_an_even_number(half):
    orders = checked_orders(2 * half, method="shapley")
    assert orders % 2 == 0
    assert orders >= 4
    assert orders <= max(4, 2 * half / 10)
    assert checked_orders(2 * half, method="leave_one_out") == 0
