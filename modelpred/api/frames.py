"""Converts tables of pandas, pyarrow and polars to polars tables.

A column keeps its name and what it holds, and goes by that name. The row labels of pandas are names
of rows and never a column.
"""

import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import polars as pl

from modelpred.dataset.cells import Unusable, column_of, names_of, quoted
from modelpred.dataset.columns import inspect_columns
from modelpred.dataset.meanings import typed
from modelpred.errors import InvalidInput

log = logging.getLogger(__name__)

# Any: tables of pandas and pyarrow, which are imported only where a caller has them.
Table: TypeAlias = Any

_INDEX = re.compile(r"__index_level_\d+__")


def is_frame(table: Table) -> bool:
    """Whether the value is a table with named columns."""
    return isinstance(table, (pl.DataFrame, pl.LazyFrame)) or _is_a(
        table, {"pandas": ("DataFrame",), "pyarrow": ("Table", "RecordBatch")}
    )


def is_column(values: Table) -> bool:
    """Whether the value is a single typed column."""
    return (
        isinstance(values, pl.Series)
        or _is_a(values, {"pandas": ("Series", "Index"), "pyarrow": ("Array", "ChunkedArray")})
        or type(values).__module__.startswith("pandas.core.arrays")
    )


def _is_a(value: Table, kinds: dict[str, tuple[str, ...]]) -> bool:
    """Whether the value is an instance of these classes; does not import their libraries."""
    return any(
        isinstance(value, getattr(sys.modules[library], name))
        for library, names in kinds.items()
        if library in sys.modules
        for name in names
    )


def polars_frame(table: Table, *, what: str) -> tuple[pl.DataFrame, tuple[str, ...] | None]:
    """The table as a polars table, and the names of its rows or None.

    Raises:
        InvalidInput: a name of columns or rows that is missing or repeated, or a column that
            polars cannot hold.
    """
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if not isinstance(table, pl.DataFrame):
        if hasattr(table, "schema"):
            return _of_pyarrow(table, what=what)
        return _of_pandas(table, what=what)
    return _without_index(table, (), what=what)


def polars_column(values: Table, *, what: str) -> pl.Series:
    """A column as a polars series."""
    if isinstance(values, pl.Series):
        return values
    if hasattr(values, "cast") and not hasattr(values, "iloc"):
        return _converted(pl.Series, values, name="", what=what)
    import pandas as pd  # noqa: PLC0415 - the caller has it

    return _pandas_column(pd.Series(values), name="", what=what)


def named_row(values: Table) -> Table:
    """One row of pandas as a table, whose columns its index names; anything else as it is."""
    if not hasattr(values, "to_frame") or not hasattr(values, "iloc"):
        return values
    return values.to_frame().T.infer_objects()


def row_names(values: Table, *, what: str) -> tuple[str, ...] | None:
    """The row names in the index of a pandas table or column; None if it only counts the rows."""
    index = getattr(values, "index", None)
    if index is None or not _is_a(index, {"pandas": ("Index",)}):
        return None
    if _is_a(index, {"pandas": ("RangeIndex",)}) and (index.start, index.step) == (0, 1):
        return None
    labels = index.to_flat_index().tolist()
    if getattr(index, "nlevels", 1) > 1:
        return tuple(", ".join(map(str, label)) for label in labels)
    names = _names(index.to_series(), what=f"the index of {what}")
    return tuple(names)


def require_same_rows(table: Table, values: Table, *, what: str, of: str) -> None:
    """InvalidInput where both name the same rows, but in another order.

    Row numbers count as names: one of two tables of pandas may have been shuffled.
    """
    names, others = _names_or_numbers(table, what=of), _names_or_numbers(values, what=what)
    if names == others or names is None or others is None:
        return
    if Counter(names) == Counter(others):
        raise InvalidInput(
            f"the index of {what} names the rows of {of} in another order; put them in one order, "
            f"such as {what}.loc[{of}.index], or pass {what}.to_numpy() if they are in one order"
        )


def _names_or_numbers(values: Table, *, what: str) -> tuple[str, ...] | None:
    """The row names in the index of pandas, or the row numbers; None if there is no index."""
    names = row_names(values, what=what)
    index = getattr(values, "index", None)
    if names is not None or not _is_a(index, {"pandas": ("Index",)}):
        return names
    return tuple(map(str, range(len(values))))


def usable_columns(rows: pl.DataFrame, *, what: str) -> pl.DataFrame:
    """The columns that become features, by the rules for files.

    Text that is dates, or true and false, becomes that. A categorical column holds categories
    whatever it looks like. A column that is constant or
    repeats another is left out with a log message.

    Raises:
        InvalidInput: a column that must be mended first, such as ids or free text.
    """
    categories = [
        cells.name for cells in rows if isinstance(cells.dtype, (pl.Categorical, pl.Enum))
    ]
    converted_rows = pl.DataFrame(
        [
            typed(column_of(rows, name), category=name in categories).alias(name)
            for name in rows.columns
        ]
    )
    inspection = inspect_columns(
        converted_rows,
        converted_rows.columns,
        source=what,
        categories=categories,
        where=[f"row {row}" for row in range(len(rows))],
    )
    if inspection.problems:
        raise InvalidInput(_for_a_notebook(inspection.problems))
    for note in inspection.notes:
        log.warning("%s", note)
    if not inspection.columns:
        raise InvalidInput(f"{what} has no column to learn from; each is constant")
    return converted_rows[[column.name for column in inspection.columns]]


