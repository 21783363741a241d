"""Errors, rank correlations and calibration metrics, with their uncertainty.

Every function is pure, takes numpy arrays or tensors, and gives floats, numpy arrays or a table.
A quantity that the input leaves undefined is `nan`, never zero. The formulas are in the modules.
"""

from modelpred.metrics.agreement import (
    auroc,
    lds,
    pearson,
    ranks,
    relative_errors,
    spearman,
    spearman_interval,
    spearman_within,
    split_half_reliability,
    top_overlap,
)
from modelpred.metrics.intervals import (
    CONFIDENCE,
    Array,
    Differences,
    Interval,
    Vector,
    mean_differences,
    mean_interval,
    proportion_differences,
)
from modelpred.metrics.probabilities import (
    Scheme,
    best_temperature,
    brier,
    calibration_noise,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_table,
    tempered,
)

__all__ = [
    "CONFIDENCE", "Array", "Differences", "Interval", "Scheme", "Vector", "auroc",
    "best_temperature", "brier", "calibration_noise", "expected_calibration_error", "lds",
    "mean_differences", "mean_interval", "negative_log_likelihood", "pearson",
    "proportion_differences", "ranks", "relative_errors", "reliability_table", "spearman",
    "spearman_interval", "spearman_within", "split_half_reliability", "tempered", "top_overlap",
]  # fmt: skip
