"""Which rows are responsible for a coefficient, and which for a prediction?

A predictor is a differentiable function of the weights, so the derivative of every parameter by
every row's weight is there by automatic differentiation at the full data,

    d theta_j / d w_i  at  w = 1.

(The level of the size path at which a prediction starts is a discrete choice, constant around
w = 1; so is cutting a step that would be wild.) Removing row i moves theta_j by about minus that.
The truth is the exact leave-one-out difference theta_j(1) - theta_j(1 - e_i) by retraining, and
methods are compared by the Spearman correlation with it over rows, parameter by parameter:

    predictor             its derivative
    predictor_removals    predictor(1) - predictor(1 - e_i), no derivative
    predictor_refined     the same of the predictor with some Newton steps
    rivals                the same difference; for influence it is the derivative of retraining

For predictions of some test rows, the rows whose removal moves the margin most are listed, and the
smallest sets whose removal flips the class are sought (removals.py), each confirmed by retraining.
Comparison and search are this project's own protocol.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import Vector, spearman
from modelpred.predictor import Predictor
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.bootstrap import Refined
from modelpred.studies.removals import (
    BLOCK,
    Flip,
    Question,
    leave_one_out,
    smallest_flip,
    without,
)
from modelpred.studies.utility import StudyContext, StudyResult, refitted, written_number
from modelpred.targets.linear import Linear

STUDY = "attribution"
# Weights and what is kept of each step for the way back, held at once.
DERIVATIVE_ROWS = 64
# Leave-one-out differences are small: retraining must be surer than they are.
TRUTH_TOLERANCE = 1e-9


class AttributionConfig(BaseModel):
    """Section `attribution` of params.yaml.

    Attributes:
        rows: responsible rows that are listed for each parameter and each prediction.
        explained: test rows whose predictions are explained.
        largest: share of the pool that may be removed to flip a prediction.
        refine: Newton steps of the refined predictor beside the plain one, for convex families; 0
            leaves it out. Margins of a flipped prediction are small, so exactness pays.
        methods: refits that search for such sets, of those there are.
        seed: decides which test rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(default=5, ge=1)
    explained: int = Field(default=10, ge=0)
    largest: float = Field(default=0.5, gt=0, lt=1)
    refine: float = Field(default=1.0, ge=0)
    methods: tuple[str, ...] = ("predictor", "predictor_refined", "influence", "newton_step")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Place:
    """Where a parameter stands in its model.

    Attributes:
        class_name: whose score it belongs to; empty for a family with one score.
        feature: what it multiplies, or `intercept`; for a network `parameter 17`.
    """

    class_name: str
    feature: str


def places(context: StudyContext) -> list[Place]:
    """Return the place of every parameter, in the order of the parameters."""
    features = context.points.features.shape[1]
    size = context.model.parameter_count(features, context.points.classes)
    if not isinstance(context.model, Linear):
        return [Place("", f"parameter {number}") for number in range(size)]
    names = context.feature_names or tuple(f"feature {number}" for number in range(features))
    outputs = size // (features + 1)
    classes = context.class_names or tuple(f"class {number}" for number in range(outputs))
    return [
        Place(classes[output] if outputs > 1 else "", name)
        for output in range(outputs)
        for name in (*names, "intercept")
    ]


def derivatives(
    predictor: Predictor, parameters: Int[Tensor, " chosen"] | None = None
) -> Float[Tensor, "chosen points"]:
    """Return d theta_j / d w_i of the predictor at w = 1 by automatic differentiation.

    Args:
        predictor: whose parameters.
        parameters: which of them; default: all.

    Raises:
        InvalidInput: a parameter that the model does not have.
    """
    points = predictor.points
    size = predictor.model.parameter_count(points.features.shape[1], points.classes)
    chosen = torch.arange(size) if parameters is None else parameters
    if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < size):
        raise InvalidInput(
            f"parameters run from {int(chosen.min())} to {int(chosen.max())}; expected positions "
            f"from 0 to {size - 1}"
        )
    return torch.cat([_derivatives(predictor, block) for block in chosen.split(DERIVATIVE_ROWS)])


def _derivatives(predictor: Predictor, chosen: Tensor) -> Tensor:
    """One copy of w = 1 for each parameter, so that one way back serves all of them."""
    features = predictor.points.features
    precision = next(predictor.network.parameters()).dtype
    weights = features.new_ones(len(chosen), len(features), dtype=precision)
    weights.requires_grad_()
    answer = predictor.network.stages(weights, predictor.bound, None)[-1].to(torch.float64)
    answer = predictor.model.representative(answer, features.shape[1])
    own = answer.gather(1, chosen[:, None]).sum()
    (slopes,) = torch.autograd.grad(own, weights)
    return slopes.to(torch.float64)


