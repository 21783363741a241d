"""Rows of tables by their position: the training rows first, then rows that came later.

An estimator may take a table of any kind (a frame of pandas or polars, a sparse matrix, an array of
texts), so rows are not numbers here. Where the package expects features, a row is its position.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput

Table: TypeAlias = Any  # an array, a sparse matrix, or a frame of pandas or polars
Positions: TypeAlias = NDArray[np.int64]


class KnownRows:
    """Tables of one kind, one after another; a table with the same content is stored once.

    Args:
        table: the training rows, which have the positions 0, 1, ...
    """

    def __init__(self, table: Table) -> None:
        self._parts: list[Table] = []
        self._starts: list[int] = [0]
        self._places: dict[str, int] = {}
        self.positions(table, what="X")

    def __len__(self) -> int:
        """How many rows there are."""
        return self._starts[-1]

    def positions(self, table: Table, *, what: str) -> Positions:
        """Positions of these rows, which are stored if they are new.

        Raises:
            InvalidInput: the table cannot be read as the first one.
        """
        if self._parts:
            table = _like(self._parts[0], table, what=what)
        from joblib import hash as content_hash  # noqa: PLC0415 - slow to import

        digest = str(content_hash(table))
        if digest not in self._places:
            self._places[digest] = len(self._parts)
            self._parts.append(table.tocsr() if hasattr(table, "tocsr") else table)
            self._starts.append(len(self) + table.shape[0])
        part = self._places[digest]
        return np.arange(self._starts[part], self._starts[part + 1])

    def take(self, positions: Positions) -> Table:
        """The rows at these positions, as one table."""
        parts = np.searchsorted(self._starts, positions, side="right") - 1
        found = np.unique(parts)
        pieces = [
            take_rows(self._parts[part], positions[parts == part] - self._starts[part])
            for part in found
        ]
        if len(pieces) == 1:
            return pieces[0]
        order = np.argsort(parts, kind="stable")  # of the joined rows
        return take_rows(_joined(pieces), np.argsort(order, kind="stable"))


def take_rows(table: Table, rows: Positions) -> Table:
    """Some rows of a table."""
    return table.iloc[rows] if hasattr(table, "iloc") else table[rows]


def _joined(pieces: list[Table]) -> Table:
    if hasattr(pieces[0], "iloc"):
        import pandas as pd  # noqa: PLC0415 - the caller has it

        return pd.concat(pieces, ignore_index=True)
    if hasattr(pieces[0], "vstack"):
        import polars as pl  # noqa: PLC0415 - the caller has it

        return pl.concat(pieces)
    if hasattr(pieces[0], "tocsr"):
        from scipy.sparse import vstack  # noqa: PLC0415 - the caller has it

        return vstack(pieces, format="csr")
    return np.concatenate(pieces)


def _like(first: Table, table: Table, *, what: str) -> Table:
    """The table as the kind of the first one, with its types of columns."""
    try:
        return _as_kind(first, table)
    except (TypeError, ValueError) as error:
        message = " ".join(str(error).split())[:200]
        raise InvalidInput(
            f"{what} cannot be read as the table of the fit ({message}); pass columns of the same types"
        ) from error


def _as_kind(first: Table, table: Table) -> Table:
    if hasattr(first, "iloc"):
        import pandas as pd  # noqa: PLC0415 - the caller has it

        frame = table if hasattr(table, "iloc") else pd.DataFrame(table, columns=first.columns)
        return frame.astype(first.dtypes.to_dict())
    if hasattr(first, "vstack"):
        import polars as pl  # noqa: PLC0415 - the caller has it

        frame = table if isinstance(table, pl.DataFrame) else pl.DataFrame(np.asarray(table))
        return frame.rename(dict(zip(frame.columns, first.columns, strict=True))).cast(first.schema)
    if hasattr(first, "tocsr"):
        return type(first)(table)
    dense = table.toarray() if hasattr(table, "toarray") else np.asarray(table)
    return dense.astype(first.dtype) if first.dtype.kind in "biuf" else dense
