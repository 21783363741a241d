"""Sampler `two_level`: values of an approximate game, plus those of its error.

A semi-value is linear in the game, so for any function v' of the subsets

    value(v) = value(v') + value(v - v')

v' is quick to evaluate (group_expansion.py), so the first part is sampled many times as often as the
second. v - v' needs the models themselves, but varies little, so few of them suffice. Both parts
are sampled by `regression`, with independent draws; the sum is unbiased however v' is, and the
standard errors contain both (multilevel Monte Carlo, Giles 2008).

An expansion about the model of all rows is least exact for small subsets. v - v' falls with the size as
about m^-3/2, the third order of the step.
"""

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.refits.retraining import silent
from modelpred.studies.regression_sampling import RegressionSampler
from modelpred.studies.sampling import Game, Sampler, Utility

FADE = 1.5


@final
class TwoLevelSampler(Sampler):
    """Random subsets for a quick approximation, and fewer for its error.

    Args:
        size_probabilities: [points], q_k.
        ends: utilities of the empty subset and of all points.
        approximation: v', finite for all subsets.
        evaluations: the budget of evaluations of v.
        times: evaluations of v' for each of v.
        generator: draws subsets.
    """

    orders_a_round = 1

    def __init__(
        self,
        size_probabilities: Vector,
        ends: Float[Tensor, " 2"],
        *,
        approximation: Utility,
        evaluations: int,
        times: int,
        generator: np.random.Generator,
    ) -> None:
        points = len(size_probabilities)
        self.approximation, self.times = approximation, times
        self.near_game = Game(approximation, points=points, total=0, progress=silent)
        near_ends = self.near_game.ends()
        for_near, for_rest = generator.spawn(2)
        self.near = RegressionSampler(
            size_probabilities, near_ends, evaluations=times * evaluations, generator=for_near
        )
        self.rest = RegressionSampler(
            size_probabilities, ends - near_ends,
            evaluations=evaluations, generator=for_rest, fade=FADE,
        )  # fmt: skip

    @property
    def enumerations(self) -> int:
        """Number of evaluations of v that do not depend on the rounds."""
        return self.rest.enumerations

    def evaluations(self, rounds: int) -> int:
        """Return the number of evaluations of v in this many rounds."""
        return self.rest.evaluations(rounds)

    def memory(self, rounds: int) -> int:
        """Bytes that drawing so many rounds at once takes."""
        return self.rest.memory(rounds) + self.near.memory(self.times * rounds)

    def draw(self, rounds: int, game: Game) -> None:
        """Draw this many additional rounds; the game counts the evaluations of v."""
        self.near.draw(self.times * rounds, self.near_game)
        self.rest.draw(rounds, _Error(game, self.approximation))

    def estimates(self) -> Vector:
        """Return independent estimates [estimates, points] of the sum."""
        rest = self.rest.estimates()
        near = self.near.estimates(most=len(rest))
        return rest + (near if len(near) == len(rest) else near.mean(axis=0))


@final
class _Error(Game):
    """The game v - v'; evaluations count in the game of v."""

    def __init__(self, game: Game, approximation: Utility) -> None:
        super().__init__(game.utility, points=game.points, total=game.total, progress=silent)
        self.game, self.approximation = game, approximation

    def __call__(
        self, count: int, weights_of: Callable[[Int[Tensor, " rows"]], Tensor]
    ) -> Float[Tensor, " count"]:
        """Return the error of each subset; nan where v is undefined."""
        near = self.approximation(weights_of(torch.arange(count)).to(torch.uint8))
        return self.game(count, weights_of) - near
