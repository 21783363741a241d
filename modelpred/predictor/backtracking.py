"""Steps of subsets with points that no fit saw, kept by the subset's own objective.

What is learned about a step, and how curved the objective is, is learned from the points of the
fit. A point unlike all of them moves the optimum, and curves the objective, as none of them did,
and steps overshoot: so each is halved while that lowers the subset's own objective, up to six
times, and dropped if even then it raised it. The objective is convex along a step, so that its
halves fall until the best of them is passed.

It costs about four evaluations of the objective a step (spam), three times what an answer costs
without, and only for subsets that give weight to such points: the others are neither touched nor
asked.
"""

from typing import final

import torch
from torch import Tensor

from modelpred.targets import Points, TargetModel

HALVINGS = 6


@final
class Backtracking:
    """Shortens steps of some subsets so that none raises its objective."""

    def __init__(
        self, model: TargetModel, points: Points, weights: Tensor, rows: Tensor, start: Tensor
    ) -> None:
        """Begins at parameters `start` [subsets, parameters]; `rows` are the subsets kept."""
        self.model, self.points, self.rows = model, points, rows
        self.weights = weights.detach().index_select(0, rows)
        with torch.no_grad():
            self.least = self._objective(start.index_select(0, rows))

    def shortened(self, place: Tensor, move: Tensor) -> Tensor:
        """How much of a move [subsets, parameters] from the last place is made.

        All of it, to the bit, for subsets that are not kept.
        """
        with torch.no_grad():
            accepted = self._shares(
                place.index_select(0, self.rows), move.index_select(0, self.rows)
            )
        return move.new_ones(len(move), 1).index_copy(0, self.rows, accepted[:, None]) * move

    def _shares(self, start: Tensor, step: Tensor) -> Tensor:
        """The share of each kept subset's step that is taken; 0 where none lowers the objective."""
        shares = step.new_ones(len(step))
        least = self._objective(start + step)
        some = torch.arange(len(step), device=step.device)
        for _ in range(HALVINGS):
            halves = 0.5 * shares.index_select(0, some)
            ahead = torch.addcmul(
                start.index_select(0, some), halves[:, None], step.index_select(0, some)
            )
            found = self._objective(ahead, some)
            better = ~(found >= least.index_select(0, some))  # also where least is not a number
            some, found, halves = some[better], found[better], halves[better]
            if not len(some):
                break
            least, shares = least.index_copy(0, some, found), shares.index_copy(0, some, halves)
        lowered = least <= self.least
        self.least = torch.where(lowered, least, self.least)
        return torch.where(lowered, shares, 0.0)

    def _objective(self, parameters: Tensor, some: Tensor | None = None) -> Tensor:
        """Of all kept subsets, or of some of them."""
        weights = self.weights if some is None else self.weights.index_select(0, some)
        return self.model.objective(parameters, weights, self.points)


def unseen(points: Points, known: Points) -> Tensor | None:
    """Which points [points] are none of the known ones, as 1 and 0; None if all are known."""
    found = set(_rows(known))
    new = [float(row not in found) for row in _rows(points)]
    return torch.tensor(new, device=points.features.device) if any(new) else None


def _rows(points: Points) -> list[bytes]:
    joined = torch.cat([points.features, points.labels[:, None].to(points.features)], 1)
    return [row.tobytes() for row in joined.double().cpu().numpy()]
