"""Tables of the calibration study: quality of bootstrap means, and comparison with retraining.

std ratio        spread of a probability over resamples, predicted divided by retrained
within           share of the probabilities whose ratio is between 0.95 and 1.05
parameter ratio  the same ratio for parameters, median
endpoint error   |predicted - retrained| of the 5% and 95% quantiles of a probability
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modelpred.metrics import (
    Array,
    Interval,
    Scheme,
    Vector,
    brier,
    calibration_noise,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_table,
)
from modelpred.studies.bootstrap import ENDS, Predictive, summary
from modelpred.studies.coverage import Coverage
from modelpred.studies.parameter_attribution import ParameterName
from modelpred.studies.results import written_number

# Retrained numbers with a smaller spread over resamples are excluded from the ratios.
LEAST_SPREAD = 1e-4
NEAR = 0.05  # largest distance of a ratio from 1 to count as `within`

Chosen: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]] | slice

QUALITIES = ("nll", "brier", "ece_width", "ece_mass")
COMPARED = (
    *("std_ratio", "std_ratio_low", "std_ratio_high", "within", "parameter_ratio"),
    *("endpoint_error", "endpoint_error_95"),
)
_NOISES = ("noise_width", "noise_mass")
_SUMMARY = {"method": pl.String, **dict.fromkeys((*QUALITIES, *_NOISES), pl.Float64)}
_REFITS = {"method": pl.String, **dict.fromkeys((*QUALITIES, *COMPARED, "seconds"), pl.Float64)}
_BIN_COLUMNS = ("low", "high", "confidence", "accuracy", "accuracy_low", "accuracy_high")
_RELIABILITY = {
    "method": pl.String,
    "bin": pl.Int64,
    **dict.fromkeys(_BIN_COLUMNS, pl.Float64),
    "count": pl.Int64,
    "noise": pl.Float64,
}
_COLUMNS = ("mean", "spread", "low", "high")
_DISTRIBUTIONS = dict.fromkeys(
    ("before", *_COLUMNS, *(f"true_{name}" for name in _COLUMNS)), pl.Float64
)
_PREDICTIONS = {"test_row": pl.Int64, "label": pl.Int64, **_DISTRIBUTIONS}
_PLACE = {"parameter": pl.Int64, "class": pl.String, "feature": pl.String}
_PARAMETERS = {**_PLACE, **_DISTRIBUTIONS}
_COVERED = (
    *("probabilities", "probabilities_low", "probabilities_high"),
    *("parameters", "parameters_low", "parameters_high"),
)
_COVERAGE = {"method": pl.String, "tables": pl.Int64, **dict.fromkeys(_COVERED, pl.Float64)}
_ABOUT = {"about": pl.String}  # `model`, how far it depends on its rows, or `truth`


@dataclass(frozen=True)
class Answer:
    """A refit's models of the resamples, their predictive distribution, and the time for both."""

    parameters: Float[Tensor, "resamples parameters"]
    rows: Predictive
    seconds: float


def empty_tables() -> dict[str, pl.DataFrame]:
    """Return the tables without rows, for a family without probabilities."""
    schemas: dict[str, dict[str, Any]] = {
        "summary": _SUMMARY,
        "reliability": _RELIABILITY,
        "refits": _REFITS,
        "predictions": _PREDICTIONS,
        "parameters": _PARAMETERS,
        "coverage": _COVERAGE | _ABOUT,
    }
    return {name: pl.DataFrame(schema=schema) for name, schema in schemas.items()}


def quality_tables(
    shown: Mapping[str, Vector], labels: Array, *, bins: int
) -> dict[str, pl.DataFrame]:
    """Return the tables `summary` and `reliability` from the probabilities of each method."""
    rows: list[dict[str, Any]] = []
    reliable: list[pl.DataFrame] = []
    for name, probabilities in shown.items():
        row: dict[str, Any] = {"method": name, **_quality(probabilities, labels, bins)}
        for scheme in get_args(Scheme):
            row[f"noise_{scheme}"] = calibration_noise(
                probabilities, labels, bins=bins, scheme=scheme
            )
        rows.append(row)
        table = reliability_table(probabilities, labels, bins=bins)
        reliable.append(
            table.with_columns(pl.lit(name).alias("method"), pl.col("bin").cast(pl.Int64)).select(
                list(_RELIABILITY)
            )
        )
    return {"summary": pl.DataFrame(rows, schema=_SUMMARY), "reliability": pl.concat(reliable)}


