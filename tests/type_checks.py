"""The run-time check of types and shapes that tests put on the functions of the package."""

from collections.abc import Callable, Hashable
from typing import Any

from beartype import beartype

_CHECKED: dict[Hashable, Callable[..., Any]] = {}


def beartype_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype's check of a signature, compiled once for each signature of a name.

    jaxtyping passes functions that have a signature and no body, and passes them again whenever a
    function inside another function is defined. Compiling each of those took a seventh of the time of
    the tests of the studies.
    """
    key = (
        function.__module__,
        function.__qualname__,
        function.__code__.co_varnames,
        function.__code__.co_flags,
        len(function.__defaults__ or ()),
        *(function.__kwdefaults__ or ()),
        *function.__annotations__.items(),
    )
    try:
        known = _CHECKED.get(key)
    except TypeError:  # an annotation that cannot be a key
        return beartype(function)
    if known is None:
        known = _CHECKED[key] = beartype(function)
    return known
