"""How sure should the model be? Averaging the models of bootstrap resamples, predicted or refitted.

A refit gives the models of B bootstrap resamples of the pool; the mean of their class probabilities
is the bootstrap's answer (bagging, Breiman 1996), and their spread for a test row says how much it
depends on the data at hand (bootstrap.py). On test rows are compared

    full_model            before: one model, trained on all rows
    predicted_bootstrap   after: models predicted for the resamples
    refit_bootstrap       the truth: models retrained on the *same* resamples
    temperature_scaling   the full model with one number fitted (Guo et al. 2017). It needs labels
                          that training has not seen: of the test rows, two random halves, each
                          tempered with what the other half asks for
    laplace               models drawn around the full one by its Hessian

    negative log-likelihood, Brier score, expected calibration error by equal width and equal mass
    std ratio        spread over resamples of a probability, predicted over retrained
    endpoint error   |predicted - retrained| of the 5% and 95% quantiles of a probability

A predictor smooths what varies from resample to resample, so its spread is too small; `refine`
lets every prediction take some Newton steps on its resample. This protocol is this project's own.
"""

import time
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import (
    Array,
    Scheme,
    Vector,
    best_temperature,
    brier,
    calibration_noise,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_table,
    tempered,
)
from modelpred.predictor import Predictor, Refined
from modelpred.refits.retraining import Refit
from modelpred.studies.bootstrap import (
    ENDS,
    Predictive,
    laplace,
    predictive,
    resampled,
    summary,
)
from modelpred.studies.utility import PREDICTOR, StudyContext, StudyResult, refitted, written_number

STUDY = "calibration"
# A retrained probability that varies less than this over resamples has no ratio worth a number.
LEAST_SPREAD = 1e-4


class CalibrationConfig(BaseModel):
    """Section `calibration` of params.yaml.

    Attributes:
        resamples: bootstrap resamples.
        bins: of the reliability diagram and the calibration errors.
        refine: Newton steps that each prediction takes; 0 for the predictions as they are. For
            convex families.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resamples: int = Field(default=500, ge=1)
    bins: int = Field(default=15, ge=1)
    refine: float = Field(default=0.0, ge=0)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class _Answer:
    """A refit's models of the resamples, what they say, and what it took to find both."""

    parameters: Tensor
    rows: Predictive
    seconds: float


def run(config: CalibrationConfig, context: StudyContext) -> StudyResult:
    """Return calibration before, after and beside the refit bootstrap and its rivals.

    Tables:
        summary: a row per method above: nll, brier, ece_width, ece_mass, and noise_width,
            noise_mass, the calibration errors to expect of a calibrated model on so many rows.
        reliability: method and the columns of `modelpred.metrics.reliability_table`, equal width.
        refits: the bootstrap of every refit, rivals and Laplace too: method, nll, brier,
            ece_width, ece_mass, std_ratio, std_ratio_low, std_ratio_high, endpoint_error,
            endpoint_error_95, seconds.
        predictions: a row per test row for the probability of its label: test_row, label,
            before, and mean, spread, low, high of the predicted bootstrap, and the same of the
            refit bootstrap with true_ before it.
        parameters: the same columns for every parameter: parameter, before, mean, ...

    A family without probabilities has no calibration: the reason is then the only metric,
    `skipped`, and the tables are empty.
    """
    full = context.truth(torch.ones(1, context.pool))
    try:
        before = predictive(context.model, full, context.test_points)
    except InvalidInput as reason:
        return StudyResult({"skipped": str(reason)}, _empty_tables())
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    weights = resampled(resamples=config.resamples, points=context.pool, generator=generator)
    began = time.perf_counter()
    trained = context.truth.train(weights, progress=context.progress)
    kept = trained.converged
    models = trained.parameters[kept]
    rows = predictive(context.model, models, context.test_points)
    truth = _Answer(models, rows, time.perf_counter() - began)

    refits = _refits(config, context)
    answers: dict[str, _Answer] = {}
    for done, (name, refit) in enumerate(refits.items(), start=1):
        answers[name] = _answer(refit, weights, kept, context)
        context.progress(done, len(refits), f"{STUDY}: {name}")
    subject = _subject(config, context)
    shown = {
        "full_model": before.mean,
        _bootstrap(context.subject): answers[subject].rows.mean,
        "refit_bootstrap": truth.rows.mean,
    }
    temperatures, shown_tempered = _temperature_scaling(config, context, before.mean)
    shown |= shown_tempered
    if context.model.convex:
        answers["laplace"] = _laplace(config, context, full[0])
        shown["laplace"] = answers["laplace"].rows.mean
    tables = _tables(config, context, shown)
    tables["predictions"] = _prediction_table(context, before, answers[subject].rows, truth.rows)
    tables["parameters"] = _parameter_table(full[0], answers[subject].parameters, models)
    tables["refits"] = _refit_table(config, context, answers, truth)
    return StudyResult(
        _metrics(config, tables, truth, subject=subject)
        | {"truth_not_converged": int((~kept).sum()), "temperatures": temperatures},
        tables,
    )


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
_COLUMNS = ("mean", "spread", "low", "high")
_DISTRIBUTIONS = dict.fromkeys(
    ("before", *_COLUMNS, *(f"true_{name}" for name in _COLUMNS)), pl.Float64
)
_PREDICTIONS = {"test_row": pl.Int64, "label": pl.Int64, **_DISTRIBUTIONS}
_PARAMETERS = {"parameter": pl.Int64, **_DISTRIBUTIONS}


