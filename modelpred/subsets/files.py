"""Subsets on disk: subsets.parquet and subsets.json, sealed by SHA256SUMS."""

import json
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from modelpred.dataset.files import parquet_bytes
from modelpred.sealed import (
    parse_model,
    read_sealed,
    read_table,
    refuse,
    remake,
    seal,
    write_atomically,
)
from modelpred.subsets.rows import Subsets

TABLE, DESCRIPTION = "subsets.parquet", "subsets.json"
AGAIN = remake("subsets")
# Before the weights.
_COLUMNS = {
    "subset_id": pl.String(),
    "role": pl.String(),
    "design": pl.String(),
    "size": pl.Int64(),
}


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
    """Write subsets.parquet and subsets.json (how many of each), and seal them."""
    folder.mkdir(parents=True, exist_ok=True)
    table = subsets_table(subsets)
    counts = table.group_by("role", "design", maintain_order=True).len()
    description = _Description(
        schema_version=2,
        points=subsets.weights.shape[1],
        counts={f"{role}-{design}": count for role, design, count in counts.iter_rows()},
        redrawn=dict(subsets.redrawn),
    )
    text = json.dumps(description.model_dump(exclude_defaults=True), indent=2) + "\n"
    write_atomically(folder / TABLE, parquet_bytes(table))
    write_atomically(folder / DESCRIPTION, text.encode())
    seal(folder, (TABLE, DESCRIPTION))


def read_subsets(folder: Path) -> Subsets:
    """The subsets written there.

    Raises:
        InvalidInput: a file is missing or damaged.
    """
    path = folder / DESCRIPTION
    description = parse_model(_Description, read_sealed(path, again=AGAIN), path, again=AGAIN)
    path = folder / TABLE
    table = read_table(path, again=AGAIN)
    if list(table.schema.items())[:-1] != list(_COLUMNS.items()) or any(table.null_count().row(0)):
        raise refuse(path, f"it does not hold {', '.join(_COLUMNS)} and weights", again=AGAIN)
    try:
        subsets = Subsets(
            ids=tuple(table["subset_id"]),
            roles=tuple(table["role"]),
            designs=tuple(table["design"]),
            weights=torch.from_numpy(table["weights"].to_numpy(writable=True)),
            redrawn=description.redrawn,
        )
        sizes = table["size"].to_list()
    except (pl.exceptions.PolarsError, TypeError, ValueError, RuntimeError) as error:
        raise refuse(path, f"it is no table of subsets ({error})", again=AGAIN) from error
    if tuple(subsets.weights.shape) != (sum(description.counts.values()), description.points):
        raise refuse(path, f"its shape is not the one that {DESCRIPTION} names", again=AGAIN)
    if subsets.sizes.tolist() != sizes:
        raise refuse(path, "its sizes are not the sums of its weights", again=AGAIN)
    return subsets


class _Description(BaseModel):
    """subsets.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[2]
    points: int
    counts: dict[str, int]
    redrawn: dict[str, int] = Field(default_factory=dict)
