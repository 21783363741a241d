"""The sampler `reuse`: random subsets, each used for all players (sampling.py)."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.studies.sampling import MOST_LOST, WEIGHT_BYTES, Game, Sampler

KEPT_ROWS = 2048  # groups of subsets whose sums the sampler `reuse` keeps


REUSE_BYTES = 60  # of each of these groups and points, as measured


@final
class ReuseSampler(Sampler):
    """Random subsets, each used for all points; a round has as many evaluations as a long order.

    Sums over groups of subsets are kept, at most about `KEPT_ROWS` groups a call of `draw`, so that
    memory does not grow with the number of subsets. Up to that number each subset is a group.
    """

    orders_a_round = 1

    def __init__(self, points: int, generator: np.random.Generator) -> None:
        self.points = points
        self.generator = generator
        self.groups: list[_Sums] = []
        self.lost = 0

    def evaluations(self, rounds: int) -> int:
        """As many as a long order for each round."""
        return rounds * self.points

    def memory(self, rounds: int) -> int:
        """Bytes of the groups and of the subsets of one block."""
        groups = min(rounds * self.points, 2 * KEPT_ROWS)
        return (REUSE_BYTES * groups + 20 * self._at_once(rounds)) * self.points

    def draw(self, rounds: int, game: Game) -> None:
        """Evaluate random subsets, block by block."""
        count, block = rounds * self.points, self._at_once(rounds)
        together = max(1, block // max(1, block * KEPT_ROWS // count))
        for start in range(0, count, block):
            bits = self.generator.integers(0, 2, size=(min(block, count - start), self.points))
            members = torch.from_numpy(bits.astype(bool))
            utilities = game(len(members), lambda rows, members=members: members[rows])
            defined = ~utilities.isnan()
            self.lost += int((~defined).sum())
            parts = (members[defined].split(together), utilities[defined].split(together))
            self.groups += [_Sums.of(*each) for each in zip(*parts, strict=True)]

    def estimates(self) -> Vector:
        """Return rows whose mean is exactly mean_in - mean_out and whose variance is Welch's.

        For each point, a subset with it gives  difference + (v - mean_in) n / n_in,  a subset
        without it  difference - (v - mean_out) n / n_out. A group gives the mean of its subsets.
        """
        sizes = np.array([each.subsets for each in self.groups])[:, None]
        counts = np.stack([each.count.numpy() for each in self.groups]).astype(np.float64)
        inside = np.stack([each.inside.numpy() for each in self.groups])
        all_of = np.array([each.total for each in self.groups])[:, None]
        total, count = int(sizes.sum()), counts.sum(axis=0)
        if self.lost > MOST_LOST * (self.lost + total):
            return np.full((1, self.points), np.nan)
        if not ((count > 0) & (count < total)).all():
            raise InvalidInput(
                f"in {total} random subsets some point is always or never present; set more "
                "permutations"
            )
        with_it = inside.sum(axis=0) / count
        without = (all_of - inside).sum(axis=0) / (total - count)
        rows = (inside - counts * with_it) * (total / count)
        rows -= (all_of - inside - (sizes - counts) * without) * (total / (total - count))
        # Groups of unequal sizes: the mean over groups stays exactly the difference.
        return rows * (len(sizes) / total) + (with_it - without)

    def _at_once(self, rounds: int) -> int:
        return min(rounds * self.points, max(1, WEIGHT_BYTES // self.points))


@dataclass(frozen=True)
class _Sums:
    """Sums over some subsets: their number, and for each point those with it and their utilities."""

    subsets: int
    count: Int[Tensor, " points"]
    inside: Float[Tensor, " points"]
    total: float

    @staticmethod
    def of(members: Tensor, utilities: Tensor) -> "_Sums":
        """The sums of these subsets."""
        if len(members) == 1:  # a product would round otherwise
            inside = torch.where(members[0], utilities[0], 0.0)
        else:
            inside = utilities @ members.double()
        return _Sums(len(members), members.sum(dim=0), inside, float(utilities.sum()))
