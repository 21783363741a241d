"""Tables of results: polars tables that can be drawn."""

from typing import final

import polars as pl

from modelpred.api.plots import Axes, plot_values


@final
class ValueTable(pl.DataFrame):
    """Values of rows or of groups of rows; `plot` draws them, `to_pandas` converts them."""

    def plot(self, ax: Axes | None = None) -> Axes:  # pyright: ignore[reportIncompatibleMethodOverride] - polars' own needs altair
        """Draw the values with intervals of two standard errors.

        Args:
            ax: matplotlib axes; None creates a figure.
        """
        return plot_values(self, ax)
