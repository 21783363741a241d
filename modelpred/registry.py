# ruff: noqa: PLC0415 - mlflow takes over two seconds to import: only who publishes or lists pays.
"""Registered predictors: publish, judge, list and show versions. The only module that knows MLflow.

A version is keyed by the fingerprint of the predictor's files, so that publishing twice makes one version, and a lost
database is rebuilt by publishing again. It carries its lineage (code, data and parameters it follows from) and its
held-out errors. The *gates* decide whether it becomes `champion`, the version that users load, or `challenger`, with
the reasons as a tag.

The store is `mlflow.db` in the project's root, where a plain `mlflow.pyfunc.load_model("models:/<name>@champion")`
finds it by MLflow's own default; files lie under `mlruns` beside it. Paths in it are absolute: a version whose files
are gone, because the project moved, is registered anew.
"""

import contextlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import polars as pl
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from modelpred.dataset import InvalidInput
from modelpred.predictor import Predictor, predictor_fingerprint, read_predictor
from modelpred.predictor.files import DESCRIPTION_FILE, TENSORS_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PREDICTOR_FILES = (TENSORS_FILE, DESCRIPTION_FILE)
CHAMPION = "champion"
CHALLENGER = "challenger"
METHOD = "predictor"

FINGERPRINT_TAG = "predictor_fingerprint"
PUBLISHED_TAG = "published"
GATES_TAG = "gates"
REASON_TAG = "gates_reason"
# MLflow's limits on what it stores.
LONGEST_PARAM = 6000
LONGEST_RUN_TAG = 5000
LONGEST_DIGEST = 36

# method -> design -> measure -> value, as in `fidelity`.
HeldOut = Mapping[str, Mapping[str, Mapping[str, float]]]


class GatesConfig(BaseModel):
    """What a new version must show on held-out subsets to become champion (section `gates` of params.yaml)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    designs: tuple[str, ...] = Field(default=("uniform",), min_length=1)
    parameter_error: float | None = Field(default=0.25, gt=0)
    beats: tuple[str, ...] = ("full_model", "influence", "linear_datamodel")


class Lineage(BaseModel):
    """What a predictor follows from: enough to make it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    git_commit: str | None = None
    dvc: dict[str, str] = {}
    params: dict[str, JsonValue] = {}
    dataset_fingerprint: str


@dataclass(frozen=True)
class Version:
    """A registered version as `publish` leaves it; `created` is false where it was there before."""

    name: str
    version: int
    created: bool
    aliases: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class VersionRecord:
    """Everything the registry knows of a version."""

    name: str
    version: int
    aliases: tuple[str, ...]
    fingerprint: str
    created_at: float
    source: str
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]


# --- gates -------------------------------------------------------------------------------------


