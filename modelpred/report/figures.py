"""The drawings of the report, one function each, with descriptions for screen readers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from modelpred.report.blocks import Key, Panel
from modelpred.report.canvas import THIRD, colour, draw, plain_log_ticks
from modelpred.report.methods import (
    EXACT_METHODS,
    PREDICTOR_PREFIXES,
    SIZE_COLOURS,
    by_size,
    is_early,
    is_predictor,
    look,
)

# Smaller relative errors are not meaningful: retraining itself ends within a tolerance.
ERROR_FLOOR = 1e-7
MOST_POINTS = 600  # a scatter plot with more is hard to read and large
_DOT = Markup(
    "<svg class='dot' viewBox='0 0 14 14' aria-hidden='true'>"
    "<circle cx='7' cy='7' r='5' fill='var(--{})'/></svg>"
)


def size_classes(sizes: np.ndarray) -> tuple[np.ndarray, tuple[Key, ...]]:
    """The class 0..4 of each subset size, in five equal ranges of size, and their legend."""
    edges = np.linspace(sizes.min(), sizes.max() + 1, len(SIZE_COLOURS) + 1)
    classes = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, len(SIZE_COLOURS) - 1)
    entries: list[Key] = []
    for index, variable in enumerate(SIZE_COLOURS):
        low, high = int(np.ceil(edges[index])), int(np.ceil(edges[index + 1])) - 1
        if high < low:
            continue
        label = f"{low} rows" if low == high else f"{low} to {high} rows"
        entries.append(Key(label, _DOT.format(variable)))
    return classes, tuple(entries)


def drawn_words(frame: pl.DataFrame) -> str:
    """How many rows of the frame a scatter plot shows, as a sentence; empty if all."""
    stride = _stride(frame)
    return f" One row of {stride} is drawn." if stride > 1 else ""


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    """Every k-th row, with the smallest k that leaves at most MOST_POINTS."""
    return frame.gather_every(_stride(frame))


def _stride(frame: pl.DataFrame) -> int:
    return max(1, -(-frame.height // MOST_POINTS))


def _diagonal(axes: Axes, values: np.ndarray, *, floor: float | None = None) -> None:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.04 * (high - low) or 0.1
    low = low - margin if floor is None else max(low - margin, floor)
    axes.plot([low, high + margin], [low, high + margin], color=colour("muted"), lw=1, zorder=1.5)
    axes.set_xlim(low, high + margin)
    axes.set_ylim(low, high + margin)


def fidelity_against_time(name: str, title: str, frame: pl.DataFrame) -> Panel:
    """Parameter error (interval as bar) against time per query; lower left is better.

    The predictor is a curve from early stops to refined predictions, labelled with their number of
    Newton steps. Retraining has no error and is a vertical line. Other methods are points.
    """
    known = frame.drop_nulls(("parameter_error", "microseconds"))
    rows = known.filter(~pl.col("method").is_in(EXACT_METHODS))
    exact = frame.filter(pl.col("method").is_in(EXACT_METHODS))

    def paint(axes: Axes) -> None:
        axes.set(xscale="log", yscale="log")
        own = pl.col("method").str.starts_with(PREDICTOR_PREFIXES[0])
        curve = rows.filter(own).sort("microseconds")
        errors = curve["parameter_error"].clip(ERROR_FLOOR)
        axes.plot(curve["microseconds"], errors, color=colour("predictor"), lw=1.2)
        labels: list[tuple[float, float, str, str]] = []
        for row in rows.iter_rows(named=True):
            style = look(row["method"])
            x, y = max(row["microseconds"], 0.1), max(row["parameter_error"], ERROR_FLOOR)
            low, high = row["parameter_error_low"], row["parameter_error_high"]
            bars = None if low is None or low <= ERROR_FLOOR else [[y - low], [high - y]]
            axes.errorbar(
                x, y, yerr=bars, fmt=style.marker, color=colour(style.colour), ms=8, elinewidth=1.4
            )
            if is_predictor(row["method"]) and not is_early(row["method"]):
                labels.append((x, y, _steps(row["method"]), style.colour))
        for row in exact.iter_rows(named=True):
            style = look(row["method"])
            axes.axvline(row["microseconds"], color=colour("ink"), lw=1.2, ls=style.dash)
        axes.margins(x=0.1, y=0.1)
        axes.set(xlabel="time per query, µs (log)", ylabel="parameter error (log)")
        plain_log_ticks(axes, vertical=True, percents=True)
        plain_log_ticks(axes, vertical=False)
        _place_labels(axes, labels)

    best = rows.sort("parameter_error")
    text = ", ".join(
        f"{look(row['method']).label} {100 * row['parameter_error']:.3g}% in "
        f"{row['microseconds']:.3g} µs"
        for row in best.iter_rows(named=True)
    )
    words = f"Parameter error against time per query: {text}."
    return draw(name, title, words, paint, width=THIRD, shape=0.9)


def _steps(method: str) -> str:
    """The number of Newton steps as text: 0.5 for `predictor_refine_0.5`, 0 for `predictor`."""
    return method.rpartition("refine_")[2] if "refine_" in method else "0"


def _place_labels(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each label at the position around its point that covers the least."""
    occupied: list[tuple[float, float, float, float]] = []
    width, height = THIRD * 72 * 0.84, THIRD * 0.9 * 72 * 0.8
    to_axes = axes.transLimits

    def position(x: float, y: float) -> tuple[float, float]:
        point = to_axes.transform(axes.transScale.transform((x, y)))
        return float(point[0]) * width, float(point[1]) * height

    points = [position(x, y) for x, y, _, _ in labels]
    occupied.extend((px - 5, py - 5, px + 5, py + 5) for px, py in points)
    for (x, y, text, variable), (px, py) in zip(labels, points, strict=True):
        length = 6.1 * len(text)
        choices = (
            (9, -4, "left", (px + 8, px + 8 + length), (py - 7, py + 7)),
            (-9, -4, "right", (px - 8 - length, px - 8), (py - 7, py + 7)),
            (0, 9, "center", (px - length / 2, px + length / 2), (py + 7, py + 20)),
            (0, -18, "center", (px - length / 2, px + length / 2), (py - 20, py - 7)),
            (9, 8, "left", (px + 8, px + 8 + length), (py + 6, py + 19)),
            (9, -17, "left", (px + 8, px + 8 + length), (py - 19, py - 6)),
            (-9, 8, "right", (px - 8 - length, px - 8), (py + 6, py + 19)),
            (-9, -17, "right", (px - 8 - length, px - 8), (py - 19, py - 6)),
        )
        boxes = [(left, low, right, high) for *_, (left, right), (low, high) in choices]
        costs = [_cost(box, occupied, width, height) for box in boxes]
        best = int(np.argmin(costs))
        dx, dy, side, *_ = choices[best]
        occupied.append(boxes[best])
        axes.annotate(
            text, (x, y), (dx, dy), textcoords="offset points", ha=side, color=colour(variable)
        )


