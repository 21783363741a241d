"""Subsets on disk: subsets.parquet, and subsets.json that seals it."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelpred.dataset.files import parquet_bytes
from modelpred.errors import InvalidInput
from modelpred.sealed import write_atomically
from modelpred.subsets.rows import Subsets


def subsets_table(subsets: Subsets) -> pl.DataFrame:
    """A row per subset: id, role, design, size and weights."""
    return pl.DataFrame(
        {
            "subset_id": pl.Series(subsets.ids, dtype=pl.String),
            "role": pl.Series(subsets.roles, dtype=pl.String),
            "design": pl.Series(subsets.designs, dtype=pl.String),
            "size": subsets.sizes.numpy(),
            "weights": subsets.weights.numpy(),
        }
    )


def write_subsets(subsets: Subsets, folder: Path) -> None:
    """Write subsets.parquet and subsets.json (how many of each, and the table's SHA-256)."""
    folder.mkdir(parents=True, exist_ok=True)
    table = subsets_table(subsets)
    content = parquet_bytes(table)
    counts = table.group_by("role", "design", maintain_order=True).len()
    description = _Description(
        schema_version=1,
        points=subsets.weights.shape[1],
        counts={f"{role}-{design}": count for role, design, count in counts.iter_rows()},
        sha256=hashlib.sha256(content).hexdigest(),
        redrawn=dict(subsets.redrawn),
    )
    write_atomically(folder / "subsets.parquet", content)
    # Last: it seals the table, so that a killed write is never taken for a finished one.
    written = json.dumps(description.model_dump(exclude_defaults=True), indent=2) + "\n"
    write_atomically(folder / "subsets.json", written.encode())


def read_subsets(folder: Path) -> Subsets:
    """The subsets written there.

    Raises:
        InvalidInput: a file is missing or damaged.
    """
    for name in ("subsets.json", "subsets.parquet"):
        if not (folder / name).is_file():
            raise InvalidInput(f"{folder / name} is missing; run the subsets stage first")
    path = folder / "subsets.parquet"
    content = path.read_bytes()
    try:
        description = _Description.model_validate_json((folder / "subsets.json").read_bytes())
    except ValidationError as error:
        raise _mismatch(folder / "subsets.json", error.errors()[0]["msg"]) from error
    if hashlib.sha256(content).hexdigest() != description.sha256:
        raise _mismatch(path, "its content is not the one that subsets.json names")
    table = pl.read_parquet(content)
    subsets = Subsets(
        ids=tuple(table["subset_id"]),
        roles=tuple(table["role"]),
        designs=tuple(table["design"]),
        weights=torch.from_numpy(table["weights"].to_numpy(writable=True)),
        redrawn=description.redrawn,
    )
    if tuple(subsets.weights.shape) != (sum(description.counts.values()), description.points):
        raise _mismatch(path, "its shape is not the one that subsets.json names")
    if subsets.sizes.tolist() != table["size"].to_list():
        raise _mismatch(path, "its sizes are not the sums of its weights")
    return subsets


class _Description(BaseModel):
    """subsets.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1]
    points: int
    counts: dict[str, int]
    sha256: str
    redrawn: dict[str, int] = Field(default_factory=dict)


def _mismatch(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{path} cannot be used: {why}; run the subsets stage again")
