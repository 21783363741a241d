"""How results are printed: in full width, and in a notebook as text of fixed width."""

from html import escape
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


class Printed:
    """A result that is shown by what `print` shows, in a notebook too."""

    def __repr__(self) -> str:
        """What `print` shows."""
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
