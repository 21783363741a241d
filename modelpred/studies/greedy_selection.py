"""Choosing k of N rows by a utility v of subsets, thousands of candidates in a call.

    backwards      from all rows down: every row's removal is scored in one call; the rows whose
                   removal leaves the highest v go, one in `stride` of those kept at a time; then
                   the rest is scored again. One path answers for every k.
    with swaps     the best removals from a choice are paired with the best additions, every pair
                   is scored in one call, and the best pair is swapped while v rises. The best of
                   hundreds of predictions is partly the luckiest: a second, dearer v may be given
                   that decides among the few best and says when to end
    top by value   the k rows of the highest value

Backwards, because predictions are best near the sizes that a predictor saw.

*Failed models.* A choice whose model failed has no utility (nan) and is never the better one: it
comes after every other.

*Quotas.* A group may be promised a share of every choice: of k rows at least floor(k share). A
removal or a swap that would break a promise is not made, and a choice by value takes each group's
promised rows first.
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

# Removals and additions that a swap combines: 24 x 24 pairs are one call.
PAIRED = 24
CONFIRMED = 24  # pairs that the second utility decides among


@dataclass(frozen=True)
class Quota:
    """What share of every choice each group is promised.

    Attributes:
        group: [points], the group of every point, 0..groups-1.
        shares: [groups], adding up to 1 at most.
    """

    group: Int[Tensor, " points"]
    shares: Float[Tensor, " groups"]

    def __post_init__(self) -> None:
        """Refuse promises that no choice can keep."""
        available = self.members(torch.ones(len(self.group), dtype=torch.bool))
        if float(self.shares.sum()) > 1 + 1e-9:
            raise InvalidInput(
                f"the quotas add up to {float(self.shares.sum()):.4g}; expected 1 at most"
            )
        if bool((self.promised(len(self.group)) > available).any()):
            raise InvalidInput(
                f"quotas promise {self.promised(len(self.group)).tolist()} of all rows to groups "
                f"of {available.tolist()}; a group has its own share of the pool at most"
            )

    def promised(self, count: int) -> Int[Tensor, " groups"]:
        """Rows that each group has at least in a choice of so many."""
        return (count * self.shares + 1e-9).floor().long()

    def members(self, kept: Bool[Tensor, " points"]) -> Int[Tensor, " groups"]:
        """Rows that each group has in a choice."""
        return torch.bincount(self.group[kept], minlength=len(self.shares))


def no_quota(points: int) -> Quota:
    """Return the quota that promises nothing."""
    return Quota(torch.zeros(points, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))


def own_shares(group: Int[Tensor, " points"]) -> Quota:
    """Return the quota that promises every group its share of the pool."""
    return Quota(group, torch.bincount(group).double() / len(group))


def top_by_value(values: Vector, *, size: int, quota: Quota) -> Bool[Tensor, " points"]:
    """Return the choice of the highest values; of equal ones the first."""
    order = torch.from_numpy(np.argsort(-values, kind="stable").copy())
    kept = torch.zeros(len(values), dtype=torch.bool)
    for group, promised in enumerate(quota.promised(size).tolist()):
        kept[order[quota.group[order] == group][:promised]] = True
    others = order[~kept[order]]
    kept[others[: size - int(kept.sum())]] = True
    return kept


def backwards(
    utility: Utility, *, sizes: Sequence[int], quota: Quota, stride: int = 8
) -> dict[int, Bool[Tensor, " points"]]:
    """Return a choice of each size, each part of the next larger one.

    Raises:
        InvalidInput: a size out of range, or removals none of which leaves a model that did not fail.
    """
    points = len(quota.group)
    kept = torch.ones(points, dtype=torch.bool)
    found: dict[int, Tensor] = {}
    for target in sorted({int(size) for size in sizes}, reverse=True):
        if not 0 < target <= points:
            raise InvalidInput(f"cannot choose {target} of {points} rows; ask for 1 to {points}")
        while (left := int(kept.sum())) > target:
            members = kept.nonzero()[:, 0]
            worths = utility(_toggled(kept, members))
            if not bool(worths.isfinite().any()):
                raise UndefinedUtility(
                    f"all {len(members)} models of one row less than {left} failed, so none of them "
                    "can be chosen by score; let training converge, or refine"
                )
            gone = min(max(1, left // stride), left - target)
            free = quota.members(kept) - quota.promised(left - gone)
            kept[_allowed(members[_best_first(worths)], gone, free=free, quota=quota)] = False
        found[target] = kept.clone()
    return found


def with_swaps(
    utility: Utility,
    kept: Bool[Tensor, " points"],
    *,
    swaps: int,
    quota: Quota,
    confirm: Utility | None = None,
) -> Bool[Tensor, " points"]:
    """Return the choice after up to so many swaps of a kept row for another, each of which helps.

    With `confirm`, such as the utility of retrained models, a swap has to help by that.
    """
    kept = kept.clone()
    if bool(kept.all()) or swaps == 0:
        return kept
    judge = confirm or utility
    reached = float(_never_best(judge(kept[None].to(torch.uint8)))[0])
    everyone = torch.arange(len(kept))
    for _ in range(swaps):
        order = _best_first(utility(_toggled(kept, everyone)))
        leaving, joining = order[kept[order]][:PAIRED], order[~kept[order]][:PAIRED]
        pairs = torch.cartesian_prod(leaving, joining)
        pairs = pairs[_keeps_promises(pairs, kept, quota)]
        if not len(pairs):
            break
        worths = utility(_toggled(kept, pairs))
        if confirm is not None:
            pairs = pairs[_best_first(worths)][:CONFIRMED]
            worths = confirm(_toggled(kept, pairs))
        worths = _never_best(worths)
        best = int(worths.argmax())
        if float(worths[best]) <= reached:
            break
        reached = float(worths[best])
        kept[pairs[best]] ^= True
    return kept


def _keeps_promises(
    pairs: Int[Tensor, "pairs 2"], kept: Bool[Tensor, " points"], quota: Quota
) -> Bool[Tensor, " pairs"]:
    left, joined = quota.group[pairs].unbind(dim=1)
    free = quota.members(kept) - quota.promised(int(kept.sum()))
    return (left == joined) | (free[left] > 0)


def _allowed(
    order: Int[Tensor, " candidates"], count: int, *, free: Int[Tensor, " groups"], quota: Quota
) -> Int[Tensor, " count"]:
    """The first `count` rows of an order of which no group loses more than it has free."""
    group = torch.nn.functional.one_hot(quota.group[order], len(free))
    place = (group * group.cumsum(dim=0)).sum(dim=1)  # 1 for the first of its group
    return order[place <= free[quota.group[order]]][:count]


def _best_first(worths: Float[Tensor, " candidates"]) -> Int[Tensor, " candidates"]:
    return _never_best(worths).argsort(descending=True, stable=True)


def _never_best(worths: Float[Tensor, " candidates"]) -> Float[Tensor, " candidates"]:
    """The worths, below all others where there is none; torch sorts nan first."""
    return worths.masked_fill(~worths.isfinite(), -torch.inf)


def _toggled(kept: Bool[Tensor, " points"], rows: Tensor) -> Tensor:
    """The choice once for each row, or each tuple of rows, with these in or out instead."""
    candidates = kept.repeat(len(rows), 1)
    toggled = rows.reshape(len(rows), -1)
    candidates.scatter_(1, toggled, ~candidates.gather(1, toggled))
    return candidates.to(torch.uint8)
