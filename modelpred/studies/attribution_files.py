"""Attribution matrices in files: which file, which order of the axes, which sign.

Libraries write [test rows, training rows] (captum, kronfluence, quanda) or [training rows, test
rows] (dattri, TRAK, pyDVL). The shape tells them apart, unless there are as many test rows as
training rows.
"""

import pickle  # noqa: TID251 - only the name of the error that torch.load raises
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modelpred.errors import InvalidInput

Order = Literal["test-train", "train-test"]


def read_attribution(path: Path) -> NDArray[Any]:
    """Read a matrix from a .npy, .pt, .safetensors, .csv or .parquet file; no code in it is run.

    A .pt or .safetensors file holds one matrix, alone or under any name.

    Raises:
        InvalidInput: the file does not exist, has another type, or is not a matrix of numbers.
    """
    readers = {
        ".npy": _read_npy,
        ".pt": _read_torch,
        ".safetensors": _read_safetensors,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    if path.suffix not in readers:
        known = ", ".join(readers)
        raise InvalidInput(f"{path} is not an attribution; expected a file that ends in {known}")
    if not path.is_file():
        raise InvalidInput(f"{path} is missing")
    try:
        return readers[path.suffix](path)
    except (
        pl.exceptions.PolarsError,
        ValueError,
        TypeError,
        OSError,
        EOFError,
        RuntimeError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInput(f"{path} is not a matrix of numbers: {reason}") from error


def oriented(
    matrix: Tensor | NDArray[Any], *, tests: int, points: int, order: Order | None, name: str
) -> Tensor:
    """The matrix as [test rows, points].

    Args:
        matrix: in either order.
        tests: number of test rows.
        points: number of training rows.
        order: of the axes; None tells it from the shape.
        name: name of the attribution.

    Raises:
        InvalidInput: the shape is neither, or does not tell the order.
    """
    values = torch.as_tensor(matrix)
    shape, expected = list(values.shape), [tests, points]
    if order is None and shape == expected and tests == points:
        raise InvalidInput(
            f"attribution {name!r} is square, so that its shape does not tell the order of its axes; "
            "pass --order test-train (captum, kronfluence, quanda) or train-test (dattri, TRAK, pyDVL)"
        )
    turned = order == "train-test" or (order is None and shape == expected[::-1])
    values = values.T if turned and values.ndim == 2 else values
    if list(values.shape) != expected:
        wanted = expected[::-1] if order == "train-test" else expected
        both = f" or {expected[::-1]}" if order is None else ""
        raise InvalidInput(f"attribution {name!r} has shape {shape}, expected {wanted}{both}")
    return values


def sign_note(row: Mapping[str, Any]) -> str | None:
    """What to say of a row of the table `lds` whose ranks are the other way round; None if not."""
    high = row["high"]
    if high is None or not high < 0:
        return None
    return (
        f"{row['method']}: the sign is the other way round; with -1 times the matrix its LDS is "
        f"{-row['lds']:.3f}. A positive entry must mean that the training row raises the margin of "
        "the test row, not its loss."
    )


def _read_npy(path: Path) -> NDArray[Any]:
    return np.load(path, allow_pickle=False)


def _read_torch(path: Path) -> NDArray[Any]:
    return _only(torch.load(path, weights_only=True, map_location="cpu"))


def _read_safetensors(path: Path) -> NDArray[Any]:
    return _only(load_file(path))


def _only(found: Any) -> NDArray[Any]:  # noqa: ANN401 - whatever a file holds
    """The one matrix there is."""
    if isinstance(found, Mapping):
        if len(found) != 1:
            names = ", ".join(map(str, list(found)[:5]))
            raise ValueError(f"expected one matrix, got {len(found)} entries ({names})")
        (found,) = found.values()
    if not isinstance(found, Tensor):
        raise TypeError(f"expected one matrix, got {type(found).__name__}")
    return found.detach().to(torch.float64).numpy()


def _read_csv(path: Path) -> NDArray[Any]:
    return pl.read_csv(path, glob=False).cast(pl.Float64).to_numpy()


def _read_parquet(path: Path) -> NDArray[Any]:
    return pl.read_parquet(path, glob=False).cast(pl.Float64).to_numpy()
