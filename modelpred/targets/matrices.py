"""Many small symmetric matrices at once: weighted sums of outer products, and their inverses.

A batch of matrices of some dozen rows is slow to read and slower to factor one by one. Built by one
large product and inverted by batched products of halves, in parts that stay in the cache, it costs
about as much as twenty multiplications with it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MATRIX_BYTES = 2**20  # of matrices that are worked on at once, so that they stay in the cache
SMALLEST_HALVED = 16


@dataclass(frozen=True)
class OuterProducts:
    """The outer products of a pool's rows [points, size], of which each entry is kept once."""

    entries: Tensor  # [points, pairs]: products of columns i >= j
    places: Tensor  # [size * size]: the place of each entry of a matrix in a row of them
    size: int

    @classmethod
    def of(cls, rows: Tensor) -> "OuterProducts":
        """Those of [points, size]."""
        size, device = rows.shape[1], rows.device
        first, second = torch.tril_indices(size, size, device=device)
        places = torch.zeros(size, size, dtype=torch.int64, device=device)
        places[first, second] = torch.arange(len(first), device=device)
        entries = [rows[:, : last + 1] * rows[:, last : last + 1] for last in range(size)]
        return cls(torch.cat(entries, 1), torch.maximum(places, places.T).flatten(), size)

    def inverses(self, weights: Tensor, penalty: Tensor) -> Tensor:
        """(sum_i weights_i row_i row_i' + diag(penalty))^-1 [subsets, size, size]; nan if there is none.

        Args:
            weights: [subsets, points].
            penalty: [subsets, size].
        """
        found = weights.new_empty(len(weights), self.size, self.size)
        rows = _at_once(found)
        for own, ridge, into in zip(
            weights.split(rows), penalty.split(rows), found.split(rows), strict=True
        ):
            sums = (own @ self.entries).index_select(1, self.places)
            matrices = sums.unflatten(1, (self.size, self.size))
            matrices.diagonal(dim1=1, dim2=2).add_(ridge)
            inverses(matrices, out=into)
        return found


def inverses(matrices: Tensor, out: Tensor | None = None) -> Tensor:
    """Inverses of symmetric matrices [rows, size, size]; nan for one not positive definite.

    By halves, through Schur complements, down to sizes that LAPACK takes. `out` is room for them.
    """
    found = torch.empty_like(matrices) if out is None else out
    size = matrices.shape[-1]
    if size <= SMALLEST_HALVED:
        factor, info = torch.linalg.cholesky_ex(matrices)
        failed = (info > 0)[:, None, None]
        # LAPACK refuses the whole batch for one pivot of zero, so what failed is inverted as ones.
        factor = torch.where(failed, torch.eye(size).to(factor), factor)
        torch.cholesky_inverse(factor, out=found)
        return found.masked_fill_(failed, math.nan)
    half = -(-size // 8) * 4
    first, last = slice(0, half), slice(half, size)
    upper = inverses(matrices[:, first, first])
    across = torch.bmm(matrices[:, last, first], upper)
    lower = inverses(
        torch.baddbmm(matrices[:, last, last], across, matrices[:, first, last], alpha=-1)
    )
    below = torch.bmm(lower, across).neg_()
    # Batched products into parts of a tensor would go one by one.
    found[:, first, first] = torch.baddbmm(upper, across.mT, below, alpha=-1)
    found[:, first, last] = below.mT
    found[:, last, first] = below
    found[:, last, last] = lower
    return found


def applied(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each symmetric matrix [rows, size, size] times its vector [rows, size]."""
    rows = _at_once(matrices)
    # Several times as fast as a batched product with one column.
    parts = zip(matrices.split(rows), vectors.split(rows), strict=True)
    return torch.cat([(some * own[:, None]).sum(2) for some, own in parts])


def _at_once(matrices: Tensor) -> int:
    size = matrices.shape[1] * matrices.shape[2] * matrices.element_size()
    return max(1, MATRIX_BYTES // max(1, size))
