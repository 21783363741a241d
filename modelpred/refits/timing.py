"""Times a call as the median of repeats, and checks whether the machine was busy.

An answer is repeated only until its calls took `ENOUGH` seconds together, so that timing costs about
as much as answering.
"""

import math
import os
import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

Answer = TypeVar("Answer")

ENOUGH = 0.25
"""Total seconds of the repeats after which no further one is started."""


def median_seconds(call: Callable[[], object], *, timings: int) -> float:
    """Return the median seconds of `timings` calls; call once before to warm up caches."""
    return median(_timed(call)[1] for _ in range(timings))


def timed_answer(call: Callable[[], Answer], *, timings: int) -> tuple[Answer, float]:
    """Return what the call gives and its seconds: the median of up to `timings` calls after a first.

    A first call of `ENOUGH` seconds is timed itself and not repeated: what it warms up is little
    beside it.
    """
    answer, first = _timed(call)
    spent, seconds = first, list[float]()
    while len(seconds) < timings and spent < ENOUGH:
        seconds.append(_timed(call)[1])
        spent += seconds[-1]
    return answer, median(seconds or [first])


def calls_of(seconds: float, *, timings: int) -> int:
    """Return the number of calls that `timed_answer` makes if one takes this long."""
    if seconds <= 0:
        return 1 + timings
    return min(1 + timings, max(1, math.ceil(ENOUGH / seconds)))


def machine_busy() -> bool:
    """Return whether the load average of the last minute exceeds the number of cores."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def _timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - began
