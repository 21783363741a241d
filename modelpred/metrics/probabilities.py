"""How good class probabilities are: losses, calibration and temperature.

Brier               mean over rows of Σ_k (p_k - [y = k])²
ECE                 Σ_bins (n_bin / n) |accuracy_bin - confidence_bin|, of the most likely class
(Naeini et al. 2015; Guo et al. 2017)
temperature         the T that minimises the likelihood loss of p_k^(1/T) / Σ_l p_l^(1/T)
(Guo et al. 2017)
"""

from typing import Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import log_softmax

from modelpred.metrics.intervals import Array, Vector, as_numbers, wilson

Scheme: TypeAlias = Literal["width", "mass"]

# Temperatures are sought between one over this and this.
HOTTEST = 100.0


def _labelled(probabilities: Array, labels: Array) -> tuple[Vector, NDArray[np.int64]]:
    table = as_numbers(probabilities)
    classes = as_numbers(labels).astype(np.int64)
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
    low, high = wilson(table["accuracy"].to_numpy(), table["count"].cast(pl.Float64).to_numpy())
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
    table = np.clip(as_numbers(probabilities), np.finfo(np.float64).tiny, None)
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