def refit_table(
    answers: Mapping[str, Answer], truth: Answer, labels: Array, *, bins: int
) -> pl.DataFrame:
    """Return a row per refit: quality of its mean, and comparison with the retrained bootstrap."""
    rows = [
        {"method": name, **_against_truth(answer, truth), "seconds": answer.seconds}
        | _quality(answer.rows.mean, labels, bins)
        for name, answer in answers.items()
    ]
    return pl.DataFrame(rows, schema=_REFITS)


def prediction_table(
    labels: NDArray[np.int64], *, before: Predictive, predicted: Predictive, truth: Predictive
) -> pl.DataFrame:
    """Return a row per test row for the probability of its label, predicted and retrained."""
    rows = np.arange(len(labels))
    table = pl.DataFrame(
        {
            "test_row": rows,
            "label": labels,
            "before": before.mean[rows, labels],
            **_both_sides(predicted, truth, (rows, labels)),
        },
        schema_overrides=_PREDICTIONS,
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def parameter_table(
    named: list[ParameterName],
    *,
    full: Float[Tensor, " parameters"],
    predicted: Float[Tensor, "resamples parameters"],
    true: Float[Tensor, "retrained parameters"],
) -> pl.DataFrame:
    """Return a row per parameter with its distribution over resamples, predicted and retrained."""
    table = pl.DataFrame(
        {
            "parameter": np.arange(len(full)),
            "class": [place.class_name for place in named],
            "feature": [place.feature for place in named],
            "before": full.numpy(),
            **_both_sides(summary(predicted), summary(true), slice(None)),
        },
        schema_overrides=_PARAMETERS,
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def coverage_table(by_refit: Mapping[str, Coverage]) -> pl.DataFrame:
    """Return a row per refit: coverage of its intervals, with 95% intervals over tables."""
    rows = [
        {
            "method": name,
            "tables": coverage.probabilities.n,
            **{
                f"{part}{end}": written_number(value)
                for part in ("probabilities", "parameters")
                for end, value in _with_ends(getattr(coverage, part))
            },
        }
        for name, coverage in by_refit.items()
    ]
    return pl.DataFrame(rows, schema=_COVERAGE)


def _with_ends(interval: Interval) -> list[tuple[str, float]]:
    return [("", interval.mean), ("_low", interval.low), ("_high", interval.high)]


def _both_sides(predicted: Predictive, truth: Predictive, chosen: Chosen) -> dict[str, Vector]:
    return {
        f"{side}{name}": getattr(distribution, name)[chosen]
        for side, distribution in {"": predicted, "true_": truth}.items()
        for name in _COLUMNS
    }


def _quality(probabilities: Vector, labels: Array, bins: int) -> dict[str, float | None]:
    numbers = {
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier(probabilities, labels),
    }
    for scheme in get_args(Scheme):
        numbers[f"ece_{scheme}"] = expected_calibration_error(
            probabilities, labels, bins=bins, scheme=scheme
        )
    return {name: written_number(value) for name, value in numbers.items()}


def _against_truth(answer: Answer, truth: Answer) -> dict[str, float | None]:
    """Spreads and interval ends compared with the retrained ones, over test rows and classes.

    The ratio is the median, with the 5% and 95% quantiles over those probabilities that vary. With
    two classes only one is counted, since the other's probability is its complement.
    """
    predicted, true = answer.rows, truth.rows
    columns = slice(1, None) if true.mean.shape[1] == 2 else slice(None)
    ratio = _ratios(predicted.spread[:, columns], true.spread[:, columns])
    ends = np.abs(np.stack([predicted.low - true.low, predicted.high - true.high])[..., columns])
    middle, low, high = np.quantile(ratio, (0.5, *ENDS)) if ratio.size else np.full(3, np.nan)
    own = _ratios(summary(answer.parameters).spread, summary(truth.parameters).spread)
    numbers = {
        "std_ratio": middle,
        "std_ratio_low": low,
        "std_ratio_high": high,
        "within": float((np.abs(ratio - 1) <= NEAR).mean()) if ratio.size else np.nan,
        "parameter_ratio": float(np.median(own)) if own.size else np.nan,
        "endpoint_error": float(np.median(ends)),
        "endpoint_error_95": float(np.quantile(ends, 0.95)),
    }
    return {name: written_number(value) for name, value in numbers.items()}


def _ratios(predicted: Vector, true: Vector) -> Vector:
    varies = true > LEAST_SPREAD
    return predicted[varies] / true[varies]
