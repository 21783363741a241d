"""What is each row worth? Shapley values of the pool's points over the test score.

With v(S) the test score of the model of subset S, the Shapley value of point i is the mean, over
random orders of the pool, of what v gains when i joins those before it (Shapley 1953; Ghorbani and
Zou 2019 for data):

    value_i = E_order [ v(before_i + i) - v(before_i) ]

Orders come in antithetic pairs, each with its reverse (Mitchell et al. 2022): a point that comes
early in one comes late in the other, which lowers the variance. Pairs are independent, so that
they also give the standard error. Every order's gains add up to v(all) - v(none), hence the values do,
without any error (efficiency).

v(none) is the score of the family's prior-only model: for K classes a log loss of log K.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int, Num
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import Vector, spearman_interval, split_half_reliability
from modelpred.refits.retraining import Progress, Refit, silent
from modelpred.studies.utility import (
    StudyContext,
    StudyResult,
    accuracies,
    mean_test_losses,
    refitted,
    written_number,
)

STUDY = "valuation"
# Weights formed at once, in float64; a call to the refit answers so many subsets.
WEIGHT_BYTES = 16 * 2**20
TOP_SHARE = 0.1

Utility = Callable[[Num[Tensor, "subsets points"]], Float[Tensor, " subsets"]]


class ValuationConfig(BaseModel):
    """Section `valuation` of params.yaml.

    Attributes:
        permutations: random orders, half of them reverses of the other half.
        truth_permutations: as many other orders with exact retraining; 0 leaves the truth out.
        utility: minus the mean test loss, or the test accuracy.
        rivals: whether every refit is valued, or only the study's subject.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    permutations: int = Field(default=100, ge=2, multiple_of=2)
    truth_permutations: int = Field(default=100, ge=0, multiple_of=2)
    utility: Literal["loss", "accuracy"] = "loss"
    rivals: bool = True
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Values:
    """Estimated values with what their uncertainty is made from.

    Attributes:
        values: [points], the mean over pairs.
        standard_errors: [points]; nan from a single pair.
        pairs: [pairs, points], the independent estimates from one antithetic pair each.
        evaluations: subsets whose utility was asked for.
    """

    values: Vector
    standard_errors: Vector
    pairs: Vector
    evaluations: int

    @property
    def halves(self) -> tuple[Vector, Vector]:
        """Two independent estimates from half of the pairs each."""
        return self.pairs[::2].mean(axis=0), self.pairs[1::2].mean(axis=0)


