"""Selections of k rows, and the test loss of models trained on them.

Rows are selected with validation rows, a random half of the test rows: `greedy`, and the k rows of the
highest value by every method of valuation_methods.py. For families with an optimum, `greedy` is the
selection of gradient_selection.py, for others that of greedy_selection.py with swaps that retraining
confirms. Models are retrained exactly on the selected rows and scored on the other half of the test
rows, together with random selections and all rows (curves.py).

The split of the test rows, the sizes and the quotas are this project's own protocol.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import mean_interval
from modelpred.numbers import Seed
from modelpred.studies.answering import AnsweringConfig
from modelpred.studies.context import StudyContext, groups_of, require_models
from modelpred.studies.curves import (
    RANDOM,
    ScoredSelection,
    Selected,
    area_table,
    curve_table,
    scored_selections,
)
from modelpred.studies.gradient_selection import judging_points, selections
from modelpred.studies.greedy_selection import (
    Quota,
    backwards,
    no_quota,
    own_shares,
    top_by_value,
    with_swaps,
)
from modelpred.studies.results import StudyResult, written_number
from modelpred.studies.utility import game_of
from modelpred.studies.valuation_methods import OURS, MethodValues, require_orders, values_by_method
from modelpred.targets.points import Points

STUDY = "selection"
MOST, LEAST = "most_valuable", "least_valuable"
GREEDY, SHAPLEY = "greedy", "shapley"


class SelectionConfig(AnsweringConfig):
    """Section `selection` of params.yaml.

    Attributes:
        share: share of the rows to keep that is reported first.
        step: distance between the shares on the curves.
        quota: `class`, or a column of the table: each class or group keeps its share of the rows;
            None: no quotas.
        permutations: budget of the Shapley and Banzhaf values, in random orders of the rows.
        stride: of a family without an optimum: of the remaining rows, one in this many is removed
            before they are scored again.
        swaps: of a family without an optimum: most swaps that improve a greedy selection.
        random: random selections of each size.
        rivals: whether to use every method; otherwise rows are selected only by their Shapley
            values and at random, which takes a small part of the time.
        seed: of the split of the test rows and of the draws.
    """

    share: float = Field(default=0.2, gt=0, lt=1)
    step: float = Field(default=0.05, gt=0, le=0.5)
    quota: str | None = None
    permutations: int = Field(default=50, ge=2, multiple_of=2)
    stride: int = Field(default=8, ge=1)
    swaps: int = Field(default=5, ge=0)
    random: int = Field(default=20, ge=2)
    rivals: bool = True
    seed: Seed = 0


def run(config: SelectionConfig, context: StudyContext) -> StudyResult:
    """Return the scores of models trained on the rows that each method selects.

    Tables: `curves` (method, order, share, rows, loss, low, high, accuracy: see curves.py), `areas`
    (method, order, area, gain, low, high), `methods` with a row per method at `config.share` of the
    rows, best first (method, ours, rows, loss, low, high, accuracy, seconds) and `chosen` with a row
    per point: row_id and, for every method, whether it selects the row at this share.
    """
    validation, test = split_test(context, seed=config.seed)
    quota = _quota(config, context)
    generator = context.generator(seed=config.seed, study=STUDY, block=1)
    sizes = _sizes(config, context.pool)
    require_models(config.random * len(sizes), context, what="selection.random")
    require_orders(config.permutations, points=context.pool)
    seconds: dict[str, float] = {}
    chosen = _greedy(config, validation, quota, sizes, seconds) if config.rivals else []
    values = values_by_method(
        validation,
        permutations=config.permutations,
        generator=generator,
        only=None if config.rivals else (SHAPLEY,),
    )
    values.pop(RANDOM, None)
    chosen += [
        Selected(name, order, torch.stack([_top(of_rows, size, quota, order) for size in sizes]))
        for name, of_rows in values.items()
        for order in (MOST, LEAST)
    ]
    seconds |= {name: of_rows.seconds for name, of_rows in values.items()}
    chosen.append(Selected(RANDOM, MOST, _random(config, sizes, quota, generator)))
    curves, unfinished = scored_selections(chosen, test)
    methods = _methods(config, context, curves, seconds)
    tables = {
        "curves": curve_table(curves, pool=context.pool),
        "areas": area_table(curves, pool=context.pool),
        "methods": methods,
        "chosen": _chosen(config, context, chosen),
    }
    metrics: dict[str, Any] = {
        "share": config.share,
        "rows": headline_size(config, context.pool),
        "validation_rows": len(validation.test_points.labels),
        "test_rows": len(test.test_points.labels),
        "not_converged": unfinished,
        "methods": {row.pop("method"): row for row in methods.to_dicts()},
        **_lead(config, context, curves),
    }
    return StudyResult(metrics, tables)


def split_test(context: StudyContext, *, seed: int) -> tuple[StudyContext, StudyContext]:
    """Return two contexts: with one half of the test rows as validation rows, and with the other.

    Raises:
        InvalidInput: there are fewer than four test rows.
    """
    rows = len(context.test_points.labels)
    if rows < 4:
        raise InvalidInput(
            f"{rows} test rows are too few to use one half for validation and the other for testing"
        )
    order = context.generator(seed=seed, study=STUDY, block=0).permutation(rows)
    halves = torch.from_numpy(order).tensor_split(2)
    test = context.test_points
    first, second = (
        replace(context, test_points=Points(test.features[half], test.labels[half], test.classes))
        for half in halves
    )
    return first, second


def headline_size(config: SelectionConfig, pool: int) -> int:
    """Return the number of rows of `config.share`."""
    return max(1, round(config.share * pool))


def _sizes(config: SelectionConfig, pool: int) -> list[int]:
    if config.step * pool < 0.5:  # closer than the rows
        return list(range(1, pool + 1))
    shares = np.arange(1, int(1 / config.step + 1e-9) + 1) * config.step
    sizes = {max(1, round(share * pool)) for share in shares}
    return sorted(sizes | {headline_size(config, pool), pool})


def _quota(config: SelectionConfig, context: StudyContext) -> Quota:
    if config.quota is None:
        return no_quota(context.pool)
    if config.quota == "class":
        if context.model.regression:
            raise InvalidInput("selection.quota: a regression has no classes; name a column")
        _, group = torch.unique(context.points.labels, return_inverse=True)
        return own_shares(group)
    _, members = groups_of(context, column=config.quota, key="selection.quota")
    return own_shares(members.argmax(dim=0))


def greedy_selections(
    context: StudyContext,
    *,
    sizes: Sequence[int],
    quota: Quota,
    seed: int = 0,
    stride: int = 8,
    swaps: int = 5,
) -> dict[int, Tensor]:
    """Return a selection of each size by the context's test rows.

    Args:
        context: the family, the subject, and the rows to select by.
        sizes: numbers of rows.
        quota: guaranteed rows of each group.
        seed: of the folds of the rows to select by.
        stride: see `SelectionConfig`.
        swaps: see `SelectionConfig`.
    """
    if context.model.optimum is not None:
        generator = context.generator(seed=seed, study=STUDY, block=2)
        judge = judging_points(context.truth, context.test_points, generator=generator)
        return selections(context.truth, judge, sizes=sizes, quota=quota)
    game, truth = (
        game_of(refit, context) for refit in (context.refits[context.subject], context.truth)
    )
    path = backwards(game, sizes=sizes, quota=quota, stride=stride)
    for done, size in enumerate(sizes, start=1):
        path[size] = with_swaps(game, path[size], swaps=swaps, quota=quota, confirm=truth)
        context.progress(done, len(sizes), f"{STUDY}: swaps")
    return path


def _greedy(
    config: SelectionConfig,
    context: StudyContext,
    quota: Quota,
    sizes: list[int],
    seconds: dict[str, float],
) -> list[Selected]:
    """The greedy selections of all sizes."""
    began = time.perf_counter()
    path = greedy_selections(
        context,
        sizes=sizes,
        quota=quota,
        seed=config.seed,
        stride=config.stride,
        swaps=config.swaps,
    )
    seconds[GREEDY] = time.perf_counter() - began
    return [Selected(GREEDY, MOST, torch.stack([path[size] for size in sizes]))]


def _top(of_rows: MethodValues, size: int, quota: Quota, order: str) -> Tensor:
    signed = of_rows.values if order == MOST else -of_rows.values
    return top_by_value(signed, size=size, quota=quota)


def _random(
    config: SelectionConfig, sizes: list[int], quota: Quota, generator: np.random.Generator
) -> Tensor:
    """Nested random selections, `config.random` of each size."""
    pool = len(quota.group)
    orders = [generator.permutation(pool).astype(np.float64) for _ in range(config.random)]
    return torch.stack(
        [top_by_value(order, size=size, quota=quota) for order in orders for size in sizes]
    )


def _methods(
    config: SelectionConfig,
    context: StudyContext,
    curves: list[ScoredSelection],
    seconds: dict[str, float],
) -> pl.DataFrame:
    """All methods at the headline size, and the model of all rows."""
    size = headline_size(config, context.pool)
    most = [curve for curve in curves if curve.selected.order == MOST]
    table = curve_table(most, pool=context.pool)
    whole = table.filter(pl.col("method") == SHAPLEY, pl.col("rows") == context.pool)
    of_size = table.filter(pl.col("rows") == size)
    both = pl.concat([of_size, whole.with_columns(pl.lit("all_rows").alias("method"))])
    ours = [name in (*OURS, GREEDY) for name in both["method"]]
    return (
        both.with_columns(
            pl.Series("ours", ours),
            pl.Series("seconds", [seconds.get(name) for name in both["method"]], dtype=pl.Float64),
        )
        .select("method", "ours", "rows", "loss", "low", "high", "accuracy", "seconds")
        .sort("loss", maintain_order=True, nulls_last=True)
    )


def _lead(
    config: SelectionConfig, context: StudyContext, curves: list[ScoredSelection]
) -> dict[str, float | str | None]:
    """Loss of the best other method minus that of `greedy`, paired by test rows."""
    size = headline_size(config, context.pool)
    losses = {
        curve.selected.method: curve.mean_losses()[size]
        for curve in curves
        if curve.selected.order == MOST
    }
    others = {
        name: rows.mean()
        for name, rows in losses.items()
        if name not in (*OURS, GREEDY) and np.isfinite(rows).all()
    }
    if not others or GREEDY not in losses:
        return {"best_rival": None}
    best = min(others, key=lambda name: others[name])
    lead = mean_interval(losses[best] - losses[GREEDY])
    return {
        "best_rival": best,
        "lead": written_number(lead.mean),
        "lead_low": written_number(lead.low),
        "lead_high": written_number(lead.high),
    }


def _chosen(config: SelectionConfig, context: StudyContext, chosen: list[Selected]) -> pl.DataFrame:
    size = headline_size(config, context.pool)
    columns = {
        each.method: each.weights[each.weights.sum(dim=1) == size][0].numpy()
        for each in chosen
        if each.order == MOST and each.method != RANDOM
    }
    return pl.DataFrame({"row_id": list(context.row_ids), **columns})
