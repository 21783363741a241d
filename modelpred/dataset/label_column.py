"""The label of a user's table: classes or numbers, or the reason why it is neither."""

from collections.abc import Sequence

import polars as pl

from modelpred.dataset.cells import TRUTHS, WORDS, column_of, quoted
from modelpred.dataset.meanings import PADDED, WHOLE
from modelpred.dataset.splitting import MOST_CLASSES
from modelpred.errors import InvalidInput

FEW_NUMBERS = 20  # different whole numbers up to which a label is a class


def with_label(rows: pl.DataFrame, label: str, source: str, where: Sequence[str]) -> pl.DataFrame:
    """Return the rows with the label as classes or as floating-point numbers.

    Text, true and false, and up to FEW_NUMBERS different whole numbers are classes.
    """
    cells = column_of(rows, label)
    kind = cells.dtype
    if kind.is_float():
        infinite = cells.is_infinite()
        if infinite.any():
            first = infinite.to_list().index(True)
            raise InvalidInput(
                f"{source}: the label {label!r} is {cells[first]} in {where[first]}; mend or remove"
            )
    elif kind.is_integer() and cells.n_unique() > FEW_NUMBERS:
        return rows.with_columns(cells.cast(pl.Float64).alias(label))
    return rows


def class_names(cells: pl.Series, label: str, source: str) -> tuple[str, ...]:
    """Return the names of the classes of the rows, sorted; none for numbers."""
    if cells.dtype.is_float():
        return ()
    require_label_type(label, cells, source)
    _require_repeated(label, cells, source)
    classes = tuple(cells.unique().sort().cast(pl.String).to_list())
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(
            f"{source}: the label {label!r} has {len(classes):,} classes in {len(cells):,} rows, "
            f"expected {MOST_CLASSES} at most; name another column as dataset.label"
        )
    if len(classes) < 2:
        raise InvalidInput(
            f"{source}: the label {label!r} is {quoted(str(cells[0]))} in every row; a classifier needs at "
            "least two classes"
        )
    return classes


def _require_repeated(label: str, cells: pl.Series, source: str) -> None:
    """Refuse texts that are no classes: large whole numbers, and names that differ in all rows."""
    if cells.dtype != pl.String or cells.n_unique() <= FEW_NUMBERS:
        return
    count = cells.n_unique()
    if cells.str.contains(WHOLE).all() and not cells.str.contains(PADDED).any():
        raise InvalidInput(
            f"{source}: the label {label!r} holds {count:,} different whole numbers, some beyond 2^53, where "
            "a number is not exact; divide them by a constant, or name another column as dataset.label"
        )
    if count == len(cells):
        raise InvalidInput(
            f"{source}: the label {label!r} holds another text in each of the {count:,} rows; each class "
            "needs more than one row, so name another column as dataset.label"
        )


def require_label_type(label: str, cells: pl.Series, source: str) -> None:
    """Refuse columns that hold neither text, numbers nor truth values."""
    kind = cells.dtype
    if not (kind.is_numeric() or kind in (*WORDS, *TRUTHS)):
        raise InvalidInput(
            f"{source}: the label {label!r} holds {kind}, expected text, numbers, or true and false"
        )
