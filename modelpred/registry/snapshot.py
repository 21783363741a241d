# ruff: noqa: PLC0415 - mlflow takes over two seconds to import: only who publishes or lists pays.
"""Writes the content of the registry's database as a JSON file, and rebuilds a lost database from it.

`mlruns/registry.json` is written after every change. It names files relative to the project's root: MLflow's own paths
are absolute, and a project that moved gets a new database from it, too.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelpred.errors import InvalidInput
from modelpred.registry.store import DATABASE, FILES, local_folder, locked, opened
from modelpred.sealed import (
    hashed,
    parse_hashed,
    parse_json,
    parse_model,
    read_file,
    write_atomically,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

SNAPSHOT = "registry.json"
UNHASHED_VERSION = 1
AGAIN = "move it away and publish again"
LARGEST_SNAPSHOT = 256 * 2**20


class KeptVersion(BaseModel):
    """A registered version with the numbers of its run."""

    # JSON has no word for a number that is not finite.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    version: int = Field(ge=1)
    source: str
    tags: dict[str, str]
    run_tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]


class KeptModel(BaseModel):
    """A registered model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,250}$")
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: tuple[KeptVersion, ...]


class Snapshot(BaseModel):
    """registry.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = 2  # 1, of older versions, has no hash
    models: tuple[KeptModel, ...]


def write_snapshot(client: "MlflowClient", root: Path) -> None:
    """Write the current content of the database."""
    models = {model.name: model for model in client.search_registered_models()}
    snapshot = Snapshot(
        models=tuple(_kept_model(client, models[name], root) for name in sorted(models))
    )
    place = root / FILES
    place.mkdir(exist_ok=True)
    text = json.dumps(hashed(json.loads(snapshot.model_dump_json())), indent=1) + "\n"
    write_atomically(place / SNAPSHOT, text.encode())


def _kept_model(client: "MlflowClient", model: "RegisteredModel", root: Path) -> KeptModel:
    versions = sorted(
        client.search_model_versions(f"name = '{model.name}'"), key=lambda one: int(one.version)
    )
    return KeptModel(
        name=model.name,
        tags=dict(model.tags),
        aliases={alias: int(version) for alias, version in model.aliases.items()},
        versions=tuple(_kept_version(client, version, root) for version in versions),
    )


def _kept_version(client: "MlflowClient", version: "ModelVersion", root: Path) -> KeptVersion:
    run = client.get_run(version.run_id).data if version.run_id else None
    folder = local_folder(str(version.source))
    inside = folder.is_relative_to(root.absolute())
    source = folder.relative_to(root.absolute()) if inside else folder
    return KeptVersion(
        version=int(version.version),
        source=source.as_posix(),
        tags=dict(version.tags),
        run_tags={k: v for k, v in run.tags.items() if not k.startswith("mlflow.")} if run else {},
        metrics=dict(run.metrics) if run else {},
        params=dict(run.params) if run else {},
    )


def read_snapshot(root: Path) -> Snapshot | None:
    """The last snapshot, or None.

    Raises:
        InvalidInput: the file is not one of ours.
    """
    path = root / FILES / SNAPSHOT
    if not os.path.lexists(path):
        return None
    content = read_file(path, again=AGAIN, largest=LARGEST_SNAPSHOT)
    found = parse_json(content, path, again=AGAIN)
    if found.get("schema_version") != UNHASHED_VERSION:
        found = parse_hashed(content, path, again=AGAIN)
    return parse_model(Snapshot, json.dumps(found).encode(), path, again=AGAIN)


def rebuild(root: Path) -> list[str]:
    """Register every version of the snapshot that the database lacks; returns a line for each.

    Raises:
        InvalidInput: there is no snapshot, or it is damaged.
    """
    snapshot = read_snapshot(root)
    if snapshot is None:
        raise InvalidInput(
            f"{root / FILES / SNAPSHOT} is missing: nothing to rebuild from; "
            "python -m flows.publish registers the present predictor"
        )
    with locked(root), opened(root) as client:
        said = restore(client, root, snapshot)
    return said or [f"{root / DATABASE} holds every version already"]


def restore(client: "MlflowClient", root: Path, snapshot: Snapshot) -> list[str]:
    """`rebuild` with a client; versions that the database has made since stay as they are."""
    said: list[str] = []
    for model in snapshot.models:
        there = [int(one.version) for one in client.search_model_versions(f"name = '{model.name}'")]
        lost = [one for one in model.versions if one.version > max(there, default=0)]
        if not lost:
            continue
        if not client.search_registered_models(f"name = '{model.name}'"):
            client.create_registered_model(model.name)
        for version in lost:
            _restore_version(client, root, model.name, version)
            said.append(f"{model.name} version {version.version} registered again")
        for tag, value in model.tags.items():
            client.set_registered_model_tag(model.name, tag, value)
        for alias, number in model.aliases.items():
            client.set_registered_model_alias(model.name, alias, str(number))
    return said


def _restore_version(client: "MlflowClient", root: Path, name: str, version: KeptVersion) -> None:
    from mlflow.entities import Metric, Param, RunTag

    experiment = experiment_of(client, name, root)
    run = client.create_run(experiment, run_name=name).info.run_id
    client.log_batch(
        run,
        metrics=[Metric(key, value, 0, 0) for key, value in version.metrics.items()],
        params=[Param(key, value) for key, value in version.params.items()],
        tags=[RunTag(key, value) for key, value in version.run_tags.items()],
    )
    client.set_terminated(run)
    source = (root.absolute() / version.source).as_uri()  # an absolute one stays as it is
    made: Sequence[int] = ()
    while not made or made[-1] < version.version:
        # MLflow counts on: numbers of versions that were deleted are used up and deleted again.
        one = client.create_model_version(name, source, run, tags=version.tags)
        made = [*made, int(one.version)]
    for number in made[:-1]:
        client.delete_model_version(name, str(number))


def experiment_of(client: "MlflowClient", name: str, root: Path) -> str:
    """The experiment that holds a registered model's runs, made or undeleted where needed."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, (root.absolute() / FILES / name).as_uri())
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id
