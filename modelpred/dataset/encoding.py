"""Encodes the columns of a table as features, with rules fitted to the training rows.

    number    the number; missing cells become the median of the training rows
    boolean   0 or 1; missing cells become 0
    category  a 0/1 column for each level: the most frequent levels of the training rows, up to a
              limit. The others share the level `(other)`. With two levels, only the second has a
              column
    date      days since the first date of the training rows; month and weekday if they vary

If cells are missing in training rows, an additional column marks them (`age is missing`). A level
that is not in the training rows is `(other)`; without such a level, all columns are 0. The encoding
is stored as JSON and applied to later rows.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from modelpred.dataset.cells import (
    DAYS,
    WORDS,
    Unusable,
    are_days,
    column_of,
    known,
    moments_of,
    names_of,
    numbers_of,
    quoted,
    require,
    truths_of,
)
from modelpred.errors import InvalidInput

DAY_MICROSECONDS = 86_400_000_000


class _Column(BaseModel):
    """Attributes of all encoded columns."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    missing: bool = False

    def _with_missing(self, cells: pl.Series, parts: list[pl.Series]) -> list[pl.Series]:
        """The parts, with the indicator of missing cells if the column has one."""
        if self.missing:
            parts.append(cells.is_null().cast(pl.Float64).alias(f"{self.name} is missing"))
        return parts


class NumberColumn(_Column):
    """A number; `fill` replaces missing cells."""

    kind: Literal["number"] = "number"
    fill: FiniteFloat = 0.0

    def encoded(self, cells: pl.Series) -> list[pl.Series]:
        """The features that these cells become."""
        numbers = numbers_of(cells)
        require(numbers.is_finite().fill_null(value=True), "a finite number")
        return self._with_missing(numbers, [numbers.fill_null(self.fill).alias(self.name)])


class BooleanColumn(_Column):
    """True or false, as 1 and 0."""

    kind: Literal["boolean"] = "boolean"

    def encoded(self, cells: pl.Series) -> list[pl.Series]:
        """The features that these cells become."""
        truths = truths_of(cells)
        return self._with_missing(truths, [truths.cast(pl.Float64).fill_null(0.0).alias(self.name)])


class CategoryColumn(_Column):
    """A category; `other` if the training rows had more levels."""

    kind: Literal["category"] = "category"
    levels: tuple[str, ...]
    other: bool = False

    def encoded(self, cells: pl.Series) -> list[pl.Series]:
        """The features that these cells become."""
        words = names_of(cells)
        levels = self.levels
        if len(levels) == 2 and not self.other and not self.missing:
            levels = levels[1:]
        elif len(levels) == 1 and not self.other:
            levels = ()  # the column is constant
        parts = [
            (words == level).fill_null(value=False).cast(pl.Float64).alias(f"{self.name}={level}")
            for level in levels
        ]
        if self.other:
            rest = words.is_not_null() & ~words.is_in(self.levels)
            parts.append(rest.fill_null(value=False).cast(pl.Float64).alias(f"{self.name}=(other)"))
        return self._with_missing(words, parts)


class DateColumn(_Column):
    """A date or datetime; `fill` has the medians of the parts, for missing cells.

    `form` is the format of texts that the user set; None: ISO.
    """

    kind: Literal["date"] = "date"
    start: str
    parts: tuple[Literal["days", "month", "weekday"], ...]
    fill: tuple[FiniteFloat, ...]
    form: str | None = None

    def encoded(self, cells: pl.Series) -> list[pl.Series]:
        """The features that these cells become."""
        moments = moments_of(cells, form=self.form)
        require(are_days(moments), "a day that could be, or an empty cell")
        features = [
            _DATE_PARTS[part](moments, self.start).fill_null(fill).alias(_date_name(self, part))
            for part, fill in zip(self.parts, self.fill, strict=True)
        ]
        return self._with_missing(moments, features)


EncodedColumn = Annotated[
    NumberColumn | BooleanColumn | CategoryColumn | DateColumn, Field(discriminator="kind")
]


