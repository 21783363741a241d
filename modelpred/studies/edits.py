"""Deletions and additions of rows: errors of every refit against exact retraining.

Deletions: random subsets of every size from half of the training rows to all rows, in steps of five
rows, ten of each size. Additions: 5 to 145 test rows, in steps of five, are added to all training
rows, ten times each. No refit was fitted to the added rows; models are scored on the other test rows.
For every refit and size, as means over the repeats:

    parameter error    ‖predicted - true‖ / ‖true‖
    test-loss error    |test loss of the predicted model - test loss of the true model|; for a
                       regression, of the root mean squared error in the label's units
    Spearman           of predicted and true test losses among subsets of one size; across sizes,
                       it would mostly measure the size

`costs` adds the number of queries after which the predictor is cheaper than retraining. Subsets whose
exact retraining did not converge are excluded and counted.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Num
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.metrics import Array, Interval, Vector, mean_interval, relative_errors, spearman
from modelpred.numbers import Seed
from modelpred.refits.retraining import Extendable, Refit
from modelpred.refits.timing import machine_busy, timed_answer
from modelpred.studies.context import (
    StudyContext,
    finished,
    full_model,
    recorded,
    require_models,
    retrained,
)
from modelpred.studies.costs import break_even
from modelpred.studies.results import StudyResult, written_number
from modelpred.targets.points import Points
from modelpred.targets.scoring import accuracies, mean_test_losses

STUDY = "edits"
MOST_TIMINGS = 1000  # of a refit; its median changes no more
UNDEFINED = Interval(float("nan"), float("nan"), float("nan"), 0)


class EditsConfig(BaseModel):
    """Section `edits` of params.yaml.

    Attributes:
        smallest: smallest share of the training rows that remains.
        step: difference between successive sizes, in rows.
        repeats: random subsets of each size.
        added: largest number of rows to add, at most half of the test rows; 0: none.
        timings: most timings of each refit; their median is reported.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    smallest: float = Field(default=0.5, gt=0, le=1)
    step: int = Field(default=5, ge=1)
    repeats: int = Field(default=10, ge=2)
    added: int = Field(default=145, ge=0)
    timings: int = Field(default=3, ge=1, le=MOST_TIMINGS)
    seed: Seed = 0


def deletions(
    config: EditsConfig, *, points: int, generator: np.random.Generator
) -> Num[Tensor, "subsets points"]:
    """Return 0/1 weights: `repeats` subsets of every size, the smallest first."""
    sizes = np.repeat(_deletion_sizes(config, points), config.repeats)
    weights = torch.zeros(len(sizes), points, dtype=torch.uint8)
    for row, size in enumerate(sizes):
        weights[row, torch.from_numpy(generator.permutation(points)[:size])] = 1
    return weights


def _deletion_sizes(config: EditsConfig, points: int) -> range:
    """Rows that deletions leave, the fewest first."""
    fewest = max(1, int(np.ceil(config.smallest * points)))
    return range(points, fewest - 1, -config.step)[::-1]


def additions(
    config: EditsConfig, *, points: int, candidates: int, generator: np.random.Generator
) -> Num[Tensor, "subsets more_points"]:
    """Return 0/1 weights: every point, and `repeats` draws of every number of candidates."""
    counts = np.repeat(range(config.step, candidates + 1, config.step), config.repeats)
    weights = torch.zeros(len(counts), points + candidates, dtype=torch.uint8)
    weights[:, :points] = 1
    for row, count in enumerate(counts):
        weights[row, points + torch.from_numpy(generator.permutation(candidates)[:count])] = 1
    return weights