def removals_of(refit: Refit, context: StudyContext) -> Float[Tensor, "parameters points"]:
    """Return theta_j(1) - theta_j(1 - e_i): what row i adds to each parameter."""
    return _whole(refit, context).sub(leave_one_out(refit, context)).T


def _whole(refit: Refit, context: StudyContext) -> Float[Tensor, "one parameters"]:
    return refitted(refit, torch.ones(1, context.pool), context)


def _exact(context: StudyContext) -> Float[Tensor, "points parameters"]:
    """Retrained parameters without each row; nan where training did not converge."""
    parts: list[Tensor] = []
    for rows in torch.arange(context.pool)[:, None].split(BLOCK):
        trained = context.truth.train(without(rows, points=context.pool))
        parts.append(torch.where(trained.converged[:, None], trained.parameters, torch.nan))
    return torch.cat(parts)


def run(config: AttributionConfig, context: StudyContext) -> StudyResult:
    """Return the rows responsible for every parameter and for some predictions.

    Tables:
        methods: method, spearman (median over parameters), spearman_low, spearman_high (5% and 95%
            quantiles), above (share of parameters with 0.95 or more), seconds.
        parameters: parameter, class, feature, value (full-data model), spearman (of the subject),
            spearman_influence (null where there is no influence function).
        responsible: the rows with the largest derivative of each parameter, either way: parameter,
            class, feature, place from 1, row_id, derivative, exact (leave-one-out difference).
        effects: for each explained test row the training rows whose removal moves its margin most:
            test_row, place, row_id, effect (predicted change of the margin), exact.
        flips: method, test_row, predicted (class), margin (of the full-data model), size, found,
            predicted_margin, retrained_margin, confirmed, removed (ids, comma-separated).
        flip_methods: method, rows, found, confirmed, size (mean over the rows that every method
            flipped with confirmation), common (how many those are), seconds.
    """
    context = _refined(config, _surer(context))
    alone = _exact(context)
    full = _whole(context.truth, context)
    exact = (full - alone).T
    attributions, seconds = _attributions(context)
    correlations = {name: _spearmans(found, exact) for name, found in attributions.items()}
    methods = [
        {"method": name, **_spread(values), "seconds": seconds[name]}
        for name, values in correlations.items()
    ]
    named = places(context)
    subject = next(iter(attributions))
    tables = {
        "methods": pl.DataFrame(methods, schema=_METHODS),
        "parameters": _parameter_table(named, full[0], correlations),
        "responsible": _responsible_table(config, context, named, attributions[subject], exact),
        **_explained(config, context, full, alone),
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
    **dict.fromkeys(("derivative", "exact"), pl.Float64),
}
_EFFECTS = {
    "test_row": pl.Int64,
    "place": pl.Int64,
    "row_id": pl.String,
    **dict.fromkeys(("effect", "exact"), pl.Float64),
}
_FLIPS = {
    "method": pl.String,
    "test_row": pl.Int64,
    "predicted": pl.Int64,
    "margin": pl.Float64,
    "size": pl.Int64,
    "found": pl.Boolean,
    "predicted_margin": pl.Float64,
    "retrained_margin": pl.Float64,
    "confirmed": pl.Boolean,
    "removed": pl.String,
}
_FLIP_METHODS = {
    "method": pl.String,
    **dict.fromkeys(("rows", "found", "confirmed"), pl.Int64),
    "size": pl.Float64,
    "common": pl.Int64,
    "seconds": pl.Float64,
}


def _surer(context: StudyContext) -> StudyContext:
    """The context with a truth that resolves what one row of many changes."""
    truth = context.truth
    if truth.tolerance <= TRUTH_TOLERANCE:
        return context
    surer = Retraining(truth.model, truth.points, tolerance=TRUTH_TOLERANCE, start=truth.start)
    return replace(context, truth=surer)


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
        began = time.perf_counter()
        found[context.subject] = derivatives(subject)
        seconds[context.subject] = time.perf_counter() - began
    names = [context.subject, *(name for name in context.refits if name != context.subject)]
    for done, name in enumerate(names, start=1):
        label = f"{name}_removals" if name in found else name
        began = time.perf_counter()
        found[label] = removals_of(context.refits[name], context)
        seconds[label] = time.perf_counter() - began
        context.progress(done, len(names), f"{STUDY}: {name}")
    return found, seconds


def _spearmans(found: Tensor, exact: Tensor) -> Vector:
    """Correlation over rows for each parameter; nan where one side does not vary."""
    known = ~exact.isnan().any(0)
    if not bool(known.any()):
        return np.full(len(exact), np.nan)
    pairs = zip(found[:, known], exact[:, known], strict=True)
    return np.array([spearman(mine, true) for mine, true in pairs])


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
    found: Tensor,
    exact: Tensor,
) -> pl.DataFrame:
    rows = [
        {
            "parameter": number,
            "class": place.class_name,
            "feature": place.feature,
            "place": rank,
            "row_id": context.row_ids[point],
            "derivative": float(found[number, point]),
            "exact": written_number(float(exact[number, point])),
        }
        for number, place in enumerate(named)
        for rank, point in enumerate(_strongest(found[number].numpy(), config.rows), start=1)
    ]
    return pl.DataFrame(rows, schema=_RESPONSIBLE)


