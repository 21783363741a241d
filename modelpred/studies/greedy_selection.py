"""Greedy selection of k of N rows by a utility v of subsets, for any family.

Families with an optimum are served better and in less time by gradient_selection.py.

    backwards      starts from all rows. The removal of every row is scored in one call; the rows
                   whose removal leaves the highest v are removed, one in `stride` of the remaining
                   rows at a time, and the rest is scored again. One path gives a selection of every
                   size.
    with swaps     the best removals from a selection are paired with the best additions, all pairs
                   are scored in one call, and the best pair is swapped as long as v increases. The
                   maximum of hundreds of predictions is biased upwards; therefore a second, more
                   expensive v can be given that decides among the best pairs
    top by value   the k rows of the highest value

The search goes backwards because predictions are most accurate near the sizes of the fit.

*Failed models.* A selection whose model failed has no utility (nan) and is sorted last.

*Quotas.* A group can have a guaranteed share of every selection: at least floor(k share) of k rows.
Removals and swaps that violate a guarantee are not made. A selection by value takes the guaranteed
rows of each group first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.studies.sampling import UndefinedUtility, Utility

# Removals and additions that are combined to pairs: 24 x 24 pairs are one call.
PAIRED = 24
CONFIRMED = 24  # pairs that the second utility evaluates


@dataclass(frozen=True)
class Quota:
    """Guaranteed share of each group in every selection.

    Attributes:
        group: [points], the group of every point, 0..groups-1.
        shares: [groups], with a sum of at most 1.
    """

    group: Int[Tensor, " points"]
    shares: Float[Tensor, " groups"]

    def __post_init__(self) -> None:
        """Check that the guarantees can be met.

        Raises:
            InvalidInput: shares of more than 1 in total, or of more than a group has.
        """
        available = self.members(torch.ones(len(self.group), dtype=torch.bool))
        if float(self.shares.sum()) > 1 + 1e-9:
            raise InvalidInput(
                f"the quotas add up to {float(self.shares.sum()):.4g}; expected at most 1"
            )
        if bool((self.guaranteed(len(self.group)) > available).any()):
            raise InvalidInput(
                f"quotas guarantee {self.guaranteed(len(self.group)).tolist()} rows to groups of "
                f"{available.tolist()} rows; expected at most the group's share of all rows"
            )

    def guaranteed(self, count: int) -> Int[Tensor, " groups"]:
        """Return the least number of rows of each group in a selection of `count` rows."""
        return (count * self.shares + 1e-9).floor().long()

    def members(self, selected: Bool[Tensor, " points"]) -> Int[Tensor, " groups"]:
        """Return the number of rows of each group in a selection."""
        return torch.bincount(self.group[selected], minlength=len(self.shares))


def no_quota(points: int) -> Quota:
    """Return a quota without guarantees."""
    return Quota(torch.zeros(points, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))


def own_shares(group: Int[Tensor, " points"]) -> Quota:
    """Return the quota that guarantees every group its share of all rows."""
    return Quota(group, torch.bincount(group).double() / len(group))


def top_by_value(values: Vector, *, size: int, quota: Quota) -> Bool[Tensor, " points"]:
    """Return the rows of the highest values; among equal values, the first rows."""
    order = torch.from_numpy(np.argsort(-values, kind="stable").copy())
    selected = torch.zeros(len(values), dtype=torch.bool)
    for group, guaranteed in enumerate(quota.guaranteed(size).tolist()):
        selected[order[quota.group[order] == group][:guaranteed]] = True
    others = order[~selected[order]]
    selected[others[: size - int(selected.sum())]] = True
    return selected


def backwards(
    utility: Utility, *, sizes: Sequence[int], quota: Quota, stride: int = 8
) -> dict[int, Bool[Tensor, " points"]]:
    """Return nested selections of all sizes.

    Raises:
        InvalidInput: a size is out of range.
        UndefinedUtility: the models after every possible removal failed.
    """
    points = len(quota.group)
    selected = torch.ones(points, dtype=torch.bool)
    selections: dict[int, Tensor] = {}
    require_sizes(sizes, points)
    for target in sorted({int(size) for size in sizes}, reverse=True):
        while (left := int(selected.sum())) > target:
            members = selected.nonzero()[:, 0]
            utilities = utility(_toggled(selected, members))
            if not bool(utilities.isfinite().any()):
                raise UndefinedUtility(
                    f"all {len(members)} models of {left - 1} of {left} rows failed, so no row can be "
                    "removed by score; let training converge, or refine"
                )
            removed = min(max(1, left // stride), left - target)
            free = quota.members(selected) - quota.guaranteed(left - removed)
            order = members[_best_first(utilities)]
            selected[allowed(order, removed, free=free, quota=quota)] = False
        selections[target] = selected.clone()
    return selections


def with_swaps(
    utility: Utility,
    selected: Bool[Tensor, " points"],
    *,
    swaps: int,
    quota: Quota,
    confirm: Utility | None = None,
) -> Bool[Tensor, " points"]:
    """Return the selection after up to `swaps` swaps of a selected row for another that increase v.

    With `confirm`, such as the utility of retrained models, a swap must also increase that utility.
    """
    selected = selected.clone()
    if bool(selected.all()) or swaps == 0:
        return selected
    final_utility = confirm or utility
    highest = float(_nan_lowest(final_utility(selected[None].to(torch.uint8)))[0])
    all_rows = torch.arange(len(selected))
    for _ in range(swaps):
        order = _best_first(utility(_toggled(selected, all_rows)))
        removals, additions = order[selected[order]][:PAIRED], order[~selected[order]][:PAIRED]
        pairs = torch.cartesian_prod(removals, additions)
        pairs = pairs[_meets_quota(pairs, selected, quota)]
        if not len(pairs):
            break
        utilities = utility(_toggled(selected, pairs))
        if confirm is not None:
            pairs = pairs[_best_first(utilities)][:CONFIRMED]
            utilities = confirm(_toggled(selected, pairs))
        utilities = _nan_lowest(utilities)
        best = int(utilities.argmax())
        if float(utilities[best]) <= highest:
            break
        highest = float(utilities[best])
        selected[pairs[best]] ^= True
    return selected


def _meets_quota(
    pairs: Int[Tensor, "pairs 2"], selected: Bool[Tensor, " points"], quota: Quota
) -> Bool[Tensor, " pairs"]:
    removed, added = quota.group[pairs].unbind(dim=1)
    free = quota.members(selected) - quota.guaranteed(int(selected.sum()))
    return (removed == added) | (free[removed] > 0)


def require_sizes(sizes: Sequence[int], points: int) -> None:
    """Raise InvalidInput if so many rows cannot be selected."""
    for size in sizes:
        if not 0 < size <= points:
            raise InvalidInput(f"cannot select {size} of {points} rows; expected 1 to {points}")


def allowed(
    order: Int[Tensor, " candidates"], count: int, *, free: Int[Tensor, " groups"], quota: Quota
) -> Int[Tensor, " count"]:
    """Return the first `count` rows of an order, with at most `free` rows of each group."""
    if len(free) == 1:
        return order[: min(count, int(free[0]))]
    group = torch.nn.functional.one_hot(quota.group[order], len(free))
    number = (group * group.cumsum(dim=0)).sum(dim=1)  # 1 for the first of its group
    return order[number <= free[quota.group[order]]][:count]


def _best_first(utilities: Float[Tensor, " candidates"]) -> Int[Tensor, " candidates"]:
    return _nan_lowest(utilities).argsort(descending=True, stable=True)


def _nan_lowest(utilities: Float[Tensor, " candidates"]) -> Float[Tensor, " candidates"]:
    """The utilities with nan replaced by -inf; torch would sort nan first."""
    return utilities.masked_fill(~utilities.isfinite(), -torch.inf)


def _toggled(selected: Bool[Tensor, " points"], rows: Tensor) -> Tensor:
    """One copy of the selection for each row, or tuple of rows, with these rows toggled."""
    candidates = selected.repeat(len(rows), 1)
    toggled = rows.reshape(len(rows), -1)
    candidates.scatter_(1, toggled, ~candidates.gather(1, toggled))
    return candidates.to(torch.uint8)
