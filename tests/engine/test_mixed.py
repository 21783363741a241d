"""Mixed predictions: small subsets are retrained, and values are corrected for the predictions' error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import ModelPred
from modelpred.api.contexts import context_of
from modelpred.api.predicted_values import (
    MOST_CHECKED,
    Checks,
    Trial,
    checked_orders,
    corrected,
    trial_of,
)
from modelpred.api.values import estimated_values, values_trial
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

    def values(game, permutations=orders, seed=seed):
        return values_of(
            game, config, points=ROWS, permutations=permutations,
            generator=np.random.default_rng(seed), progress=lambda *_: None,
        )  # fmt: skip

    fewer = checked_orders(orders, method="shapley")
    found = corrected(
        values(predicted), predicted, exact, least=0.5,
        checked=lambda game: values(game, fewer, seed + 1),
    )  # fmt: skip
    true = values(exact)
    np.testing.assert_allclose(found.values, true.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.standard_errors, true.standard_errors, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("groups", [None, np.arange(ROWS) % 20], ids=["rows", "groups"])
@pytest.mark.parametrize("checks", [Checks(), Checks(every=4, orders=1.5)])
def test_corrected_values_agree_with_exact_ones_within_their_standard_errors(mp, checks, groups):
    settings = {"semivalue": "shapley", "permutations": 120}
    options = {"groups": groups, "utility": "loss", "settings": settings}
    with mixed_context(mp, least=8.0) as context:
        mixed, _ = estimated_values(context, seed=1, checks=checks, **options)
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


@given(st.floats(0, 3), st.floats(1e-3, 2))
def test_checks_give_the_variance_of_retraining_in_about_the_least_time(rho, cost):
    def time(every):
        return (1 + every * rho) * (cost + (1 + cost) / every)

    powers = [2**k for k in range(1, MOST_CHECKED.bit_length())]
    trial = Trial(rho, cost)
    checks = trial.checks
    assert checks.every in powers
    assert trial.time == pytest.approx(time(checks.every))
    assert trial.time <= 1.1 * min(map(time, powers))
    # Variance of sums over n predicted and n / every checked orders, relative to one retrained order.
    assert 1 / checks.orders + rho * checks.every / checks.orders == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.001, 0.05), st.booleans(), st.integers(0, 999))
def test_a_trial_finds_predictions_useful_that_are_cheap_and_near(rho, near, seed):
    """Games of independent noise, whose difference has a known share of the variance."""

    def noise(weights, *, of):
        return torch.tensor(
            [np.random.default_rng([of, *row]).normal() for row in weights.numpy()],
            dtype=torch.float64,
        )

    retrained: list[tuple[int, ...]] = []

    def exact(weights):
        retrained.extend(tuple(row) for row in weights.tolist())
        return noise(weights, of=0)

    def predicted(weights):
        return noise(weights, of=0) + (rho if near else 4.0) ** 0.5 * noise(weights, of=1)

    def sampled(game, permutations):
        return values_of(
            game, ValuationConfig(seed=seed), points=40, permutations=permutations,
            generator=np.random.default_rng(seed), progress=lambda *_: None,
        )  # fmt: skip

    seconds = iter([1.0, 0.05])

    def timed(call):
        call()
        return next(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelpred.api.predicted_values.call_seconds", timed)
        found = trial_of(predicted, exact, sampled=sampled)
    assert found is not None
    assert len(set(retrained)) == len(retrained)
    assert (found.time < 1) == near
    assert found.cost == pytest.approx(0.05)
    # Both variances come from four orders.
    assert 0.1 < found.difference / (rho if near else 4.0) < 10


def test_no_trial_is_made_for_few_orders(mp):
    settings = {"semivalue": "shapley", "permutations": 98}
    with mixed_context(mp, least=8.0) as context:
        found = values_trial(context, groups=None, utility="loss", seed=0, settings=settings)
    assert found is None
