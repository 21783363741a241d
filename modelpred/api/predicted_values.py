"""Values by predicted models: their correction by retrained ones, and whether they pay.

A semi-value is linear in the game. So the values of predicted models plus the values of the *difference*
between retrained and predicted models, which are sampled on fewer orders, are unbiased. With one order in k
for the difference, relative to as many orders of retrained models alone,

    variance  1 + k rho          rho  variance of the difference of a row's gain over that of its gain
    time      c + (1 + c) / k    c    time of a predicted model over that of a retrained one

The product is least at k = ((1 + c) / (rho c))^0.5. Prediction pays only if it is below 1. A trial on a few
orders, by the sampler that values use, measures rho and c.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from modelpred.engine.costs import call_seconds
from modelpred.numbers import Number
from modelpred.studies.sampling import Utility
from modelpred.studies.semivalues import Values

log = logging.getLogger(__name__)

CHECKED, FEWEST_CHECKED = 10, 4  # one order in so many is retrained, too, but at least so many
MOST_CHECKED = 64
TRIED = 25  # a trial has `FEWEST_CHECKED` orders, but at most one in so many of the planned ones


@dataclass(frozen=True)
class Checks:
    """How predicted values are sampled.

    Attributes:
        every: one order in so many is retrained, too.
        orders: how many times as many orders are predicted as would be retrained.
    """

    every: int = CHECKED
    orders: float = 1.0


def checked_orders(permutations: Number, *, method: str, every: int = CHECKED) -> int:
    """Return how many orders of predicted values are retrained to correct for the predictions' error."""
    if method == "leave_one_out":
        return 0
    return max(FEWEST_CHECKED, 2 * (int(permutations) // (2 * every)))


def difference_of(predicted: Utility, exact: Utility, *, least: float) -> Utility:
    """Return the game of the difference, zero for subsets of less total weight than `least`."""

    def difference(weights: Tensor) -> Tensor:
        found = torch.zeros(len(weights), dtype=torch.float64)
        large = weights.sum(1, dtype=torch.float64) >= least
        if bool(large.any()):
            found[large] = exact(weights[large]) - predicted(weights[large])
        return found

    return difference


def corrected(
    values: Values,
    predicted: Utility,
    exact: Utility,
    *,
    least: float,
    checked: Callable[[Utility], Values],
) -> Values:
    """Return predicted values plus those of the difference; standard errors have both parts.

    Args:
        values: of the game of predicted models.
        predicted: the game of predicted models.
        exact: that of retrained models.
        least: smallest total weight of a subset that is predicted; differences of others are zero.
        checked: gives the values of a game by a few other orders.
    """
    errors = checked(difference_of(predicted, exact, least=least))
    return replace(
        values,
        values=values.values + errors.values,
        standard_errors=np.hypot(values.standard_errors, errors.standard_errors),
        evaluations=values.evaluations + errors.evaluations,
        failed=values.failed + errors.failed,
    )


@dataclass(frozen=True)
class Trial:
    """What a trial of predicted values measured.

    Attributes:
        difference: variance of the difference of a row's gain over that of its gain.
        cost: time of a predicted model over that of a retrained one.
    """

    difference: float
    cost: float

    @property
    def checks(self) -> Checks:
        """The checks of least time for the standard errors of retrained values."""
        best = np.sqrt((1 + self.cost) / max(self.difference * self.cost, 1e-12))
        # Rounded, so that runs of about the same timing draw the same orders.
        every = int(2 ** np.clip(np.round(np.log2(best)), 1, np.log2(MOST_CHECKED)))
        return Checks(every, 1 + every * self.difference)

    @property
    def time(self) -> float:
        """Time with these checks, relative to retrained values of the same standard errors."""
        checks = self.checks
        return checks.orders * (self.cost + (1 + self.cost) / checks.every)


@final
@dataclass(frozen=True)
class Remembered:
    """A game that is played once for each subset; the weights of a subset are kept as a hash."""

    game: Utility
    known: dict[bytes, float] = field(default_factory=dict[bytes, float])

    def __call__(self, weights: Tensor) -> Tensor:
        """Return utilities [subsets], float64."""
        keys = [
            hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            for row in weights.cpu().contiguous().numpy()
        ]
        new = {key: row for row, key in enumerate(keys) if key not in self.known}
        if new:
            found = self.game(weights[list(new.values())]).tolist()
            self.known.update(zip(new, found, strict=True))
        return torch.tensor([self.known[key] for key in keys], dtype=torch.float64)


def trial_of(
    predicted: Utility, exact: Utility, *, sampled: Callable[[Utility, int], Values]
) -> Trial | None:
    """Return what a few orders tell about predicted values; None if they tell nothing.

    The same orders are predicted as are retrained, and each subset is retrained once.

    Args:
        predicted: the game of predicted models.
        exact: that of retrained models.
        sampled: gives the values of a game by so many orders.
    """
    found: list[Values] = []
    retrained = Remembered(exact)
    seconds = [
        call_seconds(lambda game=game: found.append(sampled(game, FEWEST_CHECKED)))
        for game in (retrained, difference_of(predicted, retrained, least=0.0))
    ]
    own, difference = (float(np.mean(values.standard_errors**2)) for values in found)
    if not own > 0:  # enumerated, or unknown
        return None
    trial = Trial(difference / own, seconds[1] / seconds[0])
    log.info(
        "predicted values take %.2f of the time of retrained ones of the same standard error: "
        "a prediction takes %.2f of the time, and its difference has %.2f of the variance",
        trial.time, trial.cost, trial.difference,
    )  # fmt: skip
    return trial
