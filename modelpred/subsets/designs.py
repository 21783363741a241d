"""What each design draws, without regard to what was drawn before."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int32, UInt8
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.subsets.config import DESIGNS, require_known

SMALLEST_POOL = 3
UNBOUNDED = 2**62  # distinct subsets that no request exhausts
# Measured bytes of a subset, for each point and beside: while subsets are drawn, and in all while they are written.
DRAWN_BYTES, WRITTEN_BYTES = (4, 300), (13, 600)
DRAWN_TOGETHER = 250  # not the shard size, which may change without changing the subsets

Rows = UInt8[np.ndarray, "subsets points"] | Int32[np.ndarray, "subsets points"]
Row = UInt8[np.ndarray, " points"] | Int32[np.ndarray, " points"]


def draw(
    design: str, *, points: int, count: int, generator: np.random.Generator
) -> UInt8[Tensor, "subsets points"] | Int32[Tensor, "subsets points"]:
    """Weights [count, points] of one design; repeats are not looked for.

    uint8; int32 when a count is over 255. leave_one_out alone never repeats, so its count is at
    most the number of points.

    Raises:
        InvalidInput: unknown design, a negative count, or too few points.
    """
    require_known("design", design, DESIGNS)
    require_points(points)
    if count < 0:
        raise InvalidInput(f"the number of subsets must be at least 0, got {count}")
    if design == "leave_one_out" and count > points:
        raise InvalidInput(f"{points} points have {points} leave_one_out subsets, not {count}")
    require_subset_memory(count, points)
    return torch.from_numpy(compact(draw_block(design, points, count, generator)))


class Members(NamedTuple):
    """A design of 0/1 weights: the first `always` points and others up to a size in a range."""

    smallest: int
    largest: int
    always: int = 0


def members(design: str, points: int) -> Members:
    """The numbers of points in the subsets of a design of 0/1 weights."""
    return {
        "leave_one_out": Members(points - 1, points - 1),
        "addition": Members(points // 2 + 1, points, always=points // 2),
        "deletion": Members(points - points // 2, points - 1),
        "uniform": Members(max(3, math.ceil(points / 10)), points),
        "prefix": Members(1, points),
    }[design]


def draw_block(design: str, points: int, count: int, generator: np.random.Generator) -> Rows:
    """Weights [count, points] as they come from the design, in the order of the design."""
    if design == "prefix":
        orders = range(math.ceil(count / points))
        ranks = [generator.permutation(points) for _ in orders]
        sizes = np.arange(1, points + 1)[:, None]
        drawn = [(rank < sizes).astype(np.uint8) for rank in ranks]
        return np.concatenate([np.zeros((0, points), dtype=np.uint8), *drawn])[:count]
    if design == "leave_one_out":
        removed = generator.permutation(points)[:count]
        return (np.arange(points) != removed[:, None]).astype(np.uint8)
    return draw_any(design, points, count, generator)


def draw_any(design: str, points: int, count: int, generator: np.random.Generator) -> Rows:
    """Weights [count, points], each independent of the others."""
    if design == "bootstrap":
        drawn = generator.integers(points, size=(count, points))
        cells = drawn + points * np.arange(count)[:, None]
        counts = np.bincount(cells.ravel(), minlength=count * points)
        return counts.astype(np.int32).reshape(count, points)
    smallest, largest, always = members(design, points)
    others = generator.integers(smallest - always, largest - always + 1, size=(count, 1))
    weights = np.ones((count, points), dtype=np.uint8)
    weights[:, always:] = generator.permuted(np.arange(points - always) < others, axis=1)
    return weights


def support_size(design: str, points: int) -> int:
    """Number of distinct subsets that the design can draw; UNBOUNDED means this many or more."""
    if design == "bootstrap":
        return _choices(2 * points - 1, points)
    smallest, largest, always = members(design, points)
    sizes = range(smallest - always, largest - always + 1)
    # Of many points, the middle size alone is enough.
    middle = min(max((points - always) // 2, sizes[0]), sizes[-1])
    if _choices(points - always, middle) == UNBOUNDED:
        return UNBOUNDED
    return min(UNBOUNDED, sum(_choices(points - always, size) for size in sizes))


def _choices(points: int, size: int) -> int:
    """Number of ways to choose, or UNBOUNDED where there are more."""
    logarithm = math.lgamma(points + 1) - math.lgamma(size + 1) - math.lgamma(points - size + 1)
    if logarithm > math.log(UNBOUNDED) + 1:
        return UNBOUNDED
    return min(math.comb(points, size), UNBOUNDED)


def every_subset(design: str, points: int) -> Iterator[Row]:
    """Every distinct weights [points] that the design can draw."""
    if design == "bootstrap":
        for drawn in itertools.combinations_with_replacement(range(points), points):
            yield np.bincount(drawn, minlength=points).astype(np.uint8)
        return
    smallest, largest, always = members(design, points)
    for size in range(smallest - always, largest - always + 1):
        for others in itertools.combinations(range(always, points), size):
            weights = np.zeros(points, dtype=np.uint8)
            weights[:always] = 1
            weights[list(others)] = 1
            yield weights


def keys(weights: Rows) -> list[bytes]:
    """A key for each row: equal counts give equal keys, whatever the type of the array."""
    if weights.dtype == np.uint8:
        return [row.tobytes() for row in weights]
    return [compact(row).tobytes() for row in weights]


def compact(weights: Int[np.ndarray, "..."] | UInt8[np.ndarray, "..."]) -> Rows | Row:
    """The same weights as uint8 where they fit, else as int32."""
    fits = weights.dtype == np.uint8 or weights.max(initial=0) <= 255
    return weights.astype(np.uint8 if fits else np.int32, copy=False)


def require_points(points: int) -> None:
    """Refuse a pool that is too small to have subsets."""
    if points < SMALLEST_POOL:
        raise InvalidInput(f"subsets need at least {SMALLEST_POOL} points, got {points}")


def require_subset_memory(count: int, points: int, *, each: tuple[int, int] = DRAWN_BYTES) -> None:
    """Check that there is memory to draw, or to write, so many subsets."""
    per_point, beside = each
    needed = count * (per_point * points + beside)
    require_memory(needed, what=f"{count:,} subsets of {points:,} rows")
