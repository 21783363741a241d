"""Calibration of probabilities by averaging the models of bootstrap resamples.

A refit gives the models of B bootstrap resamples of the training rows. The mean of their class
probabilities is the bootstrap prediction (bagging, Breiman 1996). Their spread for a test row shows
how much the prediction depends on the training data (bootstrap.py). Compared on test rows are

    full_model            before: one model, trained on all rows
    predicted_bootstrap   after: models predicted for the resamples
    refit_bootstrap       the reference: models retrained on the *same* resamples
    temperature_scaling   the model of all rows with a fitted temperature (Guo et al. 2017). It needs
                          labels that were not trained on: the temperature of each random half of
                          the test rows is fitted to the other half
    laplace               models drawn around the model of all rows by its Hessian

by negative log-likelihood, Brier score and expected calibration error (equal width and equal mass),
and by standard deviation ratio and endpoint error of the intervals against the refit bootstrap
(calibration_tables.py).

A predictor smooths the differences between resamples, so its spread is too small; `refine` adds
Newton steps on each resample. Coverage of the intervals is measured on tables that are simulated
from the model of all rows (coverage.py), together with that of models drawn with the penalty unknown
(`any_penalty`, penalties.py). Intervals of resamples say how far the model depends on its rows; those
of any penalty, where the true probabilities are. This protocol is this project's own.
"""

import time
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.metrics import Vector, best_temperature, tempered
from modelpred.numbers import MOST_DRAWS, Seed
from modelpred.predictor import Predictor, Refined
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.bootstrap import laplace, predictive, resampled
from modelpred.studies.calibration_tables import (
    COMPARED,
    QUALITIES,
    Answer,
    coverage_table,
    empty_tables,
    parameter_table,
    prediction_table,
    quality_tables,
    refit_table,
)
from modelpred.studies.context import (
    PREDICTOR,
    StudyContext,
    finished,
    full_model,
    refitted,
    require_models,
    retrained,
    with_refined,
)
from modelpred.studies.coverage import KnownModel, RefitOf, simulated_coverage
from modelpred.studies.parameter_attribution import parameter_names
from modelpred.studies.penalties import ANY_PENALTY, AnyPenalty, is_penalised_likelihood
from modelpred.studies.results import StudyResult

STUDY = "calibration"
# Resamples of each simulated table: 5 of them are below the 5% quantile.
TABLE_RESAMPLES = 100
DRAWN_PARAMETERS = 200  # most of a model whose penalties each simulated table averages over
BIN_BYTES = 1000  # a bin's rows in the tables of all methods


