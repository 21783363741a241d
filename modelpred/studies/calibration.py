"""How sure should the model be? Averaging the models of bootstrap resamples, predicted or refitted.

B resamples of the pool, N draws with replacement each, are weights with counts. A refit gives
their models; the mean over resamples of the predicted class probabilities is the bootstrap's
answer (bagging, Breiman 1996), and their spread for a test row says how much it depends on the
data at hand. Measured on test rows, for the full-data model (before), the predicted bootstrap
(after) and the bootstrap of exactly retrained models on the *same* resamples (the truth):

    negative log-likelihood, Brier score, expected calibration error by equal width and equal mass
    std ratio        spread over resamples of a probability, predicted over retrained
    endpoint error   |predicted - retrained| of the 5% and 95% quantiles of a probability

This protocol is this project's own.
"""

import time
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Num
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import (
    Scheme,
    Vector,
    brier,
    calibration_noise,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_table,
)
from modelpred.studies.utility import PREDICTOR, StudyContext, StudyResult, refitted, written_number
from modelpred.targets.model import Points, TargetModel

STUDY = "calibration"
ENDS = (0.05, 0.95)  # of a 90% interval
# Probabilities [resamples, rows, classes] held at once.
PROBABILITY_BYTES = 32 * 2**20
# A retrained probability that varies less than this over resamples has no ratio worth a number.
LEAST_SPREAD = 1e-4


