"""Samplers for semi-values: they draw subsets and return independent estimates of the values.

A sampler draws in rounds and stores *independent estimates* [estimates, points]: their mean is the
value, and their spread gives its standard error. Let q_k be the probability that the semi-value
gives to size k (semivalues.py), N the number of points and v the utility.

    permutation   random orders. The gain of v when a point joins the k points before it is weighted
                  by N q_k (Castro, Gómez and Tejada 2009)
    antithetic    each order together with its reverse (Mitchell et al. 2022): a point that is early
                  in one order is late in the other
    stratified    antithetic, with extra sampling of small subsets: a model of five points changes
                  much with the sixth, one of 200 hardly with the next. The first `small` positions
                  have most of the variance (spam, 300 points: ten positions, 82%; iris, 67 points:
                  ten, 99.8%). They are sampled with short orders, which together contain every
                  point once and cost as many evaluations as a long order
    gains         gains of all rows from the model of each subset (gain_sampling.py)
    regression    random subsets, each used for all points, less a fit (regression_sampling.py)
    two_level     regression of a quick approximation, and of its error (two_level_sampling.py)
    direct        for leave-one-out: the models without each row by one expansion (direct_removals.py)
    one_by_one    for leave-one-out: one model without each row
    reuse         for Banzhaf: subsets that contain each point with probability 1/2. A value is the
                  mean of v with the point minus the mean without it, so each evaluation is used for
                  all points ("maximum sample reuse", Wang and Jia 2023)

Positions with a probability below 1e-16 are not evaluated, since they add nothing in double
precision.

*Failed models.* A subset whose model failed has no utility (nan), and the two gains that need it are
undefined. They are excluded, and the point's other gains are scaled up by the lost probability. A
point that lost more than a fifth of it gets no estimate (nan).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.refits.retraining import Progress

# Bytes of float64 weights in a call to the utility.
WEIGHT_BYTES = 16 * 2**20
LEAST_PROBABILITY = 1e-16
ORDER_BYTES = 100  # of each position of a long order, as measured
KEPT_ROWS = 2048  # groups of subsets whose sums the sampler `reuse` keeps
REUSE_BYTES = 60  # of each of these groups and points, as measured
MOST_LOST = 0.2  # largest share of a point's probability that failed models may lose
# A model changes most with its first ten or so rows, whatever the total number.
FEWEST_POSITIONS = 10

Utility = Callable[[Num[Tensor, "subsets points"]], Float[Tensor, " subsets"]]
SamplerName = Literal[
    "auto", "stratified", "antithetic", "permutation", "reuse", "regression", "two_level", "gains",
    "direct", "one_by_one",
]  # fmt: skip


class UndefinedUtility(InvalidInput):
    """Too many subsets have no utility, because their models failed."""


class Game:
    """A utility that counts its evaluations and failures, and reports progress.

    Args:
        utility: maps 0/1 weights [subsets, points] to a number per subset.
        points: number of players.
        total: number of evaluations in the budget.
        progress: called with (evaluations done, total, "values").
    """

    def __init__(self, utility: Utility, *, points: int, total: int, progress: Progress) -> None:
        self.utility = utility
        self.points = points
        self.total = total
        self.progress = progress
        self.done = 0
        self.failed = 0

    def __call__(
        self, count: int, weights_of: Callable[[Int[Tensor, " rows"]], Tensor]
    ) -> Float[Tensor, " count"]:
        """Return the utilities of subsets 0..count-1, evaluated in blocks; nan if undefined."""
        utilities = torch.empty(count, dtype=torch.float64)
        block = max(1, WEIGHT_BYTES // (8 * self.points))
        for start in range(0, count, block):
            rows = torch.arange(start, min(start + block, count))
            block_utilities = self.utility(weights_of(rows).to(torch.uint8)).to(torch.float64)
            undefined = ~torch.isfinite(block_utilities)
            self.failed += int(undefined.sum())
            utilities[rows] = block_utilities.masked_fill(undefined, torch.nan)
            self.done += len(rows)
            self.progress(self.done, self.total, "values")
        return utilities

    def count(self, evaluations: int) -> None:
        """Record evaluations that were made elsewhere."""
        self.done += evaluations
        self.progress(self.done, self.total, "values")

    def ends(self) -> Float[Tensor, " 2"]:
        """Return the utilities of the empty subset and of all points.

        Raises:
            UndefinedUtility: one of them is undefined.
        """
        ends = self(2, lambda rows: rows[:, None].expand(-1, self.points))
        self.require(ends, "no point or of all of them")
        return ends

    def require(self, utilities: Tensor, whose: str) -> None:
        """Raise UndefinedUtility if one of the utilities is undefined."""
        missing = int(utilities.isnan().sum())
        if missing:
            raise UndefinedUtility(
                f"{missing} of {len(utilities)} models of {whose} failed and have no score; let "
                "training converge (scale the features, targets.C, targets.tolerance), or refine"
            )


class Sampler(ABC):
    """Draws subsets in rounds and stores the estimates."""

    orders_a_round: int

    @abstractmethod
    def evaluations(self, rounds: int) -> int:
        """Return the number of evaluations of this many rounds."""

    @abstractmethod
    def memory(self, rounds: int) -> int:
        """Bytes that drawing so many rounds at once takes, as measured."""

    @abstractmethod
    def draw(self, rounds: int, game: Game) -> None:
        """Draw this many additional rounds."""

    @abstractmethod
    def estimates(self) -> Vector:
        """Return independent estimates [estimates, points] from all rounds; their mean is the value.

        A point that lost too many gains to failed models is nan.
        """


def make_sampler(
    name: SamplerName,
    *,
    size_probabilities: Vector,
    ends: Float[Tensor, " 2"],
    small: float | None,
    generator: np.random.Generator,
) -> Sampler:
    """Return a sampler for a semi-value with these probabilities of sizes 0..points-1.

    `small` is the share of positions that are sampled with short orders. The default is a twentieth,
    at least ten positions, and at most a third of all.
    """
    points = len(size_probabilities)
    if name == "reuse":
        return _Reuse(points, generator)
    width = _short_width(small, points=points) if name == "stratified" else 0
    paired = name != "permutation"
    return _Orders(size_probabilities, ends, width=width, paired=paired, generator=generator)


def _short_width(small: float | None, *, points: int) -> int:
    """Number of first positions that are sampled with short orders."""
    if small is not None:
        return int(small * points)
    return min(max(points // 20, FEWEST_POSITIONS), points // 3)


@final
class _Reuse(Sampler):
    """Random subsets, each used for all points; a round has as many evaluations as a long order.

    Sums over groups of subsets are kept, at most about `KEPT_ROWS` groups a call of `draw`, so that
    memory does not grow with the number of subsets. Up to that number each subset is a group.
    """

    orders_a_round = 1

    def __init__(self, points: int, generator: np.random.Generator) -> None:
        self.points = points
        self.generator = generator
        self.groups: list[_Sums] = []
        self.lost = 0

    def evaluations(self, rounds: int) -> int:
        return rounds * self.points

    def memory(self, rounds: int) -> int:
        groups = min(rounds * self.points, 2 * KEPT_ROWS)
        return (REUSE_BYTES * groups + 20 * self._at_once(rounds)) * self.points

    def draw(self, rounds: int, game: Game) -> None:
        count, block = rounds * self.points, self._at_once(rounds)
        together = max(1, block // max(1, block * KEPT_ROWS // count))
        for start in range(0, count, block):
            bits = self.generator.integers(0, 2, size=(min(block, count - start), self.points))
            members = torch.from_numpy(bits.astype(bool))
            utilities = game(len(members), lambda rows, members=members: members[rows])
            defined = ~utilities.isnan()
            self.lost += int((~defined).sum())
            parts = (members[defined].split(together), utilities[defined].split(together))
            self.groups += [_Sums.of(*each) for each in zip(*parts, strict=True)]

    def estimates(self) -> Vector:
        """Return rows whose mean is exactly mean_in - mean_out and whose variance is Welch's.

        For each point, a subset with it gives  difference + (v - mean_in) n / n_in,  a subset
        without it  difference - (v - mean_out) n / n_out. A group gives the mean of its subsets.
        """
        sizes = np.array([each.subsets for each in self.groups])[:, None]
        counts = np.stack([each.count.numpy() for each in self.groups]).astype(np.float64)
        inside = np.stack([each.inside.numpy() for each in self.groups])
        all_of = np.array([each.total for each in self.groups])[:, None]
        total, count = int(sizes.sum()), counts.sum(axis=0)
        if self.lost > MOST_LOST * (self.lost + total):
            return np.full((1, self.points), np.nan)
        if not ((count > 0) & (count < total)).all():
            raise InvalidInput(
                f"in {total} random subsets some point is always or never present; set more "
                "permutations"
            )
        with_it = inside.sum(axis=0) / count
        without = (all_of - inside).sum(axis=0) / (total - count)
        rows = (inside - counts * with_it) * (total / count)
        rows -= (all_of - inside - (sizes - counts) * without) * (total / (total - count))
        # Groups of unequal sizes: the mean over groups stays exactly the difference.
        return rows * (len(sizes) / total) + (with_it - without)

    def _at_once(self, rounds: int) -> int:
        return min(rounds * self.points, max(1, WEIGHT_BYTES // self.points))


@dataclass(frozen=True)
class _Sums:
    """Sums over some subsets: their number, and for each point those with it and their utilities."""

    subsets: int
    count: Int[Tensor, " points"]
    inside: Float[Tensor, " points"]
    total: float

    @staticmethod
    def of(members: Tensor, utilities: Tensor) -> "_Sums":
        """The sums of these subsets."""
        if len(members) == 1:  # a product would round otherwise
            inside = torch.where(members[0], utilities[0], 0.0)
        else:
            inside = utilities @ members.double()
        return _Sums(len(members), members.sum(dim=0), inside, float(utilities.sum()))


@dataclass(frozen=True)
class _PlayerOrders:
    """Long or short orders of players; if paired, the second half are the reverses.

    Attributes:
        positions: [orders, points], position of each player; `points` if the order lacks the player.
        counted_in: [rounds, points], the order in which a player's gain is counted.
    """

    positions: Int[Tensor, "orders points"]
    counted_in: Int[Tensor, "rounds points"]


@final
class _Orders(Sampler):
    """Random orders. If paired, a round is an order and its reverse; if width > 0, also short orders.

    Args:
        size_probabilities: [points], q_k of size k.
        ends: utilities of the empty subset and of all points.
        width: number of positions that are sampled with short orders.
        paired: whether every order is used with its reverse.
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
    ) -> None:
        self.points = len(size_probabilities)
        self.size_probabilities = torch.from_numpy(size_probabilities)
        self.ends = ends
        self.paired = paired
        self.orders_a_round = 2 if paired else 1
        # Two generators, so that additional rounds do not change the earlier orders.
        self.for_long, self.for_short = generator.spawn(2)
        self.long = _possible(size_probabilities, range(width, self.points))
        self.short = _possible(size_probabilities, range(width))
        self.width = width if len(self.short) else 0
        self.rows: list[Tensor] = []
        self.drawn, self.lost = torch.zeros(2, self.points, dtype=torch.float64)

    def evaluations(self, rounds: int) -> int:
        orders = rounds * self.orders_a_round
        windows = -(-self.points // self.width) if self.width else 0
        return orders * (
            len(_inner(self.long, self.points)) + windows * len(_inner(self.short, self.points))
        )

    def memory(self, rounds: int) -> int:
        windows = -(-self.points // self.width) if self.width else 0
        return (ORDER_BYTES + 14 * windows) * rounds * self.orders_a_round * self.points

    def draw(self, rounds: int, game: Game) -> None:
        long = long_orders(self.points, rounds, paired=self.paired, generator=self.for_long)
        gains = self._gains(game, long, self.long, scale=self.points)
        if self.width:
            short = short_orders(self.points, self.width, rounds, generator=self.for_short)
            gains += self._gains(game, short, self.short, scale=self.width)
        self.rows.append(gains.unflatten(0, (self.orders_a_round, -1)).mean(dim=0))

    def estimates(self) -> Vector:
        remaining = 1 - self.lost / self.drawn.clamp(min=LEAST_PROBABILITY)
        scale = torch.where(remaining < 1 - MOST_LOST, torch.nan, remaining)
        return (torch.cat(self.rows) / scale).numpy()

    def _gains(
        self, game: Game, orders: _PlayerOrders, positions: range, *, scale: int
    ) -> Float[Tensor, "rounds points"]:
        """Gain of each player in its order, times the scaled q_k; 0 outside the given positions.

        A gain that needs a failed model is 0, and its probability is added to `lost`.
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
        self.drawn += drawn.sum(dim=0)
        self.lost += (drawn * missing).sum(dim=0)
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
) -> _PlayerOrders:
    """Return orders of all players, in which all gains are counted; the reverses follow."""
    forward = np.stack([generator.permutation(points) for _ in range(rounds)])
    both = np.concatenate([forward, points - 1 - forward]) if paired else forward
    positions = torch.from_numpy(both)
    return _PlayerOrders(positions, torch.arange(len(positions))[:, None].expand(-1, points))


def short_orders(
    points: int, width: int, rounds: int, *, generator: np.random.Generator
) -> _PlayerOrders:
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
    return _PlayerOrders(torch.from_numpy(positions.reshape(-1, points)), torch.from_numpy(both))
