"""Pooling by attention through induced points: a set transformer over weighted sets.

Lee et al., "Set Transformer" (2019), one block of induced attention and pooling by seeds, with the
weights of the subset inside each attention over its points:

    h_m = sum_i w_i e_mi v_i / sum_i w_i e_mi      e_mi = exp(q_m . k_i), the induced points look
    z_i = phi_i + sum_m softmax_m(q'_i . k'_m) v'_m     at the subset, and each point at them;
    pool = sum_i w_i e_si z_i / sum_i w_i e_si     e_si = exp(q_s . z_i), and the seeds at the points

So a weight of two is the row twice and a weight of zero is no row, to the letter. What the induced
points see of a point does not depend on the subset: the first line is two matrix products for all
subsets, and all three cost points x induced points a subset, never points squared. Scores are kept
within `SHARPEST`, so that no exponential needs the largest score of a subset taken off first.
"""

from typing import final

import torch
from torch import Tensor, nn

SHARPEST = 6.0  # largest score; exp of twice that is how much more one point can count than another
SEEDS = 2
BLOCK_BYTES = 8 * 2**20  # of one array [subsets, points, hidden], where no slope is asked for


@final
class AttentionPool(nn.Module):
    """Weights [subsets, points] and inputs [points, inputs] -> pool [subsets, pooled]."""

    def __init__(self, inputs: int, pooled: int, *, induced: int) -> None:
        super().__init__()
        hidden = max(1, pooled // SEEDS)
        self.hidden = hidden
        self.phi = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        # The rows of these two are the queries q of induced points and seeds.
        self.induced = nn.Linear(hidden, induced, bias=False)
        self.seeds = nn.Linear(hidden, SEEDS, bias=False)
        self.values = nn.Linear(hidden, hidden)
        self.summary = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU())
        self.query = nn.Linear(hidden, hidden)
        self.keys = nn.Linear(hidden, hidden)
        self.answers = nn.Linear(hidden, hidden)
        self.last = nn.Linear(SEEDS * hidden, pooled)

    def forward(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """The pool of each subset."""
        points = self.phi(inputs)
        looks = _exponentials(self.induced(points))
        seen = (looks[:, :, None] * self.values(points)[:, None, :]).flatten(1)
        queries = self.query(points) / self.hidden**0.5
        if torch.is_grad_enabled():
            return self._pooled(weights, points, looks, seen, queries)
        rows = max(1, BLOCK_BYTES // (4 * points.numel()))
        blocks = [
            self._pooled(block, points, looks, seen, queries) for block in weights.split(rows)
        ]
        return torch.cat(blocks)

    def _pooled(
        self, weights: Tensor, points: Tensor, looks: Tensor, seen: Tensor, queries: Tensor
    ) -> Tensor:
        counted = (weights @ looks).clamp(min=1e-9)[..., None]
        summary = (weights @ seen).unflatten(1, (-1, self.hidden)) / counted
        summary = summary + self.summary(summary)
        attention = torch.softmax(queries @ self.keys(summary).mT, 2)
        moved = points + attention @ self.answers(summary)
        looks = _exponentials(self.seeds(moved)) * weights[..., None]
        counted = looks.sum(1).clamp(min=1e-9)[..., None]
        return self.last((looks.mT @ moved / counted).flatten(1))


def _exponentials(scores: Tensor) -> Tensor:
    return (SHARPEST * torch.tanh(scores / SHARPEST)).exp()
