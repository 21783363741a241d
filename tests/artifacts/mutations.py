"""Ways in which a file or folder of a run can be other than it was written."""

import contextlib
import io
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
import torch
import yaml

from modelpred.sealed import OWN_HASH, SEAL, hashed, seal

DENIED: set[tuple[int, int]] = (
    set()
)  # inode and time of files that `unreadable` denies, also to root


def _deny(event: str, arguments: tuple[object, ...]) -> None:
    if not DENIED or event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return
    try:
        found = os.lstat(arguments[0])
    except OSError:
        return
    if (found.st_ino, found.st_mtime_ns) in DENIED:
        raise PermissionError(13, "Permission denied", str(arguments[0]))


sys.addaudithook(_deny)


@dataclass(frozen=True)
class Mutation:
    """A change of what lies at a path.

    Attributes:
        name: of the kind and its details.
        make: changes what is there.
        resealed: whether the hashes of the folder are brought up to date, so that valid content passes for written one.
    """

    name: str
    make: Callable[[Path], None]
    resealed: bool = False

    def __str__(self) -> str:
        return f"{self.name}, sealed" if self.resealed else self.name


def of_kinds(path: Path) -> list[Mutation]:
    """Another kind of thing in place of a file or folder."""
    kinds: dict[str, Callable[[Path], None]] = {
        "missing": lambda _: None,
        "folder": Path.mkdir,
        "pipe": os.mkfifo,
        "loop": lambda at: at.symlink_to(at),
        "dangling": lambda at: at.symlink_to("nowhere"),
        "zeros": lambda at: at.symlink_to("/dev/zero"),
        "socket": _socket,
        "file": lambda at: at.write_bytes(b"a file"),
        "moved": _moved,
    }
    same = "folder" if path.is_dir() else "file"
    found = [Mutation(kind, _replacing(make)) for kind, make in kinds.items() if kind != same]
    return [*found, Mutation("unreadable", _unreadable)]


