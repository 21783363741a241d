"""What the pipeline costs beyond its work: imports, the command, a stage, a run that finds nothing changed.

    python -m tests.benchmarks.overhead               the table, into RESULTS.md's section (about 2 min)
    python -m tests.benchmarks.overhead --no-write    prints it only

A stage's overhead is the wall time of `dvc repro` of one stage that has next to nothing to do (subsets: 60 subsets of
67 rows, under 0.05 s). It starts no server. Every number is the median of the repeats, lowest to highest.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.benchmarks.results import write_section
from tests.projects import small_project

ROOT = Path(__file__).parents[2]
SECTION = "## Overhead"
REPEATS = 3
PARAMS = {
    "dataset": {"source": "iris", "watch": "data"},
    "subsets": {
        "fit": {"uniform": 40},
        "validation": {"uniform": 10},
        "test": {"uniform": 10},
        "block": 20,
    },
    "targets": {"model": "logistic"},
    "predictor": {"epochs": 1},
    "gates": {"parameter_error": None, "beats": [], "calibration": None},
}
STAGES = ("dataset", "subsets", "targets", "predictor")


def seconds(place: Path, *command: str) -> float:
    """The wall time of a command in the project."""
    ours = ("PREFECT_", "MLFLOW_", "MODELPRED_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    began = time.perf_counter()
    subprocess.run(command, cwd=place, env=kept, check=True, capture_output=True)
    return time.perf_counter() - began


def measured(place: Path) -> dict[str, tuple[str, list[float]]]:
    """What is measured -> its goal and its seconds."""
    python = sys.executable
    seconds(place, "dvc", "repro")
    seconds(place, python, "-m", "flows.publish")

    def stages(*names: str) -> Callable[[], float]:
        def run() -> float:
            return seconds(place, "dvc", "repro", "--force", "--single-item", *names)

        return run

    one, two = stages("subsets"), stages("dataset", "subsets")
    timed: dict[str, tuple[str, Callable[[], float]]] = {
        "python -c pass": ("", lambda: seconds(place, python, "-c", "pass")),
        "import modelpred": ("0.3", lambda: seconds(place, python, "-c", "import modelpred")),
        "modelpred --help": (
            "0.5",
            lambda: seconds(place, python, "-m", "modelpred.cli", "--help"),
        ),
        "dvc repro, nothing changed": ("1.5", lambda: seconds(place, "dvc", "repro")),
        "one stage": ("", one),
        "a further stage": ("5", lambda: two() - one()),
        "recurring run, nothing changed": (
            "20",
            lambda: seconds(place, python, "-m", "flows.pipeline"),
        ),
    }
    return {what: (goal, [run() for _ in range(REPEATS)]) for what, (goal, run) in timed.items()}


def section() -> str:
    """Measures; the text of the section."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        small_project(place, PARAMS, stages=STAGES)
        found = measured(place)
    rows = [
        f"| {what} | {goal} | **{np.median(times):.2f}** ({min(times):.2f} to {max(times):.2f}) |"
        for what, (goal, times) in found.items()
    ]
    machine = (
        f"`python -m tests.benchmarks.overhead`: {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, n = {REPEATS},"
    )
    load = f"load average at the end {os.getloadavg()[0]:.1f}. Wall seconds, median (lowest to highest)."
    return "\n".join(
        [SECTION, "", machine, load, "", "| what | goal | s |", "|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-write", action="store_true")
    asked = parser.parse_args()
    told = section()
    print(told)
    if not asked.no_write:
        write_section(told)
