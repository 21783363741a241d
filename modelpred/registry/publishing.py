# ruff: noqa: PLC0415 - mlflow takes over two seconds to import: only who publishes or lists pays.
"""Publishes a predictor: registers its files once, checks the gates, sets its alias.

A version is keyed by the fingerprint of the predictor's files, so that publishing twice makes one version. It carries
its lineage (code, data and parameters it follows from) and its held-out errors. The gates decide whether it becomes
`champion`, the version that users load, or `challenger`, with the reasons as a tag. The gates are checked again when
their evidence has changed: a calibration measured since, other gates.

A version whose files are gone, because the project moved, is registered again.
"""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue

from modelpred.predictor import Predictor, predictor_fingerprint, read_predictor
from modelpred.predictor.files import PREDICTOR_FILES
from modelpred.predictor.request_handler import ALL_STAGES, write_test_points
from modelpred.registry.gates import (
    METHOD,
    Contest,
    Evidence,
    GatesConfig,
    HeldOut,
    compare,
    judge,
)
from modelpred.registry.snapshot import experiment_of, read_snapshot, restore, write_snapshot
from modelpred.registry.store import (
    PREDICTOR,
    intact,
    locked,
    opened,
    predictor_folder,
    registered_name,
)
from modelpred.registry.versions import (
    CHALLENGER,
    CHAMPION,
    FINGERPRINT_TAG,
    GATES_TAG,
    REASON_TAG,
    Version,
    crown,
)
from modelpred.sealed import seal
from modelpred.targets import Points
from modelpred.targets.shards import Bank

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.types.schema import Object

# The evidence that was checked; set last, so that an interrupted publication is done again.
EVIDENCE_TAG = "gates_evidence"
CONTEST_TAG = "gates_champion"
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


def publish(
    folder: Path,
    *,
    dataset_name: str,
    evidence: Evidence,
    lineage: Lineage,
    gates: GatesConfig,
    root: Path,
    held_out: Bank | None = None,
    test_points: Points | None = None,
) -> Version:
    """Register a predictor's files and set their alias; do nothing if that is done already.

    Safe to repeat, to interrupt and to run twice at once.

    Args:
        folder: what `write_predictor` wrote.
        dataset_name: names the registered model, together with the target model.
        evidence: what the gates check; the comparison with the present champion is added here.
        lineage: what the predictor follows from.
        gates: what makes it champion.
        root: the project's root, which holds `mlflow.db` and `mlruns`.
        held_out: subsets with their trained parameters for the comparison with the present champion.
        test_points: rows on which the registered version computes the mean loss of predicted models.

    Raises:
        InvalidInput: the folder holds no valid predictor.
    """
    predictor = read_predictor(folder)
    name = registered_name(dataset_name, predictor.model.name)
    fingerprint = predictor_fingerprint(folder)
    digest = evidence.digest(gates)
    with locked(root), opened(root) as client:
        snapshot = read_snapshot(root)
        if snapshot is not None:
            restore(client, root, snapshot)
        found = _find(client, name, fingerprint)
        if found is not None and found.tags.get(EVIDENCE_TAG) == digest:
            return _told(client, found, created=False)
        created = found is None
        if found is None:
            run = _log_run(client, name, metrics=evidence.held_out, lineage=lineage, root=root)
            found = _register(
                client,
                name,
                predictor,
                folder,
                run_id=run,
                tags={FINGERPRINT_TAG: fingerprint, **_lineage_tags(lineage)},
                test_points=test_points,
            )
        contest = _contest(client, found, predictor, held_out, gates)
        _decide(client, found, replace(evidence, contest=contest), gates)
        client.set_model_version_tag(name, found.version, EVIDENCE_TAG, digest)
        write_snapshot(client, root)
        return _told(client, found, created=created)


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


def _contest(
    client: "MlflowClient",
    found: "ModelVersion",
    predictor: Predictor,
    held_out: Bank | None,
    gates: GatesConfig,
) -> Contest | None:
    """Comparison of the version with the current champion; None if there is no other champion."""
    number = client.get_registered_model(found.name).aliases.get(CHAMPION)
    if number is None or str(number) == str(found.version):
        return None
    champion = client.get_model_version(found.name, str(number))
    if not intact(str(champion.source), champion.tags.get(FINGERPRINT_TAG, "")):
        return Contest(int(number), different="its files are gone or damaged")
    if held_out is None:
        return Contest(int(number))
    other = read_predictor(predictor_folder(str(champion.source)))
    return compare(predictor, other, held_out, version=int(number), designs=gates.designs)


def _decide(
    client: "MlflowClient", found: "ModelVersion", evidence: Evidence, gates: GatesConfig
) -> None:
    """Tags the version with what the gates say and moves the alias that follows from it."""
    passes, reasons = judge(evidence, gates)
    tags = {
        GATES_TAG: "passed" if passes else "failed",
        REASON_TAG: "; ".join(reasons)[:LONGEST_RUN_TAG],
        CONTEST_TAG: _told_contest(evidence.contest),
    }
    for tag, value in tags.items():
        client.set_model_version_tag(found.name, found.version, tag, value)
    if passes:
        crown(client, found.name, int(found.version))
    elif str(client.get_registered_model(found.name).aliases.get(CHAMPION)) != str(found.version):
        client.set_registered_model_alias(found.name, CHALLENGER, found.version)


def _told_contest(contest: Contest | None) -> str:
    if contest is None:
        return "no champion to compare with"
    if contest.different:
        return f"not comparable with version {contest.champion}: {contest.different}"
    differences = ", ".join(
        f"{design} {one.mean:+.3g} ({one.low:+.3g} to {one.high:+.3g})"
        for design, one in contest.differences.items()
    )
    return (
        f"parameter error minus that of version {contest.champion}: {differences or 'not measured'}"
    )


def _find(client: "MlflowClient", name: str, fingerprint: str) -> "ModelVersion | None":
    """The version that holds these files, the latest first; versions whose files are gone do not count."""
    versions = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.tags.get(FINGERPRINT_TAG) == fingerprint
        and intact(str(version.source), fingerprint)
    ]
    return max(versions, key=lambda version: int(version.version), default=None)


def _told(client: "MlflowClient", version: "ModelVersion", *, created: bool) -> Version:
    whole = client.get_model_version(version.name, version.version)
    return Version(
        name=whole.name,
        version=int(whole.version),
        created=created,
        aliases=tuple(sorted(whole.aliases)),
        reasons=tuple(filter(None, whole.tags.get(REASON_TAG, "").split("; "))),
    )


def _log_run(
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
        tags=[
            RunTag(key, value[:LONGEST_RUN_TAG]) for key, value in _lineage_tags(lineage).items()
        ],
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


def _register(
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


def _lineage_tags(lineage: Lineage) -> dict[str, str]:
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
