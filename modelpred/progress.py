"""Progress of long work: a bar on a terminal, a line that is overwritten in a notebook."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

Progress = Callable[[int, int, str], None]
"""(pieces that are finished, pieces in all, what is in progress)"""
SHOWN = "MODELPRED_PROGRESS"  # off: no bars


def silent(done: int, total: int, what: str) -> None:
    """Ignore the progress."""


@contextmanager
def progress_bar(title: str = "", *, shown: bool = True) -> Generator[Progress]:
    """Report progress on a terminal or in a notebook; otherwise do nothing.

    MODELPRED_PROGRESS=off shows none. The bar is removed when the block ends.

    Args:
        title: shown before the bar.
        shown: False shows none.
    """
    if not shown or os.environ.get(SHOWN) == "off":
        yield silent
    elif sys.stderr.isatty():
        with _terminal(title) as report:
            yield report
    elif "ipykernel" in sys.modules:  # a notebook's kernel, whose output is no terminal
        yield _renewed_line
        sys.stderr.write("\n")
    else:
        yield silent


@contextmanager
def _terminal(title: str) -> Generator[Progress]:
    # Imported where it is needed: scripts and pipelines have no terminal.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left:", markup=False),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[what]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)


def _renewed_line(done: int, total: int, what: str) -> None:
    """Overwrite the last line; a carriage return is the only control character of notebooks."""
    sys.stderr.write(f"\r{f'{what}: {done} of {total}':<70}")
    sys.stderr.flush()