def _empty_tables() -> dict[str, pl.DataFrame]:
    schemas: dict[str, dict[str, Any]] = {
        "summary": _SUMMARY,
        "reliability": _RELIABILITY,
        "refits": _REFITS,
        "predictions": _PREDICTIONS,
        "parameters": _PARAMETERS,
    }
    return {name: pl.DataFrame(schema=schema) for name, schema in schemas.items()}


def _bootstrap(refit: str) -> str:
    return "predicted_bootstrap" if refit == PREDICTOR else f"{refit}_bootstrap"


def _subject(config: CalibrationConfig, context: StudyContext) -> str:
    """The refit that is shown as the predicted bootstrap."""
    return f"{context.subject}_refined" if config.refine else context.subject


def _refits(config: CalibrationConfig, context: StudyContext) -> dict[str, Refit]:
    """All refits, the refined predictor too."""
    refits = dict(context.refits)
    if not config.refine:
        return refits
    subject = refits[context.subject]
    if not isinstance(subject, Predictor):
        raise InvalidInput(
            f"calibration.refine is {config.refine:g} but {context.subject} is no predictor and "
            "cannot be refined; set it to 0"
        )
    return {_subject(config, context): Refined(subject, config.refine), **refits}


def _answer(refit: Refit, weights: Tensor, kept: Tensor, context: StudyContext) -> _Answer:
    began = time.perf_counter()
    parameters = refitted(refit, weights, context)[kept]
    rows = predictive(context.model, parameters, context.test_points)
    return _Answer(parameters, rows, time.perf_counter() - began)


def _laplace(config: CalibrationConfig, context: StudyContext, full: Tensor) -> _Answer:
    generator = context.generator(seed=config.seed, study=STUDY, block=2)
    began = time.perf_counter()
    parameters = laplace(
        context.model, context.points, full, draws=config.resamples, generator=generator
    )
    rows = predictive(context.model, parameters, context.test_points)
    return _Answer(parameters, rows, time.perf_counter() - began)


def _temperature_scaling(
    config: CalibrationConfig, context: StudyContext, probabilities: Vector
) -> tuple[list[float], dict[str, Vector]]:
    """Both halves' temperatures and the tempered probabilities; none of a single test row."""
    labels = context.test_points.labels
    if len(labels) < 2:
        return [], {}
    generator = context.generator(seed=config.seed, study=STUDY, block=1)
    halves = np.array_split(generator.permutation(len(labels)), 2)
    result = np.empty_like(probabilities)
    temperatures: list[float] = []
    for fitted, applied in (halves, halves[::-1]):
        temperature = best_temperature(probabilities[fitted], labels[fitted])
        result[applied] = tempered(probabilities[applied], temperature)
        temperatures.append(temperature)
    return temperatures, {"temperature_scaling": result}


