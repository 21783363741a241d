"""Sampler `auto`: the one whose standard error is least for the budget.

For groups of rows it is `regression` or `two_level`, by a pilot. For up to `EXACT_UP_TO` single rows
it is `stratified` or `regression`, whose only error is that of sampling, by a pilot if the budget
allows one, and else `stratified`. For more rows, every sampler that can draw two
rounds within a tenth of the budget takes part in the pilot: each draws about a twentieth of its rounds,
and the one with the least mean squared standard error x cost goes on. Costs are counted in evaluations
of the utility, not in seconds, so that the same settings give the same values on every machine.

The budget of `auto` is that of the `permutations` for tables of up to 2,000 rows (up to
`EXACT_UP_TO` that of `stratified`, with its short orders); for more it
falls with the square root of the rows, since one evaluation takes longer the more rows there are:

    evaluations = permutations x players x min(1, 2,000 / players) x min(1, 2,000 / rows)^0.5
"""

import logging
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.metrics import Vector
from modelpred.studies.direct_removals import MOST_PARAMETERS as MOST_REMOVED
from modelpred.studies.direct_removals import Removals
from modelpred.studies.gain_sampling import GainSampler
from modelpred.studies.group_expansion import MOST_PARAMETERS
from modelpred.studies.regression_sampling import (
    FADE,
    FADE_OF_ROWS,
    ROUND,
    SMALLEST,
    RegressionSampler,
)
from modelpred.studies.row_gains import RowGains
from modelpred.studies.sampling import Game, Sampler, SamplerName, Utility, make_sampler
from modelpred.studies.two_level_sampling import TwoLevelSampler
from modelpred.studies.utility import Approximation

EXACT_UP_TO = 1000  # rows: samplers without a model of each row take seconds
FULL_BUDGET_UP_TO = 2000  # rows
NEAR_COST = 4.0  # of an evaluation of an approximation x rows / (parameters + players), as measured
FEWEST_TIMES, MOST_TIMES = 10, 50  # evaluations of an approximation for each model
MOST_REGRESSED = 2000  # players, whose regression takes a second
PILOT = 20  # one of so many rounds
FEWEST = 2  # rounds, for standard errors

log = logging.getLogger(__name__)


@runtime_checkable
class HasRowGains(Protocol):
    """A utility that can give gains of all rows from one model."""

    def row_gains(self, generator: np.random.Generator) -> RowGains | None:
        """Return what computes them; None if nothing does."""
        ...


@runtime_checkable
class HasRemovals(Protocol):
    """A utility that can give the scores without each row directly."""

    def removals(self) -> Removals | None:
        """Return them; None if nothing does."""
        ...


@runtime_checkable
class HasApproximation(Protocol):
    """A utility that is near one that is quick to evaluate."""

    def approximation(self) -> Approximation | None:
        """Return it; None if there is none."""
        ...


@dataclass(frozen=True)
class Planned:
    """A sampler with its number of rounds and the cost of each, in evaluations."""

    name: SamplerName
    sampler: Sampler
    rounds: int
    cost: int

    def draw(self, rounds: int, game: Game) -> None:
        """Draw so many rounds at once, if the memory is there."""
        self.require_memory(rounds, points=game.points)
        self.sampler.draw(rounds, game)

    def require_memory(self, rounds: int, *, points: int) -> None:
        """Refuse more rounds at once than fit into memory."""
        orders = rounds * self.sampler.orders_a_round
        require_memory(
            self.sampler.memory(rounds), what=f"{orders:,} random orders of {points:,} rows"
        )


def budget_of(permutations: int, *, points: int, rows: int | None = None) -> float:
    """Return the evaluations that `auto` may spend on so many rows, or groups of `rows` rows."""
    slower = min(1.0, FULL_BUDGET_UP_TO / (rows or points)) ** 0.5
    return permutations * min(points, FULL_BUDGET_UP_TO) * slower


def gain_sampler(
    utility: Utility, size_probabilities: Vector, generator: np.random.Generator
) -> GainSampler | None:
    """Return the sampler `gains`; None if the utility has no gains of all rows."""
    for_gains, for_subsets = generator.spawn(2)
    gains = utility.row_gains(for_gains) if isinstance(utility, HasRowGains) else None
    if gains is None:
        return None
    return GainSampler(size_probabilities, gains, cost=gains.cost, generator=for_subsets)


def removals_of(utility: Utility, sampler: SamplerName, *, points: int) -> Removals | None:
    """Return direct answers for leave-one-out; None if a model without each row is to be used.

    `auto` takes them for more than `EXACT_UP_TO` rows.

    Raises:
        InvalidInput: the sampler is direct, and this game has no direct answers.
    """
    if sampler != "direct" and (sampler != "auto" or points <= EXACT_UP_TO):
        return None
    found = utility.removals() if isinstance(utility, HasRemovals) else None
    if found is None and sampler == "direct":
        raise InvalidInput(
            "the sampler direct is for single rows and the test loss of a linear family (logistic, "
            f"softmax, svm, ridge) with at most {MOST_REMOVED:,} parameters; use auto or one_by_one"
        )
    return found


