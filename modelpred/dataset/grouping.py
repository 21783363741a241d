"""Columns that look like groups of rows: a vendor, a source, a day, a batch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

NAMES = frozenset(
    [
        "annotator",
        "author",
        "batch",
        "branch",
        "campaign",
        "center",
        "centre",
        "city",
        "client",
        "clinic",
        "cohort",
        "country",
        "customer",
        "date",
        "day",
        "department",
        "device",
        "domain",
        "experiment",
        "file",
        "fold",
        "group",
        "hospital",
        "instrument",
        "lab",
        "labeler",
        "labeller",
        "lot",
        "machine",
        "month",
        "operator",
        "owner",
        "patient",
        "plant",
        "plate",
        "provider",
        "region",
        "run",
        "school",
        "seller",
        "sensor",
        "session",
        "shop",
        "site",
        "source",
        "station",
        "store",
        "subject",
        "supplier",
        "team",
        "tenant",
        "user",
        "vendor",
        "week",
        "worker",
        "year",
    ]
)
MOST_GROUPS = 200
ROWS_OF_GROUP = 3  # least mean number
LARGE = 300  # rows, beyond which groups are suggested
SUGGESTED = 3  # columns


@dataclass(frozen=True)
class GroupColumn:
    """A column that looks like groups of rows, with their number."""

    name: str
    groups: int


def group_columns(rows: pl.DataFrame, names: Sequence[str]) -> tuple[GroupColumn, ...]:
    """Return the columns of these names that look like groups of rows, those with fewest groups first.

    A word of the column's name is one of `NAMES`, no cell is missing, and it has 2 to `MOST_GROUPS`
    different cells of three rows or more on average.
    """
    found: list[GroupColumn] = []
    for name in names:
        words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
        if not NAMES & {*words, *(word.removesuffix("s") for word in words)}:
            continue
        column = rows.get_column(name)
        groups = column.n_unique()
        most = min(MOST_GROUPS, rows.height // ROWS_OF_GROUP)
        if column.null_count() == 0 and 2 <= groups <= most:
            found.append(GroupColumn(name, groups))
    return tuple(sorted(found, key=lambda column: column.groups))


def suggestion(rows: pl.DataFrame, names: Sequence[str]) -> str:
    """Return a sentence about the columns of a large table that look like groups; empty: none do."""
    if rows.height <= LARGE:
        return ""
    columns = group_columns(rows, names)[:SUGGESTED]
    if not columns:
        return ""
    listed = ", ".join(f"{column.name!r} ({column.groups} groups)" for column in columns)
    return (
        f"Groups of rows: {listed}. Values of groups are more certain than those of single rows, and "
        "take less time"
    )
