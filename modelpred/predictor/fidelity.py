"""How near each refit comes to retraining, on subsets that no fit has seen.

A row for every method and every held-out design: relative parameter error with a 95% interval over
subsets, error of the mean test loss, Spearman correlation of the test loss within subsets of about
one size (across sizes it would mostly measure size), and the time of one answer in a batch.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import mean_interval, relative_errors, spearman_within
from modelpred.progress import tracked
from modelpred.refits import Refit
from modelpred.refits.timing import machine_busy, timed_answer
from modelpred.targets import Points, TargetModel
from modelpred.targets.scoring import mean_test_losses

SIZE_GROUPS = 10
SCORE_BYTES = 64 * 2**20
REPEATS = 3


@runtime_checkable
class HeldOut(Protocol):
    """Subsets with their trained parameters (a bank)."""

    @property
    def designs(self) -> tuple[str, ...]:
        """Design of each subset."""
        ...

    @property
    def weights(self) -> Tensor:
        """[subsets, points]."""
        ...

    @property
    def parameters(self) -> Tensor:
        """[subsets, parameters]."""
        ...

    @property
    def converged(self) -> Tensor:
        """[subsets]: rows that training did not finish are no truth and are left out."""
        ...

    @property
    def degenerate(self) -> Tensor:
        """[subsets]: rows with a defined prior-only answer, left out as well."""
        ...


def fidelity(
    refits: Mapping[str, Refit],
    held_out: HeldOut,
    *,
    model: TargetModel,
    points: Points,
    test_points: Points,
) -> pl.DataFrame:
    """The table of methods by designs.

    A design of which no subset can be judged has no rows.

    Args:
        refits: by the name shown.
        held_out: subsets never used in fitting.
        model: the family.
        points: the pool.
        test_points: rows whose mean loss is compared.

    Returns:
        Columns method, design, subsets (that are judged), left_out (that have no trained model to
        judge by: a class is missing, or training did not converge), parameter_error (mean), parameter_error_low,
        parameter_error_high, parameter_error_median, test_loss_error (mean absolute),
        spearman_within_size, microseconds (per subset, median of up to three batched answers; see
        `modelpred.refits.timing`), busy (whether the machine was, so that times are too long).

    Raises:
        InvalidInput: no subset at all can be judged.
    """
    usable = held_out.converged & ~held_out.degenerate
    designs = np.array(held_out.designs)
    rows: list[dict[str, object]] = []
    for design in dict.fromkeys(held_out.designs):
        chosen = usable & torch.as_tensor(designs == design)
        if not bool(chosen.any()):
            continue
        weights = held_out.weights[chosen].to(points.features)
        true = held_out.parameters[chosen].to(points.features)
        true_losses = mean_test_losses(model, true, test_points, limit=SCORE_BYTES)
        groups = size_groups(weights)
        methods = list(refits.items())
        for name, refit in tracked(methods, f"comparing methods on {design} subsets"):
            predicted, seconds = timed_answer(partial(refit, weights), timings=REPEATS)
            errors = relative_errors(predicted, true)
            losses = mean_test_losses(model, predicted, test_points, limit=SCORE_BYTES)
            interval = mean_interval(errors)
            rows.append(
                {
                    "method": name,
                    "design": design,
                    "subsets": len(weights),
                    "left_out": int((designs == design).sum()) - len(weights),
                    "parameter_error": interval.mean,
                    "parameter_error_low": interval.low,
                    "parameter_error_high": interval.high,
                    "parameter_error_median": float(np.median(errors)),
                    "test_loss_error": float((losses - true_losses).abs().mean()),
                    "spearman_within_size": spearman_within(losses, true_losses, groups),
                    "microseconds": 1e6 * seconds / len(weights),
                    "busy": machine_busy(),
                }
            )
    if not rows:
        raise InvalidInput(
            f"none of the {len(designs):,} held-out subsets has a trained model to judge by: each "
            "lacks a class or did not converge; ask for larger subsets.test, or leave out rare classes"
        )
    return pl.DataFrame(rows)


def break_even_queries(*, preparation: float, retraining: float, predictor: float) -> int | None:
    """Number of queries after which the predictor is cheaper in total; None if it never is.

    Args:
        preparation: seconds before the first query.
        retraining: seconds a query.
        predictor: seconds a query.
    """
    gain = retraining - predictor
    return math.ceil(preparation / gain) if gain > 0 else None


def with_break_even(
    table: pl.DataFrame, *, preparation: float, predictor: str = "predictor"
) -> pl.DataFrame:
    """The table with the column break_even.

    It is the number of queries after which preparing the predictor and predicting cost less than
    exact retraining of as many batched queries; null for other methods, and where that is never.

    Args:
        table: of `fidelity`, with rows of the method `retraining`.
        preparation: seconds of training the targets and fitting the predictor.
        predictor: what the names of the predictor's methods begin with.
    """
    exact = {
        row["design"]: row["microseconds"]
        for row in table.iter_rows(named=True)
        if row["method"] == "retraining"
    }
    queries = [
        break_even_queries(
            preparation=preparation,
            retraining=1e-6 * exact[row["design"]],
            predictor=1e-6 * row["microseconds"],
        )
        if row["method"].startswith(predictor)
        else None
        for row in table.iter_rows(named=True)
    ]
    return table.with_columns(pl.Series("break_even", queries, dtype=pl.Int64))


def size_groups(weights: Tensor) -> np.ndarray:
    """Ten groups of about equal size: subsets within one have nearly the same total weight."""
    totals = weights.sum(1).numpy()
    edges = np.quantile(totals, np.linspace(0, 1, SIZE_GROUPS + 1)[1:-1])
    return np.searchsorted(edges, totals, side="right")