def shapley(
    utility: Utility,
    *,
    points: int,
    permutations: int,
    generator: np.random.Generator,
    progress: Progress = silent,
) -> Values:
    """Return Shapley values of any game by antithetic sampling of orders.

    Args:
        utility: the game; from 0/1 weights [subsets, points] to a number per subset.
        points: its players.
        permutations: orders, an even number; a pair costs 2 (points - 1) evaluations.
        generator: draws the orders.
        progress: called with (evaluations done, in all, "valuation").
    """
    if permutations < 2 or permutations % 2:
        raise InvalidInput(
            f"permutations is {permutations}; expected 2, 4, 6, ...: orders come in pairs, each "
            "with its reverse"
        )
    forward = np.stack([generator.permutation(points) for _ in range(permutations // 2)])
    positions = torch.from_numpy(np.concatenate([forward, points - 1 - forward]))
    ends = utility(torch.stack([torch.zeros(points), torch.ones(points)]).to(torch.uint8))
    path = torch.empty(permutations, points + 1, dtype=torch.float64)
    path[:, 0], path[:, -1] = ends[0], ends[1]
    path[:, 1:-1] = _prefix_utilities(utility, positions, progress)
    joined = path.diff(dim=1).gather(1, positions).numpy()
    pairs = (joined[: len(forward)] + joined[len(forward) :]) / 2
    errors = np.full(points, np.nan)
    if len(pairs) > 1:
        errors = pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))
    return Values(pairs.mean(axis=0), errors, pairs, permutations * (points - 1) + 2)


def _prefix_utilities(
    utility: Utility, positions: Int[Tensor, "permutations points"], progress: Progress
) -> Float[Tensor, "permutations sizes"]:
    """Utility of the first 1..points-1 players of every order, thousands of subsets in a call.

    `positions` says at which place of the order each player comes, so the first k are those
    with a place below k.
    """
    permutations, points = positions.shape
    inner = points - 1
    rows = torch.arange(permutations * inner)
    if inner == 0:
        return torch.empty(permutations, 0, dtype=torch.float64)
    utilities: list[Tensor] = []
    for block in rows.split(max(1, WEIGHT_BYTES // (8 * points))):
        sizes = block % inner + 1
        weights = (positions[block // inner] < sizes[:, None]).to(torch.uint8)
        utilities.append(utility(weights).to(torch.float64))
        progress(int(block[-1]) + 1, len(rows), STUDY)
    return torch.cat(utilities).unflatten(0, (permutations, inner))


def goodness(
    parameters: Float[Tensor, "subsets parameters"],
    context: StudyContext,
    *,
    utility: Literal["loss", "accuracy"],
) -> Float[Tensor, " subsets"]:
    """Return how good models are on the test rows: minus the mean loss, or the accuracy."""
    if utility == "accuracy":
        return accuracies(context.model, parameters, context.test_points)
    return -mean_test_losses(context.model, parameters, context.test_points)


def run(config: ValuationConfig, context: StudyContext) -> StudyResult:
    """Return every row's value by the study's subject, beside the truth and the rivals.

    Tables: `values` with a row per point (row_id, value, standard_error, rank from 1 for the most
    valuable, true_value, true_standard_error; null without truth) and `methods` with a row per
    refit (method, spearman, spearman_low, spearman_high, top_overlap, bottom_overlap, seconds).
    The truth is the same estimator with exact retraining on other orders; `truth_reliability`, its
    split-half reliability by Spearman-Brown, is the ceiling for any method's Spearman.
    """
    if config.utility == "accuracy" and context.model.regression:
        raise InvalidInput(f"{context.model.name} has no accuracy; set valuation.utility to loss")
    truth, truth_metrics = _true_values(config, context)
    names = list(context.refits) if config.rivals else [context.subject]
    estimates: dict[str, tuple[Values, float]] = {}
    for name in names:
        began = time.perf_counter()
        values = _values_of(context.refits[name], config, context, name)
        estimates[name] = values, time.perf_counter() - began
    comparisons = {
        name: _comparison(values, truth) | {"seconds": seconds}
        for name, (values, seconds) in estimates.items()
    }
    subject, _ = estimates[context.subject]
    metrics: dict[str, Any] = {
        "permutations": config.permutations,
        "evaluations": subject.evaluations,
        **comparisons[context.subject],
        "mean_standard_error": written_number(float(subject.standard_errors.mean())),
        **truth_metrics,
        "methods": comparisons,
    }
    methods = pl.DataFrame(
        [{"method": name, **row} for name, row in comparisons.items()],
        schema={"method": pl.String, **dict.fromkeys(_COMPARED, pl.Float64)},
    )
    return StudyResult(
        metrics, {"values": _value_table(context, subject, truth), "methods": methods}
    )


_COMPARED = (
    *("spearman", "spearman_low", "spearman_high"),
    *("top_overlap", "bottom_overlap", "seconds"),
)


def _values_of(refit: Refit, config: ValuationConfig, context: StudyContext, name: str) -> Values:
    def utility(weights: Tensor) -> Tensor:
        return goodness(refitted(refit, weights, context), context, utility=config.utility)

    return shapley(
        utility,
        points=context.pool,
        permutations=config.permutations,
        generator=context.generator(seed=config.seed, study=STUDY, block=0),
        progress=lambda done, total, what: context.progress(done, total, f"{what}: {name}"),
    )


def _true_values(
    config: ValuationConfig, context: StudyContext
) -> tuple[Values | None, dict[str, Any]]:
    """Values by exact retraining, and what is known of them: targets not converged, ceiling."""
    if config.truth_permutations == 0:
        return None, {}
    unfinished = 0

    def utility(weights: Tensor) -> Tensor:
        nonlocal unfinished
        trained = context.truth.train(weights)
        unfinished += int((~trained.converged).sum())
        return goodness(trained.parameters, context, utility=config.utility)

    began = time.perf_counter()
    values = shapley(
        utility,
        points=context.pool,
        permutations=config.truth_permutations,
        generator=context.generator(seed=config.seed, study=STUDY, block=1),
        progress=lambda done, total, what: context.progress(done, total, f"{what}: retraining"),
    )
    reliability = float("nan")
    if len(values.pairs) > 1:
        reliability = split_half_reliability(*values.halves)
    return values, {
        "truth_permutations": config.truth_permutations,
        "truth_reliability": written_number(reliability),
        "truth_not_converged": unfinished,
        "truth_seconds": time.perf_counter() - began,
    }


def _comparison(estimate: Values, truth: Values | None) -> dict[str, float | None]:
    """Agreement with the truth; None throughout without one."""
    if truth is None:
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


def _value_table(context: StudyContext, values: Values, truth: Values | None) -> pl.DataFrame:
    unknown = np.full(context.pool, np.nan)
    place = np.empty(context.pool, dtype=np.int64)
    place[np.argsort(-values.values, kind="stable")] = np.arange(1, context.pool + 1)
    table = pl.DataFrame(
        {
            "row_id": list(context.row_ids),
            "value": values.values,
            "standard_error": values.standard_errors,
            "rank": place,
            "true_value": unknown if truth is None else truth.values,
            "true_standard_error": unknown if truth is None else truth.standard_errors,
        }
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