def _strongest(values: Vector, count: int) -> list[int]:
    return np.argsort(-np.abs(values), kind="stable")[:count].tolist()


def _explained(
    config: AttributionConfig, context: StudyContext, full: Tensor, alone: Tensor
) -> dict[str, pl.DataFrame]:
    """Tables on single predictions: effects of the subject, flips of all that search for them."""
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    count = len(context.test_points.labels)
    chosen = sorted(generator.permutation(count)[: config.explained].tolist())
    names = [context.subject, *(name for name in config.methods if name != context.subject)]
    names = [name for name in names if name in context.refits]
    single = {name: leave_one_out(context.refits[name], context) for name in names}
    whole = {name: _whole(context.refits[name], context) for name in names}
    effects: list[dict[str, Any]] = []
    flips: list[dict[str, Any]] = []
    seconds = dict.fromkeys(names, 0.0)
    for done, test_row in enumerate(chosen, start=1):
        features = context.test_points.features[test_row]
        label = _predicted(context, full, features)
        for name in names:
            began = time.perf_counter()
            question = Question(context.refits[name], context, features, label=label)
            effect = _effects(question, single[name], whole[name])
            if name == context.subject:
                exact = _effects(question, alone, full)
                effects += _effect_rows(config, context, test_row, effect, exact)
            if not context.model.regression:
                largest = max(1, int(config.largest * context.pool))
                flip = smallest_flip(question, effect, largest=largest)
                margin = float(question.judged(full)[0][0])
                flips.append(
                    {"method": name, "test_row": test_row, "predicted": label, "margin": margin}
                    | _flip_row(context, flip)
                )
            seconds[name] += time.perf_counter() - began
        context.progress(done, len(chosen), f"{STUDY}: predictions")
    table = pl.DataFrame(flips, schema=_FLIPS)
    return {
        "effects": pl.DataFrame(effects, schema=_EFFECTS),
        "flips": table,
        "flip_methods": _flip_methods(table, seconds),
    }


def _predicted(context: StudyContext, full: Tensor, features: Tensor) -> int:
    """Class that the full-data model predicts; 0 for a regression."""
    if context.model.regression:
        return 0
    classes = context.points.classes
    scores = context.model.scores(full, features[None].expand(classes, -1))
    return int(context.model.correct(scores, torch.arange(classes))[0].int().argmax())


def _effects(question: Question, single: Tensor, whole: Tensor) -> Vector:
    """Change of the margin when each row alone is removed."""
    return question.judged(single)[0] - question.judged(whole)[0]


def _effect_rows(
    config: AttributionConfig,
    context: StudyContext,
    test_row: int,
    effect: Vector,
    exact: Vector,
) -> list[dict[str, Any]]:
    return [
        {
            "test_row": test_row,
            "place": rank,
            "row_id": context.row_ids[point],
            "effect": float(effect[point]),
            "exact": written_number(float(exact[point])),
        }
        for rank, point in enumerate(_strongest(effect, config.rows), start=1)
    ]


def _flip_row(context: StudyContext, flip: Flip) -> dict[str, Any]:
    return {
        "size": len(flip.removed) or None,
        "found": bool(flip.removed),
        "predicted_margin": written_number(flip.margin),
        "retrained_margin": written_number(flip.retrained_margin),
        "confirmed": flip.confirmed,
        "removed": ", ".join(context.row_ids[row] for row in flip.removed),
    }


def _flip_methods(flips: pl.DataFrame, seconds: dict[str, float]) -> pl.DataFrame:
    """How many flips each method found and retraining confirmed, and how large the sets are."""
    confirmed = flips.filter("confirmed").group_by("test_row").len()
    common = confirmed.filter(pl.col("len") == len(seconds))["test_row"].to_list()
    rows: list[dict[str, Any]] = []
    for name in seconds if len(flips) else ():
        own = flips.filter(pl.col("method") == name)
        sizes = own.filter(pl.col("test_row").is_in(common))["size"]
        rows.append(
            {
                "method": name,
                "rows": len(own),
                "found": int(own["found"].sum()),
                "confirmed": int(own["confirmed"].sum()),
                "size": float(np.mean(sizes.to_numpy())) if len(sizes) else None,
                "common": len(common),
                "seconds": seconds[name],
            }
        )
    return pl.DataFrame(rows, schema=_FLIP_METHODS)
