"""Estimates semi-values of the players of any game: Shapley, Banzhaf, beta-Shapley, leave-one-out.

The semi-value of point i is the mean gain of the utility v when i joins a random subset of the
others, whose size k has the probability q_k (Dubey, Neyman and Weber 1981):

    value_i = Σ_k q_k  E_{S without i, |S| = k} [ v(S + i) - v(S) ]

    shapley          q_k = 1 / N                                    (Shapley 1953)
    banzhaf          q_k = (N-1 choose k) / 2^(N-1)                 (Banzhaf 1965; Wang and Jia 2023)
    beta_shapley     q_k = (N-1 choose k) B(k + beta, N-1-k + alpha) / B(alpha, beta)
                     (Kwon and Zou 2022): (1, 1) is Shapley; a larger alpha favours small subsets
    leave_one_out    q_{N-1} = 1

Leave-one-out is exact with N + 1 evaluations, or has bounds with one expansion (direct_removals.py). The
others are sampled (sampling.py) or, for up to 16 points, enumerated.

*Efficiency.* Shapley values add up to v(all) - v(none). The difference of the sampled sum from this
is distributed over the points in proportion to their squared standard errors.

*Stopping.* The mean of n independent estimates has the standard errors s_i = spread / √n. With V
the variance of the values over points,

    reliability = 1 - mean(s_i²) / V

is the expected correlation with a second, independent estimate of the same length. Sampling stops
at the first check that meets all stopping rules (largest s_i at most `error`; reliability at least
`reliability`), or when the budget is used. Checks are made after 10 rounds and then whenever the
number of rounds has grown by a quarter; few checks limit the bias of stopping at a lucky one. The
estimates are the same as those of a budget of that length.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import betaln, gammaln

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.refits.retraining import Progress, silent
from modelpred.studies.sampler_choice import chosen
from modelpred.studies.samplers import Sampling, planned, removals_of
from modelpred.studies.sampling import Game, SamplerName, UndefinedUtility, Utility

SemivalueName = Literal["shapley", "banzhaf", "beta_shapley", "leave_one_out"]
ENUMERABLE = 16
FIRST_CHECK = 10


class Semivalue(BaseModel):
    """Which semi-value to estimate; alpha and beta are used only by `beta_shapley`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SemivalueName = "shapley"
    alpha: float = Field(default=4.0, gt=0)
    beta: float = Field(default=1.0, gt=0)

    def size_probabilities(self, points: int) -> Vector:
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
class StoppingRule:
    """When sampling may stop before the budget is used; None: no such rule.

    Attributes:
        error: largest standard error of any point.
        reliability: expected correlation with a second estimate.
    """

    error: float | None = None
    reliability: float | None = None

    @property
    def is_active(self) -> bool:
        """Whether there is any rule."""
        return self.error is not None or self.reliability is not None

    def is_met(self, values: "Values") -> bool:
        """Whether all rules are met."""
        precise = self.error is None or float(values.standard_errors.max()) <= self.error
        reliable = self.reliability is None or values.reliability >= self.reliability
        return precise and reliable


