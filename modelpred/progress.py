"""Progress of long work with the time left: a bar on a terminal, a line that is overwritten in a notebook.

`progress_bar` opens a bar. Work inside its block, also in other modules, reports to the open bar: by
the function that `progress_bar` gives, or by `tracked`, which counts the items of a loop.
"""

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from modelpred.wording import time_words

Item = TypeVar("Item")
Progress = Callable[[int, int, str], None]
"""(pieces that are finished, pieces in all, what is in progress)"""
SHOWN = "MODELPRED_PROGRESS"  # off: no bars
UNKNOWN = "?"


def silent(done: int, total: int, what: str) -> None:
    """Ignore the progress."""


_open: ContextVar[Progress | None] = ContextVar("open progress bar", default=None)


def open_progress() -> Progress:
    """The function that reports to the open bar; `silent` if there is none."""
    return _open.get() or silent


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items, and report to the open bar how many are finished."""
    report = open_progress()
    for done, item in enumerate(items):
        report(done, len(items), what)
        yield item
    report(len(items), len(items), what)


class TimeLeft:
    """The time left of a piece of work, from the share that is finished.

    Work may have several parts, each with its own number of pieces. Before the first piece of the first
    part is finished, the time left follows from the expected time of the whole work, if that is known.
    """

    def __init__(self, expected: float | None, clock: Callable[[], float]) -> None:
        self._expected, self._clock = expected, clock
        self._began = self._part_began = clock()
        self._share, self._total, self._end = 0.0, 0, 0.0

    def report(self, done: int, total: int) -> None:
        """Take note of the pieces that are finished; fewer, or another total, begin another part."""
        now, share = self._clock(), done / max(1, total)
        if total != self._total or share < self._share:
            self._part_began, self._total, self._share = now, total, 0.0
        if share > self._share:
            self._share = share
            self._end = self._part_began + (now - self._part_began) / share

    def seconds(self) -> float | None:
        """Seconds that are left of this part, or of the whole work; None if that is not known."""
        now = self._clock()
        if not self._share:
            left = None if self._expected is None else self._began + self._expected - now
            return None if left is None or left < 0 else left
        # A piece that takes longer than those before moves the end.
        late = (now - self._part_began) * (1 - self._share) / self._share
        return self._end - now if self._end > now else late

    def words(self) -> str:
        """The time left in words."""
        left = self.seconds()
        return UNKNOWN if left is None else time_words(left)


@contextmanager
def progress_bar(
    title: str = "", *, shown: bool = True, expected: float | None = None
) -> Generator[Progress]:
    """Report progress on a terminal or in a notebook; otherwise do nothing.

    MODELPRED_PROGRESS=off shows none. The bar is removed when the block ends. Within the block of
    another bar, that one is used.

    Args:
        title: shown before the bar.
        shown: False shows none, also of bars within the block.
        expected: seconds that the work will take, if they are known.
    """
    outer = _open.get()
    with _bar(title, shown=shown, expected=expected, outer=outer) as report:
        before = _open.set(report)
        try:
            yield report
        finally:
            _open.reset(before)


@contextmanager
def _bar(
    title: str, *, shown: bool, expected: float | None, outer: Progress | None
) -> Generator[Progress]:
    if not shown or os.environ.get(SHOWN) == "off":
        yield silent
    elif outer is not None:
        yield outer
    elif sys.stderr.isatty():
        with _terminal(title, expected) as report:
            yield report
    elif "ipykernel" in sys.modules:  # a notebook's kernel, whose output is no terminal
        yield _renewed_line(TimeLeft(expected, time.monotonic))
        sys.stderr.write("\n")
    else:
        yield silent


@contextmanager
def _terminal(title: str, expected: float | None) -> Generator[Progress]:
    # Imported where it is needed: scripts and pipelines have no terminal.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    left = TimeLeft(expected, time.monotonic)

    class Left(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:  # noqa: ARG002 - of rich
            return Text(f"left: {left.words()}")

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        Left(),
        progress.TextColumn("{task.fields[what]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None, what="")

        def report(done: int, total: int, what: str) -> None:
            left.report(done, total)
            bar.update(task, completed=done, total=total, what=what)

        yield report


def _renewed_line(left: TimeLeft) -> Progress:
    """Overwrite the last line; a carriage return is the only control character of notebooks."""

    def report(done: int, total: int, what: str) -> None:
        left.report(done, total)
        words = f"{what}: {done} of {total}, {left.words()} left"
        sys.stderr.write(f"\r{words:<70}")
        sys.stderr.flush()

    return report
