"""The errors that end a command with one line: input that cannot be used, and a disk that refuses to write."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

# Errors of the disk or its permissions, not of the program.
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
# Errors of a file in the place of a folder, a folder in the place of a file, or a link to itself.
OBSTRUCTIONS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP}
# polars, SQLite and MLflow report them in exceptions of their own.
REFUSAL_WORDS = (
    *("No space left on device", "Disk quota exceeded", "database or disk is full"),
    *("Read-only file system", "readonly database", "unable to open database"),
    *("No usable temporary directory",),
)


class InvalidInput(ValueError):  # noqa: N818 - a state of the input, named as a user says it
    """What the user gave cannot be used; the message says expected, got and what to do."""


def _named(error: BaseException) -> object:
    """The file that an error is about: of a renaming, the new name, as the old one is temporary."""
    return getattr(error, "filename2", None) or getattr(error, "filename", None)


def _dangling(name: object) -> Path | None:
    """The link to nothing that is the path or above it; None if there is none."""
    path = Path(str(name))
    return next(
        (each for each in (path, *path.parents) if each.is_symlink() and not each.exists()), None
    )


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Name the file in errors of the disk, which those of an open file and of polars leave out."""
    try:
        yield
    except Exception as error:
        words = next((words for words in REFUSAL_WORDS if words in str(error)), None)
        if words is None or getattr(error, "filename", None):
            raise
        raise OSError(getattr(error, "errno", None) or errno.ENOSPC, words, str(path)) from error


def refusal(error: BaseException | None) -> str | None:
    """One line that says which disk refused and what to do; None for any other error."""
    while error is not None:
        name = _named(error)
        if isinstance(error, OSError) and error.errno in REFUSALS:
            place = f" at {name}" if name else ""
            reason = error.strerror
            return f"cannot write{place}: {reason}; make room or give permission, then run again"
        if isinstance(error, OSError) and error.errno in OBSTRUCTIONS and name:
            return f"cannot write at {name}: {error.strerror}; move it away and run again"
        if isinstance(error, FileNotFoundError) and (link := _dangling(error.filename)):
            return f"cannot write at {link}: it links to nothing; move it away and run again"
        words = next((words for words in REFUSAL_WORDS if words in str(error)), None)
        if words is not None:
            return f"cannot write: {words}; make room or give permission, then run again"
        error = error.__cause__ or error.__context__
    return None
