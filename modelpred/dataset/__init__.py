"""Data sets: load, encode, split, scale, write and read tables.

Names are imported when they are first used, so that inspecting a table does not import torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelpred.dataset.config import DatasetConfig
    from modelpred.dataset.encoding import Encoding
    from modelpred.dataset.files import read_dataset, write_dataset
    from modelpred.dataset.preparation import (
        Dataset,
        prepare,
        prepare_table,
    )
    from modelpred.dataset.scaling import Scaling, fit_scaling
    from modelpred.dataset.seeds import seeded_generator
    from modelpred.dataset.sources import known_sources, load_table, source_table
    from modelpred.dataset.tables import Table
    from modelpred.errors import InvalidInput

__all__ = [
    "Dataset",
    "DatasetConfig",
    "Encoding",
    "InvalidInput",
    "Scaling",
    "Table",
    "fit_scaling",
    "known_sources",
    "load_table",
    "prepare",
    "prepare_table",
    "read_dataset",
    "seeded_generator",
    "source_table",
    "write_dataset",
]

_MODULES = {
    "config": ("DatasetConfig",),
    "encoding": ("Encoding",),
    "files": ("read_dataset", "write_dataset"),
    "preparation": ("Dataset", "prepare", "prepare_table"),
    "scaling": ("Scaling", "fit_scaling"),
    "seeds": ("seeded_generator",),
    "sources": ("known_sources", "load_table", "source_table"),
    "tables": ("InvalidInput", "Table"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"modelpred.dataset.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
