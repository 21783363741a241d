"""Words of the user's own, and numbers, as they are shown: on a terminal, in Markdown, in figures.

Names of columns, classes and rows are data. Shown, they stay on one line, and no sign of theirs is
taken for markup.
"""

import re
from html import escape

# Where the estimated number of wrong labels is biased (docs/values.md).
WRONG_NUMBER = (
    "The number is too large where another family would predict clearly better, and too small where "
    "classes overlap much"
)
SHORTENED = "..."
# Words of Markdown that mean themselves: letters and digits, with single signs that mark up nothing.
_PLAIN = re.compile(r"[^\W_](?:[^\W_]|[ .,:;/%@=+'-](?=[^\W_])|_(?=[^\W_]))*|")


def one_line(text: str, *, most: int | None = None) -> str:
    """The text on one line, with non-printing characters as escapes, shortened if it is long."""
    shown = text
    if not text.isprintable():
        shown = "".join(
            sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
        )
    if most is not None and len(shown) > most:
        return shown[: most - len(SHORTENED)] + SHORTENED
    return shown


def cell_words(value: object) -> str:
    """A cell of a table in words."""
    if value is None:
        return "missing"
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def markdown(text: str) -> str:
    """The text escaped for Markdown, for a paragraph, a heading or a table cell."""
    shown = one_line(text)
    if _PLAIN.fullmatch(shown):
        return shown
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", shown)


def counted(count: int, thing: str, *, several: str | None = None) -> str:
    """A number of things: `1 row`, `1,200 rows`."""
    return f"{count:,} {thing if count == 1 else several or thing + 's'}"


def time_words(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:,.0f} min"


class Printed:
    """A result that is shown by what `print` shows, in a notebook too."""

    def __repr__(self) -> str:
        """What `print` shows."""
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