@dataclass(frozen=True)
class Values:
    """Values with their uncertainty.

    Attributes:
        values: [points].
        standard_errors: [points]; 0 if nothing was sampled, nan from a single estimate.
        estimates: [estimates, points], independent and unbiased.
        evaluations: number of subsets whose utility was evaluated.
        failed: number of these with an undefined utility, because their models failed.
        sampler: how subsets were drawn; None if they were not.
        bounds: [points], the largest distance of each value from that of exact retraining; None if
            it is unknown.
    """

    values: Vector
    standard_errors: Vector
    estimates: Vector
    evaluations: int
    failed: int = 0
    sampler: SamplerName | None = None
    bounds: Vector | None = None

    @cached_property
    def reliability(self) -> float:
        """Expected correlation with a second, independent estimate; nan if it is unknown."""
        spread = float(self.values.var())
        noise = float(np.mean(self.standard_errors**2))
        if noise == 0:
            return 1.0
        return 1 - noise / spread if spread > 0 else float("nan")

    @property
    def halves(self) -> tuple[Vector, Vector]:
        """Two independent estimates from half of the rows each; a single row is used for both."""
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
    rows: int | None = None,
    small: float | None = None,
    stopping: StoppingRule | None = None,
    progress: Progress = silent,
) -> Values:
    """Return the semi-values of any game by sampling.

    Args:
        utility: the game; maps 0/1 weights [subsets, points] to a number per subset.
        points: number of players.
        permutations: the budget in random permutations, with about one evaluation per point each; an
            even number except for the sampler `permutation`. The sampler `stratified` uses twice as
            many evaluations, for short permutations.
        generator: draws the subsets.
        semivalue: default Shapley.
        sampler: how subsets are drawn, see sampling.py and gain_sampling.py; `reuse` only for Banzhaf,
            `auto` see sampler_choice.py.
        rows: number of training rows, if the players are groups of them; `auto` depends on it.
        small: share of positions that short permutations sample, see `Sampling`.
        stopping: when to stop before the budget is used.
        progress: called with (evaluations done, total, "values").

    Raises:
        InvalidInput: an invalid budget, or a sampler that the semi-value cannot use.
        UndefinedUtility: the utility of the empty subset, of all points, or of too many other
            subsets is undefined.
    """
    kind = semivalue or Semivalue()
    rule = stopping or StoppingRule()
    if kind.name == "leave_one_out":
        return leave_one_out_values(utility, points=points, sampler=sampler, progress=progress)
    if sampler == "reuse" and kind.name != "banzhaf":
        raise InvalidInput(
            f"the sampler reuse is for banzhaf, not for {kind.name}; use stratified, antithetic or "
            "permutation"
        )
    game = Game(utility, points=points, total=0, progress=silent)
    ends = game.ends()
    sampling = Sampling(kind.size_probabilities(points), ends, small)
    if sampler == "auto":
        plan = chosen(
            utility, game, sampling, permutations=permutations, rows=rows or points,
            reuse=kind.name == "banzhaf", at_once=not rule.is_active, generator=generator,
        )  # fmt: skip
    else:
        plan = planned(
            sampler, utility, sampling,
            permutations=permutations, rows=rows or points, generator=generator,
        )  # fmt: skip
    source, rounds = plan.sampler, plan.rounds
    game.total, game.progress = game.done + source.evaluations(rounds), progress
    total = float(ends[1] - ends[0]) if kind.name == "shapley" else None
    drawn = 0
    while drawn < rounds:
        more = max(FIRST_CHECK, drawn // 4) if rule.is_active else rounds
        more = min(more, rounds - drawn)
        plan.draw(more, game)
        drawn += more
        if rule.is_active and rule.is_met(_summarised(source.estimates(), total, game)):
            break
    found = _summarised(source.estimates(), total, game)
    return replace(found, sampler=plan.name)


def leave_one_out_values(
    utility: Utility,
    *,
    points: int,
    sampler: SamplerName = "one_by_one",
    progress: Progress = silent,
) -> Values:
    """Return v(all) - v(all but i) for every point, from points + 1 evaluations.

    The sampler `direct`, and `auto` for many rows, take answers from one expansion, which have bounds.
    """
    game = Game(utility, points=points, total=points + 1, progress=progress)
    if (removals := removals_of(utility, sampler, points=points)) is not None:
        game.total = 1 + removals.retrained
        game.count(game.total)
        game.require(removals.without, "all but one of the points")
        values = (removals.without - removals.whole).numpy()
        bounds = removals.bounds.numpy()
        return replace(_exact(values, game), sampler="direct", bounds=bounds)
    utilities = game(points + 1, lambda rows: rows[:, None] != torch.arange(points))
    game.require(utilities, "all points or of all but one")
    return _exact((utilities[-1] - utilities[:-1]).numpy(), game)


def enumerate_values(
    utility: Utility,
    *,
    points: int,
    semivalue: Semivalue | None = None,
    progress: Progress = silent,
) -> Values:
    """Return the exact semi-values of a game of up to 16 points from all its 2^points subsets.

    Raises:
        InvalidInput: there are more than 16 points.
        UndefinedUtility: the utility of a subset is undefined.
    """
    if points > ENUMERABLE:
        raise InvalidInput(
            f"{points} points have 2^{points} subsets; expected at most {ENUMERABLE} points, so "
            "estimate the values instead"
        )
    game = Game(utility, points=points, total=2**points, progress=progress)
    members = torch.arange(points)
    evaluated = game(2**points, lambda rows: (rows[:, None] >> members) & 1)
    game.require(evaluated, "all subsets")
    utilities = evaluated.numpy()
    numbers = np.arange(2**points)
    sizes = np.bitwise_count(numbers)
    # A subset of k others is one of (points - 1 choose k).
    others = np.arange(points)
    choices = gammaln(points) - gammaln(others + 1) - gammaln(points - others)
    probability = (semivalue or Semivalue()).size_probabilities(points) / np.exp(choices)
    values = np.empty(points)
    for point in range(points):
        without = numbers[(numbers >> point) & 1 == 0]
        gains = utilities[without + 2**point] - utilities[without]
        values[point] = gains @ probability[sizes[without]]
    return _exact(values, game)


def _exact(values: Vector, game: Game) -> Values:
    return Values(values, np.zeros(len(values)), values[None], game.done)


def _summarised(estimates: Vector, total: float | None, game: Game) -> Values:
    """Means and standard errors; with a total, the values are corrected to add up to it."""
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
