"""Values by regression on random subsets: unbiased for any game, and exact for additive ones."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.studies.regression_sampling import ROUND, RegressionSampler
from modelpred.studies.sampling import Game
from modelpred.studies.semivalues import Semivalue, enumerate_values, estimate_values
from tests import games

SEMIVALUES = ("shapley", "banzhaf", "beta_shapley")


def drawn(game, players, kind, *, evaluations, seed, rounds=None, calls=1):
    counted = Game(game, points=players, total=0, progress=lambda *_: None)
    sampler = RegressionSampler(
        kind.size_probabilities(players), counted.ends(),
        evaluations=evaluations, generator=np.random.default_rng(seed),
    )  # fmt: skip
    rounds = rounds or max(2, (evaluations - sampler.enumerations) // ROUND)
    for part in np.array_split(np.arange(rounds), calls):
        sampler.draw(len(part), counted)
    assert counted.done == 2 + sampler.evaluations(rounds)
    return sampler.estimates()


@given(
    st.sampled_from(SEMIVALUES),
    st.integers(3, 9),
    st.integers(0, 999),
    st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_values_of_any_game_are_unbiased_and_their_errors_are_honest(name, players, seed, share):
    """Games between additive (share 0) and fully random (share 1)."""
    chaos, worths = games.random_game(players, seed=seed), np.arange(players) / players

    def game(weights):
        return share * chaos(weights) + games.additive(worths)(weights)

    kind = Semivalue(name=name)
    # With no budget to enumerate sizes, all are drawn.
    rows = drawn(game, players, kind, evaluations=0, rounds=60, seed=seed)
    errors = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    exact = enumerate_values(game, points=players, semivalue=kind).values
    # The ridge keeps a part of an additive game, which the weights then estimate.
    assert (np.abs(rows.mean(axis=0) - exact) <= 5.5 * errors + 1e-9).all()


@given(st.sampled_from(SEMIVALUES), st.integers(4, 30), st.integers(0, 99))
@example("beta_shapley", 8, 0)  # only one half of the rounds has subsets of seven players
@settings(max_examples=20, deadline=None)
def test_a_function_of_the_size_alone_divides_equally(name, players, seed):
    kind = Semivalue(name=name)
    rows = drawn(
        lambda weights: torch.log1p(weights.sum(dim=1).double()), players, kind,
        evaluations=20 * players, seed=seed,
    )  # fmt: skip
    chances = kind.size_probabilities(players)
    exact = float(chances @ np.diff(np.log1p(np.arange(players + 1))))
    # The ridge keeps a small part, which the weights estimate.
    np.testing.assert_allclose(rows.mean(axis=0), exact, rtol=1e-3)


def test_nearly_additive_games_need_few_subsets():
    players = 20
    worths = np.random.default_rng(0).normal(size=players)
    pairs = torch.from_numpy(np.random.default_rng(1).normal(size=(players, players)) / 100)

    def game(weights):
        wide = weights.double()
        return wide @ torch.from_numpy(worths) + ((wide @ pairs) * wide).sum(dim=1)

    both = pairs + pairs.T
    exact = worths + pairs.diagonal().numpy() + (both.sum(1) - both.diagonal()).numpy() / 2
    errors = {
        sampler: np.sqrt(
            np.mean(
                (
                    estimate_values(
                        game, points=players, permutations=50, sampler=sampler,
                        generator=np.random.default_rng(2),
                    ).values
                    - exact
                )
                ** 2
            )
        )
        for sampler in ("permutation", "regression")
    }  # fmt: skip
    assert errors["regression"] < errors["permutation"]


@pytest.mark.parametrize("enough", [0, 1000])
def test_too_many_failed_models_give_no_values(enough):
    rows = drawn(
        lambda weights: torch.where(weights.sum(dim=1) == 2, torch.nan, 1.0), 4, Semivalue(),
        evaluations=enough, rounds=20, seed=0,
    )  # fmt: skip
    assert np.isnan(rows).all()


@given(st.sampled_from(SEMIVALUES), st.integers(8, 12), st.integers(0, 99), st.floats(0, 0.1))
@settings(max_examples=15, deadline=None)
def test_a_few_failed_models_are_replaced_by_the_fit(name, players, seed, share):
    """Where the fitted function is the game, what is lost does not matter."""
    fails = np.random.default_rng(seed).random(2**players) < share
    fails[[0, -1]] = False

    def game(weights):
        number = (weights.long() * 2 ** torch.arange(players)).sum(dim=1)
        found = torch.log1p(weights.sum(dim=1).double())
        return torch.where(torch.from_numpy(fails)[number], torch.nan, found)

    kind = Semivalue(name=name)
    rows = drawn(game, players, kind, evaluations=400, seed=seed)
    exact = float(kind.size_probabilities(players) @ np.diff(np.log1p(np.arange(players + 1))))
    np.testing.assert_allclose(rows.mean(axis=0), exact, rtol=1e-2)


@given(st.sampled_from(SEMIVALUES), st.integers(3, 9), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_a_budget_of_all_subsets_gives_exact_values(name, players, seed):
    game, kind = games.random_game(players, seed=seed), Semivalue(name=name)
    rows = drawn(game, players, kind, evaluations=100 * 2**players, seed=seed)
    exact = enumerate_values(game, points=players, semivalue=kind).values
    np.testing.assert_allclose(rows, np.stack([exact, exact]), atol=1e-12)


@given(st.sampled_from(SEMIVALUES), st.integers(4, 40), st.integers(2, 30), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_estimates_do_not_depend_on_the_calls_or_on_blocks(name, players, rounds, seed):
    game = games.airport(np.random.default_rng(seed).random(players))
    kind, common = Semivalue(name=name), {"evaluations": 2 * players, "rounds": rounds}
    plain = drawn(game, players, kind, seed=seed, **common)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelpred.studies.regression_sampling.AT_ONCE", 40 * players)
        parts = drawn(game, players, kind, seed=seed, calls=2, **common)
    # The fit amplifies rounding.
    np.testing.assert_allclose(plain, parts, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SEMIVALUES)
def test_standard_errors_cover_exact_values(name):
    """Of 40 runs with a game of interactions, nine tenths of all values are within 1.64 errors."""
    players, kind = 10, Semivalue(name=name)
    chaos, costs = games.random_game(players, seed=1), np.arange(players)

    def game(weights):
        return games.airport(costs)(weights) + 0.2 * chaos(weights)

    exact = enumerate_values(game, points=players, semivalue=kind).values
    within = []
    for seed in range(40):
        rows = drawn(game, players, kind, evaluations=400, rounds=25, seed=seed)
        errors = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
        within.append(np.abs(rows.mean(axis=0) - exact) < 1.64 * errors)
    assert 0.85 < np.mean(within) < 0.95
