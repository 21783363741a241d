"""Tables become points: load, split, scale, write, read."""

from modelpred.dataset.files import read_dataset, write_dataset
from modelpred.dataset.preparation import (
    Dataset,
    DatasetConfig,
    Scaling,
    fit_scaling,
    prepare,
    prepare_table,
    seeded_generator,
)
from modelpred.dataset.tables import InvalidInput, Table, known_sources, load_table

__all__ = [
    "Dataset",
    "DatasetConfig",
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
    "write_dataset",
]
