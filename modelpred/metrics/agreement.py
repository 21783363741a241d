"""How near predictions are to true values: relative errors and rank correlations.

With true t and predicted p, a row per subset:

    relative error      ‖p - t‖ / ‖t‖
    Spearman            Pearson correlation of the ranks; tied values share their mean rank
    LDS                 mean over test rows of the Spearman correlation over subsets
                        (Park et al. 2023, "TRAK")
    reliability         2 r / (1 + r) with r the correlation of two halves (Spearman-Brown)
    top overlap         share of the highest of one that are among the highest of the other
"""

import numpy as np
from scipy.special import ndtri

from modelpred.metrics.intervals import (
    CONFIDENCE,
    Array,
    Interval,
    Vector,
    as_numbers,
    as_pair,
    mean_interval,
)


def relative_errors(predicted: Array, true: Array) -> Vector:
    """Return ‖predicted - true‖ / ‖true‖ of every row, [subsets].

    A row that is not finite counts as infinitely wrong; a true row of zeros as 0 when it is met
    exactly and as infinitely wrong otherwise.
    """
    left, right = as_pair(predicted, true)
    distance = np.linalg.norm(left - right, axis=-1)
    size = np.linalg.norm(right, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(distance == 0, 0.0, distance / size)
    return np.where(np.isfinite(distance), error, np.inf)


def pearson(first: Array, second: Array) -> float:
    """Return Pearson's correlation of all values; nan when either side does not vary."""
    left, right = (side.ravel() - side.mean() for side in as_pair(first, second))
    with np.errstate(invalid="ignore"):
        return float((left @ right) / np.sqrt((left @ left) * (right @ right)))


def top_overlap(first: Array, second: Array, *, share: float = 0.1) -> float:
    """Return the share of the highest values of one that are among the highest of the other.

    Args:
        first: values.
        second: as many.
        share: of all values that count as the highest, at least one.
    """
    left, right = as_pair(first, second)
    count = max(1, round(share * left.size))
    highest = [set(np.argsort(-side.ravel(), kind="stable")[:count]) for side in (left, right)]
    return len(highest[0] & highest[1]) / count


def ranks(values: Array) -> Vector:
    """Return the ranks 1..n along the first axis; equal values share their mean rank, nan has none."""
    columns = as_numbers(values)
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
    left, right = as_pair(first, second)
    return float(_rank_correlations(left.reshape(-1, 1), right.reshape(-1, 1))[0])


def spearman_interval(first: Array, second: Array) -> Interval:
    """Return Spearman's correlation with a 95% interval over the n paired values.

    Fisher's transform with the variance (1 + r²/2) / (n - 3) of Bonett and Wright (2000); it
    treats the pairs as independent. Three pairs or fewer give the whole range from -1 to 1.
    """
    left, right = as_pair(first, second)
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
    left, right = as_pair(predicted, true)
    labels = as_numbers(groups).ravel()
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
    left, right = as_pair(predicted, true)
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
    scores, truth = as_pair(score, positive)
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
