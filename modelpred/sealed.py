"""Files between stages: written whole, sealed with hashes, and read as they were written or refused in one line.

A folder of artifacts has a seal: the file SHA256SUMS with the hash of every other file in it, in the form that
`sha256sum -c` checks. It is written last, so a killed write is never taken for a finished one. It also names the seals of
the folders that the content was made from, so results of one table are never taken for those of another. Readers compare
the bytes that they parse with the seal. They read only ordinary files, up to a limit of size.

`again` is the advice in every error; `remake` is that of a stage.
"""

import hashlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel, ValidationError

from modelpred.errors import InvalidInput, writing

SEAL = "SHA256SUMS"
OWN_HASH = "sha256"
LARGEST_FILE = 4 * 2**30
LARGEST_SEAL = 2**20
# The name of a file, or the seal of another folder beside the own one.
_LINE = re.compile(rf"([0-9a-f]{{64}})  ((?:(?:\.\./){{1,2}}(?:[a-z]+/){{1,2}}{SEAL})|[^\0\n/]+)")

Described = TypeVar("Described", bound=BaseModel)


def remake(stage: str) -> str:
    """The advice for a damaged folder of a stage, as dvc.yaml names the stage.

    DVC does not look into files whose time and size are unchanged, so the folder has to go first.
    """
    return f"run the {stage} stage again: remove its folder, then dvc repro {stage}"


class Unusable(InvalidInput):
    """A file that cannot be used: what is wrong with it, and what to do."""

    def __init__(self, said: str, again: str = "") -> None:
        super().__init__(f"{said}; {again}" if again else said)
        self.said = said


@contextmanager
def advice(again: str) -> Generator[None]:
    """In the block, errors of files give this advice: for files that no stage wrote where they are."""
    try:
        yield
    except Unusable as error:
        raise type(error)(error.said, again) from error


def refuse(path: Path, why: str, *, again: str) -> Unusable:
    """The error for a file that cannot be used, as one line."""
    said = " ".join(why.split())[:300]
    return Unusable(f"{path} cannot be used: {said}", again)


def sha256(content: bytes) -> str:
    """The SHA-256 of the content, in hex."""
    return hashlib.sha256(content).hexdigest()


# --- writing -----------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name in the same folder, sync, rename: all or nothing."""
    try:
        _write_and_rename(path, content)
    except OSError as error:
        if error.errno is None:
            raise
        # The user knows the file, not its temporary name.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_and_rename(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.part")
    # Not mkstemp, whose mode 0600 would hide the file from a shared store: the umask decides who reads it.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with writing(path), os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def seal(
    folder: Path, names: Iterable[str] | None = None, *, made_from: Iterable[str] = ()
) -> None:
    """Write the hashes of the folder's files, as the last step of writing them.

    Args:
        folder: the folder.
        names: of the files; default: all.
        made_from: paths, from the folder, of sealed folders that its content follows from; see `check_inputs`.
    """
    if names is None:
        names = [path.name for path in folder.iterdir() if path.is_file()]
    seals = [f"{path}/{SEAL}" for path in made_from if (folder / path / SEAL).is_file()]
    named = [*sorted(name for name in names if name != SEAL), *seals]
    lines = [f"{_file_hash(folder / name)}  {name}\n" for name in named]
    write_atomically(folder / SEAL, "".join(lines).encode())


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading -----------------------------------------------------------------------------------


def open_file(path: Path, *, again: str) -> io.BufferedReader:
    """An ordinary file, opened for reading bytes.

    Raises:
        InvalidInput: it is a folder, a pipe, a socket or a device.
        OSError: it is missing or unreadable.
    """
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise refuse(path, "it is not an ordinary file", again=again)
    return file


def read_file(path: Path, *, again: str, largest: int = LARGEST_FILE) -> bytes:
    """The content of an ordinary file.

    Raises:
        InvalidInput: it is missing, a folder, a pipe or a device, unreadable, or larger than that.
    """
    try:
        with open_file(path, again=again) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                why = f"it has {size:,} bytes, at most {largest:,} are read"
                raise refuse(path, why, again=again)
            return file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unusable(f"{path} is missing", again) from error
    except OSError as error:
        raise refuse(path, error.strerror or str(error), again=again) from error


def read_seal(folder: Path, *, again: str) -> dict[str, str]:
    """The hash of each file of a sealed folder, by name."""
    path = folder / SEAL
    return parse_seal(read_file(path, again=again, largest=LARGEST_SEAL), path, again=again)


