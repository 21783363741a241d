"""Converts numeric arguments of Python, NumPy, pandas, decimal and fractions; refuses other types.

A whole number is one by its value: 100.0 and np.int64(100) are 100. Text is no number, and neither
are true and false.
"""

import math
import numbers
import sys
from decimal import Decimal
from typing import Annotated, Any, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from modelpred.errors import InvalidInput

LARGEST_SEED = 2**63 - 1
LARGEST_EXACT = 2**53  # from here on several whole numbers are the same float
MOST_STEPS = 1000  # of refinement; a few dozen reach the optimum
MOST_DRAWS = 10**7  # of subsets, resamples and orders that one call may ask for

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""The type of a seed in a configuration."""

# Any: numbers of several libraries share no type; whole_number and real_number check them.
Number: TypeAlias = Any

Section = TypeVar("Section", bound=BaseModel)


def plain(value: object) -> int | float | None:
    """The value as a Python int or float; None if it is not a number."""
    if isinstance(value, np.ndarray) or type(value).__module__ == "torch":
        value = _only_item(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Number, Decimal)):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, (numbers.Real, Decimal)):
        return None  # complex
    try:
        number = float(value)
    except (OverflowError, ValueError):  # a fraction too large, a signalling nan
        return math.nan
    if number.is_integer() and abs(number) < LARGEST_EXACT:
        return int(number)
    return number


# Any: an array or a tensor, which have the same two methods.
def _only_item(value: Any) -> object:  # noqa: ANN401
    """The item of an array without axes; None for other values."""
    return value.item() if getattr(value, "ndim", None) == 0 else None


def whole_number(
    value: object, name: str, *, least: int | None = None, most: int | None = None
) -> int:
    """The value as a whole number in that range.

    Raises:
        InvalidInput: it is no number, not whole, or out of the range.
    """
    number = plain(value)
    if not isinstance(number, int) or not _within(number, least, most):
        raise _refused(value, name, "a whole number", least, most)
    return number


def real_number(
    value: object, name: str, *, least: float | int | None = None, most: float | int | None = None
) -> float | int:
    """The value as a finite number in that range.

    Raises:
        InvalidInput: it is no number, not finite, or out of the range.
    """
    number = plain(value)
    if number is None or not abs(number) <= sys.float_info.max or not _within(number, least, most):
        raise _refused(value, name, "a number", least, most)
    return number


def seed_number(value: object, name: str = "seed") -> int:
    """The value as a seed."""
    return whole_number(value, name, least=0, most=LARGEST_SEED)


def steps_number(value: object, name: str = "refine") -> float | int:
    """The value as a number of Newton steps, which may be a fraction."""
    return real_number(value, name, least=0, most=MOST_STEPS)


# Any: pydantic checks the values.
def checked_section(
    kind: type[Section], values: dict[str, Any], names: dict[str, str] | None = None
) -> Section:
    """The configuration with these values, whose numbers may be of any library.

    Args:
        kind: the configuration.
        values: by the names of its fields.
        names: what the caller calls a field, where that differs.

    Raises:
        InvalidInput: an unknown field, a value of another type or out of range.
    """
    called = {name: (names or {}).get(name, name) for name in values}
    given = {name: _setting(value, called[name]) for name, value in values.items()}
    try:
        return kind.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        shown = _shown(values.get(name, first["input"]))
        raise InvalidInput(f"{called.get(name, name)} is {shown}: {first['msg']}") from error


def _setting(value: object, name: str) -> object:
    """The value of a setting: a number as Python's own, anything else as it is."""
    if isinstance(value, np.bool_):
        return bool(value)
    number = plain(value)
    if number is None:
        return value
    return (
        real_number(number, name, most=LARGEST_SEED)
        if isinstance(number, int)
        else real_number(number, name)
    )


def _within(number: float | int, least: float | int | None, most: float | int | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _refused(
    value: object,
    name: str,
    kind: str,
    least: float | int | None,
    most: float | int | None,
) -> InvalidInput:
    number = plain(value)
    expected = kind
    if number is not None and least is not None and number < least:
        expected = f"{least} or more"
    elif number is not None and most is not None and number > most:
        expected = f"{most} or less"
    return InvalidInput(f"{name} is {_shown(value)}; expected {expected}")


def _shown(value: object) -> str:
    """The value as the caller would write it, on one short line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a whole number of more digits than Python writes
        text = "a whole number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
