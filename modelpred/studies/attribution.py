"""Which rows are responsible for a coefficient, and which for a prediction?

Derivatives of the predictor (parameter_attribution.py) against exact leave-one-out differences by
retraining. Methods are compared by the Spearman correlation over rows, parameter by parameter:

    predictor             its derivative, through `refine` Newton steps
    predictor_unrefined   its derivative without them
    predictor_removals    predictor(1) - predictor(1 - e_i), no derivative
    predictor_refined     the same of the predictor with some Newton steps
    rivals                the same difference; for influence it is the derivative of retraining

For predictions of some test rows, the rows whose removal moves the margin most are listed, and the
smallest sets whose removal flips the class are sought (prediction_explanation.py). Comparison and search are
this project's own protocol.
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
from modelpred.predictor import Predictor, Refined
from modelpred.studies.parameter_attribution import (
    Place,
    derivatives,
    exact_removals,
    places,
    removals_of,
    with_tolerance,
)
from modelpred.studies.prediction_explanation import Exact, explanations, strongest
from modelpred.studies.utility import StudyContext, StudyResult, full_model, written_number

STUDY = "attribution"
UNREFINED = "predictor_unrefined"
RESOLVED = 1e-8  # changes of a parameter that retraining tells from its own rounding
ROUNDED = 1e-6  # share of a parameter's largest change that a prediction tells from its own


class AttributionConfig(BaseModel):
    """Section `attribution` of params.yaml.

    Attributes:
        rows: responsible rows that are listed for each parameter and each prediction.
        explained: test rows whose predictions are explained.
        largest: share of the pool that may be removed to flip a prediction.
        refine: Newton steps of the derivative, and of the refined predictor beside the plain one, for
            convex families; 0 leaves both out. What one row changes is small, so exactness pays.
        methods: refits that search for such sets, of those there are.
        seed: decides which test rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(default=5, ge=1)
    explained: int = Field(default=10, ge=0)
    largest: float = Field(default=0.5, gt=0, lt=1)
    refine: float = Field(default=3.0, ge=0)
    methods: tuple[str, ...] = ("predictor", "predictor_refined", "influence", "newton_step")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Shares:
    """What each row adds to each parameter, [parameters, points]: first order, predicted, exact."""

    derivative: Tensor
    removal: Tensor
    exact: Tensor


def run(config: AttributionConfig, context: StudyContext) -> StudyResult:
    """Return the rows responsible for every parameter and for some predictions.

    Tables:
        methods: method, spearman (median over parameters), spearman_low, spearman_high (5% and 95%
            quantiles), above (share of parameters with 0.95 or more), seconds.
        parameters: parameter, class, feature, value (full-data model), spearman (of the subject),
            spearman_influence (null where there is no influence function).
        responsible: the rows that add most to each parameter, either way, by predicted removal
            (refined, where there is a refined predictor): parameter, class, feature, place from 1,
            row_id, derivative, removal, exact (leave-one-out difference).
        effects: for each explained test row the training rows whose removal moves its margin most:
            test_row, place, row_id, effect (predicted change of the margin), exact.
        flips: method, test_row, predicted (class), margin (of the full-data model), size, found,
            predicted_margin, retrained_margin, confirmed, removed (ids, comma-separated).
        flip_methods: method, rows, found, confirmed, size (mean over the rows that every method
            flipped with confirmation), common (how many those are), seconds.
    """
    context = _refined(config, with_tolerance(context))
    alone = exact_removals(context)
    full = full_model(context)
    exact = (full - alone).T
    attributions, seconds = _attributions(context)
    correlations = {name: _spearmans(found, exact) for name, found in attributions.items()}
    methods = [
        {"method": name, **_spread(values), "seconds": seconds[name]}
        for name, values in correlations.items()
    ]
    named = places(context)
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
            Exact(full, alone),
            test_rows=_chosen(config, context),
            methods=config.methods,
            rows=config.rows,
            largest=config.largest,
        ),
    }
    metrics: dict[str, Any] = {
        "truth_not_converged": int(alone.isnan().any(1).sum()),
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
    """The context with the refined predictor among the refits, where it is defined."""
    subject = context.refits[context.subject]
    if not (config.refine and context.model.convex and isinstance(subject, Predictor)):
        return context
    return replace(
        context, refits={**context.refits, Refined.name: Refined(subject, config.refine)}
    )


def _attributions(context: StudyContext) -> tuple[dict[str, Tensor], dict[str, float]]:
    """[parameters, points] of every method, the subject's first, and the seconds they took."""
    found: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    subject = context.refits[context.subject]
    if isinstance(subject, Predictor):
        refined = context.refits.get(Refined.name)
        derived: dict[str, Predictor | Refined] = {context.subject: subject}
        if isinstance(refined, Refined):
            derived = {context.subject: refined, UNREFINED: subject}
        for name, refit in derived.items():
            began = time.perf_counter()
            found[name] = derivatives(refit)
            seconds[name] = time.perf_counter() - began
    names = [context.subject, *(name for name in context.refits if name != context.subject)]
    for done, name in enumerate(names, start=1):
        label = f"{name}_removals" if name in found else name
        began = time.perf_counter()
        found[label] = removals_of(context.refits[name], context)
        seconds[label] = time.perf_counter() - began
        context.progress(done, len(names), f"{STUDY}: {name}")
    return found, seconds


def _spearmans(found: Tensor, exact: Tensor) -> Vector:
    """Correlation over rows for each parameter; nan for one that no row moves, but by rounding.

    Most rows of an SVM move nothing: those are ties, not in the order of their rounding.
    """
    known = ~exact.isnan().any(0)
    if not bool(known.any()):
        return np.full(len(exact), np.nan)
    pairs = zip(found[:, known], exact[:, known], strict=True)
    return np.array(
        [
            spearman(_resolved(mine), _resolved(true)) if true.abs().max() > RESOLVED else np.nan
            for mine, true in pairs
        ]
    )


def _resolved(changes: Tensor) -> Tensor:
    """Zero where a change is rounding."""
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
    named: list[Place], full: Tensor, correlations: dict[str, Vector]
) -> pl.DataFrame:
    mine = next(iter(correlations.values()))
    influence = correlations.get("influence", np.full(len(named), np.nan))
    rows = [
        {
            "parameter": number,
            "class": place.class_name,
            "feature": place.feature,
            "value": float(full[number]),
            "spearman": written_number(float(mine[number])),
            "spearman_influence": written_number(float(influence[number])),
        }
        for number, place in enumerate(named)
    ]
    return pl.DataFrame(rows, schema=_PARAMETERS)


def _responsible_table(
    config: AttributionConfig,
    context: StudyContext,
    named: list[Place],
    shares: Shares,
) -> pl.DataFrame:
    rows = [
        {
            "parameter": number,
            "class": place.class_name,
            "feature": place.feature,
            "place": rank,
            "row_id": context.row_ids[point],
            "derivative": written_number(float(shares.derivative[number, point])),
            "removal": written_number(float(shares.removal[number, point])),
            "exact": written_number(float(shares.exact[number, point])),
        }
        for number, place in enumerate(named)
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
