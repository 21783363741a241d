"""The compiled kernels, and how Python calls them."""

import ctypes
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import Tensor

LANES = 16  # numbers of float32 in the widest vector: rows are widened to a multiple of it

VERSION = 3  # of what kernels and Python hand each other; also in newton.c

# What torch calls the processor's vectors, and the kernels that it can run, best first.
KINDS = {"AVX512": ("avx512", "avx2", "plain"), "AVX2": ("avx2", "plain")}


def kinds() -> tuple[str, ...]:
    """The kernels that this processor can run, best first, whether or not they were built."""
    return KINDS.get(torch.backends.cpu.get_cpu_capability(), ("plain",))


def loaded(kind: str) -> ctypes.CDLL | None:
    """The kernels of that kind, or None if they were not built from this source."""
    for folder in _folders():
        for suffix in EXTENSION_SUFFIXES:
            path = folder / f"kernels_{kind}{suffix}"
            # Those of an older source lie there when a later installation could not compile.
            if path.exists() and (found := ctypes.CDLL(str(path))).modelpred_version() == VERSION:
                return found
    return None


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


class Shared(ctypes.Structure):
    """What all subsets share, as a kernel reads it; each is a struct of the same name in C."""

    def __init__(self, *values: int | float) -> None:
        super().__init__(*values)
        self._kept: dict[str, Tensor] = {}

    def keep(self, **tensors: Tensor) -> None:
        """Point the fields at these tensors, which live as long as this does."""
        for name, tensor in tensors.items():
            self._kept[name] = tensor.contiguous()
            setattr(self, name, self._kept[name].data_ptr())

    def call(self, name: str, *arguments: Tensor | int | float | None) -> None:
        """Run a kernel on this and these arguments; tensors must be contiguous.

        Raises:
            MemoryError: there is no room for a subset.
        """
        kernels = library()
        assert kernels is not None
        if getattr(kernels, name)(ctypes.byref(self), *(_as_c(each) for each in arguments)):
            raise MemoryError(f"{name} found no memory to train a subset in")


def _as_c(argument: Tensor | int | float | None) -> Any:  # noqa: ANN401 - as ctypes has them
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return None if argument is None else ctypes.c_int64(argument)


def widened(length: int) -> int:
    """The next multiple of LANES."""
    return -(-length // LANES) * LANES
