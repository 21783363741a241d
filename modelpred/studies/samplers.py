"""The samplers that a game has, each with the rounds of a budget."""

from dataclasses import dataclass
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
from modelpred.studies.order_sampling import FINISHED, OrderSampler
from modelpred.studies.regression_sampling import (
    FADE,
    FADE_OF_ROWS,
    ROUND,
    SMALLEST,
    RegressionSampler,
)
from modelpred.studies.reuse_sampling import ReuseSampler
from modelpred.studies.row_gains import RowGains
from modelpred.studies.sampling import Game, Sampler, SamplerName, Utility
from modelpred.studies.two_level_sampling import TwoLevelSampler
from modelpred.studies.utility import Approximation

EXACT_UP_TO = 1000  # rows: samplers without a model of each row take seconds


NEAR_COST = 4.0  # of an evaluation of an approximation x rows / (parameters + players), as measured


FEWEST_TIMES, MOST_TIMES = 10, 50  # evaluations of an approximation for each model


MOST_REGRESSED = 2000  # players, whose regression takes a second


FEWEST = 2  # rounds, for standard errors


@runtime_checkable
class HasRowGains(Protocol):
    """A utility that can give gains of all rows from one model."""

    @property
    def retrains(self) -> bool:
        """Whether its own models are trained, as those of the gains are."""
        ...

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


def gain_sampler(
    utility: Utility, size_probabilities: Vector, generator: np.random.Generator
) -> GainSampler | None:
    """Return the sampler `gains`; None if the utility has no gains of all rows."""
    for_gains, for_subsets = generator.spawn(2)
    gains = utility.row_gains(for_gains) if isinstance(utility, HasRowGains) else None
    if gains is None:
        return None
    return GainSampler(size_probabilities, gains, cost=gains.cost, generator=for_subsets)


def retrains(utility: Utility) -> bool:
    """Return whether gains of all rows are those of the utility's own models."""
    return isinstance(utility, HasRowGains) and utility.retrains


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
        small: share of positions that are sampled with short orders; by default a twentieth, at
            least ten positions, and at most a third of all.
    """

    size_probabilities: Vector
    ends: Float[Tensor, " 2"]
    small: float | None

    def sampler(self, name: SamplerName, generator: np.random.Generator) -> Sampler:
        """Return a sampler of orders, or `reuse`."""
        points = len(self.size_probabilities)
        if name in {"direct", "one_by_one"}:
            raise InvalidInput(f"the sampler {name} is for leave_one_out; use auto or stratified")
        if name == "reuse":
            return ReuseSampler(points, generator)
        short = name in {"stratified", "truncated"}
        return OrderSampler(
            self.size_probabilities, self.ends,
            width=_short_width(self.small, points=points) if short else 0,
            paired=name != "permutation", generator=generator,
            short_for_long=FINISHED if name == "truncated" else 1,
        )  # fmt: skip

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
        found = two_level(utility, sampling, evaluations, rows=rows, generator=generator)
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
            f"permutations is {permutations}; expected {each}, {2 * each}, {3 * each}, ...: "
            f"the sampler {name} draws {each} orders at a time"
        )
    return Planned(name, sampler, permutations // each, sampler.evaluations(1))


def two_level(
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


# A model changes most with its first ten or so rows, whatever the total number.
FEWEST_POSITIONS = 10


def _short_width(small: float | None, *, points: int) -> int:
    """Number of first positions that are sampled with short orders."""
    if small is not None:
        return int(small * points)
    return min(max(points // 20, FEWEST_POSITIONS), points // 3)