class Encoding(BaseModel):
    """The encoding of the columns of a table, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    columns: tuple[EncodedColumn, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns of the table that are encoded."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, such as `age`, `work=office`, `age is missing`."""
        return tuple(self._features(self.empty()).columns)

    def empty(self) -> pl.DataFrame:
        """A table of these columns without rows."""
        return pl.DataFrame(schema=dict.fromkeys(self.column_names, pl.Null()))

    def encode(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """Unscaled features [rows, features] of rows with these columns.

        Raises:
            InvalidInput: a column is missing, or a cell has another type.
        """
        missing = [name for name in self.column_names if name not in rows.columns]
        if missing:
            raise InvalidInput(
                f"column {missing[0]!r} is not there; expected the columns of the training rows: "
                f"{', '.join(self.column_names)}"
            )
        return self._features(rows).to_numpy(order="c").astype(np.float64, copy=False)

    def _features(self, rows: pl.DataFrame) -> pl.DataFrame:
        parts: list[pl.Series] = []
        for column in self.columns:
            cells = column_of(rows, column.name)
            try:
                parts += column.encoded(known(cells))
            except Unusable as error:
                row = rows["row_id"][error.row] if "row_id" in rows.columns else error.row
                raise InvalidInput(
                    f"column {column.name!r} holds {quoted(cells[error.row])} in row {row}, expected "
                    f"{error.expected}"
                ) from error
        twice = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
        if twice:
            raise InvalidInput(
                f"two columns become features called {twice[0]!r}; rename the columns of the table"
            )
        return pl.DataFrame(parts)


def fit_encoding(
    rows: pl.DataFrame,
    columns: Sequence[str],
    *,
    levels: int,
    dates: Mapping[str, str] | None = None,
) -> Encoding:
    """Fit the encoding of these columns to the training rows.

    Args:
        rows: the training rows.
        columns: names of the columns to encode, in order.
        levels: largest number of levels of a category that get a column each.
        dates: date formats of some columns, for later rows.

    Raises:
        InvalidInput: a column is neither number, boolean, text nor date.
    """
    forms = dates or {}
    return Encoding(
        columns=tuple(
            _fitted(name, known(column_of(rows, name)), levels, forms.get(name)) for name in columns
        )
    )


def _fitted(name: str, cells: pl.Series, levels: int, form: str | None) -> EncodedColumn:
    kind = cells.dtype
    if kind.is_numeric():
        numbers = cells.cast(pl.Float64)
        fill = _median(numbers)
        return NumberColumn(name=name, missing=numbers.null_count() > 0, fill=fill)
    missing = cells.null_count() > 0
    if kind == pl.Boolean:
        return BooleanColumn(name=name, missing=missing)
    if kind in WORDS:
        counts = cells.drop_nulls().alias("level").value_counts()
        ranked = counts.sort(["count", "level"], descending=[True, False])["level"]
        frequent = tuple(sorted(ranked.head(levels)))
        return CategoryColumn(
            name=name, missing=missing, levels=frequent, other=len(ranked) > len(frequent)
        )
    if kind in DAYS:
        return _fitted_date(name, cells, form, missing=missing)
    raise InvalidInput(
        f"column {name!r} holds {kind}, expected numbers, text, true and false, or dates; "
        "convert it, or drop it (dataset.drop)"
    )


def _fitted_date(name: str, cells: pl.Series, form: str | None, *, missing: bool) -> DateColumn:
    moments = moments_of(cells)
    first = moments.min()
    start = first if isinstance(first, datetime) else datetime(1970, 1, 1)  # noqa: DTZ001 - no zone
    began = start.isoformat()
    varying: tuple[Literal["month", "weekday"], ...] = ("month", "weekday")
    varied: tuple[Literal["month", "weekday"], ...] = tuple(
        p for p in varying if _DATE_PARTS[p](moments, began).n_unique() > 1 + missing
    )
    parts: tuple[Literal["days", "month", "weekday"], ...] = ("days", *varied)
    fill = tuple(_median(_DATE_PARTS[part](moments, began)) for part in parts)
    return DateColumn(name=name, missing=missing, start=began, parts=parts, fill=fill, form=form)


def _median(numbers: pl.Series) -> float:
    """The median of the finite numbers, rounded once; 0.0 if there are none."""
    finite = numbers.filter(numbers.is_finite()).sort()
    if finite.is_empty():
        return 0.0
    low, high = float(finite[(len(finite) - 1) // 2]), float(finite[len(finite) // 2])
    total = low + high
    return total / 2 if math.isfinite(total) else low / 2 + high / 2


def _days(moments: pl.Series, start: str) -> pl.Series:
    since = moments - datetime.fromisoformat(start)
    return since.dt.total_microseconds().cast(pl.Float64) / DAY_MICROSECONDS


_DATE_PARTS: dict[str, Callable[[pl.Series, str], pl.Series]] = {
    "days": _days,
    "month": lambda moments, _: moments.dt.month().cast(pl.Float64),
    "weekday": lambda moments, _: moments.dt.weekday().cast(pl.Float64),
}


def _date_name(column: DateColumn, part: str) -> str:
    if part == "days":
        return f"{column.name}: days since {date.fromisoformat(column.start[:10])}"
    return f"{column.name}: {part}"
