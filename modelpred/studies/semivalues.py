"""What is each point worth in a game? One estimator for all semi-values.

A semi-value is the mean of what the utility v gains when point i joins a random subset of the
others, whose size k has the chance q_k (Dubey, Neyman and Weber 1981):

    value_i = Σ_k q_k  E_{S without i, |S| = k} [ v(S + i) - v(S) ]

    shapley          q_k = 1 / N                                    (Shapley 1953)
    banzhaf          q_k = (N-1 choose k) / 2^(N-1)                 (Banzhaf 1965; Wang and Jia 2023)
    beta_shapley     q_k = (N-1 choose k) B(k + beta, N-1-k + alpha) / B(alpha, beta)
                     (Kwon and Zou 2022): (1, 1) is Shapley; a larger alpha favours small subsets
    leave_one_out    q_{N-1} = 1

Leave-one-out needs N + 1 evaluations and has no error. The others are sampled (sampling.py) or, for
up to 16 points, enumerated.

*Efficiency.* Shapley values add up to v(all) - v(none). What the sample misses of that sum is given
to the points in proportion to their squared standard errors.

*Stopping.* The mean of n independent estimates has the standard errors s_i = spread / √n. With V
the variance of the values over points,

    reliability = 1 - mean(s_i²) / V

is the correlation to expect with a second, independent estimate of the same length: how far the
ranking would repeat itself. Sampling ends at the first check where every demand is met (largest s_i
at most `error`; reliability at least `reliability`) or else with the budget. Checks come after 10
rounds and then every time there are a quarter more: few enough that the early luck of one of them
matters little. The estimates drawn until then are those that a budget of that length would draw.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import betaln, gammaln

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.refits.retraining import Progress, silent
from modelpred.studies.sampling import (
    Game,
    SamplerName,
    UndefinedUtility,
    Utility,
    make_sampler,
)

SemivalueName = Literal["shapley", "banzhaf", "beta_shapley", "leave_one_out"]
ENUMERABLE = 16
FIRST_CHECK = 10


class Semivalue(BaseModel):
    """Which semi-value; alpha and beta matter to `beta_shapley` alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SemivalueName = "shapley"
    alpha: float = Field(default=4.0, gt=0)
    beta: float = Field(default=1.0, gt=0)

    def chances(self, points: int) -> Vector:
        """Return q_k for k = 0..points-1; they add up to 1."""
        others = points - 1
        sizes = np.arange(points, dtype=np.float64)
        choices = gammaln(others + 1) - gammaln(sizes + 1) - gammaln(others - sizes + 1)
        if self.name == "shapley":
            return np.full(points, 1 / points)
        if self.name == "leave_one_out":
            return (sizes == others).astype(np.float64)
        if self.name == "banzhaf":
            return np.exp(choices - others * np.log(2))
        shape = betaln(sizes + self.beta, others - sizes + self.alpha)
        return np.exp(choices + shape - betaln(self.alpha, self.beta))


@dataclass(frozen=True)
class Enough:
    """When sampling may end before its budget; None makes no demand.

    Attributes:
        error: largest standard error of any point.
        reliability: correlation to expect with a second estimate.
    """

    error: float | None = None
    reliability: float | None = None

    @property
    def asked(self) -> bool:
        """Whether there is any demand."""
        return self.error is not None or self.reliability is not None

    def reached(self, values: "Values") -> bool:
        """Whether all demands are met."""
        exact = self.error is None or float(values.standard_errors.max()) <= self.error
        ranked = self.reliability is None or values.reliability >= self.reliability
        return exact and ranked


@dataclass(frozen=True)
class Values:
    """Values with what their uncertainty is made from.

    Attributes:
        values: [points].
        standard_errors: [points]; 0 where nothing was sampled, nan from a single estimate.
        estimates: [estimates, points], independent, each with the value as its expectation.
        evaluations: subsets whose utility was asked for.
        failed: how many of them have none, because their models failed.
    """

    values: Vector
    standard_errors: Vector
    estimates: Vector
    evaluations: int
    failed: int = 0

    @cached_property
    def reliability(self) -> float:
        """Correlation to expect with a second, independent estimate; nan when it is not known."""
        spread = float(self.values.var())
        noise = float(np.mean(self.standard_errors**2))
        if noise == 0:
            return 1.0
        return 1 - noise / spread if spread > 0 else float("nan")

    @property
    def halves(self) -> tuple[Vector, Vector]:
        """Two independent estimates from half of the rows each; a single row is both."""
        second = self.estimates[1::2] if len(self.estimates) > 1 else self.estimates
        return self.estimates[::2].mean(axis=0), second.mean(axis=0)


