"""Samplers that draw random orders of the players: permutation, antithetic, stratified and truncated (sampling.py)."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.studies.sampling import LEAST_PROBABILITY, MOST_LOST, Game, Sampler

FINISHED = 5  # one in so many truncated orders is continued to the end
ORDER_BYTES = 100  # of each position of a long order, as measured


@dataclass(frozen=True)
class PlayerOrders:
    """Long or short orders of players; if paired, the second half are the reverses.

    Attributes:
        positions: [orders, points], position of each player; `points` if the order lacks the player.
        counted_in: [rounds, points], the order in which a player's gain is counted.
    """

    positions: Int[Tensor, "orders points"]
    counted_in: Int[Tensor, "rounds points"]


@final
class OrderSampler(Sampler):
    """Random orders. If paired, a round is an order and its reverse; if width > 0, also short orders.

    Args:
        size_probabilities: [points], q_k of size k.
        ends: utilities of the empty subset and of all points.
        width: number of positions that are sampled with short orders.
        paired: whether every order is used with its reverse.
        short_for_long: rounds of short orders for each long order.
        generator: draws the orders.
    """

    def __init__(
        self,
        size_probabilities: Vector,
        ends: Float[Tensor, " 2"],
        *,
        width: int,
        paired: bool,
        generator: np.random.Generator,
        short_for_long: int = 1,
    ) -> None:
        self.points = len(size_probabilities)
        self.size_probabilities = torch.from_numpy(size_probabilities)
        self.ends = ends
        self.paired = paired
        self.short_for_long = short_for_long
        self.orders_a_round = short_for_long * (2 if paired else 1)
        # Two generators, so that additional rounds do not change the earlier orders.
        self.for_long, self.for_short = generator.spawn(2)
        self.long = _possible(size_probabilities, range(width, self.points))
        self.short = _possible(size_probabilities, range(width))
        self.width = width if len(self.short) else 0
        self.rows: list[Tensor] = []
        self.drawn, self.lost = torch.zeros(2, self.points, dtype=torch.float64)

    def evaluations(self, rounds: int) -> int:
        """Evaluations of these rounds, without those of no player and of all players."""
        short = rounds * self.orders_a_round * self._windows * len(_inner(self.short, self.points))
        return self._long_orders(rounds) * len(_inner(self.long, self.points)) + short

    def memory(self, rounds: int) -> int:
        """Bytes of the orders and of their gains."""
        short = 14 * self._windows * rounds * self.orders_a_round
        return (ORDER_BYTES * self._long_orders(rounds) + short) * self.points

    def draw(self, rounds: int, game: Game) -> None:
        """Draw long orders and, if width > 0, short ones."""
        long = long_orders(self.points, rounds, paired=self.paired, generator=self.for_long)
        gains = self._gains(game, long, self.long, scale=self.points)
        if self.width:
            times = self.short_for_long
            short = short_orders(self.points, self.width, times * rounds, generator=self.for_short)
            early = self._gains(game, short, self.short, scale=self.width, times=times)
            gains += early.unflatten(0, (-1, times)).mean(dim=1)
        self.rows.append(gains.unflatten(0, (-1, rounds)).mean(dim=0))

    def estimates(self) -> Vector:
        """One estimate a round; gains lost to failed models are made up for by the others."""
        remaining = 1 - self.lost / self.drawn.clamp(min=LEAST_PROBABILITY)
        scale = torch.where(remaining < 1 - MOST_LOST, torch.nan, remaining)
        return (torch.cat(self.rows) / scale).numpy()

    @property
    def _windows(self) -> int:
        """Short orders that together contain every player once."""
        return -(-self.points // self.width) if self.width else 0

    def _long_orders(self, rounds: int) -> int:
        return rounds * self.orders_a_round // self.short_for_long

    def _gains(
        self, game: Game, orders: PlayerOrders, positions: range, *, scale: int, times: int = 1
    ) -> Float[Tensor, "rounds points"]:
        """Gain of each player in its order, times the scaled q_k; 0 outside the given positions.

        A value uses the mean of `times` such gains. A gain that needs a failed model is 0, and its probability is added to `lost`.
        """
        count, points = orders.positions.shape
        if not len(positions):
            return torch.zeros(len(orders.counted_in), points, dtype=torch.float64)
        sizes = _inner(positions, points)
        utilities = game(
            count * len(sizes),
            lambda rows: (
                orders.positions[rows // max(len(sizes), 1)]
                < (rows % max(len(sizes), 1) + sizes.start)[:, None]
            ),
        )
        path = utilities.reshape(count, len(sizes))
        if positions.start == 0:
            path = torch.cat([self.ends[:1].expand(count, 1), path], dim=1)
        if positions.stop == points:
            path = torch.cat([path, self.ends[1:].expand(count, 1)], dim=1)
        probabilities = scale * self.size_probabilities[positions.start : positions.stop]
        step = orders.positions.gather(0, orders.counted_in) - positions.start
        inside = (step >= 0) & (step < len(positions))
        step = step.clamp(0, len(positions) - 1)
        gains = torch.where(inside, path.diff(dim=1)[orders.counted_in, step], 0)
        drawn = torch.where(inside, probabilities[step], 0)
        missing = gains.isnan()
        self.drawn += drawn.sum(dim=0) / times
        self.lost += (drawn * missing).sum(dim=0) / times
        return gains.masked_fill(missing, 0) * drawn


def _possible(size_probabilities: Vector, positions: range) -> range:
    """The smallest range with all positions of a probability above LEAST_PROBABILITY."""
    possible = [at for at in positions if size_probabilities[at] > LEAST_PROBABILITY]
    return range(possible[0], possible[-1] + 1) if possible else range(0)


def _inner(positions: range, points: int) -> range:
    """Sizes to evaluate for the gains at these positions, without the empty subset and all points."""
    if not len(positions):
        return range(0)
    return range(max(positions.start, 1), min(positions.stop, points - 1) + 1)


def long_orders(
    points: int, rounds: int, *, paired: bool, generator: np.random.Generator
) -> PlayerOrders:
    """Return orders of all players, in which all gains are counted; the reverses follow."""
    forward = np.stack([generator.permutation(points) for _ in range(rounds)])
    both = np.concatenate([forward, points - 1 - forward]) if paired else forward
    positions = torch.from_numpy(both)
    return PlayerOrders(positions, torch.arange(len(positions))[:, None].expand(-1, points))


def short_orders(
    points: int, width: int, rounds: int, *, generator: np.random.Generator
) -> PlayerOrders:
    """Return rounds of orders of `width` players; each round counts every player's gain once.

    The last order of a round is filled up with players whose gain is counted in the first one.
    """
    windows = -(-points // width)
    positions = np.full((2, rounds, windows, points), points)
    counted_in = np.empty((rounds, points), dtype=np.int64)
    for number in range(rounds):
        order = generator.permutation(points)
        counted_in[number, order] = number * windows + np.arange(points) // width
        members = np.resize(order, (windows, width))
        members[-1] = generator.permutation(members[-1])
        steps = np.arange(width)[None]
        np.put_along_axis(positions[0, number], members, steps, axis=1)
        np.put_along_axis(positions[1, number], members, width - 1 - steps, axis=1)
    both = np.concatenate([counted_in, counted_in + rounds * windows])
    return PlayerOrders(torch.from_numpy(positions.reshape(-1, points)), torch.from_numpy(both))
