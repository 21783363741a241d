"""From the cells of a table to numbers: what each column becomes, fixed on the training rows.

    number    itself; a missing cell the median of the training rows
    boolean   0 or 1; a missing cell 0
    category  a column of 0 and 1 for each level: the most frequent of the training rows, up to a
              cap. The rest share the level `(other)`. Of two levels alone only the second is told
    date      days since the first of the training rows, and month and weekday where they vary

Where training rows miss cells, one more column says so (`age is missing`). A level that no training
row had is `(other)`, or none at all where there is no such level. The encoding is JSON: the same one
serves for rows that come later.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
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
    require,
    truths_of,
)
from modelpred.errors import InvalidInput

DAY_MICROSECONDS = 86_400_000_000


class _Column(BaseModel):
    """What every encoded column has."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    missing: bool = False

    def _with_missing(self, cells: pl.Series, parts: list[pl.Series]) -> list[pl.Series]:
        """The parts, and the indicator of missing cells where there is one."""
        if self.missing:
            parts.append(cells.is_null().cast(pl.Float64).alias(f"{self.name} is missing"))
        return parts


class NumberColumn(_Column):
    """A number; `fill` stands in for a missing one."""

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
    """One of some levels; `other` where the training rows had more of them."""

    kind: Literal["category"] = "category"
    levels: tuple[str, ...]
    other: bool = False

    def encoded(self, cells: pl.Series) -> list[pl.Series]:
        """The features that these cells become."""
        words = names_of(cells)
        told = self.levels
        if len(told) == 2 and not self.other and not self.missing:
            told = told[1:]
        elif len(told) == 1 and not self.other:
            told = ()  # every training row has it
        parts = [
            (words == level).fill_null(value=False).cast(pl.Float64).alias(f"{self.name}={level}")
            for level in told
        ]
        if self.other:
            rest = words.is_not_null() & ~words.is_in(self.levels)
            parts.append(rest.fill_null(value=False).cast(pl.Float64).alias(f"{self.name}=(other)"))
        return self._with_missing(words, parts)


class DateColumn(_Column):
    """A day or a moment; `fill` holds the medians of the parts, for a missing one.

    `form` is how texts write it, where the user says so; otherwise they are ISO.
    """

    kind: Literal["date"] = "date"
    start: str
    parts: tuple[Literal["days", "month", "weekday"], ...]
    fill: tuple[FiniteFloat, ...]
    form: str | None = None

    def encoded(self, cells: pl.Series) -> list[pl.Series]:
        """The features that these cells become."""
        told = moments_of(cells, form=self.form)
        require(are_days(told), "a day that could be, or an empty cell")
        found = [
            _DATE_PARTS[part](told, self.start).fill_null(fill).alias(_date_name(self, part))
            for part, fill in zip(self.parts, self.fill, strict=True)
        ]
        return self._with_missing(told, found)


EncodedColumn = Annotated[
    NumberColumn | BooleanColumn | CategoryColumn | DateColumn, Field(discriminator="kind")
]


class Encoding(BaseModel):
    """What the columns of a table become, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    columns: tuple[EncodedColumn, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns of the table that are encoded."""
        return tuple(column.name for column in self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the features are called: `age`, `work=office`, `age is missing`."""
        return tuple(self._features(self.empty()).columns)

    def empty(self) -> pl.DataFrame:
        """A table of these columns without rows."""
        return pl.DataFrame(schema=dict.fromkeys(self.column_names, pl.Null()))

    def encode(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """Features [rows, features] of rows with these columns, unscaled.

        Raises:
            InvalidInput: a column is not there, or holds another kind of cell.
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
                    f"column {column.name!r} holds {cells[error.row]!r} in row {row}, expected "
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
    """What these columns become, from the training rows alone.

    Args:
        rows: the training rows.
        columns: those to encode, in order.
        levels: most levels of a category that have a column of their own.
        dates: how texts write the dates of some columns, for rows that come later.

    Raises:
        InvalidInput: a column of another type than numbers, booleans, text and dates.
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
        kept = tuple(sorted(ranked.head(levels)))
        return CategoryColumn(
            name=name, missing=missing, levels=kept, other=len(ranked) > len(kept)
        )
    if kind in DAYS:
        return _fitted_date(name, cells, form, missing=missing)
    raise InvalidInput(
        f"column {name!r} holds {kind}, expected numbers, text, true and false, or dates; "
        "convert it, or drop it (dataset.drop)"
    )


def _fitted_date(name: str, cells: pl.Series, form: str | None, *, missing: bool) -> DateColumn:
    told = moments_of(cells)
    first = told.min()
    start = first if isinstance(first, datetime) else datetime(1970, 1, 1)  # noqa: DTZ001 - no zone
    began = start.isoformat()
    varying: tuple[Literal["month", "weekday"], ...] = ("month", "weekday")
    varied: tuple[Literal["month", "weekday"], ...] = tuple(
        p for p in varying if _DATE_PARTS[p](told, began).n_unique() > 1 + missing
    )
    parts: tuple[Literal["days", "month", "weekday"], ...] = ("days", *varied)
    fill = tuple(_median(_DATE_PARTS[part](told, began)) for part in parts)
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
