"""Sampler `regression`: semi-values from random subsets, each used for every player, less a linear fit.

With q_k the probabilities of the semi-value, N players and p_m the probability that a subset has
size m, 0 < m < N,

    value_i = q_{N-1} v(all) - q_0 v(none) + E[ v(S) g_i(S) ]
    g_i(S)  = q_{m-1} / (p_m m/N) if i is in S,  -q_m / (p_m (1 - m/N)) if not

so one evaluation serves all players (Li and Yu 2024; for Banzhaf it is maximum sample reuse). Four
things make its variance small:

*Control variate.* A function of S whose semi-values are known is subtracted from v, and its values
are added:

    c(S) = f(m) + sum_j h_j(m) sum_{i in S} (b_ij - mean of b_j)      h_j(m) = 1, 1/m

because a player changes the score of a large subset less than that of a small one. f and b are
fitted to v by weighted ridge regression, on one half of the rounds for use on the other, which leaves
the estimate unbiased whatever the fit.

*Sizes.* p_m is proportional to sqrt(q_{m-1}^2 N/m + q_m^2 N/(N-m)), the best where v - c is of one
size, times m^-fade, because v - c is largest for small subsets.

*Small sizes are enumerated*: a size with no more subsets than would be drawn of it has all of them
evaluated once, and adds no sampling error. With a large enough budget the values are exact.

*Rounds.* The sizes of a round are drawn systematically, one from every equal part of the
distribution. Subsets come in antithetic pairs: one is the begin of a random order, the other the end
of it, with the size from the opposite part. For a symmetric distribution (Banzhaf) they are complements.

W. Li, Y. Yu, "One sample fits all: approximating all probabilistic values simultaneously and
efficiently", NeurIPS 2024. S. Lundberg, S.-I. Lee, "A unified approach to interpreting model
predictions", NeurIPS 2017: regression on random subsets.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.studies.sampling import MOST_LOST, Game, Sampler

ROUND = 16  # subsets
ESTIMATES = 64  # most of them; each is the mean of some rounds
SMALLEST = 3  # players
FADE = 0.75  # of groups; measured optima are 0.5 (six rows each) to 1.5 (60 and more)
FADE_OF_ROWS = 0.5
UNIFORM = 0.1  # share of the subsets whose sizes are drawn without it
TWO_SHAPES_UP_TO = 300  # players; more take one h_j, whose fit is four times faster
LEAST_RIDGE = 1e-9  # relative, of the functions of the size
PRIOR = 1e-6  # weight of a size whose mean is known, relative to that of a subset
NEGLIGIBLE = 1e-6  # relative to the largest of the functions that f is fitted with
Members = NDArray[np.uint8]  # [subsets, points]
Sizes = NDArray[np.int64]
AT_ONCE = 2**21  # entries of the arrays of a block of subsets


@final
class RegressionSampler(Sampler):
    """Random subsets in antithetic pairs, less a fitted function of known values.

    Args:
        size_probabilities: [points], q_k.
        ends: utilities of the empty subset and of all points.
        evaluations: the budget, which decides the sizes to enumerate.
        generator: draws subsets.
        fade: exponent with which v - c falls with the size.
    """

    orders_a_round = 1

    def __init__(
        self,
        size_probabilities: Vector,
        ends: Float[Tensor, " 2"],
        *,
        evaluations: int,
        generator: np.random.Generator,
        fade: float = FADE,
    ) -> None:
        self.points = len(size_probabilities)
        self.size_probabilities = size_probabilities
        self.none, self.all = ends.tolist()
        # Two generators, so that the draws do not depend on how many rounds are drawn at once.
        self.for_sizes, self.for_orders = generator.spawn(2)
        wanted = _size_distribution(size_probabilities, fade)
        self.enumerated, self.drawn = _split(wanted, evaluations)
        self.members: list[Tensor] = []
        self.utilities: list[Tensor] = []
        self.complete: list[_Size] = []

    @property
    def enumerations(self) -> int:
        """Number of evaluations that do not depend on the rounds."""
        return sum(comb(self.points, size) for size in self.enumerated)

    def evaluations(self, rounds: int) -> int:
        """Return the number of evaluations of this many rounds."""
        return self.enumerations + (rounds * ROUND if self.drawn.any() else 0)

    def memory(self, rounds: int) -> int:
        """Bytes that drawing so many rounds at once takes."""
        return 2 * ROUND * rounds * self.points + 64 * (2 * self.points) ** 2

    def draw(self, rounds: int, game: Game) -> None:
        """Draw this many additional rounds; the first call also enumerates the small sizes."""
        if not self.complete:
            self.complete = [_evaluated(self.points, size, game) for size in self.enumerated]
        if not self.drawn.any():
            return
        block = max(1, AT_ONCE // (ROUND * self.points))
        for start in range(0, rounds, block):
            members = self._subsets(min(block, rounds - start))
            self.members.append(members)
            self.utilities.append(game(len(members), lambda rows, all_of=members: all_of[rows]))

    def estimates(self, most: int = ESTIMATES) -> Vector:
        """Return means over rounds [estimates, points]; all nan if too many models failed.

        They are an even number, at most `most`.
        """
        values = self._of_enumerated()
        if not self.drawn.any():
            return np.stack([values, values])  # without sampling error
        members, utilities = torch.cat(self.members).numpy(), torch.cat(self.utilities).numpy()
        if self._lost(members, utilities) > MOST_LOST:
            return np.full((2, self.points), np.nan)
        odd = np.arange(len(members)) // ROUND % 2 == 1
        count = max(1, min(most, len(members) // ROUND) // 2)
        parts: list[Vector] = []
        for own in (odd, ~odd):
            control = self._fitted(members[~own], utilities[~own])
            parts += self._of_rounds(members[own], utilities[own], control, count=count)
        return np.stack(parts) + values

    def _lost(self, members: Members, utilities: Vector) -> float:
        """The share of the semi-value's probability that failed models lose."""
        chances = self.size_probabilities
        share = (chances[:-1] + chances[1:]) / 2  # of sizes 1..points-1
        sizes = members.sum(axis=1, dtype=np.int64)
        failed = np.isnan(utilities) * share[sizes - 1] / self.drawn[sizes - 1]
        return failed.mean() + sum(each.failed * share[each.size - 1] for each in self.complete)

    def _subsets(self, rounds: int) -> Tensor:
        """Members of the subsets of some rounds, uint8 [subsets, points]."""
        half = ROUND // 2
        places = (np.arange(half) + self.for_sizes.random((rounds, 1))) / ROUND
        both = np.stack([places, 1 - places], axis=-1).reshape(-1, 2)
        sizes = np.searchsorted(np.cumsum(self.drawn), both, side="right") + 1
        sizes = np.minimum(sizes, np.flatnonzero(self.drawn)[-1] + 1)
        ranks = np.tile(np.arange(self.points, dtype=np.int32), (len(sizes), 1))
        ranks = self.for_orders.permuted(ranks, axis=1)
        begin = ranks < sizes[:, :1]
        end = ranks >= self.points - sizes[:, 1:]
        return torch.from_numpy(np.stack([begin, end], 1).reshape(-1, self.points).astype(np.uint8))

    def _of_enumerated(self) -> Vector:
        """The part of the values that the ends and the enumerated sizes contribute."""
        chances = self.size_probabilities
        total = np.full(self.points, chances[-1] * self.all - chances[0] * self.none)
        for each in self.complete:
            total += chances[each.size - 1] * each.inside - chances[each.size] * each.outside
        return total

    def _fitted(self, members: Members, utilities: Vector) -> "_Control":
        """The control variate of some subsets; subsets without a utility are left out."""
        defined = ~np.isnan(utilities)
        members, utilities = members[defined], utilities[defined]
        shapes, curve = self._shapes(), _curve(self.drawn)
        points, count = self.points, len(members)
        inputs = points * len(shapes) + curve.shape[1]
        products, target = np.zeros((inputs, inputs)), np.zeros(inputs)
        for start in range(0, count, block := max(1, AT_ONCE // points)):
            part, own = members[start : start + block], utilities[start : start + block]
            sizes = part.sum(axis=1, dtype=np.int64)
            weights = self._spread()[sizes - 1]  # so that the error of the values is least
            centred = part - sizes[:, None] / points
            rows = [centred * shape[sizes, None] for shape in shapes]
            scaled = np.concatenate([*rows, curve[sizes]], axis=1) * weights[:, None]
            products += scaled.T @ scaled
            target += scaled.T @ (own * weights)
        known, means = self._known_sizes()
        products[-curve.shape[1] :, -curve.shape[1] :] += PRIOR * curve[known].T @ curve[known]
        target[-curve.shape[1] :] += PRIOR * curve[known].T @ means
        scale = products.diagonal().copy()
        ridge = np.full(inputs, LEAST_RIDGE * scale[points * len(shapes) :].mean())
        for own in np.split(np.arange(points * len(shapes)), len(shapes)):
            ridge[own] = (points / max(count, 1)) ** 2 * scale[own].mean()
        found = np.linalg.solve(products + np.diag(ridge), target)
        by_shape = found[: points * len(shapes)].reshape(len(shapes), points)
        by_shape -= by_shape.mean(axis=1, keepdims=True)
        return _Control(by_shape, shapes, curve @ found[points * len(shapes) :])

    def _known_sizes(self) -> tuple[Sizes, Vector]:
        """Sizes whose mean utility is known exactly, and that mean.

        They settle the part of f that the subsets drawn leave open, if these have few sizes.
        """
        sizes = np.array([each.size for each in self.complete] + [self.points])
        means = np.array([each.inside.mean() for each in self.complete] + [self.all])
        defined = ~np.isnan(means)
        return sizes[defined], means[defined]

    def _of_rounds(
        self, members: Members, utilities: Vector, control: "_Control", *, count: int
    ) -> list[Vector]:
        """Estimates [points] from some rounds each; a failed model has the score of the control."""
        inside, outside = self._factors()
        sizes = members.sum(axis=1, dtype=np.int64)
        left = utilities - control.of(members, sizes)
        left = np.where(np.isnan(left), 0, left)
        own, others = left * inside[sizes - 1], left * outside[sizes - 1]
        known = self._of_control(control)
        found: list[Vector] = []
        for part in np.array_split(np.arange(len(members)), count):
            total = (own[part] + others[part]) @ members[part] - others[part].sum()
            found.append(total / len(part) + known)
        return found

    def _of_control(self, control: "_Control") -> Vector:
        """The part of the control's values that the drawn sizes contribute [points]."""
        points, chances = self.points, self.size_probabilities
        sizes = np.flatnonzero(self.drawn) + 1
        before, at = chances[sizes - 1], chances[sizes]
        own = control.shapes[:, sizes] @ (before * (points - sizes) + at * sizes) / (points - 1)
        return (before - at) @ control.curve[sizes] + own @ control.worths

    def _factors(self) -> tuple[Vector, Vector]:
        """g_i(S) inside and minus g_i(S) outside, of sizes 1..points-1; 0 for sizes not drawn."""
        sizes, chances = np.arange(1, self.points), self.size_probabilities
        drawn = np.where(self.drawn > 0, self.drawn, np.inf)
        inside = chances[:-1] / (drawn * sizes / self.points)
        return inside, chances[1:] / (drawn * (1 - sizes / self.points))

    def _spread(self) -> Vector:
        """Root mean square of g_i(S) over subsets of each size, times that of drawing it."""
        drawn = np.where(self.drawn > 0, self.drawn, np.inf)
        return _best_sizes(self.size_probabilities) / drawn / np.sqrt(self.points)

    def _shapes(self) -> Vector:
        """h_j of sizes 0..points [shapes, points + 1]."""
        sizes = np.maximum(np.arange(self.points + 1), 1).astype(np.float64)
        if self.points > TWO_SHAPES_UP_TO:
            return np.ones_like(sizes)[None]
        return np.stack([np.ones_like(sizes), 1 / sizes])


@dataclass(frozen=True)
class _Control:
    """c(S) = curve[m] + sum over j and members of shapes_j[m] worths_j."""

    worths: Vector  # [shapes, points], each with the mean 0
    shapes: Vector  # [shapes, sizes]
    curve: Vector  # [sizes]

    def of(self, members: Members, sizes: Sizes) -> Vector:
        """C of subsets."""
        block = max(1, AT_ONCE // members.shape[1])
        parts = [
            members[start : start + block] @ self.worths.T
            for start in range(0, len(members), block)
        ]
        return self.curve[sizes] + (np.concatenate(parts) * self.shapes[:, sizes].T).sum(axis=1)


@dataclass(frozen=True)
class _Size:
    """Mean utilities of all subsets of a size with, and without, each player [points]."""

    size: int
    failed: float  # share
    inside: Vector
    outside: Vector


def _evaluated(points: int, size: int, game: Game) -> _Size:
    """Evaluate all subsets of a size; a failed model has the mean score of the others."""
    few = min(size, points - size)
    members = np.zeros((comb(points, few), points), dtype=np.uint8)
    chosen = np.array(list(combinations(range(points), few)))
    np.put_along_axis(members, chosen, 1, axis=1)
    if few < size:
        members = 1 - members
    subsets = torch.from_numpy(members)
    utilities = game(len(subsets), lambda rows: subsets[rows]).numpy()
    missing = np.isnan(utilities)
    if not missing.all():
        utilities = np.where(missing, utilities[~missing].mean(), utilities)
    inside = utilities @ members / members.sum(axis=0, dtype=np.int64)
    without = 1 - members
    outside = utilities @ without / without.sum(axis=0, dtype=np.int64)
    return _Size(size, float(missing.mean()), inside, outside)


def _curve(drawn: Vector) -> Vector:
    """Functions of the sizes 0..points that f is fitted with, orthonormal where sizes are drawn."""
    sizes = np.arange(len(drawn) + 2, dtype=np.float64)
    from_one = np.maximum(sizes, 1)
    functions = np.stack([np.ones_like(sizes), np.log1p(sizes), 1 / from_one, sizes], 1)
    functions /= functions.max(axis=0)
    _, values, vectors = np.linalg.svd(functions[1:-1] * np.sqrt(drawn)[:, None])
    kept = values > NEGLIGIBLE * values[0]
    return functions @ (vectors[: len(values)][kept].T / values[kept])


def _best_sizes(chances: Vector) -> Vector:
    """Probabilities of sizes 1..points-1 that are best if v - c is of one size, not normalised."""
    points = len(chances)
    sizes = np.arange(1, points)
    return np.sqrt(
        chances[:-1] ** 2 * points / sizes + chances[1:] ** 2 * points / (points - sizes)
    )


def _size_distribution(chances: Vector, fade: float) -> Vector:
    """p_m of sizes 1..points-1."""
    best = _best_sizes(chances)
    fading = best * np.arange(1, len(chances)) ** -fade
    return (1 - UNIFORM) * fading / fading.sum() + UNIFORM * best / best.sum()


def _split(wanted: Vector, evaluations: int) -> tuple[list[int], Vector]:
    """The sizes to enumerate, and the distribution of the others; all 0 if there are none."""
    points, left, drawn = len(wanted) + 1, evaluations, wanted.copy()
    enumerated: list[int] = []
    for size in sorted(range(1, points), key=lambda size: min(size, points - size)):
        count = comb(points, size)
        if count > left:
            break
        if drawn[size - 1] > 0 and count <= left * drawn[size - 1] / drawn.sum():
            enumerated.append(size)
            left -= count
            drawn[size - 1] = 0
    return enumerated, drawn / drawn.sum() if drawn.any() else drawn
