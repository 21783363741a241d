"""The rows as the caller gave them: original cells beside results, and the table without some rows or with new labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from modelpred.api.files import Fitted
from modelpred.api.forgetting import Given
from modelpred.api.frames import is_frame, polars_frame
from modelpred.api.inputs import RowNames, positions_of
from modelpred.api.suspects import Suspects
from modelpred.errors import InvalidInput

SUGGESTED = "suggested"


def original_cells(fitted: Fitted, given: Given | None) -> pl.DataFrame:
    """Return the columns of the training rows, without ids and labels.

    Args:
        fitted: the fit.
        given: what the fit of an estimator was given; None where the fit keeps the table itself.

    Raises:
        InvalidInput: the rows are no table, such as images.
    """
    if given is None:
        return fitted.dataset.rows.select(fitted.dataset.column_names)
    table = given.table
    if is_frame(table):
        return polars_frame(table, what="X")[0]
    array = table.toarray() if hasattr(table, "toarray") else np.asarray(table)
    if array.ndim == 1 and array.dtype != object:
        return pl.DataFrame({"text": array})
    if array.ndim == 1:
        return pl.DataFrame({"text": array.tolist()})
    if array.ndim != 2:
        raise InvalidInput(f"the rows have shape {list(array.shape)}, which is no table of cells")
    return pl.DataFrame(array, schema=[f"x{column}" for column in range(array.shape[1])])


def beside(table: pl.DataFrame, cells: pl.DataFrame, row_ids: tuple[str, ...]) -> pl.DataFrame:
    """Return the table with the original cells of its rows at the right, of the same class.

    Args:
        table: has a column row_id; rows that are no training rows get null.
        cells: of all training rows; a column that the table has, too, is called `name (cell)`.
        row_ids: of all training rows.
    """
    renamed = {name: f"{name} (cell)" for name in cells.columns if name in table.columns}
    keyed = cells.rename(renamed).insert_column(0, pl.Series("row_id", row_ids, dtype=pl.String))
    return type(table)(table.join(keyed, on="row_id", how="left", maintain_order="left"))


def cleaned_table(
    fitted: Fitted,
    cells: pl.DataFrame,
    *,
    drop: RowNames | None,
    relabel: Mapping[Any, Any] | pl.DataFrame | Suspects | None,
) -> pl.DataFrame:
    """Return row_id, the original cells and the label of the rows that stay, with new labels.

    Args:
        fitted: the fit.
        cells: of all training rows.
        drop: rows to leave out, by position or id, or a table with row_id.
        relabel: new labels by position or id, or a table with row_id and suggested.

    Raises:
        InvalidInput: unknown rows, a row in both, or a label of another class.
    """
    row_ids, labels = fitted.problem.row_ids, fitted.reading.labels
    gone = positions_of(_ids(drop), row_ids) if drop is not None else []
    new = _new_labels(relabel)
    changed = positions_of(list(new), row_ids) if new else []
    both = set(gone) & set(changed)
    if both:
        raise InvalidInput(
            f"row {row_ids[min(both)]!r} is to be dropped and relabelled; name it once"
        )
    encoded = fitted.problem.points.labels.clone()
    if changed:
        encoded[changed] = labels.encode(list(new.values()), what="relabel", rows=len(changed))
    name = fitted.dataset.label_name
    while name in cells.columns:
        name += "_"
    table = cells.insert_column(0, pl.Series("row_id", row_ids, dtype=pl.String)).with_columns(
        pl.Series(name, labels.decode(encoded))
    )
    remaining = np.ones(len(row_ids), dtype=np.bool_)
    remaining[gone] = False
    return table.filter(pl.Series(remaining))


def _ids(rows: RowNames) -> RowNames:
    """Ids of a table of rows; other names of rows as they are."""
    table = rows.rows if isinstance(rows, Suspects) else rows
    return table["row_id"].to_list() if isinstance(table, pl.DataFrame) else table


def _new_labels(relabel: Mapping[Any, Any] | pl.DataFrame | Suspects | None) -> dict[Any, Any]:
    table = relabel.rows if isinstance(relabel, Suspects) else relabel
    if not isinstance(table, pl.DataFrame):
        return dict(table or {})
    if not {"row_id", SUGGESTED} <= set(table.columns):
        raise InvalidInput("relabel has no columns row_id and suggested; pass {id: label}")
    return dict(table.select("row_id", SUGGESTED).iter_rows())
