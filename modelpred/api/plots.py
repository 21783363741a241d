"""Plots of results on an axis of matplotlib, which is imported when the first one is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelpred.extras import optional_imports
from modelpred.metrics import Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any

LISTED = 30  # rows that are named; more are drawn as a curve
COLOUR, GREY, BAND = "tab:blue", "grey", 0.25  # BAND: opacity


def axis_of(ax: Axes | None) -> Axes:
    """The axis that was given, or that of a new figure.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    if ax is not None:
        return ax
    with optional_imports():
        from matplotlib import pyplot as plt  # noqa: PLC0415 - not needed without plots
    return plt.subplots(layout="constrained")[1]


def plot_ranked(
    ax: Axes | None,
    names: Sequence[str],
    values: Vector,
    ends: tuple[Vector, Vector],
    *,
    xlabel: str,
) -> Axes:
    """Draw values of rows with their intervals, the first one at the top.

    Up to 30 rows are named; more are a curve over the place of each row.

    Args:
        ax: where to draw; None makes a figure.
        names: of the rows.
        values: of the rows.
        ends: lower and upper end of each interval; nan where there is none.
        xlabel: what the values are.
    """
    ax = axis_of(ax)
    places = np.arange(len(values))
    low, high = (np.where(np.isfinite(end), end, values) for end in ends)
    if len(values) <= LISTED:
        ax.hlines(places, low, high, color=COLOUR, alpha=2 * BAND)
        ax.plot(values, places, "o", color=COLOUR)
        ax.set_yticks(places, names)
        ax.set_ylim(len(values) - 0.5, -0.5)
        ax.axvline(0, color=GREY, lw=1)
        ax.set_xlabel(xlabel)
        return ax
    ax.fill_between(places + 1, low, high, color=COLOUR, alpha=BAND, lw=0)
    ax.plot(places + 1, values, color=COLOUR)
    ax.axhline(0, color=GREY, lw=1)
    ax.set_xlabel("place")
    ax.set_ylabel(xlabel)
    return ax


def plot_values(table: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw values with intervals of two standard errors, the most valuable first."""
    ranked = table.sort("value", descending=True, nulls_last=True)
    values, errors = (_numbers(ranked, name) for name in ("value", "standard_error"))
    names = ranked["group" if "group" in ranked.columns else "row_id"].to_list()
    ends = values - 2 * errors, values + 2 * errors
    return plot_ranked(ax, names, values, ends, xlabel="value")


def plot_suspects(table: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the confidence in the labels of the 30 most suspicious rows."""
    first = table.sort("confidence").head(LISTED)
    confidence = _numbers(first, "confidence")
    names = first["row_id"].cast(pl.String) + ": " + first["label"].cast(pl.String)
    if "suggested" in first.columns:
        names = names + " → " + first["suggested"].cast(pl.String)
    none = np.full(len(first), np.nan)
    return plot_ranked(
        ax, names.to_list(), confidence, (none, none), xlabel="confidence in the label"
    )


def plot_memorization(rows: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the memorization of the rows with 95% intervals, the most memorized first."""
    ranked = rows.drop_nulls("soft").sort("soft", descending=True)
    names = ranked["row_id"].cast(pl.String) + ": " + ranked["label"].cast(pl.String)
    soft, low, high = (_numbers(ranked, name) for name in ("soft", "soft_low", "soft_high"))
    return plot_ranked(ax, names.to_list(), soft, (low, high), xlabel="memorization")


def plot_reliability(bins: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how often predictions are right against their confidence, with 95% intervals."""
    ax = axis_of(ax)
    columns = ("confidence", "accuracy", "accuracy_low", "accuracy_high")
    confidence, accuracy, low, high = (_numbers(bins, name) for name in columns)
    ax.plot([0, 1], [0, 1], color=GREY, lw=1)
    ax.vlines(confidence, low, high, color=COLOUR, alpha=2 * BAND)
    ax.plot(confidence, accuracy, "o", color=COLOUR)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    return ax


def plot_curve(table: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the score of models without the rows of the highest, of the lowest and of random values."""
    ax = axis_of(ax)
    for removed, part in table.group_by("removed", maintain_order=True):
        shares, scores = (_numbers(part, name) for name in ("share", "score"))
        ax.plot(shares, scores, label=f"{removed[0]} first", marker=".")
    ax.set(xlabel="share of the rows removed", ylabel=str(table["measure"][0]))
    ax.legend(frameon=False)
    return ax


def _numbers(table: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as floats, nan for null."""
    return table[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
