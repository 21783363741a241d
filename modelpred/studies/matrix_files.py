"""Matrices from outside, such as attributions [test rows, points], in files of five kinds.

Byte order, layout and type of numbers do not matter: the result is float64 in rows. Nothing is unpickled, and a file
is read only as far as its own size, whatever its header says.
"""

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.sealed import parse_table, read_file, refuse

AGAIN = "write it again as a matrix of numbers [test rows, training rows]"
NUMBERS = "biuf"  # kinds of NumPy's dtypes: booleans, whole numbers, floats
_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_matrix(path: Path) -> Float64[np.ndarray, "..."]:
    """Return the array of numbers in a .npy, .csv, .parquet, .pt or .safetensors file.

    Columns of a table are points. A .pt or .safetensors file holds one matrix, alone or under any name.

    Raises:
        InvalidInput: no such file, another kind of file, or no array of numbers.
    """
    readers = {
        ".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet,
        ".pt": _read_torch, ".safetensors": _read_safetensors,
    }  # fmt: skip
    if path.suffix not in readers:
        known = ", ".join(readers)
        raise InvalidInput(f"{path} is no attribution; expected a file that ends in {known}")
    return readers[path.suffix](read_file(path, again=AGAIN), path)


def in_rows(array: NDArray[Any]) -> Float64[np.ndarray, "..."]:
    """Return a copy of the array as float64 in this machine's byte order, contiguous in rows.

    Raises:
        TypeError: it holds no numbers.
    """
    if array.dtype.kind not in NUMBERS:
        raise TypeError(f"its type is {array.dtype}, which is no number")
    with np.errstate(over="ignore"):  # infinities of wider floats are refused as not finite
        return np.array(array, dtype=np.float64, order="C")


def _read_npy(content: bytes, path: Path) -> Float64[np.ndarray, "..."]:
    file = io.BytesIO(content)
    try:
        shape, by_columns, kind = _HEADERS[np.lib.format.read_magic(file)](file)
    except KeyError as error:
        raise refuse(path, "it is of another version of the format", again=AGAIN) from error
    # The header is a literal of Python, which numpy parses as one.
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise refuse(path, f"it is no .npy file ({error})", again=AGAIN) from error
    size, left = math.prod(shape), len(content) - file.tell()
    if kind.kind not in NUMBERS:
        raise refuse(path, f"it holds {kind}, which is no number", again=AGAIN)
    if min(shape, default=1) < 1 or size * kind.itemsize != left:
        why = f"its header says {list(shape)} of {kind}, and {left:,} bytes follow"
        raise refuse(path, why, again=AGAIN)
    flat = np.frombuffer(content, dtype=kind, offset=file.tell())
    return in_rows(flat.reshape(shape, order="F" if by_columns else "C"))


def _read_csv(content: bytes, path: Path) -> Float64[np.ndarray, "..."]:
    try:
        return _numbers(pl.read_csv(content, infer_schema=False))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise refuse(path, f"it holds no matrix of numbers ({error})", again=AGAIN) from error


def _read_parquet(content: bytes, path: Path) -> Float64[np.ndarray, "..."]:
    try:
        return _numbers(parse_table(content, path, again=AGAIN))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise refuse(path, f"it holds no matrix of numbers ({error})", again=AGAIN) from error


def _numbers(table: pl.DataFrame) -> Float64[np.ndarray, "..."]:
    return in_rows(table.cast(pl.Float64).to_numpy())


def _read_torch(content: bytes, path: Path) -> Float64[np.ndarray, "..."]:
    try:  # tensors only: torch builds nothing else, and runs no code of the file
        found = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # what torch raises for a damaged file is not documented
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise refuse(path, f"it holds no matrix of numbers ({reason})", again=AGAIN) from error
    return _only(found, path)


def _read_safetensors(content: bytes, path: Path) -> Float64[np.ndarray, "..."]:
    try:
        found = load(content)
    except SafetensorError as error:
        raise refuse(path, f"it holds no matrix of numbers ({error})", again=AGAIN) from error
    return _only(found, path)


def _only(found: object, path: Path) -> Float64[np.ndarray, "..."]:
    """The one tensor there is."""
    if isinstance(found, Mapping):
        entries = cast("Mapping[str, object]", found)
        if len(entries) != 1:
            names = ", ".join(map(str, list(entries)[:5]))
            why = f"expected one matrix, got {len(entries)} entries ({names})"
            raise refuse(path, why, again=AGAIN)
        (found,) = entries.values()
    if not isinstance(found, Tensor) or found.is_complex():
        raise refuse(path, "it holds no matrix of numbers", again=AGAIN)
    return in_rows(found.detach().to(torch.float64).numpy())
