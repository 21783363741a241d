"""What is each row worth? Semi-values of the pool's points over the test score.

With v(S) the test score of the model of subset S, a point's value is the mean of what v gains when
the point joins a random subset of the others (Ghorbani and Zou 2019 for data): see semivalues.py
for which subsets, and sampling.py for how they are drawn. Any refit can answer for v; exact
retraining on other draws is the truth that the answers are judged by.

The predictor's models are refined by default: of a subset of a few rows its plain answer is the
least certain, and those are the subsets that most of the differences between values come from
(docs/values.md).

v(none) is the score of the family's prior-only model: for K classes a log loss of log K. Values
have the units of the score: those of the label where numbers are predicted (root mean squared error).

With `group`, a column of the table, whole groups of rows (all of one vendor, one source, one day)
are the players of a second game: a group's value is what its rows gain when they join together.

Games of up to 16 players whose subsets are no more than the budget are enumerated, not sampled.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.metrics import Vector, spearman_interval, split_half_reliability
from modelpred.refits.retraining import Refit
from modelpred.studies.refining import with_refined
from modelpred.studies.sampling import SamplerName, UndefinedUtility, Utility
from modelpred.studies.semivalues import (
    ENUMERABLE,
    Enough,
    Semivalue,
    SemivalueName,
    Values,
    enumerate_values,
    estimate_values,
)
from modelpred.studies.utility import (
    Scoring,
    StudyContext,
    StudyResult,
    UtilityName,
    game_of,
    groups_of,
    require_utility,
    written_number,
)

STUDY = "valuation"
TOP_SHARE = 0.1


class ValuationConfig(BaseModel):
    """Section `valuation` of params.yaml.

    Attributes:
        semivalue: which mean over subsets: shapley, banzhaf, beta_shapley or leave_one_out.
        alpha: of beta_shapley; the larger, the more small subsets count.
        beta: of beta_shapley; the larger, the more large subsets count.
        sampler: how subsets are drawn; reuse is for banzhaf.
        permutations: budget in random orders; one costs one or two evaluations per point.
        truth_permutations: as many other orders with exact retraining; 0 leaves the truth out.
        error: stop before the budget once no standard error is larger; None: do not.
        reliability: stop before the budget once the ranking would repeat itself so well, as the
            correlation with a second estimate; None: do not. With both, both must hold.
        small: share of the places that get short orders of their own (stratified); None: a
            twentieth, but ten places at least, as far as that is no more than a third.
        utility: minus the mean test loss (of numbers the root mean squared error), the test
            accuracy, or minus the mean squared error.
        group: a column of the table whose groups of rows are valued, too; None: none.
        refine: Newton steps that each prediction takes; 0 for the predictions as they are.
        rivals: whether every refit is valued, or only the study's subject.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    semivalue: SemivalueName = "shapley"
    alpha: float = Field(default=4.0, gt=0)
    beta: float = Field(default=1.0, gt=0)
    sampler: SamplerName = "stratified"
    permutations: int = Field(default=100, ge=2, multiple_of=2)
    truth_permutations: int = Field(default=100, ge=0, multiple_of=2)
    error: float | None = Field(default=None, gt=0)
    reliability: float | None = Field(default=None, gt=0, lt=1)
    small: float | None = Field(default=None, ge=0, le=0.5)
    utility: UtilityName = "loss"
    group: str | None = None
    refine: float = Field(default=1.0, ge=0)
    rivals: bool = True
    seed: int = Field(default=0, ge=0)


def values_of(
    utility: Utility,
    config: ValuationConfig,
    *,
    points: int,
    permutations: int,
    generator: np.random.Generator,
    progress: Callable[[int, int, str], None],
) -> Values:
    """Return the values that the config asks for, of any game; exact ones where that is cheap."""
    kind = Semivalue(name=config.semivalue, alpha=config.alpha, beta=config.beta)
    sampled = kind.name != "leave_one_out"
    if sampled and points <= ENUMERABLE and 2**points <= permutations * points:
        return enumerate_values(utility, points=points, semivalue=kind, progress=progress)
    return estimate_values(
        utility,
        points=points,
        permutations=permutations,
        generator=generator,
        semivalue=kind,
        sampler=config.sampler,
        small=config.small,
        enough=Enough(error=config.error, reliability=config.reliability),
        progress=progress,
    )


def run(
    config: ValuationConfig, context: StudyContext, *, scoring: Scoring | None = None
) -> StudyResult:
    """Return every row's value by the study's subject, beside the truth and the rivals.

    Tables: `values` with a row per point (row_id, value, standard_error, rank from 1 for the most
    valuable, true_value, true_standard_error; null without truth), `methods` with a row per refit
    (method, spearman, spearman_low, spearman_high, top_overlap, bottom_overlap, seconds; null
    where too many of a rival's models failed) and, with `config.group`, `groups`: a row per group
    (group, rows, and the columns of `values` from value on).
    The truth is the same estimator with exact retraining on other draws; `truth_reliability`, its
    split-half reliability by Spearman-Brown, is the ceiling for any method's Spearman, and
    `truth_top_overlap` the overlap of its own halves.

    Args:
        config: which values, how many draws.
        context: models, points and refits.
        scoring: a score of the user's own instead of `config.utility`: from scores [subsets, test
            rows, outputs] and labels to a number per subset, the higher the better.
    """
    require_utility(context, utility=config.utility, key="valuation.utility")
    scored = scoring or config.utility
    players = torch.eye(context.pool, dtype=torch.uint8)
    truth, truth_metrics = _true_values(config, context, scored, players)
    about, context = with_refined(context, refine=config.refine)
    estimates: dict[str, tuple[Values | None, float]] = {}
    for name in context.refits if config.rivals else [about]:
        began = time.perf_counter()
        values = _values_or_none(name, config, context, scored, players, needed=name == about)
        estimates[name] = values, time.perf_counter() - began
    comparisons = {
        name: _comparison(values, truth) | {"seconds": seconds}
        for name, (values, seconds) in estimates.items()
    }
    subject, _ = estimates[about]
    assert subject is not None
    metrics: dict[str, Any] = {
        "semivalue": config.semivalue,
        "permutations": config.permutations,
        "refine": config.refine,
        "evaluations": subject.evaluations,
        **comparisons[about],
        "mean_standard_error": written_number(float(subject.standard_errors.mean())),
        "reliability": written_number(subject.reliability),
        **truth_metrics,
        "methods": comparisons,
    }
    methods = pl.DataFrame(
        [{"method": name, **row} for name, row in comparisons.items()],
        schema={"method": pl.String, **dict.fromkeys(_COMPARED, pl.Float64)},
    )
    names = pl.DataFrame({"row_id": list(context.row_ids)})
    tables = {"values": value_table(names, subject, truth), "methods": methods}
    if config.group is not None:
        tables["groups"] = group_values(config, context, scored, about=about)
    return StudyResult(metrics, tables)


