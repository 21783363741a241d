"""How many rows of a source are used, in numbers and in words."""

from modelpred.dataset.tables import Table
from modelpred.wording import counted


def rows_used(
    points: int, test: int, *, available: int | None, unlabelled: int | None, classes: bool
) -> str:
    """How many of the source's rows are used, and why others are not, in words."""
    unused = rows_unused(points, test, available=available, unlabelled=unlabelled, classes=classes)
    used = f"{points:,} rows train and {test:,} test"
    return f"{used}; {unused}" if unused else used


def rows_unused(
    points: int, test: int, *, available: int | None, unlabelled: int | None, classes: bool
) -> str:
    """How many of the source's rows are not used, and why, in words; empty if none."""
    said: list[str] = []
    if available is not None and points + test < available:
        drawn = ", drawn at random by class," if classes else ", drawn at random,"
        said.append(
            f"the other {available - points - test:,} of {available:,} rows{drawn} are not used"
        )
    if unlabelled:
        said.append(without_label(unlabelled))
    return "; ".join(said)


def without_label(rows: int) -> str:
    """How many rows are left out because they have no label."""
    return f"{counted(rows, 'row')} without a label {'is' if rows == 1 else 'are'} left out"


def unused_of(table: Table, *, points: int, test: int) -> int | None:
    """Number of rows of the source if some are not used, else None."""
    available = len(table.rows) if table.available is None else table.available
    return available if points + test < available else None