def _replacing(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        kept = path.with_name(f"{path.name}.kept")
        path.rename(kept)
        make(path)
        if make is not _moved:
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()

    return change


def _unreadable(path: Path) -> None:
    found = path.lstat()
    DENIED.add((found.st_ino, found.st_mtime_ns))


def _moved(path: Path) -> None:
    """A link to the thing itself, elsewhere: nothing is wrong with it."""
    path.symlink_to(f"{path.name}.kept")


def _socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind("s")  # a socket's path may have some hundred characters
        Path("s").rename(path.name)


def of_bytes(share: float, bit: int) -> list[Mutation]:
    """Damage of a file's bytes at a place, as a share of its length."""

    def at(content: bytes) -> int:
        return min(int(share * len(content)), len(content) - 1)

    def flipped(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[at(content)] ^= 1 << bit
        return bytes(changed)

    ways: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "cut": lambda content: content[: at(content)],
        "flipped": flipped,
        "blanked": lambda content: content[: at(content)] + bytes(len(content) - at(content)),
        "longer": lambda content: content + content[: at(content) + 1],
        "twice": lambda content: content + content,
        "no text": lambda content: content[: at(content)] + b"\xff\xfe" + content[at(content) :],
    }
    return [
        Mutation(f"{name} at {share:.3f} bit {bit}", _rewriting(way), resealed)
        for name, way in ways.items()
        for resealed in (False, True)
    ]


def _rewriting(way: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = way(path.read_bytes())
        if not path.stat().st_mode & 0o200:
            path.chmod(0o644)
        path.write_bytes(content)

    return change


# --- content that is well formed and wrong ------------------------------------------------------

DEEP: Any = 0
for _ in range(200):
    DEEP = [DEEP]
OTHER: dict[str, Any] = {
    "list": [],
    "mapping": {"unknown": 1},
    "text": "x",
    "long": "x" * 100_000,
    "null": None,
    "true": True,
    "huge": 10**40,
    "negative": -1,
    "infinite": float("inf"),
    "nan": float("nan"),
    "deep": DEEP,
    "path": "../../../etc/passwd",
    "surrogate": "\ud800",
}
DIGITS = "9" * 5000  # a number that Python does not read


def of_document(path: Path, share: float) -> list[Mutation]:
    """Changes of one value of a JSON or YAML file, at a place in it, with hashes brought up to date."""
    if path.suffix in (".yaml", ".lock"):
        read, write = yaml.safe_load, _yaml
    else:
        read, write = json.loads, json.dumps
    tree = read(path.read_text())
    places = list(_places(tree))
    place = places[min(int(share * len(places)), len(places) - 1)]

    def changed(value: Any) -> Callable[[bytes], bytes]:
        return lambda content: write(_with(read(content.decode()), place, value)).encode()

    def removed(content: bytes) -> bytes:
        return write(_without(read(content.decode()), place)).encode()

    def with_digits(content: bytes) -> bytes:
        return write(_with(read(content.decode()), place, "DIGITS")).replace('"DIGITS"', DIGITS).replace("DIGITS", DIGITS).encode()  # fmt: skip

    told = ".".join(map(str, place))
    found = [
        Mutation(f"{name} at {told}", _hashed(changed(value))) for name, value in OTHER.items()
    ]
    found += [
        Mutation(f"digits at {told}", _hashed(with_digits)),
        Mutation(f"{told} removed", _hashed(removed)),
    ]
    if isinstance(tree, dict):
        whole: dict[str, Callable[[Any], Any]] = {
            "newer": lambda old: {**old, "schema_version": 10**6},
            "a key more": lambda old: {**old, "unknown": 1},
            "in a list": lambda old: [old],
            "none": lambda _: {},
        }
        found += [
            Mutation(
                name, _hashed(lambda content, way=way: write(way(read(content.decode()))).encode())
            )
            for name, way in whole.items()
        ]
    return [Mutation(each.name, each.make, resealed=True) for each in found]


def _yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False)


def _hashed(way: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """As `_rewriting`, with the file's own hash brought up to date where it has one."""

    def rewritten(content: bytes) -> bytes:
        text = way(content)
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            found = json.loads(text)
            if OWN_HASH in found:
                del found[OWN_HASH]
                return json.dumps(hashed(found)).encode()
        return text

    return _rewriting(rewritten)


def _places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*above, key)
        yield from _places(tree[key], (*above, key))


def _with(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    above = tree
    for key in place[:-1]:
        above = above[key]
    above[place[-1]] = value
    return tree


def _without(tree: Any, place: tuple[Any, ...]) -> Any:
    above = tree
    for key in place[:-1]:
        above = above[key]
    del above[place[-1]]
    return tree


def of_table(path: Path, share: float) -> list[Mutation]:
    """Changes of one column of a Parquet table, or of its rows, with hashes brought up to date."""
    table = pl.read_parquet(path)
    if not table.width:
        return []
    name = table.columns[min(int(share * table.width), table.width - 1)]
    ways: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
        "without": lambda t: t.drop(name),
        "renamed": lambda t: t.rename({name: "other"}),
        "text": lambda t: t.with_columns(pl.lit("x").alias(name)),
        "numbers": lambda t: t.with_columns(pl.lit(0.5).alias(name)),
        "null": lambda t: t.with_columns(pl.lit(None).cast(t[name].dtype).alias(name)),
        "nan": lambda t: t.with_columns(pl.lit(float("nan")).alias(name)),
        "lists": lambda t: t.with_columns(pl.lit([1]).alias(name)),
        "no rows": lambda t: t.clear(),
        "reversed": lambda t: t.reverse(),
        "twice": lambda t: pl.concat([t, t]),
        "first row": lambda t: t.head(1),
        "no columns": lambda _: pl.DataFrame(),
        "a column more": lambda t: t.with_columns(pl.lit(1).alias("more")),
    }

    def change(way: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[bytes], bytes]:
        def changed(content: bytes) -> bytes:
            buffer = io.BytesIO()
            way(pl.read_parquet(io.BytesIO(content))).write_parquet(buffer)
            return buffer.getvalue()

        return changed

    return [
        Mutation(f"{kind}: {name}", _rewriting(change(way)), resealed=True)
        for kind, way in ways.items()
    ]


def of_tensors(path: Path, share: float) -> list[Mutation]:
    """Changes of one tensor of a safetensors file, with hashes brought up to date."""
    tensors = safetensors.torch.load(path.read_bytes())
    names = sorted(tensors)
    name = names[min(int(share * len(names)), len(names) - 1)]
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
        "without": lambda _: None,
        "nan": lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else -t - 1,
        "flat": lambda t: t.reshape(-1).clone(),
        "scalar": lambda _: torch.tensor(1.0),
        "half": lambda t: t.to(torch.float16),
        "bool": lambda t: t.bool(),
        "empty": lambda t: t.reshape(-1)[:0].clone(),
        "longer": lambda t: torch.cat([t.reshape(-1), t.reshape(-1)]),
        "huge": lambda t: torch.full_like(t, 1e300 if t.dtype == torch.float64 else 10**4),
    }

    def change(way: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[bytes], bytes]:
        def changed(content: bytes) -> bytes:
            found = safetensors.torch.load(content)
            value = way(found.pop(name))
            return safetensors.torch.save(found if value is None else {**found, name: value})

        return changed

    return [
        Mutation(f"{kind}: {name}", _rewriting(change(way)), resealed=True)
        for kind, way in ways.items()
    ]


def of_another_table(path: Path, other: Path) -> list[Mutation]:
    """The file or folder of this name of a run on another table."""
    if not other.exists():
        return []

    def copied(at: Path) -> None:
        (shutil.copytree if other.is_dir() else shutil.copy)(other, at)

    make = _replacing(copied)
    named = "folder" if other.is_dir() else "file"
    again = [] if other.is_dir() else [Mutation("file of another table, sealed", make, True)]
    return [Mutation(f"{named} of another table", make), *again]


def all_of(path: Path, *, other: Path, share: float, bit: int) -> list[Mutation]:
    """Every mutation of a file or folder, where places in it are shares of its length."""
    found = [*of_kinds(path), *of_another_table(path, other)]
    if path.is_dir() or not path.stat().st_size:
        return found
    found += of_bytes(share, bit)
    if path.suffix in (".json", ".yaml", ".lock"):
        found += of_document(path, share)
    elif path.suffix == ".parquet":
        found += of_table(path, share)
    elif path.suffix == ".safetensors":
        found += of_tensors(path, share)
    return found


@contextlib.contextmanager
def applied(mutation: Mutation, path: Path) -> Generator[None]:
    """The mutation for the time of the block; the caller puts the files back."""
    try:
        mutation.make(path)
        if mutation.resealed and (path.parent / SEAL).is_file() and path.name != SEAL:
            names = [line.split("  ")[1] for line in (path.parent / SEAL).read_text().splitlines()]
            seal(path.parent, names)
        yield
    finally:
        DENIED.clear()
