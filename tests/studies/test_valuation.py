"""Shapley values: games with closed forms, enumeration, and the laws that define the value."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import spearman
from modelpred.studies import valuation
from modelpred.studies.utility import mean_test_losses, write_result
from modelpred.studies.valuation import ValuationConfig, shapley
from tests import games

SMALL = ValuationConfig(permutations=40, truth_permutations=40)
ROUNDING = 1e-12


def estimate(game, players, *, permutations=400, seed=0):
    return shapley(
        game, points=players, permutations=permutations, generator=np.random.default_rng(seed)
    )


def assert_within_four_standard_errors(estimated, exact):
    # A player who gains the same in every pair has no standard error but that of rounding.
    assert (np.abs(estimated.values - exact) <= 4 * estimated.standard_errors + ROUNDING).all()


def test_additive_game_is_exact_from_one_pair():
    worths = [3.0, -1.0, 0.5, 0.0, 7.0]
    estimated = estimate(games.additive(worths, base=2.0), 5, permutations=2)
    assert estimated.values == pytest.approx(worths, abs=ROUNDING)
    assert np.isnan(estimated.standard_errors).all()


def test_glove_game():
    # With one left and two right gloves the left one is worth 2/3 (Shapley and Shubik 1969).
    exact = np.array([2 / 3, 1 / 6, 1 / 6])
    assert games.enumerated_shapley(games.glove(1, 2), 3) == pytest.approx(exact, abs=ROUNDING)
    assert_within_four_standard_errors(estimate(games.glove(1, 2), 3), exact)


def test_majority_game():
    assert_within_four_standard_errors(estimate(games.majority(7), 7), np.full(7, 1 / 7))


def test_airport_game():
    costs = [1.0, 4.0, 2.0, 8.0, 8.0, 3.0]
    exact = games.airport_values(costs)
    assert games.enumerated_shapley(games.airport(costs), 6) == pytest.approx(exact, abs=ROUNDING)
    assert_within_four_standard_errors(estimate(games.airport(costs), 6), exact)


def test_unbiased_on_an_arbitrary_game():
    game = games.random_game(8)
    exact = games.enumerated_shapley(game, 8)
    runs = [estimate(game, 8, permutations=4, seed=seed) for seed in range(600)]
    means = np.mean([run.values for run in runs], axis=0)
    errors = np.std([run.values for run in runs], axis=0, ddof=1) / np.sqrt(600)
    assert (np.abs(means - exact) <= 4 * errors).all()
    # The stated errors are, on average, the true spread of the estimates.
    stated = np.sqrt(np.mean([run.standard_errors**2 for run in runs], axis=0))
    spread = np.std([run.values for run in runs], axis=0, ddof=1)
    # 600 draws know a standard deviation to 3%, and two pairs give a stated one of 4%: four times.
    assert stated == pytest.approx(spread, rel=0.2)


def test_efficiency_holds_without_error():
    game = games.random_game(6)
    ends = game(torch.tensor([[0] * 6, [1] * 6]))
    for seed in range(5):
        total = estimate(game, 6, permutations=2, seed=seed).values.sum()
        assert total == pytest.approx(float(ends[1] - ends[0]), abs=ROUNDING)


def test_a_null_player_is_worth_exactly_nothing():
    inner = games.random_game(5)
    assert estimate(lambda weights: inner(weights[:, :5]), 6).values[5] == 0


def test_symmetric_players_get_the_same():
    def game(weights):
        return (weights.double().sum(dim=1) ** 2).sqrt() + weights[:, 0].double() * weights[:, 1]

    estimated = estimate(game, 5, permutations=4000)
    assert_within_four_standard_errors(estimated, games.enumerated_shapley(game, 5))


def test_linearity():
    first, second = games.random_game(6, seed=1), games.random_game(6, seed=2)
    both = estimate(lambda weights: 2 * first(weights) - 3 * second(weights), 6).values
    expected = 2 * estimate(first, 6).values - 3 * estimate(second, 6).values
    assert both == pytest.approx(expected, abs=1e-10)


def test_antithetic_pairs_cancel_what_depends_on_the_place_alone():
    # v(S) = |S|² gains 2k + 1 at place k: a pair averages to the same for everyone.
    estimated = estimate(lambda weights: weights.double().sum(dim=1) ** 2, 6, permutations=2)
    assert estimated.values == pytest.approx(np.full(6, 6.0), abs=ROUNDING)


def test_blocks_do_not_matter_and_hold_whole_prefixes(monkeypatch):
    game = games.random_game(7)
    whole = estimate(game, 7)
    calls = []

    def watched(weights):
        calls.append(len(weights))
        return game(weights)

    monkeypatch.setattr(valuation, "WEIGHT_BYTES", 8 * 7 * 11)
    assert np.array_equal(estimate(watched, 7).values, whole.values)
    assert max(calls) == 11
    assert sum(calls) == whole.evaluations == 400 * 6 + 2


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
    found = dict(methods.select("method", "spearman").iter_rows())
    assert found["newton_step"] > found["full_model"]
    agreement = spearman(values["value"].to_numpy(), values["true_value"].to_numpy())
    assert result.metrics["spearman"] == pytest.approx(agreement, nan_ok=True)
    assert result.metrics["evaluations"] == 40 * (context.pool - 1) + 2
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)


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
    "wrong", [{"permutations": 0}, {"permutations": 7}, {"utility": "lose"}, {"permutation": 8}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ValuationConfig(**wrong)
