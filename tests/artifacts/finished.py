"""A finished run of the pipeline on a tiny table, and a saved ModelPred, made in this process."""

import contextlib
import os
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from modelpred import ModelPred
from modelpred.predictor import PredictorConfig
from modelpred.studies import STUDIES
from tests.projects import iris_params, small_project
from tests.studies.small import SMALL

# What the stages read of their environment: no Prefect, one worker.
ENVIRONMENT = {"MODELPRED_RUNNER": "plain", "MODELPRED_DEVICES": "cpu:1"}
SAVED = Path("models/saved")  # what ModelPred.save writes
MATRIX = Path("matrix.npy")  # an attribution, for `modelpred lds`
SCHEDULE = Path("schedule.yaml")


def params(seed: int) -> dict[str, Any]:
    """Settings with which every stage takes a fraction of a second; another seed, another table."""
    base = iris_params(fit=40, held_out=10, block=25, epochs=1, deletions=4)
    return {
        **base,
        "dataset": {"source": "iris", "points": 24, "test": 8, "watch": "data", "seed": seed},
        **SMALL,
        "report": {"rows": 2},
        "gates": base["gates"] | {"calibration": 1.0},
    }


def finished_project(folder: Path, *, seed: int = 0, published: bool = True) -> Path:
    """The folder with everything that a run leaves there; unpublished, without DVC's files and the registry."""
    small_project(folder, params(seed))
    shutil.copy(Path(__file__).parents[2] / SCHEDULE, folder)
    with inside(folder):
        for stage in ("dataset", "subsets", "targets", "predictor"):
            import_module(f"flows.{stage}").main()
        for study in STUDIES:
            import_module("flows.studies").run(study)
        import_module("flows.report").main()
        if published:
            subprocess.run(["dvc", "commit", "--force", "--quiet"], check=True, capture_output=True)
            import_module("flows.publish").main()
        saved_model(SAVED, seed=seed)
        tests, points = 8, 24
        np.save(MATRIX, np.random.default_rng(seed).normal(size=(tests, points)))
    return folder


def saved_model(folder: Path, *, seed: int) -> None:
    """Save a ModelPred of 30 rows."""
    drawn = np.random.default_rng(seed)
    features = drawn.normal(size=(30, 2))
    labels = (features[:, 0] + drawn.normal(size=30) > 0).astype(int)
    mp = ModelPred(subsets=60, predictor=PredictorConfig(epochs=1), progress=False).fit(
        features, labels
    )
    mp.save(folder)


@contextlib.contextmanager
def inside(folder: Path):
    """The folder as working directory, and the environment of stages."""
    with contextlib.chdir(folder), changed_environment(ENVIRONMENT):
        yield


@contextlib.contextmanager
def changed_environment(variables: dict[str, str]):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
