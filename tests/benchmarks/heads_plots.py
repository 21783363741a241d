"""Draws docs/images/cost-error.svg and break-even.svg from the figures of heads: `python -m tests.benchmarks.heads_plots`."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Plot

from tests.benchmarks import figures

IMAGES = Path(__file__).parents[2] / "docs" / "images"
STAGE = re.compile(r"(?P<pool>.+), halves, stage (?P<stage>\d+)")
SHOWN = {  # pool: label
    "MNIST 4,000 x 128, C 0.01": "softmax, MNIST features, 4,000 rows",
    "MNIST 10,000 x 128, C 0.01": "the same, 10,000 rows",
    "MNIST 4,000 x 128, C 0.3": "4,000 rows, nearly separable",
    "embeddings 10,000 x 512, 50 classes, C 0.01": "softmax, 50 classes, 512 features",
    "adult, 20,000 rows": "logistic, adult, 20,000 rows",
    "logistic 10,000 x 40, C 1": "logistic, 40 features, 10,000 rows",
}


def stages(rows: dict[str, float], pool: str) -> list[tuple[float, float]]:
    """Times as fast as retraining, and error, after each number of gradients."""
    names = [name for name in rows if (found := STAGE.fullmatch(name)) and found["pool"] == pool]
    return [(rows[f"{name}: retraining / prediction"], rows[name]) for name in names]


def cost_against_error(rows: dict[str, float]) -> Plot:
    """Error of each stage against its cost, for random halves."""
    plot = Plot(figsize=(7.5, 4), layout="constrained")
    axes = plot.subplots()
    for pool, label in SHOWN.items():
        if found := stages(rows, pool):
            axes.plot(*zip(*found, strict=True), marker="o", markersize=4, label=label)
    axes.set(xscale="log", yscale="log", ylabel="mean relative error of the parameters")
    axes.set_xlabel("times as fast as exact retraining")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return plot


def break_even(rows: dict[str, float]) -> Plot:
    """Processor seconds of queries by prediction, preparation included, over those of retraining."""
    plot = Plot(figsize=(7.5, 4), layout="constrained")
    axes = plot.subplots()
    queries = np.geomspace(30, 1e5, 100)
    for pool, label in SHOWN.items():
        if not (found := stages(rows, pool)):
            continue
        retraining = rows[f"{pool}, halves: retraining"] / 1e6
        spent = next(value for name, value in rows.items() if name.startswith(f"{pool}: training"))
        cost = (spent + queries * retraining / found[-1][0]) / (queries * retraining)
        axes.plot(queries, cost, label=label)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="queries")
    axes.set_ylabel("cost of prediction / cost of retraining")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return plot


def main() -> None:
    lines: list[dict[str, Any]] = figures.read()
    rows = {row["figure"]: float(row["value"]) for row in lines if row["benchmark"] == "heads"}
    with mpl.rc_context({"svg.hashsalt": "modelpred"}):
        for name, draw in (("cost-error", cost_against_error), ("break-even", break_even)):
            draw(rows).savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
