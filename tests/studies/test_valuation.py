"""Shapley values: games with closed forms, enumeration, and the laws that define the value."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import spearman
from modelpred.refits import NewtonStep
from modelpred.studies import valuation
from modelpred.studies.utility import mean_test_losses, write_result, written_number
from modelpred.studies.valuation import ValuationConfig, shapley
from tests import games

SMALL = ValuationConfig(permutations=40, truth_permutations=40)
ROUNDING = 1e-12
# Long orders only; short ones for places 0 and 1 of 5..7 players; half of all places.
SHARES = [0.0, 0.3, 0.5]


def estimate(game, players, *, permutations=400, seed=0, small=0.3):
    generator = np.random.default_rng(seed)
    return shapley(
        game, points=players, permutations=permutations, generator=generator, small=small
    )


def assert_within_four_standard_errors(estimated, exact):
    # A player who gains the same in every pair has no standard error but that of rounding.
    assert (np.abs(estimated.values - exact) <= 4 * estimated.standard_errors + ROUNDING).all()


@pytest.mark.parametrize("small", SHARES)
def test_additive_game_is_exact_from_one_pair_of_long_orders(small):
    worths = [3.0, -1.0, 0.5, 0.0, 7.0]
    game = games.additive(worths, base=2.0)
    estimated = estimate(game, 5, permutations=2, small=0.0)
    assert estimated.values == pytest.approx(worths, abs=ROUNDING)
    assert np.isnan(estimated.standard_errors).all()
    assert_within_four_standard_errors(estimate(game, 5, small=small), worths)


def test_glove_game():
    # With one left and two right gloves the left one is worth 2/3 (Shapley and Shubik 1969).
    exact = np.array([2 / 3, 1 / 6, 1 / 6])
    assert games.enumerated_shapley(games.glove(1, 2), 3) == pytest.approx(exact, abs=ROUNDING)
    assert_within_four_standard_errors(estimate(games.glove(1, 2), 3), exact)


@pytest.mark.parametrize("small", SHARES)
def test_majority_game(small):
    estimated = estimate(games.majority(7), 7, small=small)
    assert_within_four_standard_errors(estimated, np.full(7, 1 / 7))


@pytest.mark.parametrize("small", SHARES)
def test_airport_game(small):
    costs = [1.0, 4.0, 2.0, 8.0, 8.0, 3.0]
    exact = games.airport_values(costs)
    assert games.enumerated_shapley(games.airport(costs), 6) == pytest.approx(exact, abs=ROUNDING)
    assert_within_four_standard_errors(estimate(games.airport(costs), 6, small=small), exact)


@pytest.mark.parametrize("small", SHARES)
def test_unbiased_on_an_arbitrary_game(small):
    game = games.random_game(8)
    exact = games.enumerated_shapley(game, 8)
    runs = [estimate(game, 8, permutations=4, seed=seed, small=small) for seed in range(500)]
    # Every pair is an independent, unbiased estimate before the sum is put right.
    pairs = np.concatenate([run.pairs for run in runs])
    errors = pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))
    assert (np.abs(pairs.mean(axis=0) - exact) <= 4 * errors).all()


@pytest.mark.parametrize("small", SHARES)
def test_stated_errors_are_the_spread_of_the_estimates(small):
    game = games.random_game(8)
    exact = games.enumerated_shapley(game, 8)
    runs = [estimate(game, 8, permutations=40, seed=seed, small=small) for seed in range(150)]
    values = np.array([run.values for run in runs])
    stated = np.sqrt(np.mean([run.standard_errors**2 for run in runs]))
    spread = np.sqrt(np.mean((values - exact) ** 2))
    # 1,200 deviations know it to 2%. What the sum tells takes up to 1/8 of the variance away.
    assert 0.85 * stated < spread < 1.08 * stated


@pytest.mark.parametrize("small", SHARES)
def test_efficiency_holds_without_error(small):
    game = games.random_game(6)
    ends = game(torch.tensor([[0] * 6, [1] * 6]))
    for seed in range(5):
        for permutations in (2, 6):
            estimated = estimate(game, 6, permutations=permutations, seed=seed, small=small)
            expected = float(ends[1] - ends[0])
            assert estimated.values.sum() == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("small", SHARES)
def test_a_null_player_is_worth_exactly_nothing(small):
    inner = games.random_game(5)
    estimated = estimate(lambda weights: inner(weights[:, :5]), 6, small=small)
    assert estimated.values[5] == 0


def test_symmetric_players_get_the_same():
    def game(weights):
        pair = weights[:, 0].double() * weights[:, 1]
        return weights.double().sum(dim=1).sqrt() + pair

    estimated = estimate(game, 5, permutations=4000)
    exact = games.enumerated_shapley(game, 5)
    assert exact[0] == pytest.approx(exact[1], abs=ROUNDING)
    assert exact[2:] == pytest.approx(exact[2], abs=ROUNDING)
    assert_within_four_standard_errors(estimated, exact)


@pytest.mark.parametrize("small", SHARES)
def test_linearity(small):
    first, second = games.random_game(6, seed=1), games.random_game(6, seed=2)

    def both(weights):
        return 2 * first(weights) - 3 * second(weights)

    combined, left, right = (estimate(game, 6, small=small) for game in (both, first, second))
    # The same orders are drawn for each; only the share of the remaining sum is not linear.
    assert combined.pairs == pytest.approx(2 * left.pairs - 3 * right.pairs, abs=1e-10)
    if small == 0:
        assert combined.values == pytest.approx(2 * left.values - 3 * right.values, abs=1e-10)


def test_antithetic_pairs_cancel_what_depends_on_the_place_alone():
    def game(weights):
        return weights.double().sum(dim=1) ** 2  # gains 2 k + 1 at place k: 6 on average

    estimated = estimate(game, 6, permutations=2, small=0.0)
    assert estimated.values == pytest.approx(np.full(6, 6.0), abs=ROUNDING)


@pytest.mark.parametrize("small", SHARES)
def test_blocks_do_not_matter_and_are_as_large_as_they_may_be(small, monkeypatch):
    game = games.random_game(7)
    whole = estimate(game, 7, small=small)
    calls, told = [], []

    def watched(weights):
        calls.append(len(weights))
        return game(weights)

    monkeypatch.setattr(valuation, "WEIGHT_BYTES", 8 * 7 * 11)
    parts = shapley(
        watched,
        points=7,
        permutations=400,
        generator=np.random.default_rng(0),
        small=small,
        progress=lambda done, total, what: told.append((done, total, what)),
    )
    assert np.array_equal(parts.values, whole.values)
    assert max(calls) == 11
    assert sum(calls) == whole.evaluations
    assert told[-1] == (whole.evaluations, whole.evaluations, "valuation")


def test_a_long_order_costs_an_evaluation_a_point_and_a_short_round_as_much():
    game = games.random_game(8)
    assert estimate(game, 8, permutations=10, small=0.0).evaluations == 10 * 7 + 2
    # Places 0 and 1 apart: sizes 2..7 of long orders, and four short orders of two a round.
    assert estimate(game, 8, permutations=10, small=0.25).evaluations == 10 * (6 + 8) + 2


@pytest.mark.parametrize("points", [7, 10, 11])
def test_short_orders_are_home_to_every_player_once_at_a_uniform_place(points):
    generator = np.random.default_rng(0)
    orders = valuation._short_orders(points, 3, 2000, generator)
    members = (orders.places < points).sum(dim=1)
    assert (members == 3).all()
    place = orders.places.gather(0, orders.home)
    assert (place < 3).all()
    shares = torch.stack([(place[:2000] == step).double().mean(dim=0) for step in range(3)])
    # 2,000 draws of a chance of 1/3: a standard error of 0.0105, four and a half of them.
    assert shares.numpy() == pytest.approx(1 / 3, abs=0.048)
    assert torch.equal(place[2000:], 2 - place[:2000])


def test_short_orders_pay_where_small_subsets_are_uncertain():
    draws = np.random.default_rng(0)
    loud = torch.tensor(draws.normal(size=2**10))
    places = 2 ** torch.arange(10)

    def game(weights):
        sizes = weights.double().sum(dim=1)
        return torch.where(sizes <= 2, loud[(weights.long() * places).sum(dim=1)], sizes / 10)

    plain = estimate(game, 10, permutations=400, small=0.0)
    apart = estimate(game, 10, permutations=200, small=0.3)  # about as many evaluations
    assert apart.evaluations < 1.1 * plain.evaluations
    assert apart.standard_errors.mean() < 0.75 * plain.standard_errors.mean()


def test_more_permutations_shrink_the_standard_error():
    game = games.random_game(8)
    few, many = (estimate(game, 8, permutations=count).standard_errors for count in (200, 3200))
    # Sixteen times as many: a quarter, known to 10%.
    assert many.mean() == pytest.approx(few.mean() / 4, rel=0.15)


@pytest.mark.parametrize("count", [0, 3])
def test_orders_come_in_pairs(count):
    with pytest.raises(InvalidInput, match="expected 2, 4, 6"):
        estimate(games.majority(3), 3, permutations=count)


def test_one_player_has_it_all():
    assert estimate(games.additive([5.0]), 1, permutations=2).values.tolist() == [5.0]


def test_exact_refit_agrees_with_the_truth_as_well_as_the_truth_with_itself(exact):
    config = ValuationConfig(permutations=400, truth_permutations=400)
    metrics = valuation.run(config, exact).metrics
    ceiling = metrics["truth_reliability"]
    assert 0.9 < ceiling <= 1
    # Thirty points: the interval is wide, and it has to hold the ceiling.
    assert metrics["spearman_low"] <= ceiling <= max(metrics["spearman_high"], ceiling - 1e-9)
    assert metrics["spearman"] > 0.9
    assert metrics["truth_not_converged"] == 0


def test_values_of_real_models_add_up_to_the_gain_over_the_prior(exact):
    values = valuation.run(SMALL, exact).tables["values"]
    ends = exact.truth(torch.stack([torch.zeros(exact.pool), torch.ones(exact.pool)]))
    nothing, everything = -mean_test_losses(exact.model, ends, exact.test_points).numpy()
    assert nothing == pytest.approx(-np.log(2), abs=ROUNDING)
    for column in ("value", "true_value"):
        assert values[column].sum() == pytest.approx(everything - nothing, abs=1e-9)


def test_tables_and_metrics(context, tmp_path):
    result = valuation.run(SMALL, context)
    values, methods = result.tables["values"], result.tables["methods"]
    assert values["row_id"].to_list() == list(context.row_ids)
    by_rank = values.sort("rank")
    assert by_rank["rank"].to_list() == list(range(1, context.pool + 1))
    assert by_rank["value"].is_sorted(descending=True)
    assert methods["method"].to_list() == list(context.refits)
    agreement = spearman(values["value"].to_numpy(), values["true_value"].to_numpy())
    assert result.metrics["spearman"] == written_number(agreement)
    # One small place of 30: its evaluation is one per point and round.
    assert result.metrics["evaluations"] == 40 * (29 + 30) + 2
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)


def test_a_refit_that_is_exact_has_the_values_of_retraining(ridge):
    """One Newton step is exact for ridge: on the same orders the values agree."""
    full = ridge.truth(torch.ones(1, ridge.pool))[0]
    newton = NewtonStep(ridge.model, ridge.points, full, tolerance=1e-13)
    config = ValuationConfig(permutations=10, truth_permutations=0)
    refits = {"newton_step": newton, "retraining": ridge.truth}
    values = [
        valuation.run(config, replace(ridge, refits={name: refit})).tables["values"]["value"]
        for name, refit in refits.items()
    ]
    assert values[0].to_numpy() == pytest.approx(values[1].to_numpy(), abs=1e-6)


def test_truth_draws_other_orders_than_the_estimate(exact):
    result = valuation.run(SMALL, exact)
    values = result.tables["values"]
    assert (values["value"] - values["true_value"]).abs().min() > 0


def test_without_truth_the_columns_stay_empty(logistic):
    config = ValuationConfig(permutations=4, truth_permutations=0, rivals=False)
    result = valuation.run(config, logistic)
    assert result.tables["values"]["true_value"].null_count() == logistic.pool
    assert result.tables["methods"].height == 1
    assert result.metrics["spearman"] is None


def test_accuracy_as_utility(context):
    config = ValuationConfig(permutations=4, truth_permutations=4, utility="accuracy")
    if context.model.regression:
        with pytest.raises(InvalidInput, match=r"set valuation\.utility to loss"):
            valuation.run(config, context)
        return
    values = valuation.run(config, context).tables["values"]["true_value"]
    ends = context.truth(torch.stack([torch.zeros(context.pool), torch.ones(context.pool)]))
    score = valuation.goodness(ends, context, utility="accuracy")
    assert values.sum() == pytest.approx(float(score[1] - score[0]), abs=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"permutations": 0},
        {"permutations": 7},
        {"small": 0.6},
        {"utility": "lose"},
        {"permutation": 8},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ValuationConfig(**wrong)
