"""Subsets in which every class of the pool is present.

A subset without a row of some class has no optimum. It is replaced by a draw of its design on the
condition that every class is in it:

    bootstrap   resamples with every class keep their relative probabilities
    uniform, deletion, addition, leave_one_out
                the size is kept, and all subsets of that size with every class are equally likely;
                where the size allows none or hardly any, another size of the design is drawn
    prefix      the first row of each class moves to the front of the order, so that only prefixes
                with fewer rows than there are classes lack one

The numbers of rows of each class follow a multivariate hypergeometric law (bootstrap: multinomial).
They are drawn until none is zero, then the rows within each class. For classes of n_c among N rows,
the events that class c is present are negatively associated, so that

    P(every class in k of N rows) <= product over c of 1 - C(N - n_c, k) / C(N, k)

Sizes for which this bound is below 1 in 2^DOUBLINGS, or with fewer rows than classes, are not tried.

K. Joag-Dev, F. Proschan, "Negative association of random variables with applications", Annals of
Statistics 11 (1983), 286-295.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64

from modelpred.subsets.designs import Row, Rows, members

DOUBLINGS = 8  # of the draws of one size: 1 + 2 + ... + 2^(DOUBLINGS - 1)
SIZES = 16  # sizes that are tried for one subset


class Classes:
    """The rows of each class of a pool. Without labels, no class is ever missing."""

    def __init__(self, labels: np.ndarray | None, *, points: int) -> None:
        self._points = points
        self._labels = np.zeros(points, dtype=np.int64)
        if labels is not None:
            self._labels = np.unique(labels, return_inverse=True)[1].reshape(points)
        self._sizes: dict[str, Int64[np.ndarray, " _"]] = {}

    @cached_property
    def _rows(self) -> list[Int64[np.ndarray, " _"]]:
        """The row numbers of each class."""
        order = np.argsort(self._labels, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self._labels))[:-1])

    def all_in(self, weights: Rows) -> Bool[np.ndarray, " subsets"]:
        """Whether every class has a row in each subset."""
        present = np.ones(len(weights), dtype=np.bool_)
        if len(self._rows) > 1:
            for rows in self._rows:
                present &= weights[:, rows].any(axis=1)
        return present

    def put_first(self, prefixes: Rows) -> Rows:
        """The prefixes of one order, with the first row of each class moved to its front."""
        ranks = self._points - prefixes.sum(axis=0, dtype=np.int64)
        order = np.argsort(ranks, kind="stable")
        heads = np.sort(np.unique(self._labels[order], return_index=True)[1])
        moved = np.concatenate([order[heads], np.delete(order, heads)])
        return np.tri(self._points, dtype=np.uint8)[:, np.argsort(moved)]

    def sizes(self, design: str) -> Int64[np.ndarray, " sizes"]:
        """The design's sizes at which a draw has every class often enough to be tried."""
        if design not in self._sizes:
            self._sizes[design] = self._promising(design)
        return self._sizes[design]

    def draw(self, design: str, size: int, generator: np.random.Generator) -> Row | None:
        """A subset of so many rows with every class; None where no draw had them all."""
        always = 0 if design == "bootstrap" else members(design, self._points).always
        free = [rows[rows >= always] for rows in self._rows]
        numbers = np.array([len(rows) for rows in free])
        needed = np.array([not (rows < always).any() for rows in self._rows])
        for doubling in range(DOUBLINGS):
            if design == "bootstrap":
                counts = generator.multinomial(size, numbers / size, size=2**doubling)
            else:
                counts = generator.multivariate_hypergeometric(
                    numbers, size - always, size=2**doubling
                )
            whole = (counts[:, needed] > 0).all(axis=1)
            if whole.any():
                return self._filled(design, always, free, counts[whole.argmax()], generator)
        return None

    def _filled(
        self,
        design: str,
        always: int,
        free: list[Int64[np.ndarray, " _"]],
        counts: Int64[np.ndarray, " classes"],
        generator: np.random.Generator,
    ) -> Row:
        """Weights [points] with so many rows of each class, any of them equally likely."""
        if design == "bootstrap":
            weights = np.zeros(self._points, dtype=np.int32)
            for rows, count in zip(free, counts.tolist(), strict=True):
                weights[rows] = generator.multinomial(count, np.full(len(rows), 1 / len(rows)))
            return weights
        weights = np.zeros(self._points, dtype=np.uint8)
        weights[:always] = 1
        for rows, count in zip(free, counts.tolist(), strict=True):
            weights[generator.choice(rows, count, replace=False, shuffle=False)] = 1
        return weights

    def _promising(self, design: str) -> Int64[np.ndarray, " sizes"]:
        points = self._points
        if design == "bootstrap":
            shares = np.array([len(rows) for rows in self._rows]) / points
            sizes = np.array([points])
            bound = np.prod(1 - (1 - shares) ** points, keepdims=True)
            return sizes[bound * 2**DOUBLINGS >= 1]
        smallest, largest, always = members(design, points)
        sizes = np.arange(smallest, largest + 1)
        needed = [len(rows) for rows in self._rows if not (rows < always).any()]
        bound = (sizes - always >= len(needed)).astype(np.float64)
        for number, classes in zip(*np.unique(needed, return_counts=True), strict=True):
            absent = _none_of(int(number), points - always, sizes - always)
            bound *= (1 - absent) ** classes
        return sizes[bound * 2**DOUBLINGS >= 1]


def _none_of(
    number: int, points: int, sizes: Int64[np.ndarray, " sizes"]
) -> Float64[np.ndarray, " sizes"]:
    """Probability that so many given points are all outside of a random subset, for each size."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, points + 1)))])
    outside = np.maximum(points - number - sizes, 0)
    ratio = logs[points - number] - logs[outside] - logs[points] + logs[points - sizes]
    return np.where(sizes <= points - number, np.exp(np.minimum(ratio, 0.0)), 0.0)