class CalibrationConfig(BaseModel):
    """Section `calibration` of params.yaml.

    Attributes:
        resamples: bootstrap resamples.
        bins: of the reliability diagram and the calibration errors.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resamples: int = Field(default=500, ge=1)
    bins: int = Field(default=15, ge=1)
    seed: int = Field(default=0, ge=0)


def resampled(
    *, resamples: int, points: int, generator: np.random.Generator
) -> Num[Tensor, "resamples points"]:
    """Return how often each point was drawn in each resample of N draws with replacement."""
    counts = generator.multinomial(points, np.full(points, 1 / points), size=resamples)
    return torch.from_numpy(counts)


@dataclass(frozen=True)
class Predictive:
    """What the models of all resamples say of the test rows.

    Attributes:
        mean: [rows, classes], averaged probabilities.
        spread: [rows, classes], their standard deviation over resamples; nan of one resample.
        low: [rows, classes], 5% quantile.
        high: [rows, classes], 95% quantile.
    """

    mean: Vector
    spread: Vector
    low: Vector
    high: Vector


def predictive(
    model: TargetModel, parameters: Float[Tensor, "resamples parameters"], points: Points
) -> Predictive:
    """Return the predictive distribution of every row, in blocks of rows.

    Raises:
        InvalidInput: the family has no probabilities.
    """
    row_bytes = 8 * len(parameters) * max(2, points.classes)
    columns: list[list[Vector]] = [[], [], [], []]
    for features in points.features.split(max(1, PROBABILITY_BYTES // row_bytes)):
        table = model.probabilities(model.scores(parameters, features)).numpy()
        low, high = np.quantile(table, ENDS, axis=0)
        spread = np.full_like(low, np.nan) if len(table) == 1 else table.std(axis=0, ddof=1)
        for column, block in zip(columns, (table.mean(axis=0), spread, low, high), strict=True):
            column.append(block)
    return Predictive(*(np.concatenate(column) for column in columns))


def run(config: CalibrationConfig, context: StudyContext) -> StudyResult:
    """Return calibration before, after and beside the refit bootstrap.

    Tables: `summary` (method: full_model, predicted_bootstrap, refit_bootstrap; nll, brier,
    ece_width, ece_mass, noise_width, noise_mass: the calibration errors to expect of a calibrated
    model on so many rows), `reliability` (method and the columns of
    `modelpred.metrics.reliability_table`, equal width) and `refits` (the bootstrap of every refit,
    rivals too: method, nll, brier, ece_width, ece_mass, std_ratio, std_ratio_low, std_ratio_high,
    endpoint_error, endpoint_error_95, seconds).

    A family without probabilities has no calibration: the reason is then the only metric,
    `skipped`, and the tables are empty.
    """
    full = context.truth(torch.ones(1, context.pool))
    try:
        before = predictive(context.model, full, context.test_points)
    except InvalidInput as reason:
        empty = {
            "summary": pl.DataFrame(schema=_SUMMARY),
            "reliability": pl.DataFrame(schema=_RELIABILITY),
            "refits": pl.DataFrame(schema=_REFITS),
        }
        return StudyResult({"skipped": str(reason)}, empty)
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    weights = resampled(resamples=config.resamples, points=context.pool, generator=generator)
    began = time.perf_counter()
    trained = context.truth.train(weights, progress=context.progress)
    kept = trained.converged
    truth = predictive(context.model, trained.parameters[kept], context.test_points)
    truth_seconds = time.perf_counter() - began

    answers: dict[str, tuple[Predictive, float]] = {}
    for done, (name, refit) in enumerate(context.refits.items(), start=1):
        began = time.perf_counter()
        parameters = refitted(refit, weights, context)[kept]
        distribution = predictive(context.model, parameters, context.test_points)
        answers[name] = distribution, time.perf_counter() - began
        context.progress(done, len(context.refits), f"{STUDY}: {name}")
    after, _ = answers[context.subject]
    shown = {"full_model": before, _bootstrap(context.subject): after, "refit_bootstrap": truth}
    rows = [
        {"method": name, **_against_truth(distribution, truth), "seconds": seconds}
        | _quality(distribution.mean, context.test_points, config.bins)
        for name, (distribution, seconds) in answers.items()
    ]
    subject = next(row for row in rows if row["method"] == context.subject)
    tables = {
        "summary": _summary_table(shown, context.test_points, config.bins),
        "reliability": _reliability_table(shown, context.test_points, config.bins),
        "refits": pl.DataFrame(rows, schema=_REFITS),
    }
    metrics: dict[str, Any] = {
        "resamples": config.resamples,
        "truth_not_converged": int((~kept).sum()),
        "truth_seconds": truth_seconds,
        **{name: subject[name] for name in (*_COMPARED, "seconds")},
        **{
            row["method"]: {name: row[name] for name in _QUALITIES}
            for row in tables["summary"].iter_rows(named=True)
        },
    }
    return StudyResult(metrics, tables)


_QUALITIES = ("nll", "brier", "ece_width", "ece_mass")
_NOISES = ("noise_width", "noise_mass")
_COMPARED = (
    *("std_ratio", "std_ratio_low", "std_ratio_high", "endpoint_error", "endpoint_error_95"),
)
_SUMMARY = {"method": pl.String, **dict.fromkeys((*_QUALITIES, *_NOISES), pl.Float64)}
_REFITS = {
    "method": pl.String,
    **dict.fromkeys((*_QUALITIES, *_COMPARED, "seconds"), pl.Float64),
}
_BIN_COLUMNS = ("low", "high", "confidence", "accuracy", "accuracy_low", "accuracy_high")
_RELIABILITY = {
    "method": pl.String,
    "bin": pl.Int64,
    **dict.fromkeys(_BIN_COLUMNS, pl.Float64),
    "count": pl.Int64,
    "noise": pl.Float64,
}


def _bootstrap(refit: str) -> str:
    return "predicted_bootstrap" if refit == PREDICTOR else f"{refit}_bootstrap"


def _quality(probabilities: Vector, points: Points, bins: int) -> dict[str, float | None]:
    labels = points.labels
    found = {
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier(probabilities, labels),
    }
    for scheme in get_args(Scheme):
        found[f"ece_{scheme}"] = expected_calibration_error(
            probabilities, labels, bins=bins, scheme=scheme
        )
    return {name: written_number(value) for name, value in found.items()}


def _summary_table(shown: dict[str, Predictive], points: Points, bins: int) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, distribution in shown.items():
        row: dict[str, Any] = {"method": name, **_quality(distribution.mean, points, bins)}
        for scheme in get_args(Scheme):
            row[f"noise_{scheme}"] = calibration_noise(
                distribution.mean, points.labels, bins=bins, scheme=scheme
            )
        rows.append(row)
    return pl.DataFrame(rows, schema=_SUMMARY)


def _reliability_table(shown: dict[str, Predictive], points: Points, bins: int) -> pl.DataFrame:
    return pl.concat(
        [
            reliability_table(distribution.mean, points.labels, bins=bins)
            .with_columns(pl.lit(name).alias("method"), pl.col("bin").cast(pl.Int64))
            .select(list(_RELIABILITY))
            for name, distribution in shown.items()
        ]
    )


def _against_truth(predicted: Predictive, truth: Predictive) -> dict[str, float | None]:
    """Spread and interval ends against the retrained ones, over test rows and classes.

    The ratio is the median, with the 5% and 95% quantiles over those probabilities that vary. Of two
    classes only one is counted: the other's probability mirrors it.
    """
    columns = slice(1, None) if truth.mean.shape[1] == 2 else slice(None)
    varies = truth.spread[:, columns] > LEAST_SPREAD
    ratio = predicted.spread[:, columns][varies] / truth.spread[:, columns][varies]
    ends = np.abs(np.stack([predicted.low - truth.low, predicted.high - truth.high])[..., columns])
    middle, low, high = np.quantile(ratio, (0.5, *ENDS)) if ratio.size else np.full(3, np.nan)
    found = {
        "std_ratio": middle,
        "std_ratio_low": low,
        "std_ratio_high": high,
        "endpoint_error": float(np.median(ends)),
        "endpoint_error_95": float(np.quantile(ends, 0.95)),
    }
    return {name: written_number(value) for name, value in found.items()}
