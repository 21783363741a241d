"""The figure of a comparison of versions: scores of each model on each version's test rows, and drift."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modelpred.studies.versions import Drift
from modelpred.wording import one_line

PANEL = 4.4  # inches
SHOWN_MOVERS = 3
LONGEST_NAME = 24  # characters of a row or version that are shown
INK, PREDICTED, MOVED = "#222222", "#1f5fa8", "#b5482a"


def write_figure(
    scores: pl.DataFrame, drifts: Sequence[Drift], folder: Path, *, value: str
) -> None:
    """Write versions.svg and versions.png: one panel of scores, and one for each drift."""
    settings: dict[Any, Any] = {  # matplotlib types its keys as literals
        "svg.hashsalt": "modelpred",
        "text.parse_math": False,  # names of rows and classes are data
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(PANEL * (1 + len(drifts)), PANEL), layout="constrained")
        FigureCanvasAgg(figure)
        panels: Any = figure.subplots(1, 1 + len(drifts), squeeze=False)
        _paint_scores(panels[0, 0], scores)
        for axes, drifted in zip(panels[0, 1:], drifts, strict=True):
            _paint_drift(axes, drifted, value)
        for ending in ("svg", "png"):
            content = io.BytesIO()
            figure.savefig(
                content,
                format=ending,
                dpi=120,
                metadata={"Date": None} if ending == "svg" else None,
            )
            (folder / f"versions.{ending}").write_bytes(content.getvalue())


def _paint_scores(axes: Axes, scores: pl.DataFrame) -> None:
    """Mean loss of each model on the test rows of each version."""
    models = scores["model_of"].unique(maintain_order=True).to_list()
    tested = scores["test_rows_of"].unique(maintain_order=True).to_list()
    for at, name in enumerate(tested):
        chosen = scores.filter(pl.col("test_rows_of") == name)
        shade = 0.25 + 0.75 * (at + 1) / len(tested)
        positions = [
            models.index(model) + 0.5 * ((at + 0.5) / len(tested) - 0.5)
            for model in chosen["model_of"]
        ]
        axes.scatter(
            positions,
            chosen["loss"].to_list(),
            color=PREDICTED,
            alpha=shade,
            label=f"test rows of {_shown(name)}",
        )
        axes.scatter(positions, chosen["exact_loss"].to_list(), marker="_", s=90, color=INK)
    axes.set_xticks(range(len(models)), [f"model of {_shown(name)}" for name in models])
    axes.set_ylabel("mean test loss (bar: retrained)")
    axes.margins(y=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.set_title("Each model on each version's test rows", fontsize=10)


def _paint_drift(axes: Axes, drifted: Drift, value: str) -> None:
    """Values of the shared rows before and after, with names at the largest changes."""
    rows = drifted.rows
    axes.scatter(rows["before"].to_list(), rows["after"].to_list(), s=9, color=PREDICTED, alpha=0.6)
    for at, row in enumerate(rows.head(SHOWN_MOVERS).iter_rows(named=True)):
        axes.scatter(row["before"], row["after"], s=22, color=MOVED)
        # The names are in one column, since the points may overlap.

        axes.annotate(
            f"row {_shown(row['row_id'])}", (row["before"], row["after"]), fontsize=8, color=MOVED,
            textcoords="axes fraction", xytext=(0.74, 0.05 + 0.06 * at),
            arrowprops={"arrowstyle": "-", "color": MOVED, "lw": 0.6},
        )  # fmt: skip
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"{value} in {_shown(drifted.before)}")
    axes.set_ylabel(f"{value} in {_shown(drifted.after)}")
    found = drifted.spearman
    words = f", rank correlation {found.mean:.2f}" if found is not None else ""
    axes.set_title(f"{drifted.shared} shared rows{words}", fontsize=10)


def _shown(name: object) -> str:
    return one_line(str(name), most=LONGEST_NAME)
