"""Sampler `regression`: semi-values from random subsets, each used for every player, less a linear fit.

With p_m the probability of size m, 0 < m < N, and q_k those of the semi-value,

    value_i = q_{N-1} v(all) - q_0 v(none) + E[ v(S) g_i(S) ]
    g_i(S)  = q_{m-1} / (p_m m/N) if i is in S,  -q_m / (p_m (1 - m/N)) if not

so that one evaluation serves all players (Li and Yu 2024 for these weights; for Banzhaf it is maximum
sample reuse). The variance is that of v times g. It falls by control variates: a function of S whose
semi-values are known is subtracted from v and its values are added,

    c(S) = f(m) + sum over S of b_i      value_i of it: b_i, and the same number for all from f

b and f are fitted to v by ridge regression, on one half of the subsets for use on the other, which
leaves the estimate unbiased whatever the fit. Every subset comes with its complement.

    p_m is proportional to sqrt(q_{m-1}^2 N/m + q_m^2 N/(N-m)), the best where v - c is of one size,
    made symmetric

W. Li, Y. Yu, "One sample fits all: approximating all probabilistic values simultaneously and
efficiently", NeurIPS 2024. S. Lundberg, S.-I. Lee, "A unified approach to interpreting model
predictions", NeurIPS 2017: regression on random subsets.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.studies.sampling import MOST_LOST, Game, Sampler

BLOCKS = 64  # most estimates; each is the mean of some pairs
SMALLEST = 3  # players with a size that has a complement of another


@final
class RegressionSampler(Sampler):
    """Random subsets with their complements; a round has as many evaluations as two long orders."""

    orders_a_round = 2

    def __init__(
        self,
        size_probabilities: Vector,
        ends: Float[Tensor, " 2"],
        *,
        generator: np.random.Generator,
    ) -> None:
        self.points = len(size_probabilities)
        self.size_probabilities, self.generator = size_probabilities, generator
        self.none, self.all = ends.tolist()
        self.drawn = _sizes(size_probabilities)
        self.members: list[Tensor] = []  # the first of each pair
        self.utilities: list[Tensor] = []  # [pairs, 2]

    def evaluations(self, rounds: int) -> int:
        """Return the number of evaluations of this many rounds."""
        return 2 * self.points * rounds

    def memory(self, rounds: int) -> int:
        """Bytes that drawing so many rounds at once takes."""
        return 40 * rounds * self.points**2

    def draw(self, rounds: int, game: Game) -> None:
        """Draw this many additional rounds."""
        pairs = rounds * self.points
        sizes = self.generator.choice(len(self.drawn), pairs, p=self.drawn) + 1
        ranks = self.generator.permuted(np.tile(np.arange(self.points), (pairs, 1)), axis=1)
        members = torch.from_numpy((ranks < sizes[:, None]).astype(np.uint8))
        found = [game(pairs, lambda rows, own=own: (members ^ own)[rows]) for own in (0, 1)]
        self.members.append(members)
        self.utilities.append(torch.stack(found, dim=1))

    def estimates(self) -> Vector:
        """Return means over blocks of pairs [blocks, points]; all nan if too many models failed."""
        members = torch.cat(self.members).numpy().astype(np.float64)
        utilities = torch.cat(self.utilities).numpy()
        defined = np.isfinite(utilities).all(axis=1)
        if defined.mean() < 1 - MOST_LOST:
            return np.full((1, self.points), np.nan)
        members, utilities = members[defined], utilities[defined]
        half = np.arange(len(members)) % 2 == 0
        parts: list[Vector] = []
        for own in (half, ~half):
            fitted = self._fitted(members[~own], utilities[~own])
            parts.append(self._of_pairs(members[own], utilities[own], fitted))
        shorter = min(map(len, parts))
        blocks = max(1, min(BLOCKS // 2, shorter))
        return np.stack(
            [part.mean(axis=0) for rows in parts for part in np.array_split(rows, blocks)]
        )

    def _fitted(self, members: Vector, utilities: Vector) -> tuple[Vector, Vector]:
        """B [points] and f at every size 0..points, fitted to these pairs."""
        both = np.concatenate([members, 1 - members])
        target = utilities.T.ravel()
        sizes = np.arange(self.points + 1)
        curve = np.stack(
            [np.ones(self.points + 1), np.log1p(sizes), np.log1p(self.points - sizes), sizes], 1
        )
        shapes = curve / np.abs(curve).max(axis=0)
        counts = both.sum(axis=1).astype(np.int64)
        inputs = np.concatenate([both - counts[:, None] / self.points, shapes[counts]], axis=1)
        ridge = np.full(inputs.shape[1], self.points**2 / (4 * len(inputs)))
        ridge[self.points :] = 1e-6 * len(inputs)
        weights: Vector = np.linalg.solve(
            inputs.T @ inputs + np.diag(ridge), inputs.T @ target
        ).astype(np.float64)
        own = weights[: self.points]
        # The inputs of the players are centred within a size: that part belongs to f.
        return own, shapes @ weights[self.points :] - own.mean() * sizes

    def _of_pairs(
        self, members: Vector, utilities: Vector, fitted: tuple[Vector, Vector]
    ) -> Vector:
        """The estimate of each pair [pairs, points]."""
        own, curve = fitted
        points, chances = self.points, self.size_probabilities
        sizes = np.arange(1, points)
        inside = chances[:-1] / (self.drawn * sizes / points)
        outside = -chances[1:] / (self.drawn * (1 - sizes / points))
        total = np.zeros_like(members)
        for side, rows in enumerate((members, 1 - members)):
            at = rows.sum(axis=1).astype(np.int64) - 1
            left = utilities[:, side] - rows @ own - curve[at + 1]
            total += left[:, None] * np.where(rows > 0, inside[at, None], outside[at, None]) / 2
        ends = chances[-1] * (self.all - own.sum() - curve[points])
        ends -= chances[0] * (self.none - curve[0])
        return total + own + ends + (np.diff(curve) * chances).sum()


def _sizes(chances: Vector) -> Vector:
    """p_m for m = 1..points-1."""
    points = len(chances)
    sizes = np.arange(1, points)
    wanted = np.sqrt(
        chances[:-1] ** 2 * points / sizes + chances[1:] ** 2 * points / (points - sizes)
    )
    both = wanted + wanted[::-1]
    # Every size with a weight is drawn, and none so rarely that its weights are huge.
    both = np.maximum(both, 1e-3 * both.mean())
    return both / both.sum()
