"""Values of rows: semi-values of the training points with the test score as utility.

Let v(S) be the test score of the model of subset S. The value of a point is the mean gain of v when
the point joins a random subset of the others (Ghorbani and Zou 2019); semivalues.py defines the
subsets, sampling.py draws them. The models can come from any refit. Values are compared with those
of exact retraining on other draws.

The predictor is refined by default: its plain predictions are least accurate for subsets of a few
rows, and these subsets contribute most to the differences between values (docs/values.md).

v(none) is the score of the family's prior-only model: for K classes, a log loss of log K. Values
have the units of the score; for a regression these are the label's units (root mean squared error).

With `group`, a column of the table, groups of rows (all of one vendor, one source, one day) are the
players of a second game: the value of a group is the gain when all of its rows join.

Games of up to 16 players are enumerated if they have no more subsets than the budget.
"""

import time
from collections.abc import Callable
from typing import Any, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Num, UInt8
from pydantic import Field
from torch import Tensor

from modelpred.metrics import spearman_interval, split_half_reliability, top_overlap
from modelpred.numbers import Seed
from modelpred.refits.retraining import Refit
from modelpred.studies.answering import AnsweringConfig
from modelpred.studies.context import StudyContext, groups_of, with_refined
from modelpred.studies.results import StudyResult, written_number
from modelpred.studies.samplers import EXACT_UP_TO
from modelpred.studies.sampling import WEIGHT_BYTES, SamplerName, UndefinedUtility, Utility
from modelpred.studies.semivalues import (
    ENUMERABLE,
    Semivalue,
    SemivalueName,
    StoppingRule,
    Values,
    enumerate_values,
    estimate_values,
)
from modelpred.studies.utility import (
    Approximation,
    ModelGame,
    Scoring,
    UtilityName,
    game_of,
    require_utility,
)

STUDY = "valuation"


class ValuationConfig(AnsweringConfig):
    """Section `valuation` of params.yaml.

    Attributes:
        semivalue: shapley, banzhaf, beta_shapley or leave_one_out.
        alpha: of beta_shapley; larger values give small subsets more weight.
        beta: of beta_shapley; larger values give large subsets more weight.
        sampler: how subsets are drawn; truncated ends four in five orders early, reuse is for banzhaf, gains for single rows of linear families,
            regression for up to 2,000 players, two_level for groups of many rows, direct and one_by_one
            for leave_one_out; auto chooses (sampler_choice.py).
        permutations: budget in random permutations, of one or two evaluations per point each; `auto`
            spends less on more than 2,000 rows.
        truth_permutations: number of other permutations with exact retraining; 0: none.
        error: stop early when every standard error is at most this; None: no such rule.
        reliability: stop early when the expected correlation with a second estimate is at least
            this; None: no such rule. If both rules are set, both must be met.
        small: share of positions that short permutations sample (stratified, truncated); None: a twentieth, at
            least ten positions, and at most a third.
        utility: minus the mean test loss (for a regression, the root mean squared error), the test
            accuracy, or minus the mean squared error.
        group: a column of the table whose groups are also valued; None: none.
        refine: Newton steps of each prediction; 0: none.
        rivals: whether to also value the rows with the other methods; not for more than 1,000 rows,
            which would take too long.
        seed: of the draws.
    """

    semivalue: SemivalueName = "shapley"
    alpha: float = Field(default=4.0, gt=0)
    beta: float = Field(default=1.0, gt=0)
    sampler: SamplerName = "auto"
    permutations: int = Field(default=100, ge=2, multiple_of=2)
    truth_permutations: int = Field(default=100, ge=0, multiple_of=2)
    error: float | None = Field(default=None, gt=0)
    reliability: float | None = Field(default=None, gt=0, lt=1)
    small: float | None = Field(default=None, ge=0, le=0.5)
    utility: UtilityName = "loss"
    group: str | None = None
    refine: float = Field(default=1.0, ge=0)
    rivals: bool = True
    seed: Seed = 0