class CalibrationConfig(BaseModel):
    """Section `calibration` of params.yaml.

    Attributes:
        resamples: bootstrap resamples.
        bins: of the reliability diagram and the calibration errors.
        refine: Newton steps of each prediction; 0: none.
        tables: number of simulated tables that measure the coverage of intervals; 0: none.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resamples: int = Field(default=500, ge=1)
    bins: int = Field(default=15, ge=1)
    refine: float = Field(default=0.5, ge=0)
    tables: int = Field(default=10, ge=0, le=MOST_DRAWS)
    seed: Seed = 0


def run(config: CalibrationConfig, context: StudyContext) -> StudyResult:
    """Return the calibration before and after averaging, for all methods.

    Tables:
        summary: a row per method above: nll, brier, ece_width, ece_mass, and noise_width,
            noise_mass, the calibration errors of a calibrated model expected on this number of rows.
        reliability: method and the columns of `modelpred.metrics.reliability_table`, equal width.
        refits: the bootstrap of every refit and Laplace: method, nll, brier, ece_width, ece_mass,
            std_ratio, std_ratio_low, std_ratio_high, within, parameter_ratio, endpoint_error,
            endpoint_error_95 (calibration_tables.py), seconds.
        predictions: a row per test row for the probability of its label: test_row, label, before,
            mean, spread, low, high of the predicted bootstrap, and the same of the refit bootstrap
            with the prefix true_.
        parameters: the same columns for every parameter: parameter, class, feature, before, ...
        coverage: coverage of 90% intervals on simulated tables, by retraining, by the subject and,
            for small models, with any penalty: method, tables, probabilities and parameters, each
            with _low and _high (95% over tables), and about, `model` or `truth`.

    A family without probabilities has no calibration: the only metric is then `skipped`, the reason,
    and the tables are empty.
    """
    full = full_model(context)
    try:
        before = predictive(context.model, full, context.test_points)
    except InvalidInput as reason:
        return StudyResult({"skipped": str(reason)}, empty_tables())
    weights = _resamples(config, context)
    began = time.perf_counter()
    exact = retrained(weights, context, progress=context.progress)
    converged = finished(exact)
    models = exact[converged]
    rows = predictive(context.model, models, context.test_points)
    truth = Answer(models, rows, time.perf_counter() - began)

    subject, with_it = with_refined(context, refine=config.refine)
    refits = with_it.refits
    answers: dict[str, Answer] = {}
    for done, (name, refit) in enumerate(refits.items(), start=1):
        answers[name] = _answer(refit, weights[converged], context)
        context.progress(done, len(refits), f"{STUDY}: {name}")
    shown = {
        "full_model": before.mean,
        _bootstrap(context.subject): answers[subject].rows.mean,
        "refit_bootstrap": truth.rows.mean,
    }
    temperatures, shown_tempered = _temperature_scaling(config, context, before.mean)
    shown |= shown_tempered
    if context.model.optimum is not None:
        answers["laplace"] = _laplace(config, context, full[0])
        shown["laplace"] = answers["laplace"].rows.mean
    labels = context.test_points.labels
    tables = quality_tables(shown, labels, bins=config.bins)
    tables["refits"] = refit_table(answers, truth, labels, bins=config.bins)
    tables["predictions"] = prediction_table(
        labels.numpy(), before=before, predicted=answers[subject].rows, truth=truth.rows
    )
    tables["parameters"] = parameter_table(
        parameter_names(context), full=full[0], predicted=answers[subject].parameters, true=models
    )
    tables["coverage"] = _coverage_table(config, with_it, full[0], subject)
    return StudyResult(
        _metrics(config, tables, truth, subject=subject)
        | {"truth_not_converged": int((~converged).sum()), "temperatures": temperatures},
        tables,
    )


def _resamples(config: CalibrationConfig, context: StudyContext) -> Tensor:
    """Weights of the resamples, after a check that there is memory for what follows."""
    require_models(config.resamples, context, what="calibration.resamples")
    require_memory(BIN_BYTES * config.bins, what=f"calibration.bins: {config.bins:,} bins")
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    return resampled(resamples=config.resamples, points=context.pool, generator=generator)


def _bootstrap(refit: str) -> str:
    return "predicted_bootstrap" if refit == PREDICTOR else f"{refit}_bootstrap"


def _coverage_table(
    config: CalibrationConfig, context: StudyContext, full: Tensor, subject: str
) -> pl.DataFrame:
    """Coverage of intervals on tables that are simulated from the model of all rows.

    The subject predicts for the simulated tables as for any other points, without a new fit.
    """
    if not config.tables:
        return empty_tables()["coverage"]
    truth, points = context.truth, context.points
    refits_of: dict[str, RefitOf] = {
        "retraining": lambda model, table: Retraining(model, table, tolerance=truth.tolerance)
    }
    refit = context.refits[subject]
    if isinstance(refit, (Predictor, Refined)):
        refits_of[subject] = lambda _, table: refit.for_points(table)
    if is_penalised_likelihood(context.model) and len(full) <= DRAWN_PARAMETERS:
        draws = context.generator(seed=config.seed, study=STUDY, block=4)
        refits_of[ANY_PENALTY] = lambda model, table: AnyPenalty(
            model, table, generator=draws, tolerance=truth.tolerance
        )
    coverage = simulated_coverage(
        KnownModel(
            context.model, full, points.features, context.test_points.features, points.classes
        ),
        tables=config.tables,
        resamples=TABLE_RESAMPLES,
        generator=context.generator(seed=config.seed, study=STUDY, block=3),
        refits_of=refits_of,
    )
    abouts = {name: "truth" if name == ANY_PENALTY else "model" for name in coverage}
    return coverage_table(coverage).with_columns(
        pl.col("method").replace_strict(abouts).alias("about")
    )


def _answer(refit: Refit, weights: Tensor, context: StudyContext) -> Answer:
    began = time.perf_counter()
    parameters = refitted(refit, weights, context)
    parameters = parameters[finished(parameters)]
    rows = predictive(context.model, parameters, context.test_points)
    return Answer(parameters, rows, time.perf_counter() - began)


def _laplace(config: CalibrationConfig, context: StudyContext, full: Tensor) -> Answer:
    generator = context.generator(seed=config.seed, study=STUDY, block=2)
    began = time.perf_counter()
    parameters = laplace(
        context.model, context.points, full, draws=config.resamples, generator=generator
    )
    rows = predictive(context.model, parameters, context.test_points)
    return Answer(parameters, rows, time.perf_counter() - began)


def _temperature_scaling(
    config: CalibrationConfig, context: StudyContext, probabilities: Vector
) -> tuple[list[float], dict[str, Vector]]:
    """The temperatures of both halves and the tempered probabilities; empty for one test row."""
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
    truth: Answer,
    *,
    subject: str,
) -> dict[str, Any]:
    answered = {row["method"]: row for row in tables["refits"].iter_rows(named=True)}[subject]
    qualities = {
        row["method"]: {name: row[name] for name in QUALITIES}
        for row in tables["summary"].iter_rows(named=True)
    }
    refit = qualities["refit_bootstrap"]["nll"]
    gap = answered["nll"] / refit - 1 if answered["nll"] is not None and refit else None
    return {
        "resamples": config.resamples,
        "refine": config.refine,
        "truth_seconds": truth.seconds,
        **{name: answered[name] for name in (*COMPARED, "seconds")},
        "nll_gap": gap,
        **qualities,
    }
