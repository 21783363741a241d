"""Attribution of coefficients and predictions to training rows.

Derivatives of the predictor (parameter_attribution.py) are compared with exact leave-one-out
differences by retraining, as the Spearman correlation over rows for each parameter:

    predictor             its derivative, through `refine` Newton steps
    predictor_unrefined   its derivative without Newton steps
    predictor_removals    predictor(1) - predictor(1 - e_i), no derivative
    predictor_refined     the same difference of the predictor with Newton steps
    other refits          the same difference; for influence, it is the derivative of retraining

For predictions of some test rows, the study lists the rows whose removal changes the margin most, and
searches for small sets of rows whose removal flips the class (prediction_explanation.py). Comparison
and search are this project's own protocol.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.metrics import Vector, spearman
from modelpred.numbers import Seed
from modelpred.predictor import Predictor, Refined
from modelpred.studies.context import StudyContext, full_model
from modelpred.studies.parameter_attribution import (
    ParameterName,
    derivatives,
    exact_removals,
    parameter_names,
    removals_of,
    with_tolerance,
)
from modelpred.studies.prediction_explanation import Exact, explanations, strongest
from modelpred.studies.results import StudyResult, written_number

STUDY = "attribution"
UNREFINED = "predictor_unrefined"
RESOLVED = 1e-8  # smallest change of a parameter above the rounding error of retraining
ROUNDED = 1e-6  # the same for predictions, as a share of the parameter's largest change


class AttributionConfig(BaseModel):
    """Section `attribution` of params.yaml.

    Attributes:
        rows: number of responsible rows to list for each parameter and each prediction.
        explained: number of test rows whose predictions are explained.
        largest: largest share of the training rows that is removed to flip a prediction.
        refine: Newton steps of the derivative and of the refined predictor, for convex families; 0:
            none. The effect of one row is small, so exact predictions are useful.
        methods: refits that search for flips; names without a refit are ignored.
        seed: of the draw of test rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(default=5, ge=1)
    explained: int = Field(default=10, ge=0)
    largest: float = Field(default=0.5, gt=0, lt=1)
    refine: float = Field(default=3.0, ge=0)
    methods: tuple[str, ...] = ("predictor", "predictor_refined", "influence", "newton_step")
    seed: Seed = 0


@dataclass(frozen=True)
class Shares:
    """Effect of each row on each parameter, [parameters, points]: first order, predicted, exact."""

    derivative: Tensor
    removal: Tensor
    exact: Tensor


def run(config: AttributionConfig, context: StudyContext) -> StudyResult:
    """Return the rows responsible for every parameter and for some predictions.

    Tables:
        methods: method, spearman (median over parameters), spearman_low, spearman_high (5% and 95%
            quantiles), above (share of parameters with 0.95 or more), seconds.
        parameters: parameter, class, feature, value (model of all rows), spearman (of the subject),
            spearman_influence (null without an influence function).
        responsible: the rows with the largest effect on each parameter, by predicted removal
            (refined, if there is a refined predictor): parameter, class, feature, place from 1,
            row_id, derivative, removal, exact (leave-one-out difference).
        effects: for each explained test row, the training rows whose removal changes its margin
            most: test_row, place, row_id, effect (predicted change of the margin), exact.
        flips: method, test_row, predicted (class), margin (model of all rows), size, found,
            predicted_margin, retrained_margin, confirmed, removed (ids, comma-separated).
        flip_methods: method, rows, found, confirmed, size (mean over the test rows with a confirmed
            flip by every method), common (number of these), seconds.
    """
    context = _refined(config, with_tolerance(context))
    leave_one_out = exact_removals(context)
    full = full_model(context)
    exact = (full - leave_one_out).T
    attributions, seconds = _attributions(context)
    correlations = {name: _spearmans(effects, exact) for name, effects in attributions.items()}
    methods = [
        {"method": name, **_spread(values), "seconds": seconds[name]}
        for name, values in correlations.items()
    ]
    named = parameter_names(context)
    subject = next(iter(attributions))
    removal = next(
        name for name in (Refined.name, f"{subject}_removals", subject) if name in attributions
    )
    shares = Shares(attributions[subject], attributions[removal], exact)
    tables = {
        "methods": pl.DataFrame(methods, schema=_METHODS),
        "parameters": _parameter_table(named, full[0], correlations),
        "responsible": _responsible_table(config, context, named, shares),
        **explanations(
            context,
            Exact(full, leave_one_out),
            test_rows=_chosen(config, context),
            methods=config.methods,
            rows=config.rows,
            largest=config.largest,
        ),
    }
    metrics: dict[str, Any] = {
        "truth_not_converged": int(leave_one_out.isnan().any(1).sum()),
        "explained": min(config.explained, len(context.test_points.labels)),
        **{name: methods[0][name] for name in _SPREAD},
        "methods": {row["method"]: {name: row[name] for name in _SPREAD} for row in methods},
        "flips": {
            row["method"]: {name: value for name, value in row.items() if name != "method"}
            for row in tables["flip_methods"].iter_rows(named=True)
        },
    }
    return StudyResult(metrics, tables)