def _cost(
    box: tuple[float, float, float, float],
    occupied: Sequence[tuple[float, float, float, float]],
    width: float,
    height: float,
) -> float:
    """Area that a label would cover, plus a penalty for leaving the axes."""
    left, low, right, high = box
    outside = max(0, -left) + max(0, right - width) + max(0, -low) + max(0, high - height)
    covered = sum(
        max(0.0, min(right, r) - max(left, a)) * max(0.0, min(high, t) - max(low, b))
        for a, b, r, t in occupied
    )
    return covered + 40 * outside


def error_by_size(
    name: str, title: str, frame: pl.DataFrame, *, column: str, what: str = "rows remaining"
) -> Panel:
    """One line per method: mean of `column` with its interval against the number of rows."""
    ends = ("low", "high") if column == "parameter_error" else (f"{column}_low", f"{column}_high")
    # With all rows, most other methods are exact; an error near zero does not fit on a log axis.
    deleted = frame.filter(
        pl.col(column) > 0,
        pl.col("size") < frame["size"].max(),
        ~pl.col("method").is_in(EXACT_METHODS),
    )
    least = float(np.min(deleted[column].to_numpy(), initial=1.0))
    floor = max(0.1 * least, ERROR_FLOOR)
    fewest = frame["size"].min()
    frame = frame.filter(pl.col(column) > floor)

    def paint(axes: Axes) -> None:
        axes.set_yscale("log")
        methods = by_size(frame["method"].unique(maintain_order=True))
        for method in sorted(methods, key=is_predictor):  # the predictor last, on top
            rows = frame.filter(pl.col("method") == method).sort("size")
            band = rows.drop_nulls(ends)
            style = look(method)
            # Bands of refined predictions would hide the others.
            if style.dash == "-" or not is_predictor(method):
                axes.fill_between(
                    band["size"], band[ends[0]].clip(floor), band[ends[1]],
                    color=colour(style.colour), alpha=0.2 if is_predictor(method) else 0.1, lw=0,
                )  # fmt: skip
            axes.plot(
                rows["size"], rows[column], color=colour(style.colour), ls=style.dash,
                marker=style.marker, ms=4.5, lw=2.4 if is_predictor(method) else 1.5,
                markevery=max(1, rows.height // 8),
            )  # fmt: skip
        if not frame.is_empty():  # empty if all errors are below the floor
            axes.set_ylim(bottom=0.6 * float(np.min(frame[column].to_numpy())))
        axes.set(xlabel=what, ylabel=f"{title.lower()} (log)")
        plain_log_ticks(axes, vertical=True, percents=column == "parameter_error")

    text = ", ".join(
        f"{look(row['method']).label} {row[column]:.3g}"
        for row in frame.filter(pl.col("size") == fewest).iter_rows(named=True)
    )
    return draw(name, title, f"{title} against {what}; at {fewest} rows: {text}.", paint)


def predicted_against_true(name: str, title: str, frame: pl.DataFrame, *, words: str) -> Panel:
    """A point per subset: predicted against true test loss, coloured by subset size."""
    shown = _thinned(frame)
    classes = size_classes(frame["size"].to_numpy())[0][:: _stride(frame)]

    def paint(axes: Axes) -> None:
        both = frame.select("true_loss", "predicted_loss").to_numpy()
        _diagonal(axes, both)
        for index, variable in enumerate(SIZE_COLOURS):
            rows = shown.filter(pl.Series(classes == index))
            axes.scatter(
                rows["true_loss"], rows["predicted_loss"], s=13, color=colour(variable), alpha=0.75,
                linewidths=0,
            )  # fmt: skip
        axes.set(
            xlabel="test loss of the retrained model", ylabel="test loss of the predicted model"
        )
        axes.set_aspect("equal")

    return draw(name, title, f"Predicted against true test loss: {words}", paint, shape=0.9)


def gap_by_size(name: str, title: str, frame: pl.DataFrame) -> Panel:
    """A point per subset: predicted minus true test loss against the number of rows."""
    shown = _thinned(frame)
    gap = (shown["predicted_loss"] - shown["true_loss"]).to_numpy()
    classes = size_classes(frame["size"].to_numpy())[0][:: _stride(frame)]

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=colour("muted"), lw=1, zorder=1.5)
        for index, variable in enumerate(SIZE_COLOURS):
            axes.scatter(
                shown["size"].to_numpy()[classes == index], gap[classes == index], s=13,
                color=colour(variable), alpha=0.75, linewidths=0,
            )  # fmt: skip
        axes.set(xlabel="rows remaining", ylabel="predicted minus true test loss")

    words = f"{title} against rows remaining: from {gap.min():.3g} to {gap.max():.3g}, "
    return draw(name, title, f"{words}{gap.mean():.3g} on average.", paint, shape=0.9)