def _metrics(
    config: CalibrationConfig,
    tables: dict[str, pl.DataFrame],
    truth: _Answer,
    *,
    subject: str,
) -> dict[str, Any]:
    answered = {row["method"]: row for row in tables["refits"].iter_rows(named=True)}[subject]
    qualities = {
        row["method"]: {name: row[name] for name in _QUALITIES}
        for row in tables["summary"].iter_rows(named=True)
    }
    refit = qualities["refit_bootstrap"]["nll"]
    gap = answered["nll"] / refit - 1 if answered["nll"] is not None and refit else None
    return {
        "resamples": config.resamples,
        "refine": config.refine,
        "truth_seconds": truth.seconds,
        **{name: answered[name] for name in (*_COMPARED, "seconds")},
        "nll_gap": gap,
        **qualities,
    }


def _quality(probabilities: Vector, labels: Array, bins: int) -> dict[str, float | None]:
    found = {
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier(probabilities, labels),
    }
    for scheme in get_args(Scheme):
        found[f"ece_{scheme}"] = expected_calibration_error(
            probabilities, labels, bins=bins, scheme=scheme
        )
    return {name: written_number(value) for name, value in found.items()}


def _tables(
    config: CalibrationConfig, context: StudyContext, shown: dict[str, Vector]
) -> dict[str, pl.DataFrame]:
    """Quality and reliability of the probabilities that are shown."""
    labels = context.test_points.labels
    rows: list[dict[str, Any]] = []
    bins: list[pl.DataFrame] = []
    for name, probabilities in shown.items():
        row: dict[str, Any] = {"method": name, **_quality(probabilities, labels, config.bins)}
        for scheme in get_args(Scheme):
            row[f"noise_{scheme}"] = calibration_noise(
                probabilities, labels, bins=config.bins, scheme=scheme
            )
        rows.append(row)
        table = reliability_table(probabilities, labels, bins=config.bins)
        bins.append(
            table.with_columns(pl.lit(name).alias("method"), pl.col("bin").cast(pl.Int64)).select(
                list(_RELIABILITY)
            )
        )
    return {"summary": pl.DataFrame(rows, schema=_SUMMARY), "reliability": pl.concat(bins)}


def _refit_table(
    config: CalibrationConfig, context: StudyContext, answers: dict[str, _Answer], truth: _Answer
) -> pl.DataFrame:
    labels = context.test_points.labels
    rows = [
        {"method": name, **_against_truth(answer.rows, truth.rows), "seconds": answer.seconds}
        | _quality(answer.rows.mean, labels, config.bins)
        for name, answer in answers.items()
    ]
    return pl.DataFrame(rows, schema=_REFITS)


def _prediction_table(
    context: StudyContext, before: Predictive, predicted: Predictive, truth: Predictive
) -> pl.DataFrame:
    labels = context.test_points.labels.numpy()
    rows = np.arange(len(labels))
    sides = {"": predicted, "true_": truth}
    columns = {
        f"{side}{name}": getattr(distribution, name)[rows, labels]
        for side, distribution in sides.items()
        for name in _COLUMNS
    }
    table = pl.DataFrame(
        {"test_row": rows, "label": labels, "before": before.mean[rows, labels], **columns},
        schema_overrides=_PREDICTIONS,
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def _parameter_table(full: Tensor, predicted: Tensor, true: Tensor) -> pl.DataFrame:
    sides = {"": summary(predicted), "true_": summary(true)}
    columns = {
        f"{side}{name}": getattr(distribution, name)
        for side, distribution in sides.items()
        for name in _COLUMNS
    }
    table = pl.DataFrame(
        {"parameter": np.arange(len(full)), "before": full.numpy(), **columns},
        schema_overrides=_PARAMETERS,
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


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
