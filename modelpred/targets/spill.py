"""Tensors that may be larger than the machine's memory: room for them, and rows taken out of them.

An array of up to `LARGEST` bytes is in memory. A larger one is in an unlinked temporary file that
is mapped into memory: the system keeps as many of its pages as it has memory to spare, and gives
its disk space back when the last tensor over it goes. The folder is that of temporary files
(TMPDIR); one that is itself in memory gains nothing.
"""

import math
import os
import tempfile

import numpy as np
import torch
from torch import Tensor

LARGEST = 2**26
BLOCK_BYTES = 2**24  # copied at once


def allocate(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of that shape with any content, in memory or, if it is large, in a file.

    Raises:
        OSError: there is no space for the file.
    """
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    if math.prod(shape) * kind.itemsize <= LARGEST:
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(prefix="modelpred-") as file:
        # Without space this is an error; the mapping would only crash when a page is first used.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * kind.itemsize)
        # The mapping outlives the file's handle; numpy's memmap keeps it as long as the tensor.
        return torch.from_numpy(np.memmap(file, dtype=kind, mode="r+", shape=shape))


def gather_rows(table: Tensor, rows: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Rows of a table in another type if asked, copied block by block into a room.

    The table itself if that is what was asked for.

    Args:
        table: [rows, ...].
        rows: positions, or which are taken as [rows] of bool.
        dtype: of the result; default: the table's.
    """
    dtype = table.dtype if dtype is None else dtype
    if rows.dtype == torch.bool:
        if bool(rows.all()) and dtype == table.dtype:
            return table
        rows = rows.nonzero()[:, 0]
    if table.device.type != "cpu":
        return table[rows].to(dtype)
    found = allocate((len(rows), *table.shape[1:]), dtype)
    each = max(1, table[:1].numel() * table.element_size())
    step = max(1, BLOCK_BYTES // each)
    for part, into in zip(rows.split(step), found.split(step), strict=True):
        into.copy_(table[part])
    return found
