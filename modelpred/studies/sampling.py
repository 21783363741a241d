"""How semi-values are sampled: which subsets are asked for, and what one draw says of each point.

A sampler draws in rounds and keeps *independent estimates* [estimates, points]: rows whose mean is
the value and whose spread gives its standard error. With q_k the chance that a semi-value gives to
joining k others (semivalues.py), N points and v the utility:

    permutation   random orders; a point at place k of an order counts N q_k times what v gains when
                  it joins those before it (Castro, Gómez and Tejada 2009)
    antithetic    each order together with its reverse (Mitchell et al. 2022): a point that joins
                  early in one joins late in the other
    stratified    antithetic, and small subsets apart: a model of five points changes much with the
                  sixth, one of 200 hardly with the next. The first `small` of all places hold most
                  of the variance (spam, 300 points: ten places, 82%; iris, 67 points: ten, 99.8%),
                  so they get short orders of their own, which together visit every point once for
                  as many evaluations as a long one
    reuse         for Banzhaf: subsets that hold each point with chance 1/2; a value is the mean of
                  v with the point minus that without, so that each evaluation serves all points
                  ("maximum sample reuse", Wang and Jia 2023)

Places of a chance below 1e-16 are not asked for: in double precision they add nothing.

*Failed models.* A subset whose model failed has no utility (nan), and neither have the two gains
that need it. Left out, a point's other gains count so much more that the chances of all that were
drawn are made up for. Of a point that lost more than a fifth of them no estimate is given (nan).
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

# Weights formed at once, in float64; a call to the refit answers so many subsets.
WEIGHT_BYTES = 16 * 2**20
NO_CHANCE = 1e-16
MOST_LOST = 0.2  # share of a point's chances up to which what is left stands for what was lost
# It is the first ten or so rows that a model changes most with, however many there are in all.
FEWEST_PLACES = 10

Utility = Callable[[Num[Tensor, "subsets points"]], Float[Tensor, " subsets"]]
SamplerName = Literal["stratified", "antithetic", "permutation", "reuse"]


class UndefinedUtility(InvalidInput):
    """Too many subsets have no utility, because their models failed."""


class Game:
    """A utility that counts its evaluations and failures, and tells the progress.

    Args:
        utility: from 0/1 weights [subsets, points] to a number per subset.
        points: its players.
        total: evaluations that the budget allows.
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
        """Return the utilities of subsets 0..count-1, thousands at a time; nan where there is none."""
        worths = torch.empty(count, dtype=torch.float64)
        block = max(1, WEIGHT_BYTES // (8 * self.points))
        for start in range(0, count, block):
            rows = torch.arange(start, min(start + block, count))
            found = self.utility(weights_of(rows).to(torch.uint8)).to(torch.float64)
            undefined = ~torch.isfinite(found)
            self.failed += int(undefined.sum())
            worths[rows] = found.masked_fill(undefined, torch.nan)
            self.done += len(rows)
            self.progress(self.done, self.total, "values")
        return worths

    def ends(self) -> Float[Tensor, " 2"]:
        """Return the utilities of no point and of all; UndefinedUtility where there is none."""
        ends = self(2, lambda rows: rows[:, None].expand(-1, self.points))
        self.require(ends, "no point or of all of them")
        return ends

    def require(self, worths: Tensor, whose: str) -> None:
        """Raise UndefinedUtility if one of the worths is none."""
        missing = int(worths.isnan().sum())
        if missing:
            raise UndefinedUtility(
                f"{missing} of {len(worths)} models of {whose} failed and have no score; let "
                "training converge (scale the features, targets.C, targets.tolerance), or refine"
            )


class Sampler(ABC):
    """Draws subsets in rounds and keeps what they said."""

    orders_a_round: int

    @abstractmethod
    def evaluations(self, rounds: int) -> int:
        """How many evaluations so many rounds cost."""

    @abstractmethod
    def draw(self, rounds: int, game: Game) -> None:
        """Draw so many more rounds."""

    @abstractmethod
    def estimates(self) -> Vector:
        """Independent estimates [estimates, points] of all rounds so far; their mean is the value.

        nan for a point that lost too many of its gains to failed models.
        """


def make_sampler(
    name: SamplerName,
    *,
    chances: Vector,
    ends: Float[Tensor, " 2"],
    small: float | None,
    generator: np.random.Generator,
) -> Sampler:
    """Return a sampler for a semi-value with these chances of sizes 0..points-1.

    `small` is the share of the places with short orders of their own; None is a twentieth, but ten
    places at least, as far as that is no more than a third of all.
    """
    if name == "reuse":
        return _Reuse(len(chances), generator)
    width = _own_places(small, points=len(chances)) if name == "stratified" else 0
    return _Orders(chances, ends, width=width, paired=name != "permutation", generator=generator)


def _own_places(small: float | None, *, points: int) -> int:
    """How many of the first places have short orders of their own."""
    if small is not None:
        return int(small * points)
    return min(max(points // 20, FEWEST_PLACES), points // 3)


@final
class _Reuse(Sampler):
    """Subsets that serve all points; a round is as many evaluations as a long order has."""

    orders_a_round = 1

    def __init__(self, points: int, generator: np.random.Generator) -> None:
        self.points = points
        self.generator = generator
        self.members: list[Tensor] = []
        self.worths: list[Tensor] = []
        self.lost = 0

    def evaluations(self, rounds: int) -> int:
        return rounds * self.points

    def draw(self, rounds: int, game: Game) -> None:
        bits = self.generator.integers(0, 2, size=(rounds * self.points, self.points))
        members = torch.from_numpy(bits.astype(bool))
        worths = game(len(members), lambda rows: members[rows])
        known = ~worths.isnan()
        self.lost += int((~known).sum())
        self.members.append(members[known])
        self.worths.append(worths[known])

    def estimates(self) -> Vector:
        """Rows whose mean is exactly mean_in - mean_out and whose variance is that of Welch.

        For each point, a subset with it says  difference + (v - mean_in) n / n_in,  one without
        difference - (v - mean_out) n / n_out.
        """
        inside = torch.cat(self.members).double().numpy()
        worths = torch.cat(self.worths).numpy()[:, None]
        count = inside.sum(axis=0)
        if self.lost > MOST_LOST * (self.lost + len(inside)):
            return np.full((1, self.points), np.nan)
        if not ((count > 0) & (count < len(inside))).all():
            raise InvalidInput(
                f"{len(inside)} random subsets hold some point always or never; ask for more "
                "permutations"
            )
        with_it = (inside * worths).sum(axis=0) / count
        without = ((1 - inside) * worths).sum(axis=0) / (len(inside) - count)
        said = (worths - with_it) * inside * (len(inside) / count)
        said -= (worths - without) * (1 - inside) * (len(inside) / (len(inside) - count))
        return said + (with_it - without)


@dataclass(frozen=True)
class _Joining:
    """Orders of players, long or short; with pairs, the second half are the reverses.

    Attributes:
        places: [orders, points], when each player joins; `points` if he never does.
        home: [rounds, points], in which order a player's gain counts.
    """

    places: Int[Tensor, "orders points"]
    home: Int[Tensor, "rounds points"]


@final
class _Orders(Sampler):
    """Random orders; with pairs a round is an order and its reverse, with a width short ones, too.

    Args:
        chances: [points], q_k of joining k others.
        ends: utilities of no point and of all.
        width: how many places have short orders of their own.
        paired: whether every order comes with its reverse.
        generator: draws the orders.
    """

    def __init__(
        self,
        chances: Vector,
        ends: Float[Tensor, " 2"],
        *,
        width: int,
        paired: bool,
        generator: np.random.Generator,
    ) -> None:
        self.points = len(chances)
        self.chances = torch.from_numpy(chances)
        self.ends = ends
        self.paired = paired
        self.orders_a_round = 2 if paired else 1
        # More rounds leave the orders of earlier ones as they are.
        self.for_long, self.for_short = generator.spawn(2)
        self.long = _with_a_chance(chances, range(width, self.points))
        self.short = _with_a_chance(chances, range(width))
        self.width = width if len(self.short) else 0
        self.rows: list[Tensor] = []
        self.asked, self.lost = torch.zeros(2, self.points, dtype=torch.float64)

    def evaluations(self, rounds: int) -> int:
        orders = rounds * self.orders_a_round
        windows = -(-self.points // self.width) if self.width else 0
        return orders * (
            len(_inner(self.long, self.points)) + windows * len(_inner(self.short, self.points))
        )

    def draw(self, rounds: int, game: Game) -> None:
        long = long_orders(self.points, rounds, paired=self.paired, generator=self.for_long)
        gains = self._gains(game, long, self.long, scale=self.points)
        if self.width:
            short = short_orders(self.points, self.width, rounds, generator=self.for_short)
            gains += self._gains(game, short, self.short, scale=self.width)
        self.rows.append(gains.unflatten(0, (self.orders_a_round, -1)).mean(dim=0))

    def estimates(self) -> Vector:
        left = 1 - self.lost / self.asked.clamp(min=NO_CHANCE)
        return (torch.cat(self.rows) / torch.where(left < 1 - MOST_LOST, torch.nan, left)).numpy()

    def _gains(
        self, game: Game, orders: _Joining, places: range, *, scale: int
    ) -> Float[Tensor, "rounds points"]:
        """Scaled q_k times what each player gains by joining at home; 0 outside the given places.

        0 as well for a gain that needs a failed model; its chance is added to what was lost.
        """
        count, points = orders.places.shape
        if not len(places):
            return torch.zeros(len(orders.home), points, dtype=torch.float64)
        sizes = _inner(places, points)
        worths = game(
            count * len(sizes),
            lambda rows: (
                orders.places[rows // max(len(sizes), 1)]
                < (rows % max(len(sizes), 1) + sizes.start)[:, None]
            ),
        )
        path = worths.reshape(count, len(sizes))
        if places.start == 0:
            path = torch.cat([self.ends[:1].expand(count, 1), path], dim=1)
        if places.stop == points:
            path = torch.cat([path, self.ends[1:].expand(count, 1)], dim=1)
        chances = scale * self.chances[places.start : places.stop]
        step = orders.places.gather(0, orders.home) - places.start
        here = (step >= 0) & (step < len(places))
        step = step.clamp(0, len(places) - 1)
        gains = torch.where(here, path.diff(dim=1)[orders.home, step], 0)
        drawn = torch.where(here, chances[step], 0)
        missing = gains.isnan()
        self.asked += drawn.sum(dim=0)
        self.lost += (drawn * missing).sum(dim=0)
        return gains.masked_fill(missing, 0) * drawn


def _with_a_chance(chances: Vector, places: range) -> range:
    """The smallest range that holds all places of any chance."""
    likely = [place for place in places if chances[place] > NO_CHANCE]
    return range(likely[0], likely[-1] + 1) if likely else range(0)


def _inner(places: range, points: int) -> range:
    """Sizes to be asked for so that the gains at these places are known; not none and not all."""
    if not len(places):
        return range(0)
    return range(max(places.start, 1), min(places.stop, points - 1) + 1)


def long_orders(
    points: int, rounds: int, *, paired: bool, generator: np.random.Generator
) -> _Joining:
    """Return orders of all players, each its players' home; the reverses follow."""
    forward = np.stack([generator.permutation(points) for _ in range(rounds)])
    both = np.concatenate([forward, points - 1 - forward]) if paired else forward
    places = torch.from_numpy(both)
    return _Joining(places, torch.arange(len(places))[:, None].expand(-1, points))


def short_orders(
    points: int, width: int, rounds: int, *, generator: np.random.Generator
) -> _Joining:
    """Return rounds of `width` players at a time, each round home to every player once.

    The last order of a round is filled up with players who are at home in the first.
    """
    windows = -(-points // width)
    places = np.full((2, rounds, windows, points), points)
    home = np.empty((rounds, points), dtype=np.int64)
    for number in range(rounds):
        order = generator.permutation(points)
        home[number, order] = number * windows + np.arange(points) // width
        members = np.resize(order, (windows, width))
        members[-1] = generator.permutation(members[-1])
        steps = np.arange(width)[None]
        np.put_along_axis(places[0, number], members, steps, axis=1)
        np.put_along_axis(places[1, number], members, width - 1 - steps, axis=1)
    both = np.concatenate([home, home + rounds * windows])
    return _Joining(torch.from_numpy(places.reshape(-1, points)), torch.from_numpy(both))