_SPREAD = ("spearman", "spearman_low", "spearman_high", "above")
_METHODS = {"method": pl.String, **dict.fromkeys((*_SPREAD, "seconds"), pl.Float64)}
_PLACE = {"parameter": pl.Int64, "class": pl.String, "feature": pl.String}
_PARAMETERS = {
    **_PLACE,
    **dict.fromkeys(("value", "spearman", "spearman_influence"), pl.Float64),
}
_RESPONSIBLE = {
    **_PLACE,
    "place": pl.Int64,
    "row_id": pl.String,
    **dict.fromkeys(("derivative", "removal", "exact"), pl.Float64),
}


def _refined(config: AttributionConfig, context: StudyContext) -> StudyContext:
    """The context with the refined predictor added to the refits, if the family allows it."""
    subject = context.refits[context.subject]
    convex = context.model.optimum is not None
    if not (config.refine and convex and isinstance(subject, Predictor)):
        return context
    return replace(
        context, refits={**context.refits, Refined.name: Refined(subject, config.refine)}
    )


def _attributions(context: StudyContext) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Effects [parameters, points] by every method, the subject's first, and the seconds they took."""
    effects: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    subject = context.refits[context.subject]
    if isinstance(subject, Predictor):
        refined = context.refits.get(Refined.name)
        derived: dict[str, Predictor | Refined] = {context.subject: subject}
        if isinstance(refined, Refined):
            derived = {context.subject: refined, UNREFINED: subject}
        for name, refit in derived.items():
            began = time.perf_counter()
            effects[name] = derivatives(refit)
            seconds[name] = time.perf_counter() - began
    names = [context.subject, *(name for name in context.refits if name != context.subject)]
    for done, name in enumerate(names, start=1):
        label = f"{name}_removals" if name in effects else name
        began = time.perf_counter()
        effects[label] = removals_of(context.refits[name], context)
        seconds[label] = time.perf_counter() - began
        context.progress(done, len(names), f"{STUDY}: {name}")
    return effects, seconds


def _spearmans(effects: Tensor, exact: Tensor) -> Vector:
    """Correlation over rows for each parameter; nan if no row changes it by more than rounding.

    Most rows of an SVM change nothing. They count as ties and are not ranked by rounding errors.
    """
    known = ~exact.isnan().any(0)
    if not bool(known.any()):
        return np.full(len(exact), np.nan)
    pairs = zip(effects[:, known], exact[:, known], strict=True)
    return np.array(
        [
            spearman(_resolved(own), _resolved(true)) if true.abs().max() > RESOLVED else np.nan
            for own, true in pairs
        ]
    )


def _resolved(changes: Tensor) -> Tensor:
    """The changes, with those within the rounding error set to zero."""
    least = max(RESOLVED, ROUNDED * float(changes.abs().max()))
    return torch.where(changes.abs() > least, changes, 0)


def _spread(values: Vector) -> dict[str, float | None]:
    known = values[np.isfinite(values)]
    if not known.size:
        return dict.fromkeys(_SPREAD)
    middle, low, high = np.quantile(known, (0.5, 0.05, 0.95))
    above = float((known >= 0.95).mean())
    return {
        "spearman": float(middle),
        "spearman_low": float(low),
        "spearman_high": float(high),
        "above": above,
    }


def _parameter_table(
    named: list[ParameterName], full: Tensor, correlations: dict[str, Vector]
) -> pl.DataFrame:
    subject = next(iter(correlations.values()))
    influence = correlations.get("influence", np.full(len(named), np.nan))
    rows = [
        {
            "parameter": number,
            "class": name.class_name,
            "feature": name.feature,
            "value": float(full[number]),
            "spearman": written_number(float(subject[number])),
            "spearman_influence": written_number(float(influence[number])),
        }
        for number, name in enumerate(named)
    ]
    return pl.DataFrame(rows, schema=_PARAMETERS)


def _responsible_table(
    config: AttributionConfig,
    context: StudyContext,
    named: list[ParameterName],
    shares: Shares,
) -> pl.DataFrame:
    rows = [
        {
            "parameter": number,
            "class": name.class_name,
            "feature": name.feature,
            "place": rank,
            "row_id": context.row_ids[point],
            "derivative": written_number(float(shares.derivative[number, point])),
            "removal": written_number(float(shares.removal[number, point])),
            "exact": written_number(float(shares.exact[number, point])),
        }
        for number, name in enumerate(named)
        for rank, point in enumerate(
            strongest(shares.removal[number].numpy(), config.rows), start=1
        )
    ]
    return pl.DataFrame(rows, schema=_RESPONSIBLE)


def _chosen(config: AttributionConfig, context: StudyContext) -> list[int]:
    """Test rows whose predictions are explained, drawn at random."""
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    count = len(context.test_points.labels)
    return sorted(generator.permutation(count)[: config.explained].tolist())
