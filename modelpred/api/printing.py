"""Tables that print in full width."""

from typing import final

import polars as pl


@final
class WideTable(pl.DataFrame):
    """A polars table that prints all its rows and columns in full width."""

    def __str__(self) -> str:
        """The table as text."""
        with pl.Config(
            tbl_cols=-1,
            tbl_rows=-1,
            tbl_width_chars=10_000,
            float_precision=4,
            tbl_hide_column_data_types=True,
        ):
            return pl.DataFrame(self).__str__()

    __repr__ = __str__
