"""What is each row worth? Shapley values of the pool's points over the test score.

With v(S) the test score of the model of subset S, the Shapley value of point i is the mean, over
random orders of the pool, of what v gains when i joins those before it (Shapley 1953; Ghorbani and
Zou 2019 for data):

    value_i = E_order [ v(before_i + i) - v(before_i) ]

Three things lower the variance of the sampled mean and leave its expectation as it is:

- *Antithetic pairs.* Every order comes with its reverse (Mitchell et al. 2022), so that a point
  that joins early in one joins late in the other.
- *Small subsets apart.* A model of five points changes much with the sixth; one of 200 hardly with
  the next. The first `small` of all places hold most of the variance (spam: 3% of the places, 83%),
  so they get orders of their own: short random orders that together visit every point once,
  for as many evaluations as one long order.
- *Efficiency.* Values add up to v(all) - v(none). What the sample misses of that sum is given to
  the points in proportion to their squared standard errors.

One long and one short pair make one independent estimate; their spread gives the standard errors.

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
        permutations: random orders, half of them reverses of the other half; one costs about two
            evaluations per point.
        truth_permutations: as many other orders with exact retraining; 0 leaves the truth out.
        small: share of the places that get short orders of their own; 0 for long orders only.
        utility: minus the mean test loss, or the test accuracy.
        rivals: whether every refit is valued, or only the study's subject.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    permutations: int = Field(default=100, ge=2, multiple_of=2)
    truth_permutations: int = Field(default=100, ge=0, multiple_of=2)
    small: float = Field(default=0.05, ge=0, le=0.5)
    utility: Literal["loss", "accuracy"] = "loss"
    rivals: bool = True
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Values:
    """Estimated values with what their uncertainty is made from.

    Attributes:
        values: [points].
        standard_errors: [points]; nan from a single pair.
        pairs: [pairs, points], independent estimates from one antithetic pair each.
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
    small: float = 0.05,
    progress: Progress = silent,
) -> Values:
    """Return Shapley values of any game by sampling orders.

    Args:
        utility: the game; from 0/1 weights [subsets, points] to a number per subset.
        points: its players.
        permutations: long orders, an even number, and as many rounds of short ones.
        generator: draws the orders.
        small: share of the places that short orders cover.
        progress: called with (evaluations done, in all, "valuation").
    """
    if permutations < 2 or permutations % 2:
        raise InvalidInput(
            f"permutations is {permutations}; expected 2, 4, 6, ...: orders come in pairs, each "
            "with its reverse"
        )
    width = int(small * points)
    long = _long_orders(points, permutations // 2, generator)
    short = _short_orders(points, width, permutations // 2, generator) if width else None
    total = permutations * (points - max(width, 1))
    total += len(short.places) * width if short else 0
    counter = _Counter(utility, total + 2, progress)
    ends = counter(torch.stack([torch.zeros(points), torch.ones(points)]).to(torch.uint8))
    gains = _gains(counter, long, sizes=range(max(width, 1), points), ends=ends, first=width)
    if short:
        early = _gains(counter, short, sizes=range(1, width + 1), ends=ends, first=0)
        gains += width / points * early
    pairs = gains.unflatten(0, (2, -1)).mean(dim=0).numpy()
    values, errors = _efficient(pairs, total=float(ends[1] - ends[0]))
    return Values(values, errors, pairs, counter.done)


@dataclass(frozen=True)
class _Orders:
    """Orders of players, long or short; the second half are the reverses of the first.

    Attributes:
        places: [orders, points], when each player joins; `points` if he never does.
        home: [rounds, points], in which order a player's gain counts.
    """

    places: Int[Tensor, "orders points"]
    home: Int[Tensor, "rounds points"]


def _long_orders(points: int, pairs: int, generator: np.random.Generator) -> _Orders:
    forward = np.stack([generator.permutation(points) for _ in range(pairs)])
    places = torch.from_numpy(np.concatenate([forward, points - 1 - forward]))
    return _Orders(places, torch.arange(len(places))[:, None].expand(-1, points))


def _short_orders(points: int, width: int, pairs: int, generator: np.random.Generator) -> _Orders:
    """Rounds of `width` players at a time, so that each round is home to every player once.

    The last order of a round is filled up with players who are at home in the first.
    """
    windows = -(-points // width)
    places = np.full((2, pairs, windows, points), points)
    home = np.empty((pairs, points), dtype=np.int64)
    for pair in range(pairs):
        order = generator.permutation(points)
        home[pair, order] = pair * windows + np.arange(points) // width
        members = np.resize(order, (windows, width))
        members[-1] = generator.permutation(members[-1])
        steps = np.arange(width)[None]
        np.put_along_axis(places[0, pair], members, steps, axis=1)
        np.put_along_axis(places[1, pair], members, width - 1 - steps, axis=1)
    both = np.concatenate([home, home + pairs * windows])
    return _Orders(torch.from_numpy(places.reshape(-1, points)), torch.from_numpy(both))


class _Counter:
    """A game that counts its evaluations and tells the progress."""

    def __init__(self, utility: Utility, total: int, progress: Progress) -> None:
        self.utility = utility
        self.total = total
        self.progress = progress
        self.done = 0

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Float[Tensor, " subsets"]:
        """Return the worths of a block of subsets."""
        worths = self.utility(weights).to(torch.float64)
        self.done += len(weights)
        self.progress(self.done, self.total, STUDY)
        return worths


def _gains(
    utility: Utility, orders: _Orders, *, sizes: range, ends: Tensor, first: int
) -> Float[Tensor, "rounds points"]:
    """What each player gains by joining in his home order; 0 if he joins before place `first`.

    Utilities are asked for at the given numbers of players, thousands of subsets in a call. `ends`
    are the worths of nobody and of everybody.
    """
    count, points = orders.places.shape
    worths = torch.empty(count * len(sizes), dtype=torch.float64)
    block = max(1, WEIGHT_BYTES // (8 * points))
    for start in range(0, len(worths), block):
        rows = torch.arange(start, min(start + block, len(worths)))
        joined = rows % len(sizes) + sizes.start
        weights = orders.places[rows // len(sizes)] < joined[:, None]
        worths[rows] = utility(weights.to(torch.uint8))
    path = worths.reshape(count, len(sizes))
    if first == 0:
        path = torch.cat([ends[:1].expand(count, 1), path], dim=1)
    if sizes.stop == points:
        path = torch.cat([path, ends[1:].expand(count, 1)], dim=1)
    place = orders.places.gather(0, orders.home)
    gained = path.diff(dim=1)[orders.home, (place - first).clamp(min=0)]
    return torch.where(place >= first, gained, 0)


def _efficient(pairs: Vector, *, total: float) -> tuple[Vector, Vector]:
    """Values that add up to the total, and their standard errors."""
    values = pairs.mean(axis=0)
    if len(pairs) == 1:
        return values + (total - values.sum()) / len(values), np.full(len(values), np.nan)
    variance = pairs.var(axis=0, ddof=1) / len(pairs)
    if variance.sum() > 0:
        values = values + (total - values.sum()) * variance / variance.sum()
    return values, np.sqrt(variance)


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
        small=config.small,
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
        small=config.small,
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
