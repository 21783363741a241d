# pyright: reportUnknownParameterType=false
# (pyarrow ships no types)
"""One shard as the bytes of a Parquet file: a block of subsets with the parameters trained on them.

Readable with polars or pyarrow and no code of ours: `subset_id`, `role`, `design`, `size` (sum of the weights),
`weights` (fixed-size list of uint8, or int32 where a count is above 255), `parameters` (fixed-size list of float64, or float32 of a family that is trained in it),
`objective`, `gradient_norm`, `converged`, `degenerate`, `iterations`. What the numbers follow from is in the
file's metadata as JSON under `modelpred`. The same block gives the same bytes.
"""

import io
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.sealed import Unusable
from modelpred.subsets import Subsets
from modelpred.targets.training import TrainedTargets

SCHEMA_VERSION = 1
# Raise it when the solver's numbers change: shards of another version are never reused.
SOLVER_VERSION = 2

METADATA_KEY = b"modelpred"
LARGEST_WEIGHT = int(np.iinfo(np.int32).max)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


AGAIN = "delete the file and run the targets stage again, it makes only what is missing"


class CorruptShard(Unusable):
    """A shard or manifest is not what it should be; the message names the file and says what to do."""


class ShardMetadata(BaseModel):
    """What a shard's numbers follow from, kept in the Parquet file's own metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    solver_version: int = SOLVER_VERSION
    library: str = Field(default_factory=lambda: version("modelpred"))
    fingerprint: Sha256
    dataset: str
    model: str
    settings: dict[str, float | int | str]
    tolerance: float


@dataclass(frozen=True)
class Shard:
    """One block of subsets and the parameters trained on them."""

    block: Subsets
    trained: TrainedTargets
    metadata: ShardMetadata


def _schema(
    weight_type: pa.DataType, points: int, parameter_type: pa.DataType, parameters: int
) -> pa.Schema:
    def vector(of: pa.DataType, width: int) -> pa.DataType:
        return pa.list_(pa.field("element", of, nullable=False), width)

    columns = {
        "subset_id": pa.string(),
        "role": pa.string(),
        "design": pa.string(),
        "size": pa.int64(),
        "weights": vector(weight_type, points),
        "parameters": vector(parameter_type, parameters),
        "objective": pa.float64(),
        "gradient_norm": pa.float64(),
        "converged": pa.bool_(),
        "degenerate": pa.bool_(),
        "iterations": pa.int64(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def _smallest(weights: Tensor) -> np.ndarray:
    """The weights as uint8 where they fit, as int32 otherwise: a block decides for itself, whatever its neighbours hold."""
    values = weights.cpu().numpy()
    if values.size and (values.min() < 0 or values.max() > LARGEST_WEIGHT):
        raise InvalidInput(
            f"weights must be counts from 0 to {LARGEST_WEIGHT}, got {values.min()} to {values.max()}"
        )
    return values.astype(np.uint8 if not values.size or values.max() <= 255 else np.int32)


def _vectors(values: np.ndarray, kind: pa.DataType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)


def shard_bytes(block: Subsets, trained: TrainedTargets, metadata: ShardMetadata) -> bytes:
    """A shard as the bytes of a Parquet file: the same block gives the same bytes."""
    weights = _smallest(block.weights)
    columns = {
        field.name: torch.as_tensor(getattr(trained, field.name)).cpu().numpy()
        for field in fields(trained)
    }
    parameters = columns["parameters"]
    if parameters.dtype != np.float32:
        parameters = parameters.astype(np.float64)
    schema = _schema(
        pa.from_numpy_dtype(weights.dtype),
        weights.shape[1],
        pa.from_numpy_dtype(parameters.dtype),
        parameters.shape[1],
    ).with_metadata({METADATA_KEY: metadata.model_dump_json().encode()})
    arrays: list[Any] = [
        pa.array(block.ids, pa.string()),
        pa.array(block.roles, pa.string()),
        pa.array(block.designs, pa.string()),
        pa.array(weights.sum(axis=1, dtype=np.int64)),
        _vectors(weights, schema.field("weights").type),
        _vectors(parameters, schema.field("parameters").type),
        pa.array(columns["objective"].astype(np.float64)),
        pa.array(columns["gradient_norm"].astype(np.float64)),
        pa.array(columns["converged"].astype(np.bool_)),
        pa.array(columns["degenerate"].astype(np.bool_)),
        pa.array(columns["iterations"].astype(np.int64)),
    ]
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise InvalidInput(f"a shard's columns must be equally long, got lengths {sorted(lengths)}")
    target = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        target,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        store_schema=True,
    )
    return target.getvalue()


def refuse(name: str, why: str) -> CorruptShard:
    """The error that names the file, says why it is refused and what to do."""
    return CorruptShard(f"{name}: {why}", AGAIN)


def _open_shard(data: bytes, name: str) -> tuple[pq.ParquetFile, ShardMetadata, int, int]:
    """The checked, still unread Parquet file: its metadata and the widths of weights and parameters."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise refuse(name, f"not a readable Parquet file ({first_line(error)})") from error
    try:
        metadata = ShardMetadata.model_validate_json((schema.metadata or {})[METADATA_KEY])
    except (KeyError, ValidationError) as error:
        raise refuse(name, f"no valid shard metadata ({first_line(error)})") from error
    if metadata.schema_version != SCHEMA_VERSION:
        raise refuse(name, f"schema version {metadata.schema_version}, expected {SCHEMA_VERSION}")
    widths, kinds = _vector_types(schema, name)
    expected = _schema(
        kinds["weights"], widths["weights"], kinds["parameters"], widths["parameters"]
    )
    if not schema.equals(expected, check_metadata=False):
        raise refuse(name, f"columns must be {_told(expected)}, got {_told(schema)}")
    _check_volume(file, widths, kinds["weights"].bit_width // 8, name)
    return file, metadata, widths["weights"], widths["parameters"]


def _vector_types(schema: pa.Schema, name: str) -> tuple[dict[str, int], dict[str, pa.DataType]]:
    """Widths and element types of weights and parameters."""
    widths: dict[str, int] = {}
    kinds: dict[str, pa.DataType] = {}
    allowed = {
        "weights": (pa.uint8(), pa.int32()),
        "parameters": (pa.float64(), pa.float32()),
    }
    for column, known in allowed.items():
        found = schema.get_field_index(column)
        kind = schema.field(found).type if found >= 0 else None
        if kind is None or not pa.types.is_fixed_size_list(kind):
            raise refuse(name, f"column {column} must be a list of fixed size, got {kind}")
        if kind.value_type not in known:
            either = " or ".join(map(_type_name, known))
            raise refuse(name, f"{column} must be {either}, got {kind.value_type}")
        widths[column], kinds[column] = kind.list_size, kind.value_type
    return widths, kinds


def _type_name(kind: pa.DataType) -> str:
    """The name that numpy has for it, too."""
    return str(np.dtype(kind.to_pandas_dtype()))


def _check_volume(
    file: pq.ParquetFile, widths: dict[str, int], weight_bytes: int, name: str
) -> None:
    """Refuses a file that claims to unpack to more than its rows can hold (levels and lengths included)."""
    rows = file.metadata.num_rows
    row_bytes = widths["weights"] * (weight_bytes + 4) + widths["parameters"] * 12 + 2048
    claimed = sum(
        file.metadata.row_group(group).total_byte_size
        for group in range(file.metadata.num_row_groups)
    )
    if rows < 1 or claimed > rows * row_bytes + 2**20:
        raise refuse(name, f"claims {rows} rows and {claimed} bytes unpacked")


def parse_shard(data: bytes, *, name: str) -> Shard:
    """The shard in the bytes of a Parquet file; `name` is what errors call it.

    Raises:
        CorruptShard: the bytes are not a shard of this schema, or contradict themselves.
    """
    file, metadata, points, parameters = _open_shard(data, name)
    try:
        table = file.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise refuse(name, f"cannot be unpacked ({first_line(error)})") from error
    if any(column.null_count for column in table.columns):
        raise refuse(name, "holds empty cells")

    def numbers(column: str) -> Tensor:
        return torch.from_numpy(table[column].to_numpy().copy())

    def matrix(column: str, width: int) -> Tensor:
        flat = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if flat.size != table.num_rows * width:
            raise refuse(name, f"column {column} has {flat.size} cells, not rows x {width}")
        return torch.from_numpy(flat.reshape(-1, width).copy())

    def words(column: str) -> tuple[str, ...]:
        return tuple(table[column].to_pylist())

    block = Subsets(
        ids=words("subset_id"),
        roles=words("role"),
        designs=words("design"),
        weights=matrix("weights", points),
    )
    trained = TrainedTargets(
        parameters=matrix("parameters", parameters),
        objective=numbers("objective"),
        gradient_norm=numbers("gradient_norm"),
        converged=numbers("converged"),
        degenerate=numbers("degenerate"),
        iterations=numbers("iterations"),
    )
    if why := _contradiction(block, trained, sizes=numbers("size")):
        raise refuse(name, why)
    return Shard(block=block, trained=trained, metadata=metadata)


def _contradiction(block: Subsets, trained: TrainedTargets, *, sizes: Tensor) -> str | None:
    if not torch.equal(block.sizes, sizes):
        return "sizes do not match the weights"
    if bool((block.weights < 0).any()):
        return "holds weights below 0"
    if not bool(torch.isfinite(trained.parameters[trained.converged]).all()):
        return "holds converged models whose parameters are not finite"
    return None


def first_line(error: Exception) -> str:
    """The first line of an error's message, short enough for a line of ours."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _told(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:600]
