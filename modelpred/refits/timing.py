"""How long an answer takes: the fastest of several calls, which other work on the machine disturbs least."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

PATIENCE = 2.0
"""Seconds from which one call is time enough: what it warms up is nothing beside it."""


def fastest_seconds(call: Callable[[], object], *, timings: int) -> float:
    """Return the seconds of the fastest of `timings` calls; call once before to warm up caches."""
    return min(_timed(call)[1] for _ in range(timings))


def timed_answer(call: Callable[[], Answer], *, timings: int) -> tuple[Answer, float]:
    """Return what the call gives and its seconds: the fastest of `timings` calls after a first one.

    A first call of more than `PATIENCE` seconds is timed itself and not repeated.
    """
    answer, seconds = _timed(call)
    if seconds > PATIENCE:
        return answer, seconds
    return answer, fastest_seconds(call, timings=timings)


def _timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - began