def predicted_against_exact_values(name: str, title: str, frame: pl.DataFrame, words: str) -> Panel:
    """A point per training row: value from predicted against value from retrained models."""
    shown = _thinned(frame)

    def paint(axes: Axes) -> None:
        _diagonal(axes, frame.select("true_value", "value").to_numpy())
        axes.errorbar(
            shown["true_value"], shown["value"],
            xerr=shown["true_standard_error"].fill_null(0), yerr=shown["standard_error"].fill_null(0),
            fmt="none",
            ecolor=colour("predictor"), elinewidth=0.5, alpha=0.35,
        )  # fmt: skip
        axes.scatter(
            shown["true_value"], shown["value"], s=13, color=colour("predictor"), alpha=0.8, lw=0
        )
        axes.set(xlabel="value by exact retraining", ylabel="value by predicted models")
        axes.set_aspect("equal")

    return draw(name, title, f"Predicted against exact values, {words}", paint, shape=0.9)


def ranked_values(name: str, title: str, frame: pl.DataFrame) -> Panel:
    """Values of all rows by rank, ± two standard errors."""
    rows = frame.sort("value", descending=True)

    def paint(axes: Axes) -> None:
        # Neighbours on the curve are closer than a pixel.
        at = np.unique(np.linspace(0, rows.height - 1, MOST_POINTS).round().astype(int))
        rank, shown = at + 1, rows[at]
        value = shown["value"].to_numpy()
        spread = 2 * shown["standard_error"].fill_null(0).to_numpy()
        axes.axhline(0, color=colour("muted"), lw=1)
        axes.fill_between(
            rank, value - spread, value + spread, color=colour("predictor"), alpha=0.2, lw=0
        )
        axes.plot(rank, value, color=colour("predictor"))
        axes.set(xlabel="rank, most valuable first", ylabel="value (± 2 standard errors)")

    most, least = rows["value"][0], rows["value"][-1]
    words = f"{rows.height} values by rank, from {most:.3g} down to {least:.3g}."
    return draw(name, title, words, paint, shape=0.9)


