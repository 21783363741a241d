"""Labels of a table as class indices or numbers."""

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from modelpred.dataset.cells import column_of
from modelpred.dataset.magnitudes import LARGEST_CELL, are_one
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput


def labels_of(
    table: Table,
) -> tuple[Int64[np.ndarray, " rows"] | Float64[np.ndarray, " rows"], tuple[str, ...]]:
    """Labels as class indices with the names of the classes, or as numbers without classes."""
    column = column_of(table.rows, table.label)
    if not table.classes:
        values = column.cast(pl.Float64)
        unusable = ~(values.is_finite().fill_null(False))  # noqa: FBT003 - polars' own signature
        if unusable.any():
            _refuse_cells(table, table.label, unusable, "missing or not finite")
        require_usable_labels(values.to_numpy(), what=f"the label {table.label!r} of {table.name}")
        return values.to_numpy(writable=True), ()

    if column.null_count():
        _refuse_cells(table, table.label, column.is_null(), "missing")
    names = column.cast(pl.String)
    present = set(names)
    classes = tuple(name for name in table.classes if name in present)
    if len(classes) < 2:
        raise InvalidInput(
            f"the label {table.label!r} of {table.name} has one class "
            f"({', '.join(map(repr, sorted(present)))} in all {len(names)} rows); "
            "a classifier needs at least two"
        )
    unknown = sorted(present - set(classes))
    if unknown:
        raise InvalidInput(
            f"the label {table.label!r} of {table.name} holds {unknown[0]!r}, "
            f"expected one of {', '.join(table.classes)}"
        )
    index = {name: position for position, name in enumerate(classes)}
    return np.array([index[name] for name in names], dtype=np.int64), classes


def require_usable_labels(labels: Float64[np.ndarray, " rows"], *, what: str) -> None:
    """Check that numbers to predict are not too large, and that no number makes all others equal.

    Raises:
        InvalidInput: the message has `what` and the number.
    """
    largest = float(labels[np.abs(labels).argmax()])
    unit = abs(largest) or 1.0
    spread = float((labels / unit).std()) * unit
    if abs(largest) > LARGEST_CELL or are_one(labels, spread):
        raise InvalidInput(
            f"{what} holds {largest:g}, too large to compute with beside the others; remove rows "
            "whose label stands for no value, or divide all labels by a constant"
        )


def _refuse_cells(table: Table, column: str, unusable: pl.Series, what: str) -> None:
    first = table.rows["row_id"].to_list()[unusable.to_list().index(True)]
    count = int(unusable.sum())
    raise InvalidInput(
        f"column {column!r} of {table.name} has {count} {what} value{'s'[: count > 1]} "
        f"(first in row {first}); fill or remove"
    )
