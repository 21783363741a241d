"""Test losses of retrained models by the share of rows selected, for orders of rows by value.

Values give two orders of the rows: most valuable first and least valuable first. The addition curve
shows the test loss of models of the first 5%, 10%, ... of an order. Read from right to left, it is
the removal curve of the opposite order. Good values give a low loss for the most valuable rows and a
high loss for the least valuable ones.

    area   mean loss over all shares below 100%
    gain   area of the random order minus that area

The random order is drawn many times: its curve is the mean, its band contains 90% of the draws.
Intervals of losses and gains are 95% over test rows; those of gains are paired by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool
from torch import Tensor

from modelpred.metrics import Vector, mean_interval
from modelpred.studies.context import StudyContext, finished, retrained
from modelpred.studies.results import written_number
from modelpred.targets.scoring import accuracies, row_losses

RANDOM = "random"
BAND = (0.05, 0.95)


@dataclass(frozen=True)
class Selected:
    """Rows that one method selects, at one or several sizes.

    Attributes:
        method: name of the method.
        order: most_valuable or least_valuable.
        weights: [subsets, points]; the random order has several subsets of each size.
    """

    method: str
    order: str
    weights: Bool[Tensor, "subsets points"]


@dataclass(frozen=True)
class ScoredSelection:
    """Scores of the models retrained on selected rows.

    Attributes:
        selected: the rows.
        sizes: [subsets], number of rows.
        losses: [subsets, test rows]; nan if retraining did not converge.
        accuracies: [subsets]; nan if retraining did not converge, and for a regression.
    """

    selected: Selected
    sizes: Vector
    losses: Vector
    accuracies: Vector

    def mean_losses(self) -> dict[int, Vector]:
        """Return the loss of each test row by size, as the mean over subsets of that size.

        Subsets whose retraining did not converge are excluded; nan if there are no others.
        """
        return {
            int(size): _finite(self.losses[self.sizes == size]).mean(axis=0)
            for size in np.unique(self.sizes)
        }


def scored_selections(
    selections: Sequence[Selected], context: StudyContext
) -> tuple[list[ScoredSelection], int]:
    """Return the scores of models retrained on each selection, and how many did not converge."""
    weights = torch.cat([selection.weights for selection in selections]).to(torch.uint8)
    exact = retrained(weights, context, progress=context.progress)
    losses = row_losses(context.model, exact, context.test_points).numpy()
    right = np.full(len(losses), np.nan)
    if not context.model.regression:
        right = accuracies(context.model, exact, context.test_points).numpy()
    results: list[ScoredSelection] = []
    first = 0
    for selection in selections:
        rows = slice(first, first + len(selection.weights))
        sizes = selection.weights.sum(dim=1).double().numpy()
        results.append(ScoredSelection(selection, sizes, losses[rows], right[rows]))
        first = rows.stop
    return results, int((~finished(exact)).sum())


def _finite(draws: Vector) -> Vector:
    """The finite rows; if there is none, the first row."""
    finite = np.isfinite(draws).reshape(len(draws), -1).all(axis=1)
    return draws[finite] if finite.any() else draws[:1]


def curve_table(curves: Sequence[ScoredSelection], *, pool: int) -> pl.DataFrame:
    """Return a row per method, order and size.

    Columns: method, order, share, rows, loss, low, high, accuracy. For the random order, low and
    high are the band of the draws; for the others, the 95% interval over test rows.
    """
    rows: list[dict[str, Any]] = []
    for curve in curves:
        for size in np.unique(curve.sizes):
            of_size = curve.sizes == size
            losses = _finite(curve.losses[of_size])
            if curve.selected.method == RANDOM:
                low, high = np.quantile(losses.mean(axis=1), BAND)
            else:
                interval = mean_interval(losses[0])
                low, high = interval.low, interval.high
            rows.append(
                {
                    "method": curve.selected.method,
                    "order": curve.selected.order,
                    "share": float(size / pool),
                    "rows": int(size),
                    "loss": written_number(float(losses.mean())),
                    "low": written_number(float(low)),
                    "high": written_number(float(high)),
                    "accuracy": written_number(float(_finite(curve.accuracies[of_size]).mean())),
                }
            )
    return pl.DataFrame(rows, schema=_CURVE)


def area_table(curves: Sequence[ScoredSelection], *, pool: int) -> pl.DataFrame:
    """Return a row per method and order: area, gain over the random order, and its interval."""
    reference = next(curve for curve in curves if curve.selected.method == RANDOM)
    random = _area(reference, pool)
    rows: list[dict[str, Any]] = []
    for curve in curves:
        area = _area(curve, pool)
        gain = mean_interval(random - area)
        rows.append(
            {
                "method": curve.selected.method,
                "order": curve.selected.order,
                "area": written_number(float(area.mean())),
                "gain": written_number(gain.mean),
                "low": written_number(gain.low),
                "high": written_number(gain.high),
            }
        )
    return pl.DataFrame(rows, schema=_AREA)


def _area(curve: ScoredSelection, pool: int) -> Vector:
    """Mean loss of each test row over all sizes except all rows."""
    return np.mean([losses for size, losses in curve.mean_losses().items() if size < pool], axis=0)


_CURVE: dict[str, Any] = {
    "method": pl.String,
    "order": pl.String,
    "share": pl.Float64,
    "rows": pl.Int64,
    **dict.fromkeys(("loss", "low", "high", "accuracy"), pl.Float64),
}
_AREA: dict[str, Any] = {
    "method": pl.String,
    "order": pl.String,
    **dict.fromkeys(("area", "gain", "low", "high"), pl.Float64),
}
