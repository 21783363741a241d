# ruff: noqa: PLC0415 - mlflow takes over two seconds to import: only who publishes or lists pays.
"""Writes a predictor into MLflow: a run with its errors and lineage, and a version with its files."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue

from modelpred.predictor import Predictor
from modelpred.predictor.files import PREDICTOR_FILES
from modelpred.predictor.request_handler import ALL_STAGES, write_test_points
from modelpred.registry.gates import METHOD, HeldOut
from modelpred.registry.snapshot import experiment_of
from modelpred.registry.store import PREDICTOR, locked, opened
from modelpred.sealed import seal
from modelpred.targets import Points

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.types.schema import Object

MODEL_CODE_FILE = "mlflow_model.py"
# MLflow's limits on what it stores.
LONGEST_PARAM = 6000
LONGEST_RUN_TAG = 5000
LONGEST_DIGEST = 36


class Lineage(BaseModel):
    """Origin of a predictor, sufficient to reproduce it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    git_commit: str | None = None
    dvc: dict[str, str] = {}
    params: dict[str, JsonValue] = {}
    dataset_fingerprint: str


def log_comparison(
    name: str, *, metrics: dict[str, float], params: dict[str, str], files: Path, root: Path
) -> str:
    """A finished run of the experiment `name` with these numbers and the files of a folder; its id."""
    from mlflow.entities import Metric, Param

    with locked(root), opened(root) as client:
        run_id = client.create_run(experiment_of(client, name, root), run_name=name).info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(_key(key), value, 0, 0) for key, value in metrics.items()],
            params=[Param(key, value[:LONGEST_PARAM]) for key, value in params.items()],
        )
        client.log_artifacts(run_id, str(files))
        client.set_terminated(run_id)
    return run_id


def log_run(
    client: "MlflowClient", name: str, *, metrics: HeldOut, lineage: Lineage, root: Path
) -> str:
    """A finished run that holds the held-out errors and the lineage; returns its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    experiment = experiment_of(client, name, root)
    run_id = client.create_run(experiment, run_name=name).info.run_id
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, 0, 0)
            for key, value in _flat_metrics(metrics).items()
            if math.isfinite(value)
        ],
        params=[
            Param(key, value[:LONGEST_PARAM]) for key, value in _flat("", lineage.params).items()
        ],
        tags=[RunTag(key, value[:LONGEST_RUN_TAG]) for key, value in lineage_tags(lineage).items()],
    )
    pool = Dataset(
        name=name,
        digest=lineage.dataset_fingerprint[:LONGEST_DIGEST],
        source_type="dvc",
        source=json.dumps({"git_commit": lineage.git_commit, "dvc": lineage.dvc}),
    )
    client.log_inputs(run_id, [DatasetInput(pool, [InputTag("mlflow.data.context", "training")])])
    client.set_terminated(run_id)
    return run_id


def register(
    client: "MlflowClient",
    name: str,
    predictor: Predictor,
    folder: Path,
    *,
    run_id: str,
    tags: dict[str, str],
    test_points: Points | None,
) -> "ModelVersion":
    """Create a version whose tags and files are complete as soon as it is visible."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name=METHOD, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as place:
        saved = Path(place) / "model"
        _save_model(saved, predictor, folder, test_points, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    return client.create_model_version(
        name, logged.artifact_location, run_id, tags=tags, model_id=logged.model_id
    )


def _save_model(
    path: Path,
    predictor: Predictor,
    folder: Path,
    test_points: Points | None,
    *,
    run_id: str,
    model_id: str,
) -> None:
    """An MLflow model: the loading code as a file, the predictor's own files, a signature. No pickle."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    points = predictor.points.features.shape[0]
    parameters = predictor.model.parameter_count(
        predictor.points.features.shape[1], predictor.points.classes
    )
    double = np.dtype(np.float64)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(double, (-1, points))]),
        outputs=Schema([TensorSpec(double, (-1, parameters))]),
        params=ParamSchema(
            [
                ParamSpec("refine", DataType.double, 0.0),
                ParamSpec("stages", DataType.long, ALL_STAGES),
                ParamSpec("without", _lists_of_rows(), {"rows": []}),
            ]
        ),
    )
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / PREDICTOR
        copied.mkdir()
        for file in PREDICTOR_FILES:
            shutil.copyfile(folder / file, copied / file)
        if test_points is not None:
            write_test_points(test_points, copied)
        seal(copied)
        pyfunc.save_model(
            str(path),
            python_model=str(Path(__file__).parents[1] / MODEL_CODE_FILE),
            artifacts={PREDICTOR: str(copied)},
            signature=signature,
            input_example=np.ones((1, points)),
            mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
            # This package is not named: the index may hold another of that name.
            pip_requirements=[
                f"{package}=={installed_version(package).split('+')[0]}"
                for package in ("mlflow", "torch", "numpy", "safetensors", "polars", "jaxtyping")
            ],
            metadata={"modelpred": installed_version("modelpred")},
        )


def _lists_of_rows() -> "Object":
    """MLflow's type of {"rows": [["3", "14"], ["7"]]}."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    return Object([Property("rows", Array(Array(DataType.string)))])


def lineage_tags(lineage: Lineage) -> dict[str, str]:
    """The tags of a run and of a version."""
    tags = {
        "dataset_fingerprint": lineage.dataset_fingerprint,
        "params": json.dumps(lineage.params, sort_keys=True),
        "modelpred_version": installed_version("modelpred"),
    }
    if lineage.git_commit is not None:
        tags["git_commit"] = lineage.git_commit
    return tags | {f"dvc.{_key(path)}": digest for path, digest in lineage.dvc.items()}


def _flat_metrics(metrics: HeldOut) -> dict[str, float]:
    return {
        _key(f"{method}/{design}/{measure}"): value
        for method, designs in metrics.items()
        for design, measures in designs.items()
        for measure, value in measures.items()
    }


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Nested params as `section.key` -> text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = _key(f"{prefix}{key}")
        flat |= _flat(f"{name}.", value) if isinstance(value, Mapping) else {name: str(value)}
    return flat


def _key(text: str) -> str:
    """The name with only characters that MLflow allows in params, metrics and tags."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)[:250]