def parse_seal(content: bytes, path: Path, *, again: str) -> dict[str, str]:
    """The hashes in the content of a seal, by name; InvalidInput where it is none."""
    # Not splitlines: a damaged line end can be another character that it takes for one.
    *lines, rest = content.decode("utf-8", errors="replace").split("\n")
    matches = [_LINE.fullmatch(line) for line in lines]
    hashes = {match[2]: match[1] for match in matches if match}
    if not hashes or len(hashes) != len(lines) or rest:
        raise refuse(path, "it is no list of hashes and names", again=again)
    return hashes


def read_sealed(path: Path, *, again: str, largest: int = LARGEST_FILE) -> bytes:
    """The content of a file, as it was when its folder was sealed.

    Raises:
        InvalidInput: file or seal is missing, or the content is not the one that was sealed.
    """
    content = read_file(path, again=again, largest=largest)
    return require_sealed(content, path, read_seal(path.parent, again=again), again=again)


def read_part(path: Path, *, again: str) -> bytes:
    """The content of a file, as it was sealed; in a folder without a seal, as it is."""
    read = read_sealed if os.path.lexists(path.parent / SEAL) else read_file
    return read(path, again=again)


def require_sealed(content: bytes, path: Path, hashes: Mapping[str, str], *, again: str) -> bytes:
    """The content of a file, if it is the one in the hashes of its folder; InvalidInput otherwise."""
    if sha256(content) != hashes.get(path.name):
        raise refuse(path, f"its content is not the one that {SEAL} names", again=again)
    return content


def check_sealed(folder: Path, *, again: str) -> None:
    """Refuse a folder of which a file is missing or is not the one that was sealed."""
    hashes = read_seal(folder, again=again)
    for path in (folder / name for name in hashes if "/" not in name):
        require_sealed(read_file(path, again=again), path, hashes, again=again)


def changed_input(folder: Path, *, again: str) -> str | None:
    """The name of a folder that has changed since this folder was made from it; None if there is none.

    A folder that is not there, or is not sealed, is not compared.
    """
    if not os.path.lexists(folder / SEAL):
        return None
    for name, digest in read_seal(folder, again=again).items():
        other = folder / name
        if "/" in name and other.is_file() and _file_hash(other) != digest:
            return other.parent.name
    return None


def check_inputs(folder: Path, *, again: str) -> None:
    """Refuse a folder that was made from other content than the folders beside it hold now."""
    changed = changed_input(folder, again=again)
    if changed is not None:
        why = f"it was made from another {changed} than the one that is there now"
        raise refuse(folder, why, again=again)


def read_json(path: Path, *, again: str) -> dict[str, Any]:
    """The JSON object in a sealed file; InvalidInput where it is not the one that was sealed."""
    return parse_json(read_sealed(path, again=again), path, again=again)


def read_table(path: Path, *, again: str) -> pl.DataFrame:
    """The Parquet table in a sealed file; InvalidInput where it is not the one that was sealed."""
    return parse_table(read_sealed(path, again=again), path, again=again)


# --- parsing what was read ---------------------------------------------------------------------


def parse_json(content: bytes, path: Path, *, again: str) -> dict[str, Any]:
    """The JSON object in the content of a file.

    Raises:
        InvalidInput: it is not JSON, not an object, or holds text that cannot be printed or written.
    """
    try:
        found = json.loads(content)
        if rb"\ud" in content.lower():  # half of a pair; only an escape can name one
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits are a ValueError
        raise refuse(path, f"it is not JSON ({error})", again=again) from error
    if not isinstance(found, dict):
        raise refuse(path, f"expected a JSON object, got a {type(found).__name__}", again=again)
    return found


def hashed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a lone JSON file, with its own hash under the key `sha256`."""
    text = json.dumps(content, sort_keys=True)
    return {**content, OWN_HASH: sha256(text.encode())}


def parse_hashed(content: bytes, path: Path, *, again: str) -> dict[str, Any]:
    """What was given to `hashed`, from the content of its JSON file.

    Raises:
        InvalidInput: it is no JSON object, or not the one that was hashed.
    """
    found = parse_json(content, path, again=again)
    stored = found.pop(OWN_HASH, None)
    if hashed(found)[OWN_HASH] != stored:
        raise refuse(path, f"its content is not the one that its {OWN_HASH} names", again=again)
    return found


def parse_model(kind: type[Described], content: bytes, path: Path, *, again: str) -> Described:
    """The JSON in the content of a file as a model of pydantic's.

    Raises:
        InvalidInput: names the first key that is missing, unknown or wrong.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}".removeprefix(": ")
        raise refuse(path, why, again=again) from error


def parse_table(content: bytes, path: Path, *, again: str) -> pl.DataFrame:
    """The Parquet table in the content of a file.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        return pl.read_parquet(io.BytesIO(content))
    # Damaged Parquet makes polars panic, too, which is no Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise refuse(path, f"it is no Parquet table ({error})", again=again) from error
