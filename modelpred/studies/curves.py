"""How good are models of the rows that somebody kept? Retrained exactly, judged on rows of their own.

A way to value rows gives two orders: most valuable first and least valuable first. Keeping the
first 5%, 10%, ... of an order is the addition curve; read from right to left it is the removal curve
of the opposite order. Good values keep the loss low when the most valuable rows stay, and raise it
when the least valuable ones do.

    area   mean loss over all kept shares short of everything
    gain   area of random order minus that area

Random order is drawn many times: its curve is the mean, its band holds 90% of the draws. Intervals
of losses and gains are 95% over test rows; those of gains are paired, row by row.
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
from modelpred.studies.utility import (
    StudyContext,
    accuracies,
    finished,
    retrained,
    row_losses,
    written_number,
)

RANDOM = "random"
BAND = (0.05, 0.95)


@dataclass(frozen=True)
class Kept:
    """Rows that one method keeps, at one or several sizes.

    Attributes:
        method: who chose.
        order: most_valuable or least_valuable.
        weights: [subsets, points]; for random order several subsets of one size.
    """

    method: str
    order: str
    weights: Bool[Tensor, "subsets points"]


@dataclass(frozen=True)
class Judged:
    """Exactly retrained models of what was kept.

    Attributes:
        kept: what.
        sizes: [subsets], rows kept.
        losses: [subsets, test rows]; nan where retraining did not converge.
        accuracies: [subsets]; nan likewise, and for a regression.
    """

    kept: Kept
    sizes: Vector
    losses: Vector
    accuracies: Vector

    def mean_losses(self) -> dict[int, Vector]:
        """For every size the loss of each test row, the mean over subsets of that size.

        Subsets whose retraining did not converge are left out; nan where that is all of them.
        """
        return {
            int(size): _known(self.losses[self.sizes == size]).mean(axis=0)
            for size in np.unique(self.sizes)
        }


def judged(kept: Sequence[Kept], context: StudyContext) -> tuple[list[Judged], int]:
    """Return every choice with its retrained models' losses, and how many did not converge."""
    weights = torch.cat([choice.weights for choice in kept]).to(torch.uint8)
    exact = retrained(weights, context, progress=context.progress)
    losses = row_losses(context.model, exact, context.test_points).numpy()
    right = np.full(len(losses), np.nan)
    if not context.model.regression:
        right = accuracies(context.model, exact, context.test_points).numpy()
    found: list[Judged] = []
    first = 0
    for choice in kept:
        rows = slice(first, first + len(choice.weights))
        sizes = choice.weights.sum(dim=1).double().numpy()
        found.append(Judged(choice, sizes, losses[rows], right[rows]))
        first = rows.stop
    return found, int((~finished(exact)).sum())


def _known(draws: Vector) -> Vector:
    """The subsets, one a row, that have numbers; one without where none has."""
    kept = np.isfinite(draws).reshape(len(draws), -1).all(axis=1)
    return draws[kept] if kept.any() else draws[:1]


def curve_table(curves: Sequence[Judged], *, pool: int) -> pl.DataFrame:
    """Return a row per method, order and size.

    Columns: method, order, share, rows, loss, low, high, accuracy. Of random order low and high are
    the band of the draws, of the others the 95% interval over test rows.
    """
    rows: list[dict[str, Any]] = []
    for curve in curves:
        for size in np.unique(curve.sizes):
            here = curve.sizes == size
            losses = _known(curve.losses[here])
            if curve.kept.method == RANDOM:
                low, high = np.quantile(losses.mean(axis=1), BAND)
            else:
                interval = mean_interval(losses[0])
                low, high = interval.low, interval.high
            rows.append(
                {
                    "method": curve.kept.method,
                    "order": curve.kept.order,
                    "share": float(size / pool),
                    "rows": int(size),
                    "loss": written_number(float(losses.mean())),
                    "low": written_number(float(low)),
                    "high": written_number(float(high)),
                    "accuracy": written_number(float(_known(curve.accuracies[here]).mean())),
                }
            )
    return pl.DataFrame(rows, schema=_CURVE)


def area_table(curves: Sequence[Judged], *, pool: int) -> pl.DataFrame:
    """Return a row per method and order: area, gain over random order, and its interval."""
    reference = next(curve for curve in curves if curve.kept.method == RANDOM)
    random = _area(reference, pool)
    rows: list[dict[str, Any]] = []
    for curve in curves:
        area = _area(curve, pool)
        gain = mean_interval(random - area)
        rows.append(
            {
                "method": curve.kept.method,
                "order": curve.kept.order,
                "area": written_number(float(area.mean())),
                "gain": written_number(gain.mean),
                "low": written_number(gain.low),
                "high": written_number(gain.high),
            }
        )
    return pl.DataFrame(rows, schema=_AREA)


def _area(curve: Judged, pool: int) -> Vector:
    """Mean loss of each test row over all sizes but the whole pool."""
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
