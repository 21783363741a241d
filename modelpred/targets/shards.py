"""The shards of one version: fingerprints, files, the manifest, and the bank that is read from them.

A shard's *fingerprint* is the hash of everything that its numbers depend on: the rows that its subsets take, the target
model with its settings and tolerance, the block's subsets, and the versions of the file schema and of the solver. The
manifest lists exactly the shards of one version with their hashes. Readers read only what it lists, and refuse what does
not match.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from modelpred.dataset import Dataset
from modelpred.errors import InvalidInput
from modelpred.sealed import SEAL, Unusable, read_file, read_seal, sha256, write_atomically
from modelpred.subsets import Subsets
from modelpred.targets.bank import Bank
from modelpred.targets.compiled.kernels import source_digest
from modelpred.targets.model import TargetModel
from modelpred.targets.parquet import (
    AGAIN,
    SCHEMA_VERSION,
    SOLVER_VERSION,
    CorruptShard,
    Sha256,
    Shard,
    ShardMetadata,
    first_line,
    parse_shard,
    refuse,
    shard_bytes,
)
from modelpred.targets.spill import allocate
from modelpred.targets.training import TrainedTargets

MANIFEST_NAME = "manifest.json"
# A shard holds one block; anything larger than this is not one of ours and is not read.
LARGEST_FILE = 4 * 2**30

# Plain names only: a name out of a file never becomes a path into another folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.parquet$", max_length=200)]


class ManifestEntry(BaseModel):
    """One shard of a version: its file, and the hash and size that it must have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FileName
    fingerprint: Sha256
    sha256: Sha256
    size: int = Field(ge=1, le=LARGEST_FILE)
    rows: int = Field(ge=1)
    designs: dict[str, int]


class Manifest(BaseModel):
    """Exactly the shards of one version, in the order of their subsets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    shards: tuple[ManifestEntry, ...]


@dataclass(frozen=True)
class RowContents:
    """The rows of a data set as training uses them.

    Attributes:
        digests: SHA-256 of each point's features and label.
        classes: number of classes, 0 for numbers.
    """

    digests: tuple[bytes, ...]
    classes: int


def row_contents(dataset: Dataset) -> RowContents:
    """The rows of the data set as training uses them."""
    features, labels = dataset.features.numpy(), dataset.labels.to(torch.float64).numpy()
    digests = (
        hashlib.sha256(row.tobytes() + label.tobytes()).digest()
        for row, label in zip(features, labels, strict=True)
    )
    return RowContents(tuple(digests), len(dataset.classes))


def shard_fingerprint(
    rows: RowContents, model: TargetModel, tolerance: float, block: Subsets
) -> str:
    """The SHA-256, in hex, of everything that the numbers of a shard follow from.

    Rows that no subset of the block takes do not count: a shard outlives them, and rows added later;
    except of a family whose training takes rows by their places in the pool.

    Args:
        rows: contents of the pool's rows; those that the block takes count.
        model: the target model; its name and settings count.
        tolerance: the largest relative distance to the optimum that counts as converged.
        block: the subsets to train on; their names, designs and weights count.
    """
    used = block.weights.any(dim=0).nonzero()[:, 0]
    inputs = {
        "schema": SCHEMA_VERSION,
        "solver": SOLVER_VERSION,
        "kernels": source_digest(),
        "classes": rows.classes,
        "model": model.name,
        "settings": model.settings,
        "tolerance": tolerance,
        "ids": block.ids,
        "roles": block.roles,
        "designs": block.designs,
        "shape": [len(block), len(used)],
    }
    if model.positional:
        inputs["places"] = [len(rows.digests), *used.tolist()]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    digest.update(b"".join(rows.digests[row] for row in used.tolist()))
    digest.update(block.weights[:, used].cpu().numpy().astype("<i4").tobytes())
    return digest.hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file all or nothing, and its name durably: synced, renamed, folder synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_shard(
    path: Path, *, block: Subsets, trained: TrainedTargets, metadata: ShardMetadata
) -> str:
    """Writes a shard atomically; returns the SHA-256 of the file."""
    data = shard_bytes(block, trained, metadata)
    write_file(path, data)
    return hashlib.sha256(data).hexdigest()


def _content(path: Path) -> bytes:
    """The content of an ordinary file; CorruptShard where there is none."""
    try:
        return read_file(path, again=AGAIN, largest=LARGEST_FILE)
    except Unusable as error:
        raise CorruptShard(error.said, AGAIN) from error


def _read_checked(path: Path, *, sha256: str | None, size: int | None) -> bytes:
    data = _content(path)
    if size not in (None, len(data)):
        raise refuse(str(path), f"has {len(data)} bytes, expected {size}")
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise refuse(str(path), f"content does not match its hash {sha256}")
    return data


def read_shard(path: Path, *, sha256: str | None = None, size: int | None = None) -> Shard:
    """The shard in a file, after its size, hash (where given), schema and shapes are checked.

    Raises:
        CorruptShard: names the file and says what is wrong.
    """
    return parse_shard(_read_checked(path, sha256=sha256, size=size), name=str(path))


def write_manifest(folder: Path, entries: Sequence[ManifestEntry]) -> None:
    """Writes the manifest that lists exactly this version's shards."""
    text = Manifest(shards=tuple(entries)).model_dump_json(indent=1) + "\n"
    write_file(folder / MANIFEST_NAME, text.encode())


