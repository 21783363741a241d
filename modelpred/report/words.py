"""The format of numbers, shares, times and settings on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number(value: int | float | None, digits: int = 3) -> str:
    """A number with that many significant digits, without exponents between 1e-6 and 1e15."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001  # the dash that a table shows for "no value"
    if value == 0:
        return "0"
    if abs(value) < 1e-6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}")
    value = float(f"{value:.12g}")  # sums of shares differ in the last bits
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 0.9996 is 1.00
    places = max(digits - 1 - exponent, 0)
    return f"{value:,.{places}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: int | float | None, digits: int = 3) -> str:
    """A share as a percentage with that many significant digits."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{number(100 * value, digits)}%"


def small_percent(value: float) -> str:
    """A probability as a percentage with two digits, or a limit where more would be false precision."""
    if value < 0.001:
        return "less than 0.1%"
    return percent(value, 2) if value <= 0.999 else "more than 99.9%"


def percent_interval(low: int | float | None, high: int | float | None) -> str:
    """The two ends of an interval of shares; empty if there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(100 * low)} to {percent(high)}"


def number_interval(low: int | float | None, high: int | float | None) -> str:
    """The two ends of an interval of numbers; empty if there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low)} to {number(high)}"


def timing_words(*, busy: bool) -> str:
    """How times were measured, and a warning if other work on the machine made them longer."""
    warning = " The machine was busy (load average above its number of cores): they are too long."
    return "Times are medians of repeats on this machine." + warning * busy


def microseconds(value: int | float | None) -> str:
    """A time given in microseconds, in a suitable unit."""
    if value is None or not math.isfinite(value):
        return number(value)
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if value >= size:
            return f"{number(value / size)}\N{NO-BREAK SPACE}{unit}"
    return (
        "below 0.1\N{NO-BREAK SPACE}µs"
        if value < 0.1
        else f"{number(value, 2 if value < 100 else 3)}\N{NO-BREAK SPACE}µs"
    )


def change(before: float, after: float) -> str:
    """How the log loss changes, as a phrase."""
    if number(before) == number(after):
        return f"leaves the log loss at {number(after)}"
    way = "lowers" if after < before else "raises"
    return f"{way} the log loss from {number(before)} to {number(after)}"


def count(value: int | float) -> str:
    """A whole number with thousands separated."""
    return f"{value:,.0f}"


def models_used(metrics: Mapping[str, Any]) -> str:
    """`predicted` or `retrained`: the models that a study's results come from."""
    return "retrained" if metrics.get("engine", {}).get("used") == "exact" else "predicted"


def plain(value: object) -> str:
    """A value of a params or metrics file as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 or not math.isfinite(value) else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)
