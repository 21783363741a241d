"""Sampler `gains`: semi-values from gains of all rows by the model of each random subset.

A subset S of size m gives every row one draw of its gain: v(S + i) - v(S) at size m for rows outside,
v(S) - v(S - i) at size m - 1 for rows inside (row_gains.py). With p_m the probability that a subset
has the size m, a row's draw is of size k with the probability

    P_k = p_k (1 - k/N) + p_{k+1} (k+1)/N

and the mean of q_k / P_k times its gain is the semi-value. Gains shrink about as 1/k and so does
their spread, hence p_m is proportional to q / (m + 5). Sizes are drawn systematically: each round
has one from every equal part of the distribution. Subsets come in antithetic pairs: one is the begin
of a random order, the other the end of it.

A round is an unbiased estimate up to the expansions of row_gains.py.
"""

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.studies.sampling import LEAST_PROBABILITY, MOST_LOST, Game, Sampler

ROUND = 16  # subsets
Gains = Callable[[Tensor], Tensor]
"""Maps 0/1 weights [subsets, points] to the gain of each row; nan if it is undefined."""

FADED = 5  # rows from which gains shrink as 1 / rows


@final
class GainSampler(Sampler):
    """Random subsets whose models give a gain of every row.

    Args:
        size_probabilities: [points], q_k.
        gains: computes gains of all rows.
        cost: of them by one model, in evaluations.
        generator: draws subsets.
    """

    orders_a_round = 1

    def __init__(
        self,
        size_probabilities: Vector,
        gains: Gains,
        *,
        generator: np.random.Generator,
        cost: int = 1,
    ) -> None:
        self.points = len(size_probabilities)
        self.gains, self.generator, self.cost = gains, generator, cost
        self.size_probabilities = size_probabilities
        self.drawn = _size_distribution(size_probabilities)
        sizes = np.arange(self.points)
        outside = self.drawn[:-1] * (1 - sizes / self.points)
        inside = self.drawn[1:] * (sizes + 1) / self.points
        chance = outside + inside
        self.factors = torch.from_numpy(
            np.where(chance > 0, size_probabilities / np.where(chance > 0, chance, 1), 0)
        )
        self.rows: list[Tensor] = []
        self.given, self.lost = torch.zeros(2, self.points, dtype=torch.float64)

    def evaluations(self, rounds: int) -> int:
        """Return the number of models of this many rounds."""
        return rounds * ROUND

    def memory(self, rounds: int) -> int:
        """Bytes that drawing so many rounds at once takes."""
        return (8 * rounds + 40 * ROUND) * self.points

    def draw(self, rounds: int, game: Game) -> None:
        """Draw this many additional rounds; the game counts them."""
        for _ in range(rounds):
            sizes = self._sizes()
            weights = self._subsets(sizes)
            self.rows.append(self._round(self.gains(weights), weights, sizes))
            game.count(ROUND)

    def estimates(self) -> Vector:
        """Return the estimate of each round [rounds, points]."""
        remaining = 1 - self.lost / self.given.clamp(min=LEAST_PROBABILITY)
        scale = torch.where(remaining < 1 - MOST_LOST, torch.nan, remaining)
        return (torch.stack(self.rows) / scale).numpy()

    def _sizes(self) -> list[int]:
        places = (np.arange(ROUND) + self.generator.random()) / ROUND
        sizes = np.searchsorted(np.cumsum(self.drawn), places, side="right")
        return np.minimum(sizes, self.points).tolist()

    def _subsets(self, sizes: list[int]) -> Tensor:
        weights = torch.zeros(len(sizes), self.points, dtype=torch.uint8)
        for pair in range(0, len(sizes), 2):
            order = torch.from_numpy(self.generator.permutation(self.points))
            weights[pair, order[: sizes[pair]]] = 1
            weights[pair + 1, order[self.points - sizes[pair + 1] :]] = 1
        return weights

    def _round(self, gains: Tensor, weights: Tensor, sizes: list[int]) -> Tensor:
        """The round's estimate [points]; a gain that failed is 0, and its share is added to `lost`."""
        total = torch.zeros(self.points, dtype=torch.float64)
        for gain, members, size in zip(gains, weights > 0, sizes, strict=True):
            own = self.factors[size] if size < self.points else 0.0
            before = self.factors[size - 1] if size else 0.0
            factor = torch.where(members, before, own) / len(sizes)
            missing = gain.isnan()
            self.given += factor
            self.lost += factor * missing
            total += factor * gain.masked_fill(missing, 0)
        return total


def _size_distribution(size_probabilities: Vector) -> Vector:
    """p_m for m = 0..points."""
    sizes = np.arange(len(size_probabilities) + 1)
    both = np.append(size_probabilities, 0.0)
    both[1:] += size_probabilities
    wanted = both / (sizes + FADED)
    return wanted / wanted.sum()