@dataclass(frozen=True)
class Sampling:
    """What the samplers of a game share.

    Attributes:
        size_probabilities: of the semi-value.
        ends: utilities of the empty subset and of all points.
        small: see `make_sampler`.
    """

    size_probabilities: Vector
    ends: Float[Tensor, " 2"]
    small: float | None

    def sampler(self, name: SamplerName, generator: np.random.Generator) -> Sampler:
        """Return a sampler of orders, or `reuse`."""
        if name in {"direct", "one_by_one"}:
            raise InvalidInput(f"the sampler {name} is for leave_one_out; use auto or stratified")
        return make_sampler(name, **vars(self), generator=generator)

    def regression(self, evaluations: int, generator: np.random.Generator, *, rows: int) -> Planned:
        """Return the sampler `regression` with the rounds of a budget."""
        single = rows == len(self.size_probabilities)
        sampler = RegressionSampler(
            self.size_probabilities, self.ends, evaluations=evaluations,
            generator=generator, fade=FADE_OF_ROWS if single else FADE,
        )  # fmt: skip
        rounds = (evaluations - sampler.enumerations) // ROUND
        return Planned("regression", sampler, max(FEWEST, rounds), ROUND)


def planned(
    name: SamplerName,
    utility: Utility,
    sampling: Sampling,
    *,
    permutations: int,
    rows: int,
    generator: np.random.Generator,
) -> Planned:
    """Return a sampler with the rounds of a budget.

    Raises:
        InvalidInput: an odd budget for paired orders, or a sampler that this game cannot use.
    """
    points = len(sampling.size_probabilities)
    evaluations = permutations * points
    if name == "gains":
        gains = gain_sampler(utility, sampling.size_probabilities, generator)
        if gains is None:
            raise InvalidInput(
                "the sampler gains is for single rows and the test loss of a linear model (logistic, "
                "softmax, ridge, svm of two classes); use auto or stratified"
            )
        cost = gains.cost * gains.evaluations(1)
        return Planned(name, gains, max(FEWEST, round(evaluations / cost)), cost)
    if name in {"regression", "two_level"}:
        if not SMALLEST <= points <= MOST_REGRESSED:
            raise InvalidInput(
                f"the sampler {name} is for {SMALLEST} to {MOST_REGRESSED:,} players, got "
                f"{points:,}; use auto, or value groups of rows"
            )
        if name == "regression":
            return sampling.regression(evaluations, generator, rows=rows)
        found = _two_level(utility, sampling, evaluations, rows=rows, generator=generator)
        if found is None:
            raise InvalidInput(
                "the sampler two_level is for groups of rows, at least "
                f"{2 * FEWEST_TIMES * NEAR_COST:g} times as many as parameters and groups, and models "
                f"trained to an optimum of at most {MOST_PARAMETERS} parameters; use auto or regression"
            )
        return found
    sampler = sampling.sampler(name, generator)
    each = sampler.orders_a_round
    if permutations < each or permutations % each:
        raise InvalidInput(
            f"permutations is {permutations}; expected 2, 4, 6, ...: orders come in pairs, each "
            "with its reverse"
        )
    return Planned(name, sampler, permutations // each, sampler.evaluations(1))


def chosen(
    utility: Utility,
    game: Game,
    sampling: Sampling,
    *,
    permutations: int,
    rows: int,
    reuse: bool,
    at_once: bool,
    generator: np.random.Generator,
) -> Planned:
    """Return the sampler that `auto` takes, with the rounds that are left after a pilot.

    Args:
        utility: the game.
        game: counts its evaluations.
        sampling: of the game.
        permutations: the budget.
        rows: number of training rows; more than players for groups.
        reuse: whether the sampler `reuse` can be used.
        at_once: whether all rounds will be drawn at once.
        generator: draws subsets.
    """
    points = len(sampling.size_probabilities)
    if rows <= EXACT_UP_TO and rows == points:
        orders = planned(
            "stratified", utility, sampling,
            permutations=permutations, rows=rows, generator=generator,
        )  # fmt: skip
        if at_once:  # before a pilot takes its time
            orders.require_memory(orders.rounds, points=points)
        return _for_few_rows(orders, game, sampling, generator=generator)
    evaluations = int(budget_of(permutations, points=points, rows=rows))
    possible: list[Planned] = []
    if rows != points:
        possible = _for_groups(utility, sampling, evaluations, rows=rows, generator=generator)
    possible = possible or _for_rows(
        utility, sampling, evaluations, reuse=reuse, generator=generator
    )
    # A fit of `regression` to fewer than two subsets a player says nothing about its error.
    costs = [max(each.cost, 2 * points * (each.name == "regression")) for each in possible]
    affordable = [
        each
        for each, cost in zip(possible, costs, strict=True)
        if PILOT * FEWEST * cost <= 2 * evaluations
    ]
    if not affordable:
        least = possible[int(np.argmin(costs))]
        affordable = [replace(least, rounds=max(FEWEST, least.rounds))]
    best = affordable[0] if len(affordable) == 1 else _by_pilot(affordable, game)
    log.info(
        "values of %d players: sampler %s, a budget of %d evaluations",
        *(points, best.name, evaluations),
    )
    return best


def _for_few_rows(
    orders: Planned, game: Game, sampling: Sampling, *, generator: np.random.Generator
) -> Planned:
    """Return `stratified`, or `regression` if it is better in a pilot with the same evaluations."""
    points, evaluations = len(sampling.size_probabilities), orders.rounds * orders.cost
    if points < SMALLEST or orders.rounds < PILOT * FEWEST // 2:
        return orders
    subsets = sampling.regression(evaluations, generator.spawn(1)[0], rows=points)
    return _by_pilot([orders, subsets], game)


def _for_groups(
    utility: Utility,
    sampling: Sampling,
    evaluations: int,
    *,
    rows: int,
    generator: np.random.Generator,
) -> list[Planned]:
    """The samplers for groups of rows, with the rounds of the budget; none for too many groups."""
    if not SMALLEST <= len(sampling.size_probabilities) <= MOST_REGRESSED:
        return []
    first, second = generator.spawn(2)
    plain = sampling.regression(evaluations, first, rows=rows)
    two_level = _two_level(utility, sampling, evaluations, rows=rows, generator=second)
    return [plain] if two_level is None else [plain, two_level]


def _two_level(
    utility: Utility,
    sampling: Sampling,
    evaluations: int,
    *,
    rows: int,
    generator: np.random.Generator,
) -> Planned | None:
    """The sampler `two_level`; None if the game has no approximation that is much quicker."""
    if not isinstance(utility, HasApproximation):
        return None
    players, near = len(sampling.size_probabilities), utility.approximation()
    if near is None:
        return None
    each = NEAR_COST * (near.parameters + players) / rows  # evaluations in the time of one of near
    times = min(MOST_TIMES, int(1 / (2 * each)))
    if times < FEWEST_TIMES:
        return None
    cost = ROUND * (1 + times * each)
    sampler = TwoLevelSampler(
        sampling.size_probabilities, sampling.ends, approximation=near.utility,
        evaluations=int(evaluations * ROUND / cost), times=times, generator=generator,
    )  # fmt: skip
    rounds = int(evaluations / cost) - sampler.enumerations // ROUND
    return Planned("two_level", sampler, max(FEWEST, rounds), ceil(cost))


def _for_rows(
    utility: Utility,
    sampling: Sampling,
    evaluations: int,
    *,
    reuse: bool,
    generator: np.random.Generator,
) -> list[Planned]:
    """The samplers that can be used, with the rounds of the budget."""
    points = len(sampling.size_probabilities)
    names: tuple[SamplerName, ...] = ("gains", "regression", "reuse", "stratified")
    draws = dict(zip(names, generator.spawn(len(names)), strict=True))
    possible: list[Planned] = []
    gains = gain_sampler(utility, sampling.size_probabilities, draws["gains"])
    if gains is not None:
        cost = gains.cost * gains.evaluations(1)
        possible.append(Planned("gains", gains, evaluations // cost, cost))
    if SMALLEST <= points <= MOST_REGRESSED:
        possible.append(sampling.regression(evaluations, draws["regression"], rows=points))
    for name in names[2:]:
        if name == "stratified" or reuse:
            sampler = sampling.sampler(name, draws[name])
            cost = sampler.evaluations(1)
            possible.append(Planned(name, sampler, evaluations // cost, cost))
    return possible


def _by_pilot(possible: list[Planned], game: Game) -> Planned:
    """Return the one with the least squared error for its cost; its pilot counts as drawn."""
    products: list[float] = []
    for each in possible:
        rounds = max(FEWEST, each.rounds // PILOT)
        each.draw(rounds, game)
        estimates = each.sampler.estimates()
        spread = float(estimates.var(axis=0, ddof=1).mean())
        share = each.cost * rounds / len(estimates)  # of one estimate
        products.append(spread * share if np.isfinite(spread) else np.inf)
    best = possible[int(np.argmin(products))]
    left = best.rounds - max(FEWEST, best.rounds // PILOT)
    return Planned(best.name, best.sampler, left, best.cost)
