"""Values by regression on random subsets: unbiased for any game, and exact for additive ones."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.studies.regression_sampling import RegressionSampler
from modelpred.studies.sampling import Game
from modelpred.studies.semivalues import Semivalue, enumerate_values, estimate_values
from tests import games

SEMIVALUES = ("shapley", "banzhaf", "beta_shapley")


def drawn(game, players, kind, *, rounds, seed):
    counted = Game(game, points=players, total=0, progress=lambda *_: None)
    sampler = RegressionSampler(
        kind.size_probabilities(players), counted.ends(), generator=np.random.default_rng(seed)
    )
    sampler.draw(rounds, counted)
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
    rows = drawn(game, players, kind, rounds=60, seed=seed)
    errors = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    exact = enumerate_values(game, points=players, semivalue=kind).values
    # The ridge keeps a part of an additive game, which the weights then estimate.
    assert (np.abs(rows.mean(axis=0) - exact) <= 5.5 * errors + 1e-9).all()


@given(st.sampled_from(SEMIVALUES), st.integers(4, 30), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_function_of_the_size_alone_divides_equally(name, players, seed):
    kind = Semivalue(name=name)
    rows = drawn(
        lambda weights: torch.log1p(weights.sum(dim=1).double()), players, kind,
        rounds=10, seed=seed,
    )  # fmt: skip
    chances = kind.size_probabilities(players)
    exact = float(chances @ np.diff(np.log1p(np.arange(players + 1))))
    # The ridge keeps a small part, which the weights estimate.
    np.testing.assert_allclose(rows.mean(axis=0), exact, rtol=0.05)


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


def test_too_many_failed_models_give_no_values():
    rows = drawn(
        lambda weights: torch.where(weights.sum(dim=1) == 2, torch.nan, 1.0), 4, Semivalue(),
        rounds=20, seed=0,
    )  # fmt: skip
    assert np.isnan(rows).all()
