"""Checks the roles of the columns of a user's table. Each column has at most one role.

label, row_id, group, test   one column each, all different
drop                         columns without another role
categories                   features, or the label
dates                        features
"""

import difflib
from collections.abc import Sequence

from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.reading import ROW
from modelpred.errors import InvalidInput

FIRST_SHOWN = 10
NEAREST = 3  # most columns that a message proposes for a misspelt name


def require_roles(
    columns: Sequence[str], config: DatasetConfig, *, source: str, text: bool
) -> None:
    """Raise InvalidInput for a missing column, two roles of one column, or a missing label.

    Args:
        columns: all columns of the table.
        config: sets the roles.
        source: name of the table in messages.
        text: whether it is a CSV.
    """
    if not text and config.delimiter != ",":
        raise InvalidInput(
            f"dataset.delimiter is {config.delimiter!r}, but {source} is no CSV; leave it out"
        )
    if config.label is None:
        raise InvalidInput(
            f"dataset.label (option --label) is not set; set it to the column of {source} to predict, "
            f"one of: {_listed(columns)}"
        )
    roles: dict[str, str] = {}
    for key, name in _roles(columns, config).items():
        _require_column(name, key, columns, source=source)
        if name in roles:
            raise InvalidInput(
                f"dataset.{key}: {name!r} is dataset.{roles[name]}, too; a column has one role"
            )
        roles[name] = key
    for key in ("drop", "categories", "dates"):
        for name in getattr(config, key):
            _require_column(name, key, columns, source=source)
            _require_free(name, key, roles, config)
    reserved = [name for name in ("row_id", ROW) if name in columns]
    if reserved and config.row_id != reserved[0] and reserved[0] not in config.drop:
        raise InvalidInput(
            f"{source}: the name {reserved[0]!r} of a column is taken; set dataset.row_id to it, "
            "drop it, or rename it"
        )


def names_test_column(columns: Sequence[str], config: DatasetConfig) -> bool:
    """Whether dataset.test is a column, and not a share, a number or a file."""
    return isinstance(config.test, str) and config.test != AUTO and config.test in columns


def _roles(columns: Sequence[str], config: DatasetConfig) -> dict[str, str]:
    """The column of each role that has a single column."""
    roles = {"label": config.label, "row_id": config.row_id, "group": config.group}
    if names_test_column(columns, config):
        roles["test"] = str(config.test)
    return {key: name for key, name in roles.items() if name is not None}


def _require_column(name: str, key: str, columns: Sequence[str], *, source: str) -> None:
    if name not in columns:
        near = _nearest(name, columns)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"it has {_listed(columns)}"
        )
        raise InvalidInput(f"dataset.{key}: {source} has no column {name!r}; {hint}")


def _require_free(name: str, key: str, roles: dict[str, str], config: DatasetConfig) -> None:
    """Raise InvalidInput if a column of a list has another role."""
    role = roles.get(name)
    if key == "drop" and role == "label":
        raise InvalidInput(f"dataset.drop: {name!r} is the label; drop another column")
    if role is not None and (key, role) != ("categories", "label"):
        raise InvalidInput(f"dataset.{key}: {name!r} is dataset.{role}, too; a column has one role")
    if key == "dates" and name in config.categories:
        raise InvalidInput(f"dataset.dates: {name!r} is in dataset.categories, too; name it once")


def _nearest(name: str, columns: Sequence[str]) -> list[str]:
    """The columns whose names are most like a name; capitals and spaces around it do not count."""
    names: dict[str, list[str]] = {}
    for column in columns:
        names.setdefault(_plain(column), []).append(column)
    close = difflib.get_close_matches(_plain(name), names, n=NEAREST)
    return [column for plain in close for column in names[plain]][:NEAREST]


def _plain(name: str) -> str:
    return name.strip().casefold()


def _listed(names: Sequence[str]) -> str:
    """The first names and the last one, which often is the label."""
    if len(names) <= FIRST_SHOWN:
        return ", ".join(names)
    between = len(names) - FIRST_SHOWN - 1
    more = f", {between:,} more" if between else ""
    return f"{', '.join(names[:FIRST_SHOWN])}{more} and {names[-1]}"
