"""Fixtures that are one call."""

from collections.abc import Callable
from typing import Any

import pytest


def made_once(make: Callable[..., Any], *arguments: object, **settings: object) -> Any:
    """A fixture that calls `make` once in the session; its name is that of the variable."""
    return pytest.fixture(scope="session")(lambda: make(*arguments, **settings))
