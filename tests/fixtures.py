"""Fixtures that are one call, and figures that are painted but not written."""

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.figure import Figure


def made_once(make: Callable[..., Any], *arguments: object, **settings: object) -> Any:
    """A fixture that calls `make` once in the session; its name is that of the variable."""
    return pytest.fixture(scope="session")(lambda: make(*arguments, **settings))


def without_drawings(patch: pytest.MonkeyPatch) -> None:
    """Write empty drawings, for tests in which a report is not what is tested: drawing takes seconds."""
    patch.setattr(
        Figure, "savefig", lambda _figure, file, **_: file.write("<svg viewBox='0 0 1 1'></svg>")
    )