def reliability(name: str, method: str, frame: pl.DataFrame, words: str) -> Panel:
    """Accuracy against confidence, with the 95% interval and the number of rows of each bin."""
    rows = frame.filter(pl.col("count") > 0).sort("confidence")
    style = look(method)

    def paint(axes: Axes) -> None:
        x, n = rows["confidence"], rows["count"]
        axes.bar(x, 0.18 * n / n.max(), width=0.035, color=colour("muted"), alpha=0.35)
        axes.plot([0, 1], [0, 1], color=colour("muted"), lw=1)
        axes.vlines(x, rows["accuracy_low"], rows["accuracy_high"], color=colour(style.colour))
        axes.plot(
            x, rows["accuracy"], color=colour(style.colour), marker=style.marker, ls=style.dash
        )
        left = 0.45 if float(np.min(x.to_numpy(), initial=1.0)) > 0.45 else 0.0
        axes.set(xlabel="confidence", ylabel="accuracy")
        axes.set(xlim=(left, 1.02), ylim=(0, 1.02))

    words = f"Reliability of {style.label}: {words}."
    return draw(name, style.label, words, paint, width=THIRD, shape=0.85)


def learning_curve(name: str, title: str, frame: pl.DataFrame, *, column: str) -> Panel:
    """A column of the fit's history against the epoch, on a log axis if it is positive."""
    rows = frame.drop_nulls(column).sort("epoch")
    positive = rows.height > 0 and float(rows[column].min()) > 0  # pyright: ignore[reportArgumentType]

    def paint(axes: Axes) -> None:
        axes.plot(rows["epoch"], rows[column], color=colour("predictor"))
        axes.set(xlabel="epoch", ylabel=title.lower())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if positive:
            axes.set_yscale("log")
            plain_log_ticks(axes, vertical=True)

    first, last = rows[column][0], rows[column][-1]
    return draw(name, title, f"{title} by epoch, from {first:.3g} to {last:.3g}.", paint)
