"""Source tables: the class Table, and the tables that come with this package and scikit-learn.

A table also declares the usual numbers of training and test rows, which `auto` uses in
params.yaml. sources.py lists all tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modelpred import errors

InvalidInput = errors.InvalidInput  # older code imports it from here
BUILTIN_FOLDER = Path(__file__).parent / "builtin"


@dataclass(frozen=True)
class Table:
    """A source table before any split or scaling.

    Attributes:
        name: its name in `dataset.source`.
        rows: `row_id` (zero-based row number in the source, as text), the features, the label.
        label: name of the label column.
        classes: label names in the order of their class index; empty for regression.
        points: usual number of training rows.
        test: usual number of test rows.
        attribution: authors and licence.
        extra: columns that are stored with the rows but are not features, such as a group.
        unused: columns without information in these rows; they may have some in later rows.
        held_out: whether each row is a test row; None if test rows are drawn by number.
        available: number of rows of the source; None if `rows` are all.
        unlabelled: number of rows of the source that have no label and are left out; None: none.
    """

    name: str
    rows: pl.DataFrame
    label: str
    classes: tuple[str, ...]
    points: int
    test: int
    attribution: str
    extra: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    held_out: tuple[bool, ...] | None = None
    available: int | None = None
    unlabelled: int | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns that become features, in order."""
        others = ("row_id", self.label, *self.extra, *self.unused)
        return tuple(name for name in self.rows.columns if name not in others)


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


@dataclass(frozen=True)
class _ScikitLearn:
    """A table of scikit-learn, with the attributes of its Table.

    `load` is the function of sklearn.datasets, `options` are its arguments. Only the first `classes`
    classes are used; None: all.
    """

    load: str
    label: str
    points: int
    test: int
    attribution: str
    classes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


_SCIKIT_LEARN = {
    "iris": _ScikitLearn(
        "load_iris",
        "species",
        classes=2,  # the paper's task: setosa against versicolor
        points=67,
        test=33,
        attribution="Iris, classes 0 and 1. Fisher (1936), UCI Machine Learning Repository",
    ),
    "breast_cancer": _ScikitLearn(
        "load_breast_cancer",
        "diagnosis",
        points=300,
        test=269,
        attribution=(
            "Breast Cancer Wisconsin (Diagnostic). Wolberg, Mangasarian, Street (1993), "
            "UCI Machine Learning Repository, CC BY 4.0"
        ),
    ),
    "wine": _ScikitLearn(
        "load_wine",
        "cultivar",
        points=119,
        test=59,
        attribution="Wine. Aeberhard, Forina (1992), UCI Machine Learning Repository, CC BY 4.0",
    ),
    "digits": _ScikitLearn(
        "load_digits",
        "digit",
        points=500,
        test=1000,
        attribution=(
            "Optical Recognition of Handwritten Digits. Alpaydin, Kaynak (1998), "
            "UCI Machine Learning Repository, CC BY 4.0"
        ),
    ),
    "diabetes": _ScikitLearn(
        "load_diabetes",
        "progression",
        # Unscaled, so that age and blood pressure are recognisable in the report.
        options={"scaled": False},
        points=295,
        test=147,
        attribution=(
            "Diabetes progression. Efron, Hastie, Johnstone, Tibshirani (2004), "
            "Least Angle Regression, Annals of Statistics"
        ),
    ),
}


def _from_scikit_learn(name: str) -> Table:
    """The table with the label column last, classes by their names."""
    # Imported late: takes a second.
    from sklearn import datasets  # noqa: PLC0415

    known = _SCIKIT_LEARN[name]
    bunch: Any = getattr(datasets, known.load)(**known.options)  # a Bunch declares no attributes
    target: np.ndarray = bunch.target
    columns = {
        str(column): bunch.data[:, index] for index, column in enumerate(bunch.feature_names)
    }
    classes: tuple[str, ...] = ()
    if "target_names" in bunch:
        classes = tuple(str(class_name) for class_name in bunch.target_names)
        columns[known.label] = np.array(classes)[target]
    else:
        columns[known.label] = target
    rows = _with_row_ids(pl.DataFrame(columns))
    if known.classes is not None:
        classes = classes[: known.classes]
        rows = rows.filter(pl.col(known.label).is_in(classes))
    return Table(name, rows, known.label, classes, known.points, known.test, known.attribution)


def _with_row_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their zero-based number in the source as first column, as text."""
    return rows.with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.String))


PACKAGED: dict[str, Callable[[], Table]] = {
    "spam": _spam,
    **{name: partial(_from_scikit_learn, name) for name in _SCIKIT_LEARN},
}
"""Tables of the installed packages by name."""
