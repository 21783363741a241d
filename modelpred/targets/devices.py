"""Names of the devices that blocks are trained on: processor cores and GPUs."""

import os
import re

import torch

from modelpred.errors import InvalidInput

LONGEST_SHOWN = 200


def parse_devices(text: str) -> list[str]:
    """Return one name per worker: `auto`, `cpu`, `cpu:4`, `cuda` or `cuda:0,1` -> `["cpu:0", ...]` or `["cuda:0", ...]`.

    `auto` takes every GPU, or every processor core where there is no GPU; `cpu` takes every core.

    Raises:
        InvalidInput: not one of these forms, or a GPU that is not there.
    """
    wanted = text.strip().lower()
    matched = re.fullmatch(r"auto|(cpu)(?::(\d{1,4}))?|(cuda)(?::(\d{1,3}(?:,\d{1,3})*))?", wanted)
    if matched is None:
        raise InvalidInput(
            f"devices must be auto, cpu, cpu:N, cuda or cuda:0,1, got {text[:LONGEST_SHOWN]!r}"
        )
    cpu, count, cuda, listed = matched.groups()
    if cuda or (not cpu and torch.cuda.is_available()):
        return _gpus([int(index) for index in listed.split(",")] if listed else None, text)
    slots = int(count) if count else _cores()
    if slots < 1:
        raise InvalidInput(f"devices must name at least one worker, got {text!r}")
    return [f"cpu:{slot}" for slot in range(slots)]


def _gpus(listed: list[int] | None, text: str) -> list[str]:
    """Return `cuda:0`, ... of the listed GPUs, or of all; `text` is what the user wrote."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = list(range(there)) if listed is None else listed
    if not chosen or max(chosen) >= there:
        raise InvalidInput(f"devices {text!r} asks for a GPU that is not there: {there} found")
    if len(set(chosen)) < len(chosen):
        raise InvalidInput(f"devices {text!r} names a GPU twice")
    return [f"cuda:{index}" for index in chosen]


def _cores() -> int:
    """Return the number of cores that this process may use, which in a container are fewer than the machine has."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
