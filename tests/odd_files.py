"""Things at the place of a file that are no ordinary file, and files with a flipped bit."""

import os
from pathlib import Path


def make_odd(path: Path, kind: str) -> None:
    """Make a folder, a pipe or a loop of links; `missing` and other kinds make nothing."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)


def flip_bit(path: Path, share: float) -> None:
    """Flip a bit of the byte at this share of the file's length."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