def estimate_values(
    utility: Utility,
    *,
    points: int,
    permutations: int,
    generator: np.random.Generator,
    semivalue: Semivalue | None = None,
    sampler: SamplerName = "stratified",
    small: float | None = None,
    enough: Enough | None = None,
    progress: Progress = silent,
) -> Values:
    """Return the semi-values of any game by sampling.

    Args:
        utility: the game; from 0/1 weights [subsets, points] to a number per subset.
        points: its players.
        permutations: the budget in random orders, of about one evaluation a point each; even for
            samplers of pairs. Stratified ones cost twice as much, for orders of small subsets.
        generator: draws the subsets.
        semivalue: default Shapley.
        sampler: how subsets are drawn, see sampling.py; `reuse` for Banzhaf alone.
        small: share of the places that short orders cover when stratified, see `make_sampler`.
        enough: when to stop earlier.
        progress: called with (evaluations done, in all, "values").

    Raises:
        InvalidInput: a budget or a sampler that does not fit.
        UndefinedUtility: no utility of none or of all, or of too many other subsets.
    """
    kind = semivalue or Semivalue()
    demands = enough or Enough()
    if kind.name == "leave_one_out":
        return left_out(utility, points=points, progress=progress)
    if sampler == "reuse" and kind.name != "banzhaf":
        raise InvalidInput(
            f"the sampler reuse is for banzhaf, not for {kind.name}; use stratified, antithetic or "
            "permutation"
        )
    game = Game(utility, points=points, total=0, progress=silent)
    ends = game.ends()
    source = make_sampler(
        sampler, chances=kind.chances(points), ends=ends, small=small, generator=generator
    )
    each = source.orders_a_round
    if permutations < each or permutations % each:
        raise InvalidInput(
            f"permutations is {permutations}; expected 2, 4, 6, ...: orders come in pairs, each "
            "with its reverse"
        )
    rounds = permutations // each
    game.total, game.progress = source.evaluations(rounds) + 2, progress
    total = float(ends[1] - ends[0]) if kind.name == "shapley" else None
    drawn = 0
    while True:
        more = max(FIRST_CHECK, drawn // 4) if demands.asked else rounds
        more = min(more, rounds - drawn)
        source.draw(more, game)
        drawn += more
        if drawn == rounds or demands.reached(_summarised(source.estimates(), total, game)):
            return _summarised(source.estimates(), total, game)


def left_out(utility: Utility, *, points: int, progress: Progress = silent) -> Values:
    """Return v(all) - v(all but i) for every point: exact, from points + 1 evaluations."""
    game = Game(utility, points=points, total=points + 1, progress=progress)
    worths = game(points + 1, lambda rows: rows[:, None] != torch.arange(points))
    game.require(worths, "all points or of all but one")
    return _exact((worths[-1] - worths[:-1]).numpy(), game)


def enumerate_values(
    utility: Utility,
    *,
    points: int,
    semivalue: Semivalue | None = None,
    progress: Progress = silent,
) -> Values:
    """Return the exact semi-values of a game of up to 16 points from all its 2^points subsets.

    Raises:
        InvalidInput: more points than that.
        UndefinedUtility: a subset has no utility.
    """
    if points > ENUMERABLE:
        raise InvalidInput(
            f"{points} points have 2^{points} subsets; expected at most {ENUMERABLE} points, so "
            "estimate the values instead"
        )
    game = Game(utility, points=points, total=2**points, progress=progress)
    members = torch.arange(points)
    found = game(2**points, lambda rows: (rows[:, None] >> members) & 1)
    game.require(found, "all subsets")
    worths = found.numpy()
    numbers = np.arange(2**points)
    sizes = np.bitwise_count(numbers)
    # A subset of k others is one of (points - 1 choose k).
    others = np.arange(points)
    choices = gammaln(points) - gammaln(others + 1) - gammaln(points - others)
    chance = (semivalue or Semivalue()).chances(points) / np.exp(choices)
    values = np.empty(points)
    for point in range(points):
        without = numbers[(numbers >> point) & 1 == 0]
        gains = worths[without + 2**point] - worths[without]
        values[point] = gains @ chance[sizes[without]]
    return _exact(values, game)


def _exact(values: Vector, game: Game) -> Values:
    return Values(values, np.zeros(len(values)), values[None], game.done)


def _summarised(estimates: Vector, total: float | None, game: Game) -> Values:
    """Mean and standard error; with a total, values that add up to it."""
    if not np.isfinite(estimates).all():
        raise UndefinedUtility(
            f"{game.failed} of {game.done} subsets have no score, because their models failed: too "
            "many to value the rows; let training converge (scale the features, targets.C, "
            "targets.tolerance), or refine"
        )
    values = estimates.mean(axis=0)
    if len(estimates) == 1:
        if total is not None:
            values = values + (total - values.sum()) / len(values)
        errors = np.full(len(values), np.nan)
        return Values(values, errors, estimates, game.done, game.failed)
    variance = estimates.var(axis=0, ddof=1) / len(estimates)
    if total is not None and variance.sum() > 0:
        values = values + (total - values.sum()) * variance / variance.sum()
    return Values(values, np.sqrt(variance), estimates, game.done, game.failed)
