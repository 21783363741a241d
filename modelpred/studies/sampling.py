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
    truncated     stratified, but only one in `FINISHED` orders is continued after the first positions.
                  Its later gains count `FINISHED` times, so truncation adds no bias (order_sampling.py)
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
from typing import Literal

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.refits.retraining import Progress

# Bytes of float64 weights in a call to the utility.
WEIGHT_BYTES = 16 * 2**20
LEAST_PROBABILITY = 1e-16
MOST_LOST = 0.2  # largest share of a point's probability that failed models may lose

Utility = Callable[[Num[Tensor, "subsets points"]], Float[Tensor, " subsets"]]
SamplerName = Literal[
    "auto", "stratified", "truncated", "antithetic", "permutation", "reuse", "regression", "two_level",
    "gains", "direct", "one_by_one",
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
