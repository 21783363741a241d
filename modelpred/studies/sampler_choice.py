"""Sampler `auto`: the one whose standard error is least for the budget.

For groups of rows it is `regression` or `two_level`, by a pilot. For up to `EXACT_UP_TO` single rows
it is `stratified` or `regression`, whose only error is that of sampling, by a pilot if the budget
allows one, and else `stratified`; or `gains`, if the pilot of these expects a reliability below
`RELIABLE` and `gains` have the smaller error. For more rows, every sampler that can draw two
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

import numpy as np

from modelpred.studies.regression_sampling import (
    SMALLEST,
)
from modelpred.studies.samplers import (
    EXACT_UP_TO,
    FEWEST,
    MOST_REGRESSED,
    Planned,
    Sampling,
    gain_sampler,
    planned,
    retrains,
    two_level,
)
from modelpred.studies.sampling import Game, SamplerName, Utility

FULL_BUDGET_UP_TO = 2000  # rows
# Expected reliability below which few rows are valued by `gains`, too, whose expansions have an error.
RELIABLE = 0.9
PILOT = 20  # one of so many rounds

log = logging.getLogger(__name__)


def budget_of(permutations: int, *, points: int, rows: int | None = None) -> float:
    """Return the evaluations that `auto` may spend on so many rows, or groups of `rows` rows."""
    slower = min(1.0, FULL_BUDGET_UP_TO / (rows or points)) ** 0.5
    return permutations * min(points, FULL_BUDGET_UP_TO) * slower


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
        return _for_few_rows(orders, utility, game, sampling, generator=generator)
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
    best = affordable[0] if len(affordable) == 1 else _by_pilot(affordable, game).planned
    log.info(
        "values of %d players: sampler %s, a budget of %d evaluations",
        *(points, best.name, evaluations),
    )
    return best


def _for_few_rows(
    orders: Planned,
    utility: Utility,
    game: Game,
    sampling: Sampling,
    *,
    generator: np.random.Generator,
) -> Planned:
    """Return `stratified`, or `regression` if it is better in a pilot with the same evaluations.

    If the values would still have a low reliability, `gains` takes part in the pilot.
    """
    points, evaluations = len(sampling.size_probabilities), orders.rounds * orders.cost
    if points < SMALLEST or orders.rounds < PILOT * FEWEST // 2:
        return orders
    for_regression, for_gains = generator.spawn(2)
    subsets = sampling.regression(evaluations, for_regression, rows=points)
    best = _by_pilot([orders, subsets], game)
    if not best.reliability < RELIABLE:
        return best.planned
    gains = gain_sampler(utility, sampling.size_probabilities, for_gains)
    if gains is None or not retrains(utility):
        return best.planned
    cost = gains.cost * gains.evaluations(1)
    other = _by_pilot([Planned("gains", gains, max(FEWEST, evaluations // cost), cost)], game)
    return min(best, other, key=lambda each: each.product).planned


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
    near = two_level(utility, sampling, evaluations, rows=rows, generator=second)
    return [plain] if near is None else [plain, near]


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


@dataclass(frozen=True)
class _Piloted:
    """A sampler with the rounds that are left after its pilot.

    Attributes:
        planned: the sampler.
        product: mean squared standard error x evaluations.
        reliability: that is expected of all its rounds; nan if it is unknown.
    """

    planned: Planned
    product: float
    reliability: float


def _by_pilot(possible: list[Planned], game: Game) -> _Piloted:
    """Return the one with the least squared error for its cost; its pilot counts as drawn."""
    return min((_piloted(each, game) for each in possible), key=lambda each: each.product)


def _piloted(each: Planned, game: Game) -> _Piloted:
    rounds = max(FEWEST, each.rounds // PILOT)
    each.draw(rounds, game)
    estimates = each.sampler.estimates()
    noise = float(estimates.var(axis=0, ddof=1).mean()) / len(estimates)
    left = replace(each, rounds=each.rounds - rounds)
    if not np.isfinite(noise):
        return _Piloted(left, np.inf, np.nan)
    spread = float(estimates.mean(axis=0).var()) - noise
    rest = noise * rounds / max(each.rounds, rounds)
    reliability = spread / (spread + rest) if spread > 0 else 0.0
    return _Piloted(left, noise * each.cost * rounds, reliability)
