"""Choices: known optima, plain loops, and quotas that nothing breaks."""

import numpy as np
import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.studies import greedy_selection as greedy
from modelpred.studies.greedy_selection import backwards, no_quota, top_by_value
from tests import games

GROUPS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])


def best_subset(game, points, size):
    from itertools import combinations  # noqa: PLC0415

    rows = torch.zeros(0, points, dtype=torch.int64)
    for members in combinations(range(points), size):
        row = torch.zeros(1, points, dtype=torch.int64)
        row[0, list(members)] = 1
        rows = torch.cat([rows, row])
    worths = game(rows)
    return rows[worths.argmax()].bool(), float(worths.max())


@pytest.mark.parametrize("stride", [1, 3, 8, 100])
def test_additive_utilities_keep_their_best_rows(stride):
    worths = np.random.default_rng(0).normal(size=10)
    path = backwards(games.additive(worths), sizes=[10, 6, 3, 1], quota=no_quota(10), stride=stride)
    for size, selected in path.items():
        assert torch.equal(selected, top_by_value(worths, size=size, quota=no_quota(10)))
        assert set(selected.nonzero()[:, 0].tolist()) == set(np.argsort(-worths)[:size])


def test_backwards_is_a_plain_loop_over_removals():
    game = games.random_game(9)
    path = backwards(game, sizes=range(1, 10), quota=no_quota(9), stride=100)
    kept = [True] * 9
    for size in range(8, 0, -1):
        scores = {}
        for point in range(9):
            if kept[point]:
                without = kept.copy()
                without[point] = False
                scores[point] = float(game(torch.tensor([without]))[0])
        kept[max(scores, key=scores.get)] = False
        assert path[size].tolist() == kept


def test_choices_are_nested():
    path = backwards(games.random_game(9), sizes=[2, 4, 7], quota=no_quota(9), stride=2)
    assert (path[2] <= path[4]).all()
    assert (path[4] <= path[7]).all()
    assert [int(kept.sum()) for kept in path.values()] == [7, 4, 2]


def test_swaps_reach_the_best_choice_of_an_additive_utility():
    worths = np.random.default_rng(1).normal(size=10)
    worst = top_by_value(-worths, size=4, quota=no_quota(10))
    found = greedy.with_swaps(games.additive(worths), worst, swaps=10, quota=no_quota(10))
    assert torch.equal(found, top_by_value(worths, size=4, quota=no_quota(10)))


def test_a_swap_has_to_help_by_the_second_utility_too():
    """The first utility likes only points 8 and 9, which the second says do harm."""
    liked, true = np.zeros(10), np.arange(10.0)
    liked[8:], true[8:] = 1, -5
    start = torch.arange(10) < 4
    swaps = {"swaps": 10, "quota": no_quota(10)}
    alone = greedy.with_swaps(games.additive(liked), start, **swaps)
    assert alone[8:].all()
    confirmed = greedy.with_swaps(
        games.additive(liked), start, confirm=games.additive(true), **swaps
    )
    assert not confirmed[8:].any()
    both = greedy.with_swaps(games.additive(true), start, confirm=games.additive(true), **swaps)
    assert torch.equal(both, greedy.with_swaps(games.additive(true), start, **swaps))


@pytest.mark.parametrize("seed", range(5))
def test_swaps_end_where_no_single_swap_helps(seed):
    game = games.random_game(8, seed=seed)
    start = torch.tensor([True] * 3 + [False] * 5)
    found = greedy.with_swaps(game, start, swaps=100, quota=no_quota(8))
    assert found.sum() == 3
    reached = float(game(found[None].long())[0])
    for out in found.nonzero()[:, 0]:
        for into in (~found).nonzero()[:, 0]:
            swapped = found.clone()
            swapped[out], swapped[into] = False, True
            assert float(game(swapped[None].long())[0]) <= reached
    assert reached <= best_subset(game, 8, 3)[1]
    assert torch.equal(greedy.with_swaps(game, start, swaps=0, quota=no_quota(8)), start)


@pytest.mark.parametrize("seed", range(5))
def test_every_selection_meets_its_quota(seed):
    quota = greedy.own_shares(GROUPS)
    game = games.random_game(10, seed=seed)
    values = np.random.default_rng(seed).normal(size=10)
    path = backwards(game, sizes=range(1, 11), quota=quota, stride=3)
    for size in range(1, 11):
        guaranteed = torch.tensor([6 * size // 10, 3 * size // 10, size // 10])
        assert torch.equal(quota.guaranteed(size), guaranteed)
        top = top_by_value(values, size=size, quota=quota)
        for kept in (path[size], top, greedy.with_swaps(game, top, swaps=20, quota=quota)):
            assert kept.sum() == size
            assert (quota.members(kept) >= guaranteed).all()


def test_a_quota_brings_in_rows_that_value_alone_leaves_out():
    values = np.arange(10.0)[::-1].copy()
    alone = top_by_value(values, size=5, quota=no_quota(10))
    guaranteed = greedy.Quota(GROUPS, torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64))
    assert alone.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]
    found = top_by_value(values, size=5, quota=guaranteed)
    assert found.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 6]


def test_invalid_values_are_refused():
    for shares, message in (
        ([0.5, 0.3, 0.3], "add up to 1.1"),
        ([0, 0, 0.5], "rows to groups of"),
    ):
        with pytest.raises(InvalidInput, match=message):
            greedy.Quota(GROUPS, torch.tensor(shares, dtype=torch.float64))
    with pytest.raises(InvalidInput, match="cannot select 11 of 10 rows"):
        backwards(games.random_game(10), sizes=[11], quota=no_quota(10))
