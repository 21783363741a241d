"""The table of the README: spam with logistic regression and the settings of params.yaml.

Runs one cell of the grid (`python -m flows.grid`) in a copy of the project. Errors are means over held-out subsets, or
over repeats for edits, with 95% intervals. Times are microseconds a query, in batches on one core.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import yaml

from tests.benchmarks.figures import Benchmark, Figure
from tests.projects import ROOT, small_project

CELL = ("--source", "spam", "--model", "logistic")
FEW = {
    "subsets.fit.uniform": 200, "subsets.fit.bootstrap": 50, "subsets.validation.uniform": 50,
    "subsets.test.uniform": 50, "subsets.test.deletion": 50, "subsets.test.bootstrap": 20,
    "edits.repeats": 2, "edits.step": 100, "edits.added": 100, "lds.subsets": 10,
}  # fmt: skip


def figures_of(table: pl.DataFrame) -> Iterator[Figure]:
    """The errors of every method and kind of subset, and the times of random subsets."""
    for row in table.filter(source="spam", model="logistic").iter_rows(named=True):
        method, design, subsets = row["method"], row["design"], row["subsets"]
        error = row["parameter_error"]
        # Retraining is the truth of edits, without an interval.
        ends = (row[f"parameter_error_{end}"] for end in ("low", "high"))
        low, high = (error if end is None else end for end in ends)
        yield Figure(f"{method}, {design}", error, "relative error", subsets, low, high)
        if design == "uniform":
            time = row["microseconds"]
            yield Figure(f"{method}, time", time, "us a query", subsets, time, time)


def measure(quick: bool) -> Iterable[Figure]:
    """Run the cell; a quick run has few subsets."""
    few = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with tempfile.TemporaryDirectory() as folder:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        place = small_project(Path(folder) / "project", params)
        subprocess.run(
            [sys.executable, "-m", "flows.grid", *CELL, *(few if quick else ())],
            cwd=place,
            env=environment,
            check=True,
            stdout=sys.stderr,
        )
        return list(figures_of(pl.read_csv(place / "artifacts" / "grid" / "grid.csv")))


BENCHMARK = Benchmark("errors and times of every method on spam, logistic", 2, measure)
