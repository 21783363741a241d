"""The training table for the page: a description, and one column at a time."""

import json
from typing import Any

import numpy as np
import polars as pl

from modelpred.errors import InvalidInput
from modelpred.page.subject import Subject, shown_column

Column = tuple[str, bytes]
"""Media type and content."""


def description(subject: Subject) -> dict[str, Any]:
    """The table without its cells: columns, classes and row ids."""
    dataset, mp = subject.dataset, subject.mp
    labels = dataset.labels.tolist()
    scored = subject.scored_rows
    return {
        "name": subject.name,
        "table": dataset.fingerprint,
        "family": mp.model.name,
        "regression": subject.regression,
        "label": subject.label_name,
        "classes": list(dataset.classes),
        "ids": list(mp.row_ids),
        "labels": labels,
        "columns": [
            {"name": name, "kind": "number" if _is_number(subject.rows, name) else "text"}
            for name in subject.columns
        ],
        "needed": list(subject.needed_columns),
        "scored": {"on": subject.on, "ids": scored["row_id"].to_list()},
    }


def _is_number(rows: pl.DataFrame, name: str) -> bool:
    return shown_column(rows.head(1), name).dtype == pl.Float64


def column(subject: Subject, place: int) -> Column:
    """The cells of one column of the training rows.

    Numbers are float64 (little endian, nan for missing); texts are JSON with the different texts and
    the place of each row's text, -1 for missing.

    Raises:
        InvalidInput: there is no such column.
    """
    if not 0 <= place < len(subject.columns):
        raise InvalidInput(f"there is no column {place}; there are {len(subject.columns)}")
    cells = shown_column(subject.rows, subject.columns[place])
    if cells.dtype == pl.Float64:
        numbers = cells.fill_null(float("nan")).to_numpy()
        return "application/octet-stream", np.ascontiguousarray(numbers, dtype="<f8").tobytes()
    texts = cells.unique(maintain_order=True).drop_nulls().sort().to_list()
    places = {text: place for place, text in enumerate(texts)}
    codes = [-1 if cell is None else places[cell] for cell in cells]
    return "application/json", json.dumps({"texts": texts, "codes": codes}).encode()