def _for_a_notebook(problems: Sequence[str]) -> str:
    """The first problem, with advice that does not refer to params.yaml."""
    problem = problems[0]
    for file_words, notebook_words in (
        (" (dataset.drop)", ""),
        (", or name it in dataset.categories", ", or make it categorical"),
        (", or say how they are written in dataset.dates", ", or convert them"),
    ):
        problem = problem.replace(file_words, notebook_words)
    problem = re.sub(
        r"or let it name the rows \(dataset\.row_id: .*?\)(?=$|, or)", "or pass it as ids=", problem
    )
    more = len(problems) - 1
    return problem + (f"; {more} more column{'s'[: more != 1]} must be mended" if more else "")


def _of_pandas(table: Table, *, what: str) -> tuple[pl.DataFrame, tuple[str, ...] | None]:
    names = [
        ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)
        for label in table.columns.tolist()
    ]
    _require_unique(names, what=what)
    columns = [
        _pandas_column(table.iloc[:, at], name=name, what=f"{what}: column {name!r}")
        for at, name in enumerate(names)
    ]
    frame, _ = _without_index(pl.DataFrame(columns), (), what=what)
    return frame, row_names(table, what=what)


def _pandas_column(cells: Table, *, name: str, what: str) -> pl.Series:
    kind = str(cells.dtype)
    if kind == "category":
        codes = pl.Series(cells.cat.codes.to_numpy(), dtype=pl.Int64)
        levels = _called(cells.cat.categories.to_series(), what=what)
        return levels.gather(codes.set(codes < 0, None)).cast(pl.Categorical).alias(name)
    if kind.startswith("interval"):  # pd.cut gives categories of intervals
        cells = cells.astype("string")
    elif kind.startswith("Sparse"):
        cells = cells.sparse.to_dense()
    elif kind == "float16":
        cells = cells.astype("float32")
    elif kind.startswith("complex"):
        raise InvalidInput(f"{what} holds {kind}, expected real numbers; pass its parts")
    plain = cells.reset_index(drop=True)
    return _converted(pl.from_pandas, plain, name=name, what=what)


def _of_pyarrow(table: Table, *, what: str) -> tuple[pl.DataFrame, tuple[str, ...] | None]:
    _require_unique(table.schema.names, what=what)
    metadata = table.schema.pandas_metadata or {}
    index = [name for name in metadata.get("index_columns", []) if isinstance(name, str)]
    frame = _converted(pl.DataFrame, table, name="", what=what)
    return _without_index(frame, index, what=what)


def _without_index(
    frame: pl.DataFrame, index: Sequence[str], *, what: str
) -> tuple[pl.DataFrame, tuple[str, ...] | None]:
    """The columns that are no index of pandas, and the rows' names where one column has them."""
    index = [name for name in frame.columns if name in index or _INDEX.fullmatch(name)]
    if not index:
        return frame, None
    names = None
    if len(index) == 1 and frame[index[0]].is_unique().all():
        names = tuple(_names(frame[index[0]], what=f"{what}: column {index[0]!r}"))
    else:
        log.warning("%s: %s is the index of a pandas table; left out", what, ", ".join(index))
    return frame[[name for name in frame.columns if name not in index]], names


def _called(cells: Table, *, what: str) -> pl.Series:
    """Names of rows or levels as text; null if missing."""
    if not isinstance(cells, pl.Series):
        cells = _pandas_column(cells, name="", what=what)
    try:
        return names_of(cells)
    except Unusable as error:
        raise InvalidInput(
            f"{what} holds {quoted(cells[error.row])}, expected {error.expected}"
        ) from error
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{what} holds {cells.dtype}, expected text or numbers") from error


def _names(cells: Table, *, what: str) -> pl.Series:
    """Names of all rows; InvalidInput if one is missing."""
    names = _called(cells, what=what)
    if names.null_count():
        first = names.is_null().to_list().index(True)
        raise InvalidInput(f"{what} misses the name of row {first}; fill it, or reset the index")
    return names


# Any: what builds it, of what, and what comes out differ.
def _converted(build: Callable[[Any], Any], values: Table, *, name: str, what: str) -> Any:  # noqa: ANN401
    """The values as a polars table or series; InvalidInput if polars has no such type."""
    import pyarrow as pa  # noqa: PLC0415 - the caller has it, or pandas brought it

    try:
        converted = build(values)
    except (
        pa.ArrowException,
        pl.exceptions.PolarsError,
        TypeError,
        ValueError,
        NotImplementedError,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise InvalidInput(
            f"{what} cannot be read ({reason}); give all its cells one type: numbers, text, true and "
            "false, or dates"
        ) from error
    return converted.alias(name) if isinstance(converted, pl.Series) else converted


def _require_unique(names: Sequence[str], *, what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidInput(
            f"{what} has {names.count(twice[0])} columns called {twice[0]!r}; rename them"
        )
