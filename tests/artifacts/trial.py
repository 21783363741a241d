"""One trial: a reader meets a mutated file and ends in one line, or in what it reads from whole files."""

import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpred.errors import InvalidInput, refusal
from tests.artifacts.mutations import Mutation, applied, of_kinds

MEMORY = 2 * 2**30
LIMIT = 20.0  # seconds; a reader takes one at most
ADVICE = re.compile(
    r"\b(run|dvc repro|restore|remove|move|delete|publish|save|install|write it again|make it|reproduce|"
    r"compare again|permission|make room|known|expected)\b"
)
OPENED: set[str] = set()


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "sqlite3.connect") and isinstance(arguments[0], (str, os.PathLike)):
        OPENED.add(str(arguments[0]).removeprefix("file://").partition("?")[0])


sys.addaudithook(_note)


def opened_by(read: Callable[[], object]) -> tuple[set[Path], object]:
    """The files of the working directory that a reader opens, and what it returns."""
    OPENED.clear()
    here = Path().absolute()
    found = read()
    paths = {Path(os.path.normpath(Path(name).absolute())) for name in OPENED}
    return {path.relative_to(here) for path in paths if path.is_relative_to(here)}, found


class Kept:
    """The files of a folder as they were, which can be put back."""

    def __init__(self, folder: Path, copy: Path) -> None:
        self.folder, self.copy = folder, copy
        shutil.copytree(folder, copy, symlinks=True)
        self.state = self._state()

    def _state(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        waiting = [str(self.folder)]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if is_folder and entry.name not in (
                        ".git",
                        "__pycache__",
                        "modelpred",
                        "flows",
                    ):
                        waiting.append(entry.path)
                    s = entry.stat(follow_symlinks=False)
                    about = (s.st_mode >> 12, *(() if is_folder else (s.st_size, s.st_mtime_ns)))
                    found[os.path.relpath(entry.path, self.folder)] = about
        return found

    def put_back(self) -> None:
        """Put back what has changed; files keep their times and their inodes where they can."""
        now = self._state()
        for name in sorted(now, reverse=True):  # what lies in a folder, before the folder
            path = self.folder / name
            if self.state.get(name, (None,))[0] != now[name][0]:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for name in sorted(self.state):
            if now.get(name) == self.state[name]:
                continue
            source, target = self.copy / name, self.folder / name
            if source.is_dir():
                target.mkdir(exist_ok=True)
                continue
            if target.exists():
                target.chmod(0o644)
                target.write_bytes(source.read_bytes())
                shutil.copystat(source, target)
            else:
                shutil.copy2(source, target, follow_symlinks=False)


@dataclass(frozen=True)
class Reader:
    """A reader with the files that it opens and what it reads from whole ones."""

    name: str
    read: Callable[[], object]
    files: frozenset[Path]
    expected: object

    def without(self, path: Path, kept: "Kept") -> object:
        """What it reads where there is nothing at the path."""
        [missing] = [mutation for mutation in of_kinds(path) if mutation.name == "missing"]
        try:
            with applied(missing, path):
                return self.read()
        finally:
            kept.put_back()


def fault(
    reader: Reader, path: Path, mutation: Mutation, kept: Kept, *, owned: bool, optional: bool
) -> str | None:
    """What is wrong with how the reader ends; None if nothing is. The files are as before afterwards.

    Args:
        reader: what reads.
        path: the file or folder that is changed.
        mutation: the change.
        kept: puts the files back.
        owned: whether the file is one that people edit, or git or DVC checks: other valid content is right there.
        optional: whether the reader may take what it cannot use for missing.
    """
    found, why = _ending(reader, path, mutation, owned=owned)
    kept.put_back()
    if why is not None or owned or mutation.resealed or found in (None, reader.expected):
        return why
    if optional and found == reader.without(path, kept):
        return None
    return "uses it silently"


def _ending(
    reader: Reader, path: Path, mutation: Mutation, *, owned: bool
) -> tuple[object, str | None]:
    """What the reader returns, and what is wrong with the error if there is one instead."""
    try:
        with applied(mutation, path), within(LIMIT):
            return reader.read(), None
    except (InvalidInput, SystemExit) as error:
        return None, _fault_of_message(str(error), path, owned=owned)
    except TimeoutError:
        return None, "hangs"
    except Exception as error:  # noqa: BLE001 - every other one is a fault
        told = refusal(error)  # what stages and commands print in its place
        if told is not None:
            return None, _fault_of_message(told, path, owned=owned)
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _fault_of_message(said: str, path: Path, *, owned: bool) -> str | None:
    if not said.strip() or "\n" in said or len(said) > 1500:
        return f"not one line: {said[:300]!r}"
    if not any(name in said for name in path.parts[-9:]):  # the registry names a version's folder
        return f"does not name it: {said}"
    if not owned and not ADVICE.search(said):
        return f"does not say what to do: {said}"
    return None


@contextmanager
def within(seconds: float):
    """TimeoutError after so many seconds, also while a system call waits; MemoryError if it takes much."""

    def end(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, limits[1]))  # of a file without end
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
