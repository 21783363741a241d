"""How many rows of a source are used, in numbers and in words."""

from modelpred.dataset.tables import Table


def rows_used(points: int, test: int, *, available: int | None, classes: bool) -> str:
    """How many of the source's rows are used, in words; empty if all are."""
    unused = rows_unused(points, test, available=available, classes=classes)
    return f"{points:,} rows train and {test:,} test; {unused}" if unused else ""


def rows_unused(points: int, test: int, *, available: int | None, classes: bool) -> str:
    """How many of the source's rows are not used, in words; empty if none."""
    if available is None or points + test >= available:
        return ""
    shares = "; classes keep their shares" if classes else ""
    return (
        f"the other {available - points - test:,} of {available:,} rows are not used (those used are "
        f"drawn at random{shares})"
    )


def unused_of(table: Table, *, points: int, test: int) -> int | None:
    """Number of rows of the source if some are not used, else None."""
    available = len(table.rows) if table.available is None else table.available
    return available if points + test < available else None
