"""Preprocessing of a pipeline, fitted once on all rows; what comes out are the features.

Subsets of the rows share its constants (means of a StandardScaler, levels of a OneHotEncoder), as they
share the scaling of a ModelPred without a pipeline.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.mapping import Estimator, unfitted

Table: TypeAlias = Any  # an array, a sparse matrix, or a frame of pandas, polars or pyarrow


@dataclass(frozen=True)
class Preprocessing:
    """Fitted steps before the last one of a pipeline.

    Attributes:
        steps: a fitted Pipeline; None where the estimator takes the table as it is.
        columns: what the table of the fit called its columns; None where it did not.
        count: how many columns it had.
        names: what the features are called.
    """

    steps: Estimator | None
    columns: tuple[str, ...] | None
    count: int
    names: tuple[str, ...]

    def __call__(self, table: Table, *, what: str) -> NDArray[np.float64]:
        """Features [rows, features] of rows with the columns of the fit, which go by name.

        Raises:
            InvalidInput: other columns than those of the fit, or cells that are no numbers.
        """
        found = self.transformed(table, what=what)
        return numbers(found, what=what if self.steps is None else f"{what} after preprocessing")

    def transformed(self, table: Table, *, what: str) -> Table:
        """The rows as input of the last estimator, of any type.

        Raises:
            InvalidInput: other columns than those of the fit, or a step fails.
        """
        rows = self._rows(plain_table(table), what=what)
        if self.steps is None:
            return rows
        try:
            return self.steps.transform(rows)
        except (ValueError, TypeError, KeyError) as error:
            raise _failed(error, what=what) from error

    def _rows(self, table: Table, *, what: str) -> Table:
        ordered = in_order(table, self.columns, what=what)
        if ordered is not None:
            return ordered
        width = _width(table)
        if width != self.count:
            raise InvalidInput(
                f"{what} has {width} columns but the fit had {self.count}; pass the same columns"
            )
        if self.columns is not None and self.steps is not None:
            import pandas as pd  # noqa: PLC0415 - read only where columns need names

            return pd.DataFrame(np.asarray(table), columns=list(self.columns))
        return table


def split(estimator: Estimator) -> tuple[list[tuple[str, Estimator]], Estimator]:
    """The steps before the last one of a pipeline, which may end in a pipeline, and the last one."""
    steps: list[tuple[str, Estimator]] = []
    while type(estimator).__name__ == "Pipeline" and hasattr(estimator, "steps"):
        *before, (_, last) = estimator.steps
        steps += [(name, step) for name, step in before if step not in (None, "passthrough")]
        estimator = last
    return steps, estimator


def prepared(
    before: list[tuple[str, Estimator]], table: Table, labels: NDArray[Any], *, what: str
) -> tuple[Preprocessing, Table]:
    """The steps fitted on these rows, and the rows after them, which may be of any kind.

    Args:
        before: the steps before the last one (`split`).
        table: the rows.
        labels: [rows].
        what: name of the table in messages.

    Raises:
        InvalidInput: a step fails.
    """
    table = plain_table(table)
    columns = column_names(table)
    count = _width(table)
    if not before:
        names = columns or tuple(f"x{at}" for at in range(count))
        return Preprocessing(None, columns, count, names), table
    from sklearn.pipeline import Pipeline  # noqa: PLC0415 - the caller has it

    names = [name for name, _ in before]
    unique = len(set(names)) == len(names)
    steps = Pipeline(
        [
            (name if unique else f"{name}-{at}", unfitted(step))
            for at, (name, step) in enumerate(before)
        ]
    )
    try:
        found = steps.fit_transform(table, labels)
    except (ValueError, TypeError, KeyError) as error:
        raise _failed(error, what=what) from error
    return Preprocessing(
        steps, columns, count, _feature_names(steps, columns, _width(found))
    ), found


def plain_table(table: Table) -> Table:
    """The table as scikit-learn takes it: a frame of pandas or polars, or an array."""
    if hasattr(table, "to_pandas") and hasattr(table, "schema") and not hasattr(table, "lazy"):
        return table.to_pandas()  # pyarrow
    if hasattr(table, "collect") and hasattr(table, "collect_schema"):
        return table.collect()
    if hasattr(table, "columns") or hasattr(table, "toarray"):
        return table
    if hasattr(table, "detach"):
        return table.detach().cpu().numpy()
    return np.asarray(table)


def column_names(table: Table) -> tuple[str, ...] | None:
    """What a frame calls its columns; None for an array, or names that are no texts."""
    columns = getattr(table, "columns", None)
    if columns is None:
        return None
    names = tuple(columns)
    if not all(isinstance(name, str) for name in names):
        return None
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidInput(f"the table has several columns called {twice[0]!r}; rename them")
    return names


def in_order(table: Table, columns: tuple[str, ...] | None, *, what: str) -> Table | None:
    """The table's columns in the order of the fit; None where one of the two does not name them.

    Raises:
        InvalidInput: a column of the fit is missing.
    """
    given = column_names(table)
    if columns is None or given is None:
        return None
    missing = [name for name in columns if name not in given]
    if missing:
        raise InvalidInput(f"{what} has no column {missing[0]!r}; pass the columns of the fit")
    return table[list(columns)]


def _width(table: Table) -> int:
    """Number of columns; 0 for what has no two axes, such as a list of texts."""
    shape = np.shape(table)
    return shape[1] if len(shape) == 2 else 0


def numbers(table: Table, *, what: str) -> NDArray[np.float64]:
    """The table as finite numbers, [rows, columns].

    Raises:
        InvalidInput: it is no such table.
    """
    array = table.toarray() if hasattr(table, "toarray") else np.asarray(table)
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidInput(
            f"{what} has shape {list(array.shape)}, expected [rows, columns] with one or more of both"
        )
    names = column_names(table)
    if np.iscomplexobj(array):
        raise InvalidInput(f"{what} holds complex numbers, expected real ones; pass its parts")
    try:
        found = np.array(array, dtype=np.float64, order="C")
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{what} holds other things than numbers ({error}); encode them by a step of a Pipeline, "
            "such as OneHotEncoder"
        ) from error
    wrong = np.argwhere(~np.isfinite(found))
    if len(wrong):
        row, column = wrong[0]
        called = names[column] if names else column
        raise InvalidInput(
            f"{what} has {len(wrong)} missing (NaN) or infinite cells (first in row {row}, column "
            f"{called}); fill them by a step of a Pipeline, such as SimpleImputer"
        )
    return found


def _feature_names(steps: Estimator, columns: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """What the steps call their output; x0, x1, ... where they do not say, or not uniquely."""
    counted = tuple(f"x{at}" for at in range(count))
    try:
        names = tuple(map(str, steps.get_feature_names_out(columns)))
    except (AttributeError, ValueError, TypeError, NotImplementedError):
        return counted
    return names if len(set(names)) == count and "row_id" not in names else counted


def _failed(error: Exception, *, what: str) -> InvalidInput:
    message = " ".join(str(error).split())[:200]
    return InvalidInput(
        f"{what}: a step before the last one fails ({message}); mend the table or step"
    )
