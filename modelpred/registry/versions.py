"""Registered versions: their records, and the champion.

The champions of a registered model are recorded in order, so that `rollback` finds the one before.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelpred.errors import InvalidInput
from modelpred.registry.snapshot import write_snapshot
from modelpred.registry.store import (
    checked_name,
    has_database,
    intact,
    locked,
    opened,
    predictor_folder,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
CHAMPIONS_TAG = "champions"  # of the registered model: their version numbers, the present one last
FINGERPRINT_TAG = "predictor_fingerprint"
GATES_TAG = "gates"
REASON_TAG = "gates_reason"
HAND_TAG = "moved_by_hand"


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
    """Record of a version in the registry."""

    name: str
    version: int
    aliases: tuple[str, ...]
    fingerprint: str
    created_at: float
    source: str
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]


# --- reading -----------------------------------------------------------------------------------


def list_versions(
    root: Path, name: str | None = None, *, made_of: str | None = None
) -> list[VersionRecord]:
    """All registered versions, or those of one registered model; newest first within a model.

    Args:
        root: the project's root.
        name: a registered model.
        made_of: only versions whose lineage holds this: a git commit, a DVC hash or the data set's fingerprint, or at
            least seven characters from the beginning of one.
    """
    if made_of is not None and not re.fullmatch(r"[0-9a-f]{7,}(\.dir|-dirty)?", made_of):
        raise InvalidInput(
            f"registry: expected a commit or a hash, seven characters or more of it, got {made_of[:100]!r}"
        )
    if not has_database(root):
        return []
    with opened(root) as client:
        found = client.search_model_versions(f"name = '{checked_name(name)}'" if name else None)
        records = [
            _record(client, client.get_model_version(version.name, version.version))
            for version in found
        ]
    if made_of is not None:
        records = [record for record in records if _made_of(record, made_of)]
    return sorted(records, key=lambda record: (record.name, -record.version))


def _made_of(record: VersionRecord, digest: str) -> bool:
    hashes = [
        value
        for tag, value in record.tags.items()
        if tag in ("git_commit", "dataset_fingerprint") or tag.startswith("dvc.")
    ]
    return any(value.startswith(digest) for value in hashes)


def show_version(root: Path, name: str, version: int | str = CHAMPION) -> VersionRecord:
    """One version, by its number or by an alias.

    Raises:
        InvalidInput: there is no such version; the message lists those that are there.
    """
    return _among(list_versions(root, name), name, version)


def files_of(root: Path, name: str, version: int | str = CHAMPION) -> Path:
    """The folder of a version's predictor.

    Raises:
        InvalidInput: no such version, or its files are gone or damaged.
    """
    found = show_version(root, name, version)
    _check_files(found)
    return predictor_folder(found.source)


def _among(records: Sequence[VersionRecord], name: str, version: int | str) -> VersionRecord:
    for record in records:
        if str(version) == str(record.version) or version in record.aliases:
            return record
    there = ", ".join(str(record.version) for record in records) or "none"
    raise InvalidInput(f"registry: no version {version!r} of {name}; there are: {there}")


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


# --- moving the champion -----------------------------------------------------------------------


def promote(root: Path, name: str, version: int | str) -> VersionRecord:
    """Make a version champion even if it failed the gates; returns it.

    Raises:
        InvalidInput: no such version, or its files are gone or damaged.
    """
    found = show_version(root, name, version)
    _check_files(found)
    with locked(root), opened(root) as client:
        client.set_model_version_tag(name, str(found.version), HAND_TAG, "promoted")
        crown(client, name, found.version)
        write_snapshot(client, root)
    return show_version(root, name, found.version)


def rollback(root: Path, name: str) -> tuple[VersionRecord, VersionRecord]:
    """Make the previous champion champion again; returns the current and the previous champion.

    Raises:
        InvalidInput: there is no champion before it, or its files are gone or damaged.
    """
    present = show_version(root, name)
    with locked(root), opened(root) as client:
        champions = champions_of(client, name)
        before = [number for number in champions if number != present.version]
        if not before:
            raise InvalidInput(
                f"registry: {name} has had no champion before version {present.version}; "
                "promote another version instead"
            )
        former = _among(list_versions(root, name), name, before[-1])
        _check_files(former)
        client.set_model_version_tag(name, str(present.version), HAND_TAG, "rolled back")
        client.set_registered_model_tag(name, CHAMPIONS_TAG, _told(before[:-1]))
        crown(client, name, former.version)
        write_snapshot(client, root)
    return show_version(root, name, present.version), show_version(root, name)


def _check_files(record: VersionRecord) -> None:
    if not intact(record.source, record.fingerprint):
        raise InvalidInput(
            f"registry: the files of {record.name} version {record.version} are gone or damaged "
            f"({record.source}); reproduce it, see `modelpred registry show`"
        )


def champions_of(client: "MlflowClient", name: str) -> list[int]:
    """The versions that have been champion, in order; the present one is the last."""
    listed = client.get_registered_model(name).tags.get(CHAMPIONS_TAG, "")
    return [int(number) for number in listed.split(",") if number]


def crown(client: "MlflowClient", name: str, version: int) -> None:
    """Make a version champion and record it; safe to repeat."""
    champions = [number for number in champions_of(client, name) if number != version]
    # Recorded first: after an interruption, doing both again gives the right state.
    client.set_registered_model_tag(name, CHAMPIONS_TAG, _told([*champions, version]))
    client.set_registered_model_alias(name, CHAMPION, str(version))
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(CHALLENGER)) == str(version):
        client.delete_registered_model_alias(name, CHALLENGER)


def _told(champions: Sequence[int]) -> str:
    return ",".join(map(str, champions))
