"""Tables of results: polars tables that can be drawn."""

from typing import final

import polars as pl

from modelpred.api.plots import Axes, plot_values
from modelpred.studies.semivalues import Values


@final
class ValueTable(pl.DataFrame):
    """Values of rows or of groups of rows; `plot` draws them, `to_pandas` converts them.

    Tables that are made of it (sorted, filtered) have no attributes.

    Attributes:
        reliability: expected correlation with a second, independent estimate; nan if unknown.
        sampler: how subsets were drawn; None if they were not.
        models: number of models behind the values.
    """

    reliability: float = float("nan")
    sampler: str | None = None
    models: int = 0

    @classmethod
    def of(cls, table: pl.DataFrame, values: Values) -> "ValueTable":
        """The table with the attributes of its values."""
        found = cls(table)
        found.reliability, found.sampler = values.reliability, values.sampler
        found.models = values.evaluations
        return found

    def plot(self, ax: Axes | None = None) -> Axes:  # pyright: ignore[reportIncompatibleMethodOverride] - polars' own needs altair
        """Draw the values with intervals of two standard errors.

        Args:
            ax: matplotlib axes; None creates a figure.
        """
        return plot_values(self, ax)
