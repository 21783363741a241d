"""Reliability of predicted probabilities, and curves of a score as rows are removed by value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from modelpred.api.plots import Axes, plot_curve, plot_reliability
from modelpred.errors import InvalidInput
from modelpred.metrics import (
    Vector,
    calibration_noise,
    expected_calibration_error,
    reliability_table,
)
from modelpred.numbers import Number, real_number, seed_number, whole_number
from modelpred.studies.context import StudyContext
from modelpred.studies.utility import UtilityName, game_of, require_utility
from modelpred.wording import Printed

MOST_BINS = 1000
NO_ROWS = (
    "there are no rows to score on: pass fit(..., test=(X_test, y_test)), or rows with labels here"
)
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, repr=False)
class Reliability(Printed):
    """How far the confidence of predictions is from how often they are right.

    Attributes:
        bins: a row per bin of confidence: bin, low, high, confidence (mean), accuracy with its 95%
            interval (accuracy_low, accuracy_high), count, noise.
        error: expected calibration error: mean |accuracy - confidence| over rows.
        noise: the error to expect of a perfectly calibrated model on as many rows.
        rows: number of rows.
    """

    bins: pl.DataFrame
    error: float
    noise: float
    rows: int

    def __str__(self) -> str:
        """The error beside what chance explains."""
        return (
            f"On {self.rows:,} rows confidence differs from accuracy by {self.error:.3f} on average; "
            f"a calibrated model would show about {self.noise:.3f}"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw accuracy against confidence with 95% intervals.

        Args:
            ax: matplotlib axes; None creates a figure.
        """
        return plot_reliability(self.bins, ax)


def reliability_of(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, bins: Number
) -> Reliability:
    """Return the reliability of probabilities [rows, classes] for labels [rows]."""
    count = whole_number(bins, "bins", least=1, most=MOST_BINS)
    return Reliability(
        reliability_table(probabilities, labels, bins=count),
        expected_calibration_error(probabilities, labels, bins=count),
        calibration_noise(probabilities, labels, bins=count),
        len(labels),
    )


@dataclass(frozen=True, repr=False)
class RemovalCurve(Printed):
    """Scores of models without the rows of the highest, of the lowest and of random values.

    Attributes:
        table: removed (highest, lowest, random), share, rows (removed), score (higher is better; of
            random the mean), measure.
    """

    table: pl.DataFrame

    def __str__(self) -> str:
        """The score at each share."""
        wide = self.table.pivot("removed", index="share", values="score")
        lines = [f"{self.table['measure'][0]} without a share of the rows:"]
        for row in wide.iter_rows(named=True):
            scores = ", ".join(f"{name} {row[name]:.4g}" for name in wide.columns[1:])
            lines.append(f"  {row['share']:.0%}: {scores}")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the three curves.

        Args:
            ax: matplotlib axes; None creates a figure.
        """
        return plot_curve(self.table, ax)


def values_in_order(values: pl.DataFrame | Vector, row_ids: tuple[str, ...]) -> Vector:
    """Return values in the order of the rows, from a table with row_id and value, or an array.

    Raises:
        InvalidInput: they are not one number for each row.
    """
    if isinstance(values, pl.DataFrame):
        if not {"row_id", "value"} <= set(values.columns):
            raise InvalidInput(
                "values have no columns row_id and value; pass what values() returns"
            )
        keyed = dict(values.select("row_id", "value").iter_rows())
        if set(keyed) != set(row_ids):
            raise InvalidInput("values name other rows than those of the fit")
        values = np.array([keyed[row_id] for row_id in row_ids], dtype=np.float64)
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(row_ids),):
        raise InvalidInput(f"values have shape {list(array.shape)}, expected [{len(row_ids)}]")
    return array


def removal_curve(
    context: StudyContext,
    values: Vector,
    *,
    shares: Sequence[Number] | None,
    utility: UtilityName,
    draws: Number,
    seed: Number,
) -> RemovalCurve:
    """Return the curves of a score as rows are removed in the order of their values.

    Args:
        context: its subject gives the models, its test rows the score.
        values: of the training rows; nan counts as the lowest.
        shares: of the rows to remove, each between 0 and 1.
        utility: the score.
        draws: random removals of each size.
        seed: of the random removals.

    Raises:
        InvalidInput: a share is out of range.
    """
    require_utility(context, utility=utility, key="utility")
    asked = [real_number(share, "a share") for share in (SHARES if shares is None else shares)]
    if not all(0 < share < 1 for share in asked):
        raise InvalidInput(f"shares are {list(asked)}; expected shares above 0 and below 1")
    count = whole_number(draws, "draws", least=1, most=1000)
    generator = context.generator(seed=seed_number(seed), study="removal", block=0)
    ranked = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    orders = {
        "highest": [ranked],
        "lowest": [ranked[::-1]],
        "random": [generator.permutation(context.pool) for _ in range(count)],
    }
    sizes = [max(1, round(share * context.pool)) for share in asked]
    removals = [
        (name, share, size, order[size:])
        for name, each in orders.items()
        for share, size in zip(asked, sizes, strict=True)
        for order in each
    ]
    weights = torch.zeros(len(removals) + 1, context.pool, dtype=torch.uint8)
    weights[-1] = 1
    for subset, (*_, rows) in enumerate(removals):
        weights[subset, torch.from_numpy(rows.copy())] = 1
    scores = game_of(context.refits[context.subject], context, utility=utility)(weights).numpy()
    table = pl.DataFrame(
        {
            "removed": [name for name, *_ in removals],
            "share": [share for _, share, *_ in removals],
            "rows": [size for _, _, size, _ in removals],
            "score": scores[:-1],
        }
    )
    whole = pl.DataFrame(
        {
            "removed": list(orders),
            "share": [0.0] * 3,
            "rows": [0] * 3,
            "score": [float(scores[-1])] * 3,
        }
    )
    means = table.group_by("removed", "share", "rows", maintain_order=True).agg(
        pl.col("score").mean()
    )
    measure = {"loss": "minus the loss", "squared_error": "minus the squared error"}
    joined = pl.concat([whole, means]).with_columns(measure=pl.lit(measure.get(utility, utility)))
    order = pl.col("removed").replace_strict({name: at for at, name in enumerate(orders)})
    return RemovalCurve(joined.sort(order, "share"))
