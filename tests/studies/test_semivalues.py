"""Semi-values: games with closed forms, plain enumeration, and the laws that define the values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.studies import sampler_choice, samplers, sampling
from modelpred.studies.order_sampling import short_orders
from modelpred.studies.samplers import Sampling
from modelpred.studies.sampling import UndefinedUtility
from modelpred.studies.semivalues import (
    Semivalue,
    StoppingRule,
    Values,
    enumerate_values,
    estimate_values,
    leave_one_out_values,
)
from tests import games

ROUNDING = 1e-12
# Long orders only; short ones for places 0 and 1 of 5..7 players; half of all places.
SHARES = [0.0, 0.3, 0.5]
SHAPLEY = Semivalue()
BANZHAF = Semivalue(name="banzhaf")
SEMIVALUES = [
    SHAPLEY,
    BANZHAF,
    Semivalue(name="beta_shapley", alpha=4.0, beta=1.0),
    Semivalue(name="beta_shapley", alpha=2.0, beta=3.0),
]
# Every way to sample each of them.
SAMPLED = [
    *((kind, sampler) for kind in SEMIVALUES for sampler in ("permutation", "antithetic")),
    *((kind, "stratified") for kind in SEMIVALUES),
    *((kind, "truncated") for kind in (SHAPLEY, SEMIVALUES[2])),
    (BANZHAF, "reuse"),
]
NAMES = [f"{kind.name}-{kind.alpha:g}-{kind.beta:g}-{sampler}" for kind, sampler in SAMPLED]


def estimate(game, players, *, permutations=400, seed=0, small=0.3, **further):
    generator = np.random.default_rng(seed)
    return estimate_values(
        game,
        points=players,
        permutations=permutations,
        generator=generator,
        small=small,
        **further,
    )


def estimates_of_one_game(runs, *, permutations, small):
    """Estimates of an arbitrary game by different seeds, and its exact values."""
    game = games.random_game(8)
    found = [
        estimate(game, 8, permutations=permutations, seed=seed, small=small) for seed in range(runs)
    ]
    return found, games.enumerated(game, 8, SHAPLEY)


def assert_within_four_standard_errors(estimated, exact):
    # A player who gains the same in every pair has no standard error but that of rounding.
    assert (np.abs(estimated.values - exact) <= 4 * estimated.standard_errors + ROUNDING).all()


@pytest.mark.parametrize("players", [1, 2, 5, 9, 300])
@pytest.mark.parametrize("kind", [*SEMIVALUES, Semivalue(name="leave_one_out")])
def test_chances_of_sizes_are_those_of_the_definition(kind, players):
    exact = [float(chance) for chance in games.size_chances(kind, players)]
    # Logarithms of factorials of 300 are near 1,400: 1e-13 of that is lost in a chance.
    assert kind.size_probabilities(players) == pytest.approx(exact, rel=1e-10)
    assert kind.size_probabilities(players).sum() == pytest.approx(1, abs=1e-10)


def test_beta_shapley_of_one_and_one_is_shapley():
    even = Semivalue(name="beta_shapley", alpha=1.0, beta=1.0)
    assert even.size_probabilities(20) == pytest.approx(
        SHAPLEY.size_probabilities(20), rel=ROUNDING
    )


@pytest.mark.parametrize("kind", [*SEMIVALUES, Semivalue(name="leave_one_out")])
def test_enumeration_is_the_plain_loop(kind):
    for players in (1, 2, 6):
        game = games.random_game(players)
        found = enumerate_values(game, points=players, semivalue=kind)
        assert found.values == pytest.approx(games.enumerated(game, players, kind), abs=1e-10)
        assert found.evaluations == 2**players
        assert not found.standard_errors.any()
        assert found.reliability == 1


def test_enumeration_ends_at_sixteen_points():
    found = enumerate_values(games.majority(16), points=16)
    assert found.values == pytest.approx(1 / 16, abs=ROUNDING)
    with pytest.raises(InvalidInput, match="17 points have 2\\^17 subsets"):
        enumerate_values(games.majority(17), points=17)


def test_closed_forms_of_banzhaf_and_leave_one_out():
    # In a majority of seven a player decides when just three of six others have joined.
    found = enumerate_values(games.majority(7), points=7, semivalue=BANZHAF)
    assert found.values == pytest.approx(20 / 64, abs=ROUNDING)
    # One left and two right gloves: the left decides when a right is there (3 of 4 subsets), a
    # right one when the left is there alone (1 of 4).
    found = enumerate_values(games.glove(1, 2), points=3, semivalue=BANZHAF)
    assert found.values == pytest.approx([3 / 4, 1 / 4, 1 / 4], abs=ROUNDING)
    assert leave_one_out_values(games.glove(1, 2), points=3).values.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("kind", "sampler"), SAMPLED, ids=NAMES)
def test_every_sampler_agrees_with_enumeration(kind, sampler):
    """400 estimates of 8 players: beyond four standard errors by chance once in 2,000 games."""
    beyond = 0
    for seed in range(5):
        game = games.random_game(8, seed=seed)
        exact = enumerate_values(game, points=8, semivalue=kind).values
        estimated = estimate(game, 8, permutations=800, seed=seed, semivalue=kind, sampler=sampler)
        far = np.abs(estimated.values - exact) > 4 * estimated.standard_errors
        beyond += int(far.sum())
    assert beyond == 0


@pytest.mark.parametrize(("kind", "sampler"), SAMPLED, ids=NAMES)
def test_stated_errors_are_the_spread_whatever_the_sampler(kind, sampler):
    game = games.random_game(6)
    exact = enumerate_values(game, points=6, semivalue=kind).values
    runs = [
        estimate(game, 6, permutations=60, seed=seed, semivalue=kind, sampler=sampler)
        for seed in range(150)
    ]
    spread = np.sqrt(np.mean([(run.values - exact) ** 2 for run in runs]))
    stated = np.sqrt(np.mean([run.standard_errors**2 for run in runs]))
    # 900 deviations know it to 2.4%. What the sum tells of Shapley takes up to 1/6 away.
    assert (0.82 if kind == SHAPLEY else 0.9) * stated < spread < 1.1 * stated


@pytest.mark.parametrize(("kind", "sampler"), SAMPLED, ids=NAMES)
def test_additive_games_have_their_summands_as_values(kind, sampler):
    worths = [3.0, -1.0, 0.5, 0.0, 7.0]
    estimated = estimate(
        games.additive(worths, base=2.0), 5, semivalue=kind, sampler=sampler, permutations=2000
    )
    assert_within_four_standard_errors(estimated, worths)


@pytest.mark.parametrize(("kind", "sampler"), SAMPLED, ids=NAMES)
def test_a_null_player_is_worth_nothing(kind, sampler):
    inner = games.random_game(5)

    def game(weights):
        return inner(weights[:, :5])

    assert enumerate_values(game, points=6, semivalue=kind).values[5] == 0
    estimated = estimate(game, 6, semivalue=kind, sampler=sampler)
    if sampler == "reuse":  # the mean with it less the mean without it: other subsets
        assert abs(estimated.values[5]) <= 4 * estimated.standard_errors[5]
    else:
        assert estimated.values[5] == 0


@pytest.mark.parametrize("kind", SEMIVALUES)
def test_symmetric_players_are_worth_the_same(kind):
    def game(weights):
        pair = weights[:, 0].double() * weights[:, 1]
        return weights.double().sum(dim=1).sqrt() + pair

    exact = enumerate_values(game, points=5, semivalue=kind).values
    assert exact[0] == pytest.approx(exact[1], abs=ROUNDING)
    assert exact[2:] == pytest.approx(exact[2], abs=ROUNDING)
    estimated = estimate(game, 5, permutations=4000, semivalue=kind)
    assert_within_four_standard_errors(estimated, exact)


@pytest.mark.parametrize(("kind", "sampler"), SAMPLED, ids=NAMES)
def test_linearity(kind, sampler):
    first, second = games.random_game(6, seed=1), games.random_game(6, seed=2)

    def both(weights):
        return 2 * first(weights) - 3 * second(weights)

    combined, left, right = (
        estimate(game, 6, semivalue=kind, sampler=sampler) for game in (both, first, second)
    )
    # The same subsets are drawn for each; only the share of the remaining sum is not linear.
    expected = 2 * left.estimates - 3 * right.estimates
    assert combined.estimates == pytest.approx(expected, abs=1e-9)
    if kind != SHAPLEY:
        assert combined.values == pytest.approx(2 * left.values - 3 * right.values, abs=1e-9)


def test_reuse_is_the_difference_of_two_means():
    game = games.random_game(5)
    seen = []

    def watched(weights):
        seen.append(weights.clone())
        return game(weights)

    found = estimate(watched, 5, permutations=50, semivalue=BANZHAF, sampler="reuse")
    weights = torch.cat(seen)[2:]  # none and all come first
    worths = game(weights).numpy()
    for player in range(5):
        inside = weights[:, player].numpy().astype(bool)
        groups = worths[inside], worths[~inside]
        expected = groups[0].mean() - groups[1].mean()
        assert found.values[player] == pytest.approx(expected, abs=ROUNDING)
        welch = np.sqrt(sum(group.var() / len(group) for group in groups))
        # The whole sample's degrees of freedom: 249 for 250.
        assert found.standard_errors[player] == pytest.approx(welch, rel=0.01)
    assert found.evaluations == len(weights) + 2


def test_reuse_serves_banzhaf_only_and_not_from_too_few_subsets():
    with pytest.raises(InvalidInput, match="reuse is for banzhaf, not for shapley"):
        estimate(games.majority(5), 5, sampler="reuse")
    with pytest.raises(InvalidInput, match="set more permutations"):
        estimate(games.majority(1), 1, permutations=1, semivalue=BANZHAF, sampler="reuse")


def test_positions_without_probability_are_not_evaluated():
    sizes = []

    def watched(weights):
        sizes.extend(weights.sum(dim=1).tolist())
        return weights.double().mean(dim=1)

    found = estimate(watched, 400, permutations=2, semivalue=BANZHAF, sampler="antithetic")
    # What a player gains at place k counts 400 q_k: one in forty counts.
    assert found.values.sum() == pytest.approx(1, abs=0.5)
    inner = [size for size in sizes if 0 < size < 400]
    # 200 and eight and a half standard deviations of 10 each way.
    assert 100 < min(inner) < 130
    assert 270 < max(inner) < 300


def test_leave_one_out_needs_one_evaluation_a_point_and_one_more():
    game = games.random_game(7)
    found = estimate(game, 7, semivalue=Semivalue(name="leave_one_out"))
    exact = games.enumerated(game, 7, Semivalue(name="leave_one_out"))
    assert found.values == pytest.approx(exact, abs=ROUNDING)
    assert found.evaluations == 8
    assert not found.standard_errors.any()


@pytest.mark.parametrize("sampler", ["permutation", "antithetic", "stratified"])
def test_sampling_stops_as_soon_as_the_rule_is_met(sampler):
    worths = np.linspace(-1, 1, 8).tolist()
    noise = games.random_game(8)

    def game(weights):
        return games.additive(worths)(weights) + 0.2 * noise(weights)

    budget = {"permutations": 4000, "sampler": sampler}
    whole = estimate(game, 8, **budget)
    for rule in (
        StoppingRule(error=0.02),
        StoppingRule(reliability=0.99),
        StoppingRule(error=0.02, reliability=0.5),
    ):
        stopped = estimate(game, 8, stopping=rule, **budget)
        rows = len(stopped.estimates)
        assert 10 <= rows < len(whole.estimates)
        # Stopping changes how many are drawn, and not which.
        assert stopped.estimates == pytest.approx(whole.estimates[:rows], abs=ROUNDING)
        assert rule.is_met(stopped)
        checks = [10]
        while checks[-1] < rows:
            checks.append(checks[-1] + max(10, checks[-1] // 4))
        assert checks[-1] == rows
        if rule.error is not None:
            before = whole.estimates[: checks[-2]]
            assert before.std(axis=0, ddof=1).max() / np.sqrt(len(before)) > rule.error
    assert (
        estimate(game, 8, stopping=StoppingRule(error=1e-9), **budget).evaluations
        == whole.evaluations
    )


@given(st.integers(1, 9), st.integers(2, 6), st.integers(0, 10**6))
def test_reliability_and_halves_are_those_of_their_definitions(estimates, points, seed):
    rows = np.random.default_rng(seed).normal(size=(estimates, points))
    values, errors = rows.mean(axis=0), np.linspace(0.1, 0.3, points)
    found = Values(values, errors, rows, evaluations=1)
    assert found.reliability == pytest.approx(1 - (errors**2).mean() / values.var())
    exact = Values(values, 0 * errors, rows, evaluations=1)
    assert exact.reliability == 1
    assert np.isnan(Values(0 * values, errors, rows, evaluations=1).reliability)
    even = [row for place, row in enumerate(rows) if place % 2 == 0]
    odd = [row for place, row in enumerate(rows) if place % 2 == 1] or even
    assert found.halves[0] == pytest.approx(np.mean(even, axis=0))
    assert found.halves[1] == pytest.approx(np.mean(odd, axis=0))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("permutations", [2, 20])
def test_the_remaining_sum_is_shared_in_proportion_to_the_variances(permutations, scale):
    inner = games.random_game(6)

    def game(weights):
        return scale * inner(weights)

    found = estimate(game, 6, permutations=permutations, sampler="stratified", semivalue=SHAPLEY)
    ends = game(torch.stack([torch.zeros(6), torch.ones(6)]).to(torch.uint8))
    total = float(ends[1] - ends[0])
    means = found.estimates.mean(axis=0)
    shares = np.full(6, 1 / 6)  # a single estimate has no variance
    if (count := len(found.estimates)) > 1:
        spread = found.estimates.std(axis=0, ddof=1) / np.sqrt(count)
        assert found.standard_errors == pytest.approx(spread, rel=1e-9)
        shares = found.standard_errors**2 / (found.standard_errors**2).sum()
    assert abs(total - means.sum()) > 0.01 * scale  # short orders leave something to share
    expected = means + (total - means.sum()) * shares
    assert found.values == pytest.approx(expected, rel=1e-9, abs=ROUNDING * scale)
    assert found.values.sum() == pytest.approx(total)
    other = estimate(game, 6, permutations=permutations, sampler="stratified", semivalue=BANZHAF)
    assert other.values.tolist() == other.estimates.mean(axis=0).tolist()


def test_a_stopping_rule_is_met_at_its_limit():
    rows = np.random.default_rng(0).normal(size=(4, 3))
    found = Values(rows.mean(axis=0), np.array([0.1, 0.2, 0.3]), rows, evaluations=1)
    for rule, met in (
        (StoppingRule(error=0.3), True),
        (StoppingRule(error=0.29), False),
        (StoppingRule(reliability=found.reliability), True),
        (StoppingRule(reliability=found.reliability + 1e-9), False),
        (StoppingRule(error=0.3, reliability=1.0), False),
        (StoppingRule(error=0.1, reliability=found.reliability), False),
    ):
        assert rule.is_met(found) == met


@pytest.mark.parametrize(("kind", "sampler"), SAMPLED, ids=NAMES)
def test_progress_ends_at_its_total_and_orders_are_counted_for_memory(kind, sampler, monkeypatch):
    told, memory = [], []
    monkeypatch.setattr(samplers, "require_memory", lambda size, what: memory.append((size, what)))
    found = estimate(
        games.random_game(6), 6, permutations=20, semivalue=kind, sampler=sampler,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert told[-1] == (found.evaluations, found.evaluations, "values")
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    [(size, what)] = memory
    assert size > 0
    # Antithetic orders are drawn in pairs; reuse draws subsets in place of orders.
    if sampler in ("permutation", "antithetic"):
        assert what == "20 random orders of 6 rows"


def test_auto_requires_memory_of_all_orders_first_unless_sampling_may_stop(monkeypatch):
    sizes, first = [], []
    monkeypatch.setattr(samplers, "require_memory", lambda size, **_: sizes.append(size))
    for stopping in (None, StoppingRule(error=0.0)):
        sizes.clear()
        game = games.additive([1.0] * 20)
        estimate(game, 20, permutations=100, sampler="auto", stopping=stopping)
        first.append((sizes[0], max(sizes)))
    (at_once, most), (of_pilot, _) = first
    assert at_once == most > of_pilot


@pytest.mark.parametrize("name", ["banzhaf", "shapley"])
def test_auto_considers_reuse_for_banzhaf_only(name, monkeypatch):
    considered, sampler_of = [], Sampling.sampler
    monkeypatch.setattr(sampler_choice, "EXACT_UP_TO", 5)
    monkeypatch.setattr(
        Sampling,
        "sampler",
        lambda own, name, *rest: considered.append(name) or sampler_of(own, name, *rest),
    )
    estimate(
        games.random_game(6), 6, permutations=100, semivalue=Semivalue(name=name), sampler="auto"
    )
    assert ("reuse" in considered) == (name == "banzhaf")


@pytest.mark.parametrize("values", [leave_one_out_values, enumerate_values])
def test_progress_of_exact_values_ends_at_its_total(values):
    told = []
    found = values(games.random_game(5), points=5, progress=lambda *done: told.append(done))
    assert told[-1] == (found.evaluations, found.evaluations, "values")


def test_reliability_is_the_correlation_of_two_estimates():
    worths = np.random.default_rng(0).normal(size=12).tolist()
    noise = games.random_game(12)

    def game(weights):
        return games.additive(worths)(weights) + noise(weights)

    runs = [estimate(game, 12, permutations=20, seed=seed) for seed in range(200)]
    stated = np.mean([run.reliability for run in runs])
    values = np.array([run.values for run in runs])
    found = np.mean([np.corrcoef(values[row], values[row + 1])[0, 1] for row in range(0, 200, 2)])
    # What the sum tells takes up to 1/12 of the variance away, which the statement leaves out.
    assert 0.7 < stated < found + 0.02 < 1
    assert stated == pytest.approx(found, abs=0.04)


def test_too_many_failed_models_leave_no_values():
    def game(weights):
        return torch.where(weights.sum(dim=1) == 3, torch.nan, 1.0).double()

    for call in (estimate, lambda game, points: enumerate_values(game, points=points)):
        with pytest.raises(UndefinedUtility, match="have no score"):
            call(game, 5)


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
    assert games.enumerated(games.glove(1, 2), 3, SHAPLEY) == pytest.approx(exact, abs=ROUNDING)
    assert_within_four_standard_errors(estimate(games.glove(1, 2), 3), exact)


@pytest.mark.parametrize("small", SHARES)
def test_majority_game(small):
    estimated = estimate(games.majority(7), 7, small=small)
    assert_within_four_standard_errors(estimated, np.full(7, 1 / 7))


@pytest.mark.parametrize("small", SHARES)
def test_airport_game(small):
    costs = [1.0, 4.0, 2.0, 8.0, 8.0, 3.0]
    exact = games.airport_values(costs)
    assert games.enumerated(games.airport(costs), 6, SHAPLEY) == pytest.approx(exact, abs=ROUNDING)
    assert_within_four_standard_errors(estimate(games.airport(costs), 6, small=small), exact)


@pytest.mark.parametrize("small", SHARES)
def test_unbiased_on_an_arbitrary_game(small):
    runs, exact = estimates_of_one_game(500, permutations=4, small=small)
    # Every pair is an independent, unbiased estimate before the sum is put right.
    pairs = np.concatenate([run.estimates for run in runs])
    errors = pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))
    assert (np.abs(pairs.mean(axis=0) - exact) <= 4 * errors).all()


@pytest.mark.parametrize("small", SHARES)
def test_stated_errors_are_the_spread_of_the_estimates(small):
    runs, exact = estimates_of_one_game(150, permutations=40, small=small)
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

    monkeypatch.setattr(sampling, "WEIGHT_BYTES", 8 * 7 * 11)
    parts = estimate_values(
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
    assert told[-1] == (whole.evaluations, whole.evaluations, "values")


def test_a_long_order_costs_an_evaluation_a_point_and_a_short_round_as_much():
    game = games.random_game(8)
    assert estimate(game, 8, permutations=10, small=0.0).evaluations == 10 * 7 + 2
    # Places 0 and 1 apart: sizes 2..7 of long orders, and four short orders of two a round.
    assert estimate(game, 8, permutations=10, small=0.25).evaluations == 10 * (6 + 8) + 2


@pytest.mark.parametrize(("points", "places"), [(2, 0), (8, 2), (67, 10), (300, 15)])
def test_ten_positions_or_a_twentieth_have_short_orders(points, places):
    by_default = estimate(games.additive(np.ones(points)), points, permutations=2, small=None)
    explicit = estimate(
        games.additive(np.ones(points)), points, permutations=2, small=(places + 0.5) / points
    )
    assert by_default.evaluations == explicit.evaluations
    if places:
        windows, long = -(-points // places), points - places
        assert by_default.evaluations == 2 * (long + windows * places) + 2


@pytest.mark.parametrize("points", [7, 10, 11])
def test_short_orders_count_every_player_once_at_a_uniform_position(points):
    generator = np.random.default_rng(0)
    orders = short_orders(points, 3, 2000, generator=generator)
    members = (orders.positions < points).sum(dim=1)
    assert (members == 3).all()
    place = orders.positions.gather(0, orders.counted_in)
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


@pytest.mark.parametrize("wrong", [{"name": "shaply"}, {"alpha": 0.0}, {"gamma": 1}])
def test_wrong_semivalues_are_refused(wrong):
    with pytest.raises(ValidationError):
        Semivalue(**wrong)