def read_manifest(folder: Path) -> tuple[ManifestEntry, ...]:
    """The shards of the version in this folder, in order.

    Raises:
        CorruptShard: there is no manifest, it is not a valid one, or not the one that the folder was
            sealed with.
    """
    path = folder / MANIFEST_NAME
    try:
        content = _content(path)
        if os.path.lexists(folder / SEAL) and sha256(content) != _sealed_hash(folder):
            raise refuse(str(path), f"its content is not the one that {SEAL} names")
        entries = Manifest.model_validate_json(content).shards
    except ValidationError as error:
        raise refuse(str(path), f"not a valid manifest ({first_line(error)})") from error
    twice = [name for name, times in Counter(entry.file for entry in entries).items() if times > 1]
    if twice:
        raise refuse(str(path), f"lists {twice[0]} more than once")
    return entries


def _sealed_hash(folder: Path) -> str | None:
    """The manifest's hash in the seal of its folder; None where the seal is damaged."""
    try:
        return read_seal(folder, again="").get(MANIFEST_NAME)
    except InvalidInput:
        return None


def read_shards(folder: Path) -> Iterator[Shard]:
    """The version's shards one after the other, each checked against the manifest: memory for one at a time.

    Raises:
        CorruptShard: names the shard that does not match.
    """
    for entry in read_manifest(folder):
        path = folder / entry.file
        shard = read_shard(path, sha256=entry.sha256, size=entry.size)
        found = (
            shard.metadata.fingerprint,
            len(shard.block.ids),
            dict(Counter(shard.block.designs)),
        )
        if found != (entry.fingerprint, entry.rows, entry.designs):
            raise refuse(str(path), "is another shard than the manifest says")
        yield shard


def read_bank(folder: Path) -> Bank:
    """All subsets of the version in this folder with their trained parameters.

    Shards are read one after the other into room that a large version has in a file (spill.py).

    Raises:
        CorruptShard: names the shard that does not match the manifest, or does not fit the others.
    """
    manifest = folder / MANIFEST_NAME
    rows = sum(entry.rows for entry in read_manifest(folder))
    filling: _Filling | None = None
    for shard in read_shards(folder):
        if filling is None:
            filling = _Filling(rows, shard)
        if filling.width != _width(shard):
            widths = sorted({filling.width, _width(shard)})
            raise refuse(str(manifest), f"shards differ in width: {widths}")
        filling.add(shard)
    if filling is None:
        raise refuse(str(manifest), "lists no shards")
    if len(set(filling.ids)) != len(filling.ids):
        raise refuse(str(manifest), "two shards hold the same subset")
    return filling.bank()


def _width(shard: Shard) -> tuple[int, int]:
    return shard.block.weights.shape[1], shard.trained.parameters.shape[1]


class _Filling:
    """A bank while its shards are read."""

    def __init__(self, rows: int, first: Shard) -> None:
        self.width = _width(first)
        self.ids: list[str] = []
        self.roles: list[str] = []
        self.designs: list[str] = []
        self.weights = allocate((rows, self.width[0]), torch.uint8)
        self.columns = {
            name: allocate((rows, *column.shape[1:]), column.dtype)
            for name, column in _columns(first).items()
        }

    def add(self, shard: Shard) -> None:
        """Put a shard's subsets behind those that are there."""
        place = slice(len(self.ids), len(self.ids) + len(shard.block))
        if shard.block.weights.dtype == torch.int32 and self.weights.dtype != torch.int32:
            wide = allocate(tuple(self.weights.shape), torch.int32)
            wide[: place.start] = self.weights[: place.start]
            self.weights = wide
        self.weights[place] = shard.block.weights
        for name, column in _columns(shard).items():
            self.columns[name][place] = column
        self.ids += shard.block.ids
        # A few words said once for each subset: one copy of each.
        self.roles += map(sys.intern, shard.block.roles)
        self.designs += map(sys.intern, shard.block.designs)

    def bank(self) -> Bank:
        """All that was added."""
        return Bank(
            tuple(self.ids), tuple(self.roles), tuple(self.designs), self.weights, **self.columns
        )


def _columns(shard: Shard) -> dict[str, Tensor]:
    names = ("parameters", "objective", "gradient_norm", "converged", "degenerate")
    return {name: torch.as_tensor(getattr(shard.trained, name)) for name in names}
