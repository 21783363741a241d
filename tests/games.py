"""Cooperative games whose Shapley values are known, and exact values of any small game.

A game is a callable from 0/1 weights [subsets, players] to a worth per subset.
"""

from itertools import pairwise
from math import comb

import numpy as np
import torch


def additive(worths, *, base=0.0):
    """Each player brings what he is worth: v(S) = base + sum. Values: the worths."""
    worths = torch.tensor(worths, dtype=torch.float64)
    return lambda weights: base + weights.double() @ worths


def glove(left, right):
    """The first players hold left gloves, the others right ones; only pairs are worth anything."""

    def worth(weights):
        held = weights.double()
        assert held.shape[1] == left + right
        return torch.minimum(held[:, :left].sum(dim=1), held[:, left:].sum(dim=1))

    return worth


def majority(players):
    """More than half of the players win 1. Values: 1 / players each, by symmetry."""
    return lambda weights: (weights.double().sum(dim=1) > players / 2).double()


def airport(costs):
    """A runway as long as the largest aircraft needs: v(S) = greatest cost in S."""
    costs = torch.tensor(costs, dtype=torch.float64)
    return lambda weights: (weights.double() * costs).max(dim=1).values


def airport_values(costs):
    """Each part of the runway is shared equally by those who need it (Littlechild & Owen 1973)."""
    order = np.argsort(costs)
    steps = [after - before for before, after in pairwise([0, *np.array(costs)[order]])]
    shares = np.cumsum([step / (len(costs) - place) for place, step in enumerate(steps)])
    values = np.empty(len(costs))
    values[order] = shares
    return values


def random_game(players, *, seed=0):
    """An arbitrary game: an independent worth for each of the 2^players subsets."""
    worths = torch.tensor(np.random.default_rng(seed).normal(size=2**players))
    places = 2 ** torch.arange(players)
    return lambda weights: worths[(weights.long() * places).sum(dim=1)]


def all_subsets(players):
    """0/1 weights [2^players, players]; row number and members agree in binary."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) & 1


def enumerated_shapley(game, players):
    """Exact values: Σ_S (v(S + i) - v(S)) / (players (players - 1 choose |S|))."""
    subsets = all_subsets(players)
    worths = game(subsets).double().numpy()
    sizes = subsets.sum(dim=1).numpy()
    values = np.zeros(players)
    for player in range(players):
        without = np.flatnonzero(subsets[:, player].numpy() == 0)
        gains = worths[without + 2**player] - worths[without]
        chances = [1 / (players * comb(players - 1, size)) for size in sizes[without]]
        values[player] = gains @ chances
    return values
