"""Rows that a torch module takes: one tensor, or a dict of tensors by the names of its arguments."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.estimators.preprocessing import Table

Rows: TypeAlias = "Tensor | dict[str, Tensor]"


def tensor_rows(table: Table, *, like: Tensor, what: str) -> Rows:
    """Rows as tensors, floating numbers in the type of `like`.

    Raises:
        InvalidInput: other things than numbers, no rows, or inputs of different length.
    """
    if isinstance(table, Mapping):
        found = {str(name): _one_tensor(each, like=like, what=what) for name, each in table.items()}
        if len({len(each) for each in found.values()}) != 1:
            counts = {name: len(each) for name, each in found.items()}
            raise InvalidInput(f"{what} has inputs of different length ({counts}); pass a row each")
        return found
    return _one_tensor(table, like=like, what=what)


def _one_tensor(table: Table, *, like: Tensor, what: str) -> Tensor:
    try:
        rows = table.detach() if isinstance(table, Tensor) else torch.as_tensor(np.array(table))
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{what} holds other things than numbers ({error}); pass a tensor, an array, or a dict "
            "of them by the module's argument"
        ) from error
    if rows.ndim < 1 or not len(rows):
        raise InvalidInput(f"{what} has shape {list(rows.shape)}; expected one or more rows")
    return rows.to(like.dtype) if rows.is_floating_point() else rows


def row_count(rows: Rows) -> int:
    """The number of rows."""
    return len(next(iter(named_inputs(rows).values())))


def named_inputs(rows: Rows) -> dict[str, Tensor]:
    """The tensors by their names; a single one is `input`."""
    return rows if isinstance(rows, dict) else {"input": rows}


def part_of(rows: Rows, part: slice) -> Rows:
    """Some of the rows."""
    return (
        {name: each[part] for name, each in rows.items()} if isinstance(rows, dict) else rows[part]
    )


def moved_to(rows: Rows, device: torch.device) -> Rows:
    """The rows on a device."""
    if isinstance(rows, dict):
        return {name: each.to(device) for name, each in rows.items()}
    return rows.to(device)
