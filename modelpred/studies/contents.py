"""What readers of a study's folder need in it: columns of its tables, and metrics, each of a kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Needed:
    """Names of columns or metrics, by kind.

    Attributes:
        text: none is missing.
        number: may be missing.
        flag: true or false; may be missing.
        section: metrics with metrics in them.
    """

    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    flag: tuple[str, ...] = ()
    section: tuple[str, ...] = ()

    def kinds(self) -> dict[str, str]:
        """The kind of each name."""
        return {name: kind for kind, names in vars(self).items() for name in names}


@dataclass(frozen=True)
class Contents:
    """What is needed of a study.

    Attributes:
        tables: by name.
        metrics: that it always has.
        optional: metrics that it may have.
        may_lack: tables that it may have.
        by_method: a table whose methods each have a section of metrics, with the time of a query.
    """

    tables: Mapping[str, Needed]
    metrics: Needed = field(default_factory=Needed)
    optional: Needed = field(default_factory=Needed)
    may_lack: tuple[str, ...] = ()
    by_method: str | None = None


def ends(*names: str) -> tuple[str, ...]:
    """Each name, and those of the ends of its interval."""
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high"))