def values_of(
    utility: Utility,
    config: ValuationConfig,
    *,
    points: int,
    permutations: int,
    rows: int | None = None,
    generator: np.random.Generator,
    progress: Callable[[int, int, str], None],
) -> Values:
    """Return the values of any game with these settings; exact values if the game is small."""
    kind = Semivalue(name=config.semivalue, alpha=config.alpha, beta=config.beta)
    sampled = kind.name != "leave_one_out"
    if sampled and points <= ENUMERABLE and 2**points <= permutations * points:
        return enumerate_values(utility, points=points, semivalue=kind, progress=progress)
    return estimate_values(
        utility, points=points, permutations=permutations, generator=generator, semivalue=kind,
        sampler=config.sampler, rows=rows, small=config.small,
        stopping=StoppingRule(error=config.error, reliability=config.reliability),
        progress=progress,
    )  # fmt: skip


def run(
    config: ValuationConfig, context: StudyContext, *, scoring: Scoring | None = None
) -> StudyResult:
    """Return the value of every row, with exact values and those of the other methods.

    Tables: `values` with a row per point (row_id, value, standard_error, rank from 1 for the most
    valuable, true_value, true_standard_error; null without exact values; for direct answers also bound,
    the largest distance from the exact value), `methods` with a row per refit (method, spearman,
    spearman_low, spearman_high, top_overlap, bottom_overlap, seconds; null if too many of the refit's
    models failed) and, with `config.group`, `groups`: a row per group (group, rows, and the columns of
    `values` from value on).

    Exact values are those of the same estimator with exact retraining on other draws.
    `truth_reliability`, their split-half reliability by Spearman-Brown, is an upper bound for the
    Spearman correlation of any method; `truth_top_overlap` is the overlap of their halves.

    Args:
        config: the semi-value and the budget.
        context: models, points and refits.
        scoring: a utility in place of `config.utility`: maps scores [subsets, test rows, outputs]
            and labels to a number per subset; higher is better.
    """
    require_utility(context, utility=config.utility, key="valuation.utility")
    scored = scoring or config.utility
    players = torch.eye(context.pool, dtype=torch.uint8)
    truth, truth_metrics = _true_values(config, context, scored, players)
    subject_name, context = with_refined(context, refine=config.refine)
    estimates: dict[str, tuple[Values | None, float]] = {}
    compared = config.rivals and context.pool <= EXACT_UP_TO
    for name in context.refits if compared else [subject_name]:
        began = time.perf_counter()
        required = name == subject_name
        values = _values_or_none(name, config, context, scored, players, required=required)
        estimates[name] = values, time.perf_counter() - began
    comparisons = {
        name: _comparison(values, truth) | {"seconds": seconds}
        for name, (values, seconds) in estimates.items()
    }
    subject, _ = estimates[subject_name]
    assert subject is not None
    metrics: dict[str, Any] = {
        "semivalue": config.semivalue,
        "permutations": config.permutations,
        "refine": config.refine,
        "sampler": subject.sampler,
        "evaluations": subject.evaluations,
        **comparisons[subject_name],
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
        tables["groups"] = group_values(config, context, scored, subject=subject_name)
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
    subject: str,
) -> pl.DataFrame:
    """Return the table `groups`: the value of each group of rows, predicted and exact."""
    names, members = groups_of(context, column=config.group or "", key="valuation.group")
    values = _values(context.refits[subject], config, context, scored, members)
    truth, _ = _true_values(config, context, scored, members)
    sizes = members.sum(dim=1, dtype=torch.int64).numpy()
    return value_table(pl.DataFrame({"group": names, "rows": sizes}), values, truth)


