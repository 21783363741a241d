"""Errors, rank correlations and calibration metrics, with their uncertainty.

With true t and predicted p, a row per subset:

    relative error      ‖p - t‖ / ‖t‖
    Spearman            Pearson correlation of the ranks; tied values share their mean rank
    LDS                 mean over test rows of the Spearman correlation over subsets
                        (Park et al. 2023, "TRAK")
    Brier               mean over rows of Σ_k (p_k - [y = k])²
    ECE                 Σ_bins (n_bin / n) |accuracy_bin - confidence_bin|, of the most likely class
                        (Naeini et al. 2015; Guo et al. 2017)
    reliability         2 r / (1 + r) with r the correlation of two halves (Spearman-Brown)
    top overlap         share of the highest of one that are among the highest of the other
    temperature         the T that minimises the likelihood loss of p_k^(1/T) / Σ_l p_l^(1/T)
                        (Guo et al. 2017)
    differences         of two means by Welch's t, of two proportions by Newcombe's hybrid score
                        interval (1998, method 10), which holds where nothing varies, too

Every function is pure, takes numpy arrays or tensors, and gives floats, numpy arrays or a table.
A quantity that the input leaves undefined is `nan`, never zero.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import log_softmax, ndtri, stdtrit
from torch import Tensor

Array: TypeAlias = NDArray[Any] | Tensor
Vector: TypeAlias = NDArray[np.float64]
Scheme: TypeAlias = Literal["width", "mass"]

CONFIDENCE = 0.95
# Temperatures are sought between one over this and this.
HOTTEST = 100.0


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values with its 95% interval."""

    mean: float
    low: float
    high: float
    n: int


def _numbers(values: Array) -> Vector:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _pair(first: Array, second: Array) -> tuple[Vector, Vector]:
    left, right = _numbers(first), _numbers(second)
    if left.shape != right.shape:
        raise ValueError(f"expected two arrays of one shape, got {left.shape} and {right.shape}")
    return left, right


