"""How many threads torch may split one product over.

torch keeps a number for each thread, and one for the process, which threads take that are new to it.
Setting the first sets the second, so calls that overlap in time would leave each other's. Here the
process's own number is kept from when the first call begins until the last has ended.

Small products are not split (`threads_for`): the parts would wait for each other, and where other work
has a core, each wait is a time slice of the system, many times as long as the product.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch

SMALL_BYTES = 8 * 2**20
"""Size of the largest array that products make or read, up to which one thread is best."""

_lock = threading.Lock()


class _Own(threading.local):
    """This thread's number, where this module has set it."""

    count: int | None = None


class _Process:
    """The number outside of all calls, and how many calls there are."""

    count: int = 1
    calls: int = 0


_own = _Own()


def thread_count() -> int:
    """How many threads torch splits a product of this thread over, whatever other threads have set."""
    if _own.count is not None:
        return _own.count
    with _lock:
        return _Process.count if _Process.calls else torch.get_num_threads()


def useful_threads(size: int) -> int:
    """How many threads to split products over whose largest array has so many bytes."""
    return 1 if size <= SMALL_BYTES else thread_count()


def keep_threads(count: int) -> None:
    """Let torch split products over so many threads in this thread until it ends."""
    _own.count = count
    _set(count)


def _set(count: int) -> None:
    """Set this thread's number. It is read first: otherwise the first product uses the process's number."""
    torch.get_num_threads()
    torch.set_num_threads(count)


@contextmanager
def torch_threads(count: int) -> Generator[None]:
    """Let torch split this thread's products over so many threads inside, and as before after."""
    outer, before = _own.count, thread_count()
    with _lock:
        if _Process.calls == 0:
            _Process.count = before
        _Process.calls += 1
        _set(count)
    _own.count = count
    try:
        yield
    finally:
        _own.count = outer
        with _lock:
            _Process.calls -= 1
            torch.set_num_threads(before)  # also for threads started later, which inherit the last


@contextmanager
def threads_for(size: int) -> Generator[None]:
    """Let torch split products over as many threads as are useful for arrays of so many bytes."""
    with torch_threads(useful_threads(size)):
        yield
