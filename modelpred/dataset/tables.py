"""Source tables: rows of features and a label, as their makers published them.

A table comes from the installed packages, and only `higgs` from elsewhere. A table also declares how
many rows people usually train and test on, which is what `auto` means in the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modelpred.errors import InvalidInput

BUILTIN_FOLDER = Path(__file__).parent / "builtin"


@dataclass(frozen=True)
class Table:
    """A source table before any split or scaling.

    Attributes:
        name: what the user calls it, as in `dataset.source`.
        rows: `row_id` (zero-based row number in the source, as text), the features, the label.
        label: name of the label column.
        classes: label names in the order of their class index; empty for regression.
        points: customary number of training rows.
        test: customary number of test rows.
        attribution: who made the table and under which licence.
        kept: columns that stay with the rows but are no features, such as a group.
        unused: columns that say nothing in these rows, but may in others.
        held_out: which rows are for testing; None where the number of them decides.
    """

    name: str
    rows: pl.DataFrame
    label: str
    classes: tuple[str, ...]
    points: int
    test: int
    attribution: str
    kept: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    held_out: tuple[bool, ...] | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns that become features, in order."""
        others = ("row_id", self.label, *self.kept, *self.unused)
        return tuple(name for name in self.rows.columns if name not in others)


def load_table(source: str, *, file: str | None = None) -> Table:
    """The table with that name; `file` says where a table that does not ship lies.

    Raises:
        InvalidInput: no such table; the message lists the known ones.
    """
    if source in _ELSEWHERE:
        return _ELSEWHERE[source](file)
    if file is not None:
        raise InvalidInput(
            f"dataset.file is {file}, but the table {source!r} ships; set dataset.file to null"
        )
    if source not in _LOADERS:
        known = ", ".join(known_sources())
        raise InvalidInput(f"dataset.source: unknown table {source!r}; known: {known}")
    return _LOADERS[source]()


def known_sources() -> tuple[str, ...]:
    """Names that `load_table` knows."""
    return (*_LOADERS, *_ELSEWHERE)


def _mnist() -> Table:
    # Its network needs torch, and a table needs this module.
    from modelpred.dataset.images import mnist_table  # noqa: PLC0415

    return mnist_table()


def _higgs(file: str | None) -> Table:
    from modelpred.dataset.higgs import higgs_table  # noqa: PLC0415 - as above

    return higgs_table(file)


def _spam() -> Table:
    rows = pl.read_parquet(BUILTIN_FOLDER / "spam.parquet", glob=False)
    return Table(
        name="spam",
        rows=_with_row_ids(rows),
        label="is_spam",
        classes=("0", "1"),
        points=300,
        test=500,
        attribution=(
            "Spambase. Hopkins, Reeber, Forman, Suermondt (1999), UCI Machine Learning "
            "Repository, https://doi.org/10.24432/C53G6X, CC BY 4.0"
        ),
    )


def _iris() -> Table:
    return _from_scikit_learn(
        lambda tables: tables.load_iris(),
        name="iris",
        label="species",
        first_classes=2,  # the paper's task: setosa against versicolor
        points=67,
        test=33,
        attribution="Iris, classes 0 and 1. Fisher (1936), UCI Machine Learning Repository",
    )


def _breast_cancer() -> Table:
    return _from_scikit_learn(
        lambda tables: tables.load_breast_cancer(),
        name="breast_cancer",
        label="diagnosis",
        points=300,
        test=269,
        attribution=(
            "Breast Cancer Wisconsin (Diagnostic). Wolberg, Mangasarian, Street (1993), "
            "UCI Machine Learning Repository, CC BY 4.0"
        ),
    )


def _wine() -> Table:
    return _from_scikit_learn(
        lambda tables: tables.load_wine(),
        name="wine",
        label="cultivar",
        points=119,
        test=59,
        attribution="Wine. Aeberhard, Forina (1992), UCI Machine Learning Repository, CC BY 4.0",
    )


def _digits() -> Table:
    return _from_scikit_learn(
        lambda tables: tables.load_digits(),
        name="digits",
        label="digit",
        points=500,
        test=1000,
        attribution=(
            "Optical Recognition of Handwritten Digits. Alpaydin, Kaynak (1998), "
            "UCI Machine Learning Repository, CC BY 4.0"
        ),
    )


def _diabetes() -> Table:
    return _from_scikit_learn(
        # Unscaled, so that a person recognises age and blood pressure in the report.
        lambda tables: tables.load_diabetes(scaled=False),
        name="diabetes",
        label="progression",
        points=295,
        test=147,
        attribution=(
            "Diabetes progression. Efron, Hastie, Johnstone, Tibshirani (2004), "
            "Least Angle Regression, Annals of Statistics"
        ),
    )


def _from_scikit_learn(
    load: Callable[[Any], Any],
    *,
    name: str,
    label: str,
    first_classes: int | None = None,
    points: int,
    test: int,
    attribution: str,
) -> Table:
    """A table from scikit-learn's arrays, with the label column last and in its own words."""
    # A second to import, which only who loads such a table pays.
    from sklearn import datasets  # noqa: PLC0415

    bunch = load(datasets)  # scikit-learn's Bunch declares no attributes
    target: np.ndarray = bunch.target
    columns = {
        str(column): bunch.data[:, index] for index, column in enumerate(bunch.feature_names)
    }
    classes: tuple[str, ...] = ()
    if "target_names" in bunch:
        classes = tuple(str(class_name) for class_name in bunch.target_names)
        columns[label] = np.array(classes)[target]
    else:
        columns[label] = target
    rows = _with_row_ids(pl.DataFrame(columns))
    if first_classes is not None:
        classes = classes[:first_classes]
        rows = rows.filter(pl.col(label).is_in(classes))
    return Table(name, rows, label, classes, points, test, attribution)


def _with_row_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their zero-based number in the source as first column, as text."""
    return rows.with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.String))


_LOADERS: dict[str, Callable[[], Table]] = {
    "spam": _spam,
    "iris": _iris,
    "breast_cancer": _breast_cancer,
    "wine": _wine,
    "digits": _digits,
    "diabetes": _diabetes,
    "mnist": _mnist,
}
# Tables that do not ship, from the place that dataset.file names.
_ELSEWHERE: dict[str, Callable[[str | None], Table]] = {"higgs": _higgs}