def relative_errors(predicted: Array, true: Array) -> Vector:
    """Return ‖predicted - true‖ / ‖true‖ of every row, [subsets].

    A row that is not finite counts as infinitely wrong; a true row of zeros as 0 when it is met
    exactly and as infinitely wrong otherwise.
    """
    left, right = _pair(predicted, true)
    distance = np.linalg.norm(left - right, axis=-1)
    size = np.linalg.norm(right, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(distance == 0, 0.0, distance / size)
    return np.where(np.isfinite(distance), error, np.inf)


def mean_interval(values: Array) -> Interval:
    """Return the mean of independent values with its 95% Student-t interval.

    One value says nothing of its spread: its interval is the whole line. Values that are not
    finite carry through to the mean, and the interval is then the whole line, too.
    """
    sample = _numbers(values).ravel()
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
    first, second = (_numbers(mean) for mean in means)
    sizes = [_numbers(count) for count in counts]
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = [_numbers(v) / n for v, n in zip(variances, sizes, strict=True)]
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
    first, second = (_numbers(share) for share in shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        (low, high), (low_two, high_two) = (
            _wilson(share, _numbers(count))
            for share, count in zip((first, second), counts, strict=True)
        )
    mean = np.where(np.isfinite(low - low_two), first - second, np.nan)
    return Differences(
        mean,
        mean - np.sqrt((first - low) ** 2 + (high_two - second) ** 2),
        mean + np.sqrt((high - first) ** 2 + (second - low_two) ** 2),
    )


def _wilson(share: Vector, count: Vector) -> tuple[Vector, Vector]:
    """Ends of Wilson's score interval of a proportion."""
    z = float(ndtri((1 + CONFIDENCE) / 2))
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / scale
    return centre - half, centre + half


def pearson(first: Array, second: Array) -> float:
    """Return Pearson's correlation of all values; nan when either side does not vary."""
    left, right = (side.ravel() - side.mean() for side in _pair(first, second))
    with np.errstate(invalid="ignore"):
        return float((left @ right) / np.sqrt((left @ left) * (right @ right)))


def top_overlap(first: Array, second: Array, *, share: float = 0.1) -> float:
    """Return the share of the highest values of one that are among the highest of the other.

    Args:
        first: values.
        second: as many.
        share: of all values that count as the highest, at least one.
    """
    left, right = _pair(first, second)
    count = max(1, round(share * left.size))
    highest = [set(np.argsort(-side.ravel(), kind="stable")[:count]) for side in (left, right)]
    return len(highest[0] & highest[1]) / count


def ranks(values: Array) -> Vector:
    """Return the ranks 1..n along the first axis; equal values share their mean rank, nan has none."""
    columns = _numbers(values)
    flat = columns.reshape(len(columns), -1)
    order = flat.argsort(axis=0, kind="stable")
    ordered = np.take_along_axis(flat, order, axis=0)
    places = np.broadcast_to(np.arange(len(flat))[:, None], flat.shape)
    differs = ordered[1:] != ordered[:-1]
    edge = np.ones((1, flat.shape[1]), dtype=bool)
    first = np.where(np.concatenate([edge, differs]), places, 0)
    last = np.where(np.concatenate([differs, edge]), places, len(flat))
    first = np.maximum.accumulate(first, axis=0)
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    result = np.empty_like(flat)
    np.put_along_axis(result, order, (first + last) / 2 + 1, axis=0)
    result[np.isnan(flat)] = np.nan
    return result.reshape(columns.shape)


def _rank_correlations(first: Vector, second: Vector) -> Vector:
    """Spearman of matching columns, [columns]; nan where a column is constant."""
    left = ranks(first)
    right = ranks(second)
    left -= left.mean(axis=0)
    right -= right.mean(axis=0)
    scale = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    with np.errstate(invalid="ignore"):
        return (left * right).sum(axis=0) / scale


def spearman(first: Array, second: Array) -> float:
    """Return Spearman's rank correlation; nan when either side does not vary."""
    left, right = _pair(first, second)
    return float(_rank_correlations(left.reshape(-1, 1), right.reshape(-1, 1))[0])


def spearman_interval(first: Array, second: Array) -> Interval:
    """Return Spearman's correlation with a 95% interval over the n paired values.

    Fisher's transform with the variance (1 + r²/2) / (n - 3) of Bonett and Wright (2000); it
    treats the pairs as independent. Three pairs or fewer give the whole range from -1 to 1.
    """
    left, right = _pair(first, second)
    correlation = spearman(left, right)
    count = left.size
    if count <= 3 or np.isnan(correlation):
        return Interval(correlation, -1.0, 1.0, count)
    inside = float(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    half = float(ndtri((1 + CONFIDENCE) / 2)) * np.sqrt((1 + inside**2 / 2) / (count - 3))
    centre = np.arctanh(inside)
    return Interval(
        correlation, float(np.tanh(centre - half)), float(np.tanh(centre + half)), count
    )


def spearman_within(predicted: Array, true: Array, groups: Array) -> float:
    """Return the rank correlation of predicted and true values within groups, pooled over groups.

    Ranks are taken inside each group, so differences between groups (of subset size, say) count
    for nothing. Without ties it is the mean of the groups' Spearman correlations, a group of n
    weighing n - 1. A prediction that varies in no group ranks nothing: 0. A truth that varies in
    no group leaves nothing to rank: nan.
    """
    left, right = _pair(predicted, true)
    labels = _numbers(groups).ravel()
    if labels.shape != left.shape:
        raise ValueError(f"expected a group for each of {left.size} values, got {labels.size}")
    shared = spread_left = spread_right = 0.0
    for group in np.unique(labels):
        member = labels == group
        count = int(member.sum())
        # The squares of n ranks without ties sum to n (n² - 1) / 12: this scale leaves (n - 1) / 12.
        scale = 1 / (count * (count + 1))
        first = ranks(left[member]) - (count + 1) / 2
        second = ranks(right[member]) - (count + 1) / 2
        shared += scale * float(first @ second)
        spread_left += scale * float(first @ first)
        spread_right += scale * float(second @ second)
    if spread_right == 0:
        return float("nan")
    return 0.0 if spread_left == 0 else shared / float(np.sqrt(spread_left * spread_right))


def lds(predicted: Array, true: Array) -> Interval:
    """Return the linear datamodelling score of predicted against true [subsets, rows].

    The mean over rows of the Spearman correlation over subsets. A row whose truth does not vary
    is left out; a row whose prediction does not vary counts 0. nan where a prediction is nan. The
    95% interval is over rows and takes the subsets as given.
    """
    left, right = _pair(predicted, true)
    varies = right.min(axis=0) < right.max(axis=0)
    if not varies.any():
        raise ValueError("expected true values that vary over the subsets, got constant ones")
    correlations = np.nan_to_num(_rank_correlations(left[:, varies], right[:, varies]))
    correlations[np.isnan(left[:, varies]).any(axis=0)] = np.nan
    return mean_interval(correlations)


def split_half_reliability(first: Array, second: Array) -> float:
    """Return the reliability of an average from the estimates of its two halves.

    With r the Spearman correlation of the halves, the Spearman-Brown formula 2 r / (1 + r): the
    correlation to expect with an equally long, independent estimate, hence the ceiling for one.
    Halves that disagree (r <= 0) give r itself.
    """
    correlation = spearman(first, second)
    return 2 * correlation / (1 + correlation) if correlation > 0 else correlation


def auroc(score: Array, positive: Array) -> float:
    """Return the probability that a positive scores above a negative; ties count one half.

    nan where a score is nan.
    """
    scores, truth = _pair(score, positive)
    marked = truth.astype(bool).ravel()
    positives, negatives = int(marked.sum()), int((~marked).sum())
    if positives == 0 or negatives == 0:
        raise ValueError(
            f"expected positives and negatives, got {positives} positive and {negatives} negative"
        )
    if np.isnan(scores).any():
        return float("nan")
    above = ranks(scores.ravel())[marked].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _labelled(probabilities: Array, labels: Array) -> tuple[Vector, NDArray[np.int64]]:
    table = _numbers(probabilities)
    classes = _numbers(labels).astype(np.int64)
    if table.ndim != 2 or classes.shape != table.shape[:1]:
        raise ValueError(
            f"expected probabilities [rows, classes] and labels [rows], "
            f"got {table.shape} and {classes.shape}"
        )
    if classes.size == 0 or classes.min() < 0 or classes.max() >= table.shape[1]:
        raise ValueError(f"expected one label or more, each in 0..{table.shape[1] - 1}")
    return table, classes


def negative_log_likelihood(probabilities: Array, labels: Array) -> float:
    """Return the mean of -log p(true class) of [rows, classes]; infinite where that p is 0."""
    table, classes = _labelled(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.log(table[np.arange(len(classes)), classes]).mean())


def brier(probabilities: Array, labels: Array) -> float:
    """Return the mean over rows of Σ_k (p_k - [y = k])²: from 0 to 2, for two classes as well."""
    table, classes = _labelled(probabilities, labels)
    truth = np.eye(table.shape[1])[classes]
    return float(((table - truth) ** 2).sum(axis=1).mean())


def reliability_table(
    probabilities: Array, labels: Array, *, bins: int = 15, scheme: Scheme = "width"
) -> pl.DataFrame:
    """Return a row per bin that is not empty, with the mean confidence and the accuracy.

    The confidence of a row is the probability of its most likely class. Bins (low, high] are
    equally wide over 0..1 (`width`) or hold about as many rows each (`mass`; equal confidences
    share a bin). Columns: bin, low, high, confidence, accuracy, accuracy_low, accuracy_high (95%,
    Wilson), count, noise (the |accuracy - confidence| to expect of a calibrated model).
    """
    table, classes = _labelled(probabilities, labels)
    if bins < 1:
        raise ValueError(f"expected one bin or more, got {bins}")
    confidence = table.max(axis=1)
    share = np.linspace(0, 1, bins + 1)
    edges = share if scheme == "width" else np.quantile(confidence, share)
    index = np.searchsorted(edges[1:-1], confidence, side="left")
    rows = pl.DataFrame(
        {
            "bin": index,
            "low": edges[index],
            "high": edges[index + 1],
            "confidence": confidence,
            "accuracy": (table.argmax(axis=1) == classes).astype(np.float64),
            "variance": confidence * (1 - confidence),
        }
    )
    grouped = rows.group_by("bin").agg(
        pl.col("low", "high").first(),
        pl.col("confidence", "accuracy").mean(),
        pl.len().cast(pl.Int64).alias("count"),
        # The mean absolute value of a normal deviate is sqrt(2 / pi) of its standard deviation.
        (((2 / np.pi) * pl.col("variance").clip(0).sum()).sqrt() / pl.len()).alias("noise"),
    )
    return grouped.sort("bin").pipe(_with_wilson_interval)


def _with_wilson_interval(table: pl.DataFrame) -> pl.DataFrame:
    low, high = _wilson(table["accuracy"].to_numpy(), table["count"].cast(pl.Float64).to_numpy())
    return table.with_columns(
        pl.Series("accuracy_low", low), pl.Series("accuracy_high", high)
    ).select(
        *("bin", "low", "high", "confidence", "accuracy", "accuracy_low", "accuracy_high"),
        *("count", "noise"),
    )


def expected_calibration_error(
    probabilities: Array, labels: Array, *, bins: int = 15, scheme: Scheme = "width"
) -> float:
    """Return the mean gap between confidence and accuracy over bins, weighted by their counts.

    It is biased upwards: even a calibrated model has `calibration_noise` of it on so many rows.
    """
    table = reliability_table(probabilities, labels, bins=bins, scheme=scheme)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float(np.average(gap, weights=table["count"]))


def calibration_noise(
    probabilities: Array, labels: Array, *, bins: int = 15, scheme: Scheme = "width"
) -> float:
    """Return approximately the expected calibration error of a perfectly calibrated model."""
    table = reliability_table(probabilities, labels, bins=bins, scheme=scheme)
    return float(np.average(table["noise"], weights=table["count"]))


def tempered(probabilities: Array, temperature: float) -> Vector:
    """Return p_k^(1/T) / Σ_l p_l^(1/T): flatter for T above 1, sharper below."""
    table = np.clip(_numbers(probabilities), np.finfo(np.float64).tiny, None)
    return np.exp(log_softmax(np.log(table) / temperature, axis=-1))


def best_temperature(probabilities: Array, labels: Array) -> float:
    """Return the temperature that gives [rows, classes] the smallest negative log-likelihood.

    The loss is convex in 1/T. Sought between 0.01 and 100: rows that are all right at any
    temperature want none at all, and get a value near 0.01.
    """
    table, classes = _labelled(probabilities, labels)

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(tempered(table, float(np.exp(logarithm))), classes)

    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - a stage starts sooner without it

    edge = float(np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=(-edge, edge), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
