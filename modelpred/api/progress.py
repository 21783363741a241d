"""Reports progress: a bar on a terminal, a line that is overwritten in a notebook."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from modelpred.refits import silent

Report = Callable[[int, int, str], None]
"""(done, total, what)"""


@contextmanager
def progress_bar(*, shown: bool) -> Generator[Report]:
    """Report progress on a terminal or in a notebook; otherwise do nothing."""
    if not shown:
        yield silent
    elif sys.stderr.isatty():
        with _terminal() as report:
            yield report
    elif "ipykernel" in sys.modules:  # a notebook's kernel, whose output is no terminal
        yield _renewed_line
        sys.stderr.write("\n")
    else:
        yield silent


@contextmanager
def _terminal() -> Generator[Report]:
    # Imported where it is needed: scripts and pipelines have no terminal.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def _renewed_line(done: int, total: int, what: str) -> None:
    """Overwrite the last line; a carriage return is the only control character of notebooks."""
    sys.stderr.write(f"\r{f'{what}: {done} of {total}':<70}")
    sys.stderr.flush()