def held_out_errors(fidelity: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The fidelity table as method -> design -> measure -> value."""
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for row in fidelity.iter_rows(named=True):
        method, design = row.pop("method"), row.pop("design")
        measures = {name: float(value) for name, value in row.items() if value is not None}
        nested.setdefault(method, {})[design] = measures
    return nested


def judge(metrics: HeldOut, gates: GatesConfig) -> tuple[bool, tuple[str, ...]]:
    """Whether a predictor passes the gates, and every reason why it does not.

    An error passes a bound when the upper end of its 95% interval does; it beats a rival when that end lies below the
    lower end of the rival's. A number that is missing or not finite passes nothing.
    """
    reasons: list[str] = []
    for design in gates.designs:
        high = _measure(metrics, METHOD, design, "parameter_error_high")
        if not math.isfinite(high):
            reasons.append(f"{design}: no held-out parameter error of the predictor")
            continue
        if gates.parameter_error is not None and high > gates.parameter_error:
            reasons.append(
                f"{design}: parameter error up to {high:.4g}, allowed {gates.parameter_error:.4g}"
            )
        for rival in gates.beats:
            low = _measure(metrics, rival, design, "parameter_error_low")
            if not math.isfinite(low):
                reasons.append(f"{design}: no held-out parameter error of {rival}")
            elif high >= low:
                reasons.append(
                    f"{design}: parameter error up to {high:.4g} does not beat {rival}, from {low:.4g}"
                )
    return not reasons, tuple(reasons)


def _measure(metrics: HeldOut, method: str, design: str, measure: str) -> float:
    return metrics.get(method, {}).get(design, {}).get(measure, math.nan)


# --- publishing --------------------------------------------------------------------------------


def registered_name(dataset: str, target: str) -> str:
    """`modelpred-<dataset>-<target>` in letters, digits, dots, dashes and underscores."""
    return "modelpred-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{dataset}-{target}")[:200]


def log_comparison(
    name: str, *, metrics: dict[str, float], params: dict[str, str], files: Path, root: Path
) -> str:
    """A finished run of the experiment `name` with these numbers and the files of a folder; its id."""
    from mlflow.entities import Metric, Param

    allowed = {re.sub(r"[^\w\-./ ]", "_", key): value for key, value in metrics.items()}
    with _client(root) as client:
        run_id = client.create_run(_experiment(client, name, root), run_name=name).info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in allowed.items()],
            params=[Param(key, value[:LONGEST_PARAM]) for key, value in params.items()],
        )
        client.log_artifacts(run_id, str(files))
        client.set_terminated(run_id)
    return run_id


def tracking_uri(root: Path) -> str:
    """MLflow's store in this project's root."""
    return f"sqlite:///{(root.absolute() / 'mlflow.db').as_posix()}"


def publish(
    predictor_folder: Path,
    *,
    dataset_name: str,
    metrics: HeldOut,
    lineage: Lineage,
    gates: GatesConfig,
    root: Path,
) -> Version:
    """Registers a predictor's files and gives them their alias; does nothing where that is done already.

    Safe to repeat, to interrupt and to run twice at once.

    Args:
        predictor_folder: what `write_predictor` wrote.
        dataset_name: names the registered model, together with the target model.
        metrics: held-out errors of the predictor and its rivals, see `held_out_errors`.
        lineage: what the predictor follows from.
        gates: what makes it champion.
        root: the project's root, which holds `mlflow.db` and `mlruns`.

    Raises:
        InvalidInput: the folder holds no valid predictor.
    """
    predictor = read_predictor(predictor_folder)
    name = registered_name(dataset_name, predictor.model.name)
    fingerprint = predictor_fingerprint(predictor_folder)
    passes, reasons = judge(metrics, gates)
    with _locked(root), _client(root) as client:
        found = _find(client, name, fingerprint)
        if found is not None and PUBLISHED_TAG in found.tags:
            return _told(client, found, created=False)
        created = found is None
        if found is None:
            run = _log_run(client, name, metrics=metrics, lineage=lineage, root=root)
            found = _register(
                client,
                name,
                predictor,
                predictor_folder,
                run_id=run,
                tags={
                    FINGERPRINT_TAG: fingerprint,
                    GATES_TAG: "passed" if passes else "failed",
                    REASON_TAG: "; ".join(reasons)[:LONGEST_RUN_TAG],
                    **_lineage_tags(lineage),
                },
            )
        alias = CHAMPION if found.tags.get(GATES_TAG) == "passed" else CHALLENGER
        client.set_registered_model_alias(name, alias, found.version)
        client.set_model_version_tag(name, found.version, PUBLISHED_TAG, "true")
        return _told(client, client.get_model_version(name, found.version), created=created)


def _find(client: "MlflowClient", name: str, fingerprint: str) -> "ModelVersion | None":
    """The version that holds these files, the latest first; versions whose files are gone do not count."""
    versions = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.tags.get(FINGERPRINT_TAG) == fingerprint and _intact(version, fingerprint)
    ]
    return max(versions, key=lambda version: int(version.version), default=None)


def _intact(version: "ModelVersion", fingerprint: str) -> bool:
    folder = _local_folder(str(version.source)) / "artifacts" / METHOD
    present = all((folder / file).is_file() for file in PREDICTOR_FILES)
    return present and predictor_fingerprint(folder) == fingerprint


def _local_folder(source: str) -> Path:
    parts = urlsplit(source)
    return Path(unquote(parts.path) if parts.scheme == "file" else source)


def _log_run(
    client: "MlflowClient", name: str, *, metrics: HeldOut, lineage: Lineage, root: Path
) -> str:
    """A finished run that holds the held-out errors and the lineage; returns its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    experiment = _experiment(client, name, root)
    run_id = client.create_run(experiment, run_name=name).info.run_id
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, 0, 0) for key, value in _flat_metrics(metrics).items()],
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