def with_candidates(config: EditsConfig, context: StudyContext) -> StudyContext | None:
    """The context with the first test rows appended to the training points, as candidates to add.

    The other test rows remain for scoring. Refits that cannot be used with other points are excluded.
    None if there are too few test rows, or `added` is 0.
    """
    points, test = context.points, context.test_points
    count = min(config.added, len(test.labels) // 2)
    if count < config.step:
        return None
    longer = points.joined(test.take(torch.arange(count)))
    refits = {
        name: refit.for_points(longer)
        for name, refit in context.refits.items()
        if isinstance(refit, Extendable)
    }
    return replace(
        context,
        test_points=Points(test.features[count:], test.labels[count:], test.classes),
        refits=refits,
        truth=context.truth.for_points(longer),
        row_ids=(*context.row_ids, *_names(context, count)),
        test_row_ids=context.test_row_ids[count:],
        rows=None,
        mislabelled=None,
    )


def _names(context: StudyContext, count: int) -> tuple[str, ...]:
    """Ids of the first test rows; new names if they have none or these are ids of training rows."""
    known = context.test_row_ids[:count]
    if len(known) == count and not set(known) & set(context.row_ids):
        return known
    return tuple(f"test row {row}" for row in range(count))


@dataclass(frozen=True)
class _Models:
    """Parameters and test scores of a refit's models of all subsets."""

    parameters: Tensor
    losses: Vector
    accuracies: Vector | None
    seconds: float

    def rows(self, chosen: Tensor) -> "_Models":
        mask = chosen.numpy()
        right = None if self.accuracies is None else self.accuracies[mask]
        return _Models(self.parameters[chosen], self.losses[mask], right, self.seconds)


def _scored(context: StudyContext, parameters: Tensor, seconds: float) -> _Models:
    losses = mean_test_losses(context.model, parameters, context.test_points).numpy()
    right = None
    if not context.model.regression:
        right = accuracies(context.model, parameters, context.test_points).numpy()
    return _Models(parameters, losses, right, seconds)


def run(config: EditsConfig, context: StudyContext) -> StudyResult:
    """Return the errors of every refit for deletions and additions.

    Tables:
        edits: deletions, a row per method and size: method, size, subsets, parameter_error, low,
            high (95% over repeats), parameter_error_median, test_loss_error, test_loss_error_low,
            test_loss_error_high, spearman, accuracy_change, true_accuracy_change (from the model of
            all rows; null for a regression), accuracy_error.
        additions: the same for additions; empty if no rows were added.
        predicted_against_true: a row per deletion by the study's subject: method, size, true_loss,
            predicted_loss, parameter_error.
        break_even: see `costs.break_even`; without a `preparation`, its queries are null.

    The metrics are a summary of each method, and the same for additions under `addition`.
    """
    asked = config.repeats * len(_deletion_sizes(config, context.pool))
    require_models(asked, context, what="edits.repeats")
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    weights = deletions(config, points=context.pool, generator=generator)
    base = torch.ones(context.pool)
    removed = _protocol(config, context, weights, base=base, whole=context.pool)
    metrics, tables = dict(removed.metrics), dict(removed.tables)
    tables["additions"] = tables["edits"].clear()
    longer = with_candidates(config, context)
    if longer is not None:
        generator = context.generator(seed=config.seed, study=STUDY, block=1)
        candidates = longer.pool - context.pool
        asked = config.repeats * (candidates // config.step)
        require_models(asked, longer, what="edits.repeats")
        more = additions(config, points=context.pool, candidates=candidates, generator=generator)
        base = torch.cat([base, base.new_zeros(candidates)])
        added = _protocol(config, longer, more, base=base, whole=longer.pool)
        tables["additions"] = added.tables["edits"]
        metrics["addition"] = added.metrics
    tables["break_even"] = break_even(context, weights, timings=config.timings)
    return StudyResult(metrics, tables)


def _protocol(
    config: EditsConfig, context: StudyContext, weights: Tensor, *, base: Tensor, whole: int
) -> StudyResult:
    """Errors of every refit on these subsets, and changes of accuracy from the model of `base`."""
    began = time.perf_counter()
    exact = retrained(weights, context, progress=context.progress)
    seconds = time.perf_counter() - began
    converged = finished(exact)
    sizes = weights.sum(dim=1)[converged].numpy()
    truth = _scored(context, exact, seconds).rows(converged)
    full = _scored(context, full_model(context, base), 0.0)
    tables: list[pl.DataFrame] = []
    metrics: dict[str, Any] = {}
    scatter = pl.DataFrame()
    for done, (name, refit) in enumerate(context.refits.items(), start=1):
        models = _timed(refit, weights, context, timings=config.timings).rows(converged)
        subsets = _subset_table(name, sizes, models, pool=whole, truth=truth, full=full)
        tables.append(_size_table(subsets))
        queries = len(weights)
        metrics[name] = _summary(subsets, tables[-1]) | _clock(models.seconds, queries)
        if name == context.subject:
            scatter = subsets.select(
                "method", "size", "true_loss", "predicted_loss", "parameter_error"
            )
        context.progress(done, len(context.refits), f"{STUDY}: {name}")
    metrics["retraining"] = _clock(seconds, len(weights)) | {
        "subsets": len(weights),
        "not_converged": int((~converged).sum()),
    }
    return StudyResult(metrics, {"edits": pl.concat(tables), "predicted_against_true": scatter})


def _timed(refit: Refit, weights: Tensor, context: StudyContext, *, timings: int) -> _Models:
    answer, seconds = timed_answer(partial(refit, weights), timings=timings)
    return _scored(context, recorded(answer, weights, context, refit.name), seconds)


def _clock(seconds: float, subsets: int) -> dict[str, float]:
    return {"microseconds": 1e6 * seconds / subsets, "busy": machine_busy()}


def _subset_table(
    name: str, sizes: Array, models: _Models, *, pool: int, truth: _Models, full: _Models
) -> pl.DataFrame:
    """A row per subset; accuracies are null for a regression."""
    columns: dict[str, Any] = {
        "size": sizes,
        "true_loss": truth.losses,
        "predicted_loss": models.losses,
        "parameter_error": relative_errors(models.parameters, truth.parameters),
        "test_loss_error": np.abs(models.losses - truth.losses),
    }
    table = pl.DataFrame(columns).with_columns(
        pl.lit(name).alias("method"),
        # Each size has the same number of subsets: the n-th subsets of all sizes are repeat n.
        pl.int_range(pl.len()).over("size").alias("repeat"),
        (pl.col("size") == pool).alias("whole"),
    )
    if models.accuracies is None or truth.accuracies is None or full.accuracies is None:
        empty = pl.lit(None, dtype=pl.Float64)
        return table.with_columns(
            empty.alias("accuracy_change"), empty.alias("true_accuracy_change")
        )
    return table.with_columns(
        pl.Series("accuracy_change", models.accuracies - full.accuracies[0]),
        pl.Series("true_accuracy_change", truth.accuracies - full.accuracies[0]),
    )


def _size_table(subsets: pl.DataFrame) -> pl.DataFrame:
    """A row per size."""
    rows: list[dict[str, Any]] = []
    for group in subsets.partition_by("size", maintain_order=True):
        error = mean_interval(group["parameter_error"].to_numpy())
        loss = mean_interval(group["test_loss_error"].to_numpy())
        gap = (group["accuracy_change"] - group["true_accuracy_change"]).abs()
        rows.append(
            {
                "method": group["method"][0],
                "size": group["size"][0],
                "subsets": group.height,
                "parameter_error": written_number(error.mean),
                "low": written_number(error.low),
                "high": written_number(error.high),
                "parameter_error_median": written_number(
                    float(np.median(group["parameter_error"].to_numpy()))
                ),
                "test_loss_error": written_number(loss.mean),
                "test_loss_error_low": written_number(loss.low),
                "test_loss_error_high": written_number(loss.high),
                "spearman": _rank_correlation(group),
                "accuracy_change": _mean(group["accuracy_change"]),
                "true_accuracy_change": _mean(group["true_accuracy_change"]),
                "accuracy_error": _mean(gap),
            }
        )
    return pl.DataFrame(rows, schema=_SIZE_SCHEMA)


_SIZE_SCHEMA = {
    "method": pl.String,
    "size": pl.Int64,
    "subsets": pl.Int64,
    **dict.fromkeys(
        (
            *("parameter_error", "low", "high", "parameter_error_median"),
            *("test_loss_error", "test_loss_error_low", "test_loss_error_high", "spearman"),
            *("accuracy_change", "true_accuracy_change", "accuracy_error"),
        ),
        pl.Float64,
    ),
}


def _mean(column: pl.Series) -> float | None:
    """The mean; None for a regression, which has no accuracies, and if a model failed."""
    numbers = column.drop_nulls().to_numpy()
    return written_number(float(numbers.mean())) if len(numbers) else None


def _rank_correlation(group: pl.DataFrame) -> float | None:
    """Spearman of the losses; None for all rows, where repeats differ only by rounding."""
    if group["whole"].all():
        return None
    losses = group.select("predicted_loss", "true_loss").to_numpy()
    return written_number(spearman(losses[:, 0], losses[:, 1]))


def _summary(subsets: pl.DataFrame, by_size: pl.DataFrame) -> dict[str, float | None]:
    """Means with 95% intervals over repeats; for the Spearman correlation, over sizes."""
    gap = (pl.col("accuracy_change") - pl.col("true_accuracy_change")).abs()
    measures = ("parameter_error", "test_loss_error", "accuracy_error")
    known = subsets.with_columns(gap.alias("accuracy_error"))
    repeats = known.group_by("repeat").agg(pl.col(measures).mean())
    within = by_size["spearman"].drop_nulls().to_numpy()
    over_repeats: dict[str, float | None] = {}
    for measure in measures:
        means = repeats[measure].drop_nulls().to_numpy()  # a regression has no accuracies
        over_repeats |= _spread(measure, mean_interval(means) if means.size else UNDEFINED)
    return {
        **over_repeats,
        **_spread("spearman_within_size", mean_interval(within) if within.size else UNDEFINED),
    }


def _spread(name: str, interval: Interval) -> dict[str, float | None]:
    return {
        name: written_number(interval.mean),
        f"{name}_low": written_number(interval.low),
        f"{name}_high": written_number(interval.high),
    }
