"""What the pipeline costs beyond its work: imports, the command, a stage, a run that finds nothing changed.

A stage's overhead is the wall time of `dvc repro` of one stage that has next to nothing to do (subsets: 60 subsets of
67 rows, under 0.05 s). It starts no server. Every number is the median of the repeats, lowest to highest.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.benchmarks.figures import Benchmark, Figure, median
from tests.projects import iris_params, small_project

REPEATS = 3
PARAMS = iris_params(fit=40, held_out=10, block=20, epochs=1)
STAGES = ("dataset", "subsets", "targets", "predictor")


def seconds(place: Path, *command: str) -> float:
    """The wall time of a command in the project."""
    ours = ("PREFECT_", "MLFLOW_", "MODELPRED_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    began = time.perf_counter()
    subprocess.run(command, cwd=place, env=kept, check=True, capture_output=True)
    return time.perf_counter() - began


def works(place: Path) -> dict[str, Callable[[], float]]:
    """What is measured -> a function that does it once and returns its seconds."""
    python = sys.executable
    seconds(place, "dvc", "repro")
    seconds(place, python, "-m", "flows.publish")

    def stages(*names: str) -> Callable[[], float]:
        return lambda: seconds(place, "dvc", "repro", "--force", "--single-item", *names)

    one, two = stages("subsets"), stages("dataset", "subsets")
    return {
        "python -c pass": lambda: seconds(place, python, "-c", "pass"),
        "import modelpred": lambda: seconds(place, python, "-c", "import modelpred"),
        "modelpred --help": lambda: seconds(place, python, "-m", "modelpred.cli", "--help"),
        "dvc repro, nothing changed": lambda: seconds(place, "dvc", "repro"),
        "one stage": one,
        "a further stage": lambda: two() - one(),
        "recurring run, nothing changed": lambda: seconds(place, python, "-m", "flows.pipeline"),
    }


def measure(quick: bool) -> Iterable[Figure]:
    """The seconds of each work; a quick run repeats none."""
    with tempfile.TemporaryDirectory() as folder:
        place = small_project(Path(folder), PARAMS, stages=STAGES)
        for name, work in works(place).items():
            yield median(name, [work() for _ in range(1 if quick else REPEATS)])


BENCHMARK = Benchmark(
    "seconds of imports, commands, stages and runs with nothing to do", 2, measure
)
