"""The compiled kernels, and how Python calls them."""

import ctypes
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import Tensor

from modelpred.errors import InvalidInput

LANES = 16  # numbers of float32 in the widest vector: rows are widened to a multiple of it

VERSION = 4  # of what kernels and Python hand each other; also in newton.c

# What torch calls the processor's vectors, and the kernels that it can run, best first.
KINDS = {"AVX512": ("avx512", "avx2", "plain"), "AVX2": ("avx2", "plain")}


def kinds() -> tuple[str, ...]:
    """The kernels that this processor can run, best first, whether or not they were built."""
    return KINDS.get(torch.backends.cpu.get_cpu_capability(), ("plain",))


@cache
def source_digest() -> str:
    """The SHA-256, in hex, of the kernels' sources: what they compute follows from these."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def loaded(kind: str) -> ctypes.CDLL | None:
    """The kernels of that kind, or None if they were not built from this source."""
    for folder in _folders():
        # Those of an older source remain when a later installation could not compile.
        for path in sorted(folder.glob(f"kernels_{kind}.*"), key=_written, reverse=True):
            if (found := ctypes.CDLL(str(path))).modelpred_version() == VERSION:
                return found
    return None


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _folders() -> Iterator[Path]:
    """Where kernels may lie: beside this file, or where this package was installed from.

    A copy of the code, such as the one that an experiment of DVC runs in, has no compiled files.
    """
    yield Path(__file__).parent
    with suppress(PackageNotFoundError):
        installed = distribution("modelpred")
        yield Path(str(installed.locate_file("modelpred/targets/compiled")))
        if (text := installed.read_text("direct_url.json")) is not None:
            address = urlsplit(json.loads(text)["url"])
            if address.scheme == "file":
                yield Path(url2pathname(address.path)) / "modelpred" / "targets" / "compiled"


@cache
def library() -> ctypes.CDLL | None:
    """The best kernels for this processor, or None if none were built."""
    return next((found for kind in kinds() if (found := loaded(kind)) is not None), None)


Memory = tuple[torch.dtype, tuple[str, ...]]  # of numbers, and the names of its axes


class Shared(ctypes.Structure):
    """What all subsets share, as a kernel reads it; each is a struct of the same name in C.

    Attributes:
        tensors: what each field that points at memory must point at.
    """

    tensors: ClassVar[dict[str, Memory]]

    def __init__(self, *values: int | float) -> None:
        super().__init__(*values)
        self._kept: dict[str, Tensor] = {}

    def axes(self) -> dict[str, int]:
        """The length of each axis that tensors may have."""
        return {
            name: getattr(self, name) for name, kind, *_ in self._fields_ if kind is ctypes.c_int64
        }

    def keep(self, **tensors: Tensor) -> None:
        """Point the fields at these tensors, which live as long as this does.

        Raises:
            InvalidInput: a tensor is not what the kernel would read there.
        """
        axes = self.axes()
        for name, tensor in tensors.items():
            kept = tensor.contiguous()
            check(name, kept, self.tensors[name], axes)
            self._kept[name] = kept
            setattr(self, name, kept.data_ptr())

    def call(
        self,
        name: str,
        signature: Mapping[str, Memory],
        **arguments: Tensor | int | float | None,
    ) -> None:
        """Run a kernel on this struct and these arguments, in the order of the function in C.

        Args:
            name: of the function.
            signature: what each tensor must be, by its name.
            arguments: tensors, or None for a null pointer, and numbers; `subsets` is an axis.

        Raises:
            InvalidInput: a tensor is not what the kernel would read or write there.
            MemoryError: there is no room for a subset.
        """
        kernels = library()
        assert kernels is not None
        axes = {**self.axes(), "subsets": int(arguments.get("subsets") or 0)}
        values: list[ctypes.c_void_p | ctypes.c_double | ctypes.c_int64] = []
        for each, argument in arguments.items():
            if isinstance(argument, Tensor):
                check(each, argument, signature[each], axes)
                values.append(ctypes.c_void_p(argument.data_ptr()))
            elif argument is None:
                values.append(ctypes.c_void_p())
            else:
                kind = ctypes.c_double if isinstance(argument, float) else ctypes.c_int64
                values.append(kind(argument))  # pyright: ignore[reportArgumentType]
        if getattr(kernels, name)(ctypes.byref(self), *values):
            raise MemoryError(f"{name} found no memory to train a subset in")


def check(name: str, tensor: Tensor, memory: Memory, axes: Mapping[str, int]) -> None:
    """Refuse a tensor that C would read or write wrongly: C sees an address and believes it."""
    dtype, names = memory
    shape = [axes[each] for each in names]
    fits = tensor.dtype == dtype and list(tensor.shape) == shape and tensor.device.type == "cpu"
    if not (fits and tensor.is_contiguous()):
        order = "" if tensor.is_contiguous() else ", not contiguous"
        raise InvalidInput(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}{order}; the kernels "
            f"expect {dtype} {shape} on the cpu, contiguous: convert it first"
        )


def widened(length: int) -> int:
    """The next multiple of LANES."""
    return -(-length // LANES) * LANES