_COMPARED = (
    *("spearman", "spearman_low", "spearman_high"),
    *("top_overlap", "bottom_overlap", "seconds"),
)


def group_values(
    config: ValuationConfig,
    context: StudyContext,
    scored: UtilityName | Scoring,
    *,
    about: str,
) -> pl.DataFrame:
    """Return the table `groups`: what each group of rows is worth to the subject and in truth."""
    names, members = groups_of(context, column=config.group or "", key="valuation.group")
    subject = _values(context.refits[about], config, context, scored, members)
    truth, _ = _true_values(config, context, scored, members)
    sizes = members.sum(dim=1, dtype=torch.int64).numpy()
    return value_table(pl.DataFrame({"group": names, "rows": sizes}), subject, truth)


def _values(
    refit: Refit | None,
    config: ValuationConfig,
    context: StudyContext,
    scored: UtilityName | Scoring,
    members: Tensor,
) -> Values:
    """Values of players who bring the given members each, by a refit; None: by the truth."""
    game = game_of(refit or context.truth, context, utility=scored)
    alone = len(members) == context.pool
    whose = "retraining" if refit is None else refit.name
    return values_of(
        game if alone else lambda weights: game(weights.double() @ members.double()),
        config,
        points=len(members),
        permutations=config.permutations if refit else config.truth_permutations,
        generator=context.generator(seed=config.seed, study=STUDY, block=int(refit is None)),
        progress=lambda done, total, what: context.progress(done, total, f"{what}: {whose}"),
    )


def _values_or_none(
    name: str,
    config: ValuationConfig,
    context: StudyContext,
    scored: UtilityName | Scoring,
    players: Tensor,
    *,
    needed: bool,
) -> Values | None:
    """Values by one refit; None for a rival of whose models too many failed."""
    try:
        return _values(context.refits[name], config, context, scored, players)
    except UndefinedUtility:
        if needed:
            raise
        return None


def _true_values(
    config: ValuationConfig, context: StudyContext, scored: UtilityName | Scoring, members: Tensor
) -> tuple[Values | None, dict[str, Any]]:
    """Values by exact retraining, and what is known of them: models that failed, ceiling.

    None where too many of them did not converge: then there is nothing to judge by.
    """
    if config.truth_permutations == 0:
        return None, {}
    began = time.perf_counter()
    try:
        values = _values(None, config, context, scored, members)
    except UndefinedUtility as reason:
        return None, {"truth_undefined": str(reason)}
    reliability = float("nan")
    if len(values.estimates) > 1:
        reliability = split_half_reliability(*values.halves)
    elif not values.standard_errors.any():  # nothing was sampled
        reliability = 1.0
    return values, {
        "truth_permutations": config.truth_permutations,
        "truth_evaluations": values.evaluations,
        "truth_reliability": written_number(reliability),
        "truth_top_overlap": _overlap(*values.halves),
        "truth_not_converged": values.failed,
        "truth_seconds": time.perf_counter() - began,
    }


def _comparison(estimate: Values | None, truth: Values | None) -> dict[str, float | None]:
    """Agreement with the truth; None throughout without one."""
    if truth is None or estimate is None:
        return dict.fromkeys(_COMPARED[:-1])
    agreement = spearman_interval(estimate.values, truth.values)
    return {
        "spearman": written_number(agreement.mean),
        "spearman_low": agreement.low,
        "spearman_high": agreement.high,
        "top_overlap": _overlap(estimate.values, truth.values),
        "bottom_overlap": _overlap(-estimate.values, -truth.values),
    }


def _overlap(first: Vector, second: Vector) -> float:
    """Share of the highest tenth of one that is among the highest tenth of the other."""
    count = max(1, round(TOP_SHARE * len(first)))
    highest = [set(np.argsort(-side, kind="stable")[:count]) for side in (first, second)]
    return len(highest[0] & highest[1]) / count


def value_table(players: pl.DataFrame, values: Values, truth: Values | None = None) -> pl.DataFrame:
    """Return the players' columns, then value, error, rank and true value; null without truth."""
    unknown = np.full(players.height, np.nan)
    place = np.empty(players.height, dtype=np.int64)
    place[np.argsort(-values.values, kind="stable")] = np.arange(1, players.height + 1)
    table = players.with_columns(
        pl.Series("value", values.values),
        pl.Series("standard_error", values.standard_errors),
        pl.Series("rank", place),
        pl.Series("true_value", unknown if truth is None else truth.values),
        pl.Series("true_standard_error", unknown if truth is None else truth.standard_errors),
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
