"""How time, memory and error grow with the rows: fit, trained models, and studies at 300 to 50,000 rows.

Tables are simulated logistic data of 40 features; studies have default settings, and 1,000 test rows. Each number of
rows runs in a process of its own, so that its memory is its own, and its figures are kept in .modelpred/growth: a
run that is stopped continues where it was. Studies of `LARGEST` are not measured beyond these rows.
`docs/images/growth.svg` draws the processor time of each.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modelpred import ModelPred
from tests.benchmarks.figures import Benchmark, Figure, number
from tests.benchmarks.large_studies import memory, table

SIZES, COLUMNS, TEST = (300, 1000, 3000, 10_000, 50_000), 40, 1000
MODELS = 50  # random halves that are trained
LARGEST = {
    "memorization": 10_000,
    "selection of 20%": 10_000,
    "intervals of 1,000 rows": 10_000,
}  # rows
FOLDER = Path(".modelpred/growth")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "growth.svg"
COMMAND = "from tests.benchmarks.growth import main; main({})"


def measure(quick: bool) -> Iterable[Figure]:
    """Figures of all sizes; draws the picture of a full run."""
    if quick:
        yield from of_rows(200)
        return
    found: list[Figure] = []
    for rows in SIZES:
        kept = FOLDER / f"{rows}.jsonl"
        if not kept.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(
                [sys.executable, "-c", COMMAND.format(rows)],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            kept.write_text(done.stdout)
        found += [Figure(**json.loads(line)) for line in kept.read_text().splitlines()]
    draw(found)
    yield from found


def main(rows: int) -> None:
    """Print the figures of one size."""
    for figure in of_rows(rows):
        print(json.dumps(vars(figure)), flush=True)


def of_rows(rows: int) -> Iterator[Figure]:
    """Figures of one size."""
    cells, labels = table(rows + 2 * TEST, COLUMNS)
    train, choose, judge = np.split(np.arange(len(labels)), [rows, rows + TEST])
    mp = ModelPred(progress=False)
    test = cells[judge], labels[judge]
    halves = (np.random.default_rng(1).random((MODELS, rows)) < 0.5).astype(np.uint8)
    steps: dict[str, Callable[[], Any]] = {
        "fit": lambda: mp.fit(cells[train], labels[train], test=test),
        f"{MODELS} trained models": lambda: mp.retrain(halves),
        "suspects": mp.suspects,
        "values": mp.values,
        "leave-one-out": lambda: mp.values(method="leave_one_out", sampler="direct"),
        "intervals of 1,000 rows": lambda: mp.predictive(cells[judge]),
        "memorization": mp.memorization,
        "selection of 20%": lambda: mp.select(rows // 5, cells[choose], labels[choose]),
    }
    for name, step in steps.items():
        if rows > LARGEST.get(name, rows):
            continue
        began = time.process_time()
        result = step()
        seconds = time.process_time() - began
        yield number(f"{name}, {rows:,} rows", seconds, "s")
        if name == "values":
            yield number(f"values, reliability, {rows:,} rows", result.reliability, "reliability")
        if name == "leave-one-out":
            bound = float(result["bound"].median()) / float(result["value"].std())
            yield number(f"leave-one-out, median bound, {rows:,} rows", bound, "spreads")
    yield memory(f"most memory, {rows:,} rows")


def draw(figures: list[Figure]) -> None:
    """Draw the processor time of each step against the rows."""
    from matplotlib import rc_context  # noqa: PLC0415 - only of a full run
    from matplotlib.figure import Figure as Picture  # noqa: PLC0415

    lines: dict[str, list[tuple[int, float]]] = {}
    for figure in figures:
        name, rows = figure.name.removesuffix(" rows").rsplit(", ", 1)
        if figure.unit == "s":
            lines.setdefault(name, []).append((int(rows.replace(",", "")), figure.value))
    picture = Picture(figsize=(7, 4.5), layout="constrained")
    axes = picture.add_subplot()
    for name, places in lines.items():
        axes.plot(*zip(*places, strict=True), marker="o", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel="training rows", ylabel="processor seconds")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    with rc_context({"svg.hashsalt": "modelpred"}):
        picture.savefig(PICTURE, metadata={"Date": None})


BENCHMARK = Benchmark("time, memory and error of each study against the rows", 8, measure)
