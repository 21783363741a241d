"""How long an answer takes: the fastest of several calls, which other work on the machine disturbs least."""

import time
from collections.abc import Callable


def fastest_seconds(call: Callable[[], object], *, timings: int) -> float:
    """Return the seconds of the fastest of `timings` calls; call once before to warm up caches."""
    seconds: list[float] = []
    for _ in range(timings):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