def _values(
    refit: Refit | None,
    config: ValuationConfig,
    context: StudyContext,
    scored: UtilityName | Scoring,
    members: Tensor,
) -> Values:
    """Values of players, each with the given member rows, by a refit; None: by retraining."""
    game = game_of(refit or context.truth, context, utility=scored)
    if refit is None and config.semivalue == "leave_one_out":
        config = config.model_copy(update={"sampler": "one_by_one"})
    single_rows = len(members) == context.pool
    name = "retraining" if refit is None else refit.name
    return values_of(
        game if single_rows else JointGame(game, members),
        config,
        points=len(members),
        permutations=config.permutations if refit else config.truth_permutations,
        rows=context.pool,
        generator=context.generator(seed=config.seed, study=STUDY, block=int(refit is None)),
        progress=lambda done, total, what: context.progress(done, total, f"{what}: {name}"),
    )


@final
class JointGame:
    """The game whose players are groups of rows.

    Args:
        game: the game of the rows.
        members: the rows of each group, 0 or 1.
    """

    def __init__(self, game: Utility, members: UInt8[Tensor, "groups points"]) -> None:
        self.game, self.members = game, members
        self.rows = members.to(torch.float32)

    def __call__(self, weights: Num[Tensor, "subsets groups"]) -> Float[Tensor, " subsets"]:
        """Return the utility of every subset, whose rows are put together a few subsets at a time."""
        together = max(1, WEIGHT_BYTES // self.rows.shape[1])
        parts = weights.to(torch.float32).split(together)
        return torch.cat([self.game((part @ self.rows).to(torch.uint8)) for part in parts])

    def approximation(self) -> Approximation | None:
        """Return a game near this one that is quick to evaluate; None if there is none."""
        return self.game.expansion(self.members) if isinstance(self.game, ModelGame) else None


def _values_or_none(
    name: str,
    config: ValuationConfig,
    context: StudyContext,
    scored: UtilityName | Scoring,
    players: Tensor,
    *,
    required: bool,
) -> Values | None:
    """Values by one refit; None if too many of its models failed and it is not required."""
    try:
        return _values(context.refits[name], config, context, scored, players)
    except UndefinedUtility:
        if required:
            raise
        return None


def _true_values(
    config: ValuationConfig, context: StudyContext, scored: UtilityName | Scoring, members: Tensor
) -> tuple[Values | None, dict[str, Any]]:
    """Values by exact retraining, and metrics on them: failed models, reliability, time.

    The values are None if too many models did not converge.
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
    elif not values.standard_errors.any():  # exact values
        reliability = 1.0
    return values, {
        "truth_permutations": config.truth_permutations,
        "truth_evaluations": values.evaluations,
        "truth_reliability": written_number(reliability),
        "truth_top_overlap": top_overlap(*values.halves),
        "truth_not_converged": values.failed,
        "truth_seconds": time.perf_counter() - began,
    }


def _comparison(estimate: Values | None, truth: Values | None) -> dict[str, float | None]:
    """Agreement with the exact values; all None without them."""
    if truth is None or estimate is None:
        return dict.fromkeys(_COMPARED[:-1])
    agreement = spearman_interval(estimate.values, truth.values)
    return {
        "spearman": written_number(agreement.mean),
        "spearman_low": agreement.low,
        "spearman_high": agreement.high,
        "top_overlap": top_overlap(estimate.values, truth.values),
        "bottom_overlap": top_overlap(-estimate.values, -truth.values),
    }


def value_table(players: pl.DataFrame, values: Values, truth: Values | None = None) -> pl.DataFrame:
    """Return the players' columns with value, error, rank and exact value (null without truth).

    Values with bounds also have the column `bound`.
    """
    unknown = np.full(players.height, np.nan)
    rank = np.empty(players.height, dtype=np.int64)
    rank[np.argsort(-values.values, kind="stable")] = np.arange(1, players.height + 1)
    table = players.with_columns(
        pl.Series("value", values.values),
        pl.Series("standard_error", values.standard_errors),
        pl.Series("rank", rank),
        pl.Series("true_value", unknown if truth is None else truth.values),
        pl.Series("true_standard_error", unknown if truth is None else truth.standard_errors),
    )
    if values.bounds is not None:
        table = table.with_columns(pl.Series("bound", values.bounds))
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
