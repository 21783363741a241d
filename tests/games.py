"""Cooperative games whose values are known in closed form, and exact values of any small game.

A game is a callable from 0/1 weights [subsets, players] to a worth per subset.
"""

from fractions import Fraction
from itertools import combinations, pairwise
from math import comb, factorial

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


def size_chances(semivalue, players):
    """Chances q_k of joining k others, in exact fractions from the definitions' own integrals."""
    others = players - 1
    if semivalue.name == "shapley":
        return [Fraction(1, players)] * players
    if semivalue.name == "leave_one_out":
        return [Fraction(int(size == others)) for size in range(players)]
    if semivalue.name == "banzhaf":
        return [Fraction(comb(others, size), 2**others) for size in range(players)]
    alpha, beta = int(semivalue.alpha), int(semivalue.beta)  # whole numbers in tests

    def integral(first, second):  # of t^(first-1) (1-t)^(second-1) over 0..1
        return Fraction(factorial(first - 1) * factorial(second - 1), factorial(first + second - 1))

    return [
        comb(others, size) * integral(size + beta, others - size + alpha) / integral(alpha, beta)
        for size in range(players)
    ]


def enumerated(game, players, semivalue):
    """Exact semi-values by a plain loop over players and the subsets of the others."""
    chances = size_chances(semivalue, players)
    values = np.zeros(players)
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for size in range(players):
            for members in combinations(others, size):
                both = torch.zeros(2, players, dtype=torch.int64)
                both[:, list(members)] = 1
                both[1, player] = 1
                before, after = game(both).double().tolist()
                chance = chances[size] / comb(players - 1, size)
                values[player] += float(chance) * (after - before)
    return values
