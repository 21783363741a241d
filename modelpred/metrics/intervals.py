"""Means and differences with their 95% intervals.

differences         of two means by Welch's t, of two proportions by Newcombe's hybrid score
interval (1998, method 10), which holds where nothing varies, too
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from torch import Tensor

Array: TypeAlias = NDArray[Any] | Tensor
Vector: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values with its 95% interval."""

    mean: float
    low: float
    high: float
    n: int


def as_numbers(values: Array) -> Vector:
    """The values as a float64 array."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def as_pair(first: Array, second: Array) -> tuple[Vector, Vector]:
    """Two float64 arrays; ValueError if their shapes differ."""
    left, right = as_numbers(first), as_numbers(second)
    if left.shape != right.shape:
        raise ValueError(f"expected two arrays of one shape, got {left.shape} and {right.shape}")
    return left, right


def mean_interval(values: Array) -> Interval:
    """Return the mean of independent values with its 95% Student-t interval.

    One value says nothing of its spread: its interval is the whole line. Values that are not
    finite carry through to the mean, and the interval is then the whole line, too.
    """
    sample = as_numbers(values).ravel()
    if sample.size == 0:
        raise ValueError("expected at least one value to average, got none")
    mean = float(sample.mean())
    if sample.size == 1 or not np.isfinite(mean):
        return Interval(mean, -np.inf, np.inf, sample.size)
    quantile = stdtrit(sample.size - 1, (1 + CONFIDENCE) / 2)
    half = float(quantile * sample.std(ddof=1) / np.sqrt(sample.size))
    return Interval(mean, mean - half, mean + half, sample.size)


@dataclass(frozen=True)
class Differences:
    """Differences of paired columns with their 95% intervals; arrays of one shape."""

    mean: Vector
    low: Vector
    high: Vector


def mean_differences(
    means: tuple[Array, Array], variances: tuple[Array, Array], counts: tuple[Array, Array]
) -> Differences:
    """Return first minus second mean with Welch's interval, elementwise.

    Args:
        means: of the first and of the second sample.
        variances: unbiased ones (divisor n - 1).
        counts: sizes of the samples; shapes broadcast. Below two the difference is nan.
    """
    first, second = (as_numbers(mean) for mean in means)
    sizes = [as_numbers(count) for count in counts]
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = [as_numbers(v) / n for v, n in zip(variances, sizes, strict=True)]
        total = squares[0] + squares[1]
        parts = [square**2 / (n - 1) for square, n in zip(squares, sizes, strict=True)]
        freedom = np.where(total > 0, total**2 / (parts[0] + parts[1]), np.inf)
        known = (sizes[0] > 1) & (sizes[1] > 1)
        half = np.where(known, stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(total), np.nan)
        mean = np.where(known, first - second, np.nan)
    return Differences(mean, mean - half, mean + half)


def proportion_differences(shares: tuple[Array, Array], counts: tuple[Array, Array]) -> Differences:
    """Return first minus second share of successes with Newcombe's interval, elementwise.

    Args:
        shares: of the first and of the second sample, 0 to 1.
        counts: sizes of the samples; shapes broadcast. Without any the difference is nan.
    """
    first, second = (as_numbers(share) for share in shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        (low, high), (low_two, high_two) = (
            wilson(share, as_numbers(count))
            for share, count in zip((first, second), counts, strict=True)
        )
    mean = np.where(np.isfinite(low - low_two), first - second, np.nan)
    return Differences(
        mean,
        mean - np.sqrt((first - low) ** 2 + (high_two - second) ** 2),
        mean + np.sqrt((high - first) ** 2 + (second - low_two) ** 2),
    )


def wilson(share: Vector, count: Vector) -> tuple[Vector, Vector]:
    """Ends of Wilson's score interval of a proportion."""
    z = float(ndtri((1 + CONFIDENCE) / 2))
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / scale
    return centre - half, centre + half