def _experiment(client: "MlflowClient", name: str, root: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, (root.absolute() / "mlruns" / name).as_uri())
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _register(
    client: "MlflowClient",
    name: str,
    predictor: Predictor,
    folder: Path,
    *,
    run_id: str,
    tags: dict[str, str],
) -> "ModelVersion":
    """A new version, its tags and files complete the moment it can be found."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name=METHOD, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as place:
        saved = Path(place) / "model"
        _save_model(saved, predictor, folder, run_id=run_id, model_id=logged.model_id)
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
    path: Path, predictor: Predictor, folder: Path, *, run_id: str, model_id: str
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
        params=ParamSchema([ParamSpec("refine", DataType.double, 0.0)]),
    )
    with tempfile.TemporaryDirectory() as place:
        kept = Path(place) / METHOD
        kept.mkdir()
        for file in PREDICTOR_FILES:
            shutil.copyfile(folder / file, kept / file)
        pyfunc.save_model(
            str(path),
            python_model=str(Path(__file__).with_name("served.py")),
            artifacts={METHOD: str(kept)},
            signature=signature,
            input_example=np.ones((1, points)),
            mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
            # This package is not named: the index may hold another of that name.
            pip_requirements=[
                f"{package}=={installed_version(package).split('+')[0]}"
                for package in ("mlflow", "torch", "numpy", "safetensors")
            ],
            metadata={"modelpred": installed_version("modelpred")},
        )


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
    """A name that MLflow takes for params, metrics and tags."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)[:250]


# --- reading -----------------------------------------------------------------------------------


def list_versions(root: Path, name: str | None = None) -> list[VersionRecord]:
    """All registered versions, or those of one registered model; newest first within a model."""
    if not (root / "mlflow.db").is_file():
        return []
    with _client(root) as client:
        found = client.search_model_versions(f"name = '{_checked(name)}'" if name else None)
        records = [
            _record(client, client.get_model_version(version.name, version.version))
            for version in found
        ]
    return sorted(records, key=lambda record: (record.name, -record.version))


def show_version(root: Path, name: str, version: int | str = CHAMPION) -> VersionRecord:
    """One version, by its number or by an alias.

    Raises:
        InvalidInput: there is no such version; the message lists those that are there.
    """
    records = list_versions(root, name)
    for record in records:
        if str(version) == str(record.version) or version in record.aliases:
            return record
    there = ", ".join(str(record.version) for record in records) or "none"
    raise InvalidInput(f"registry: no version {version!r} of {name}; there are: {there}")


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,250}", name):
        raise InvalidInput(f"registry: not a name of a registered model: {name[:100]!r}")
    return name


def _record(client: "MlflowClient", version: "ModelVersion") -> VersionRecord:
    run = client.get_run(version.run_id).data if version.run_id else None
    return VersionRecord(
        name=version.name,
        version=int(version.version),
        aliases=tuple(sorted(version.aliases)),
        fingerprint=version.tags.get(FINGERPRINT_TAG, ""),
        created_at=version.creation_timestamp / 1000,
        source=str(version.source),
        tags=dict(version.tags),
        metrics=dict(run.metrics) if run else {},
        params=dict(run.params) if run else {},
    )


def _told(client: "MlflowClient", version: "ModelVersion", *, created: bool) -> Version:
    whole = client.get_model_version(version.name, version.version)
    return Version(
        name=whole.name,
        version=int(whole.version),
        created=created,
        aliases=tuple(sorted(whole.aliases)),
        reasons=tuple(filter(None, whole.tags.get(REASON_TAG, "").split("; "))),
    )


# --- MLflow's surroundings ---------------------------------------------------------------------


@contextlib.contextmanager
def _locked(root: Path) -> Generator[None]:
    """One publisher at a time; the lock is the kernel's and goes with its process."""
    place = root / ".modelpred"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "registry.lock"):
        yield


@contextlib.contextmanager
def _client(root: Path) -> Generator["MlflowClient"]:
    """A client of the project's store, with MLflow's chatter off, phoning nobody; all is put back afterwards."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        # MLflow warns of type hints in its own modules as it is imported.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")
            yield from _quiet_client(tracking_uri(root))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _quiet_client(uri: str) -> Generator["MlflowClient"]:
    """A client while MLflow tells only warnings and errors."""
    from mlflow import MlflowClient  # sets the levels of its loggers, so it comes first

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
