"""Files at any URL that fsspec supports (`s3://bucket/shards`, ...), shared by machines.

A store of shards at a URL also carries the inputs of a run, so that a machine with no copy of them can train its blocks:

    <url>/<first two>/<fingerprint>-<sha256>.parquet      finished shards
    <url>/inputs/<sha256 of the folder>/<file>            data set and subsets of a run
    <url>/uploads/<time>-<random>.part                    files that are being written

Credentials and endpoints are fsspec's own affair (its config files, or FSSPEC_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...).
"""

import contextlib
import functools
import glob
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, final

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from pydantic import Field

from modelpred.errors import InvalidInput
from modelpred.extras import require
from modelpred.sealed import read_file

INPUTS, UPLOADS = "inputs", "uploads"
# Plain names only: a name out of a store never becomes a path into another folder.
INPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
LARGEST_INPUT = 4 * 2**30
STALE_SECONDS = 3600.0
ATTEMPTS = 3  # at an upload that arrives cut short

Url = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://.+")]

log = logging.getLogger(__name__)


def is_url(where: object) -> bool:
    """Whether this names a store at a URL and not a folder."""
    return isinstance(where, str) and "://" in where


def read_local(path: Path) -> bytes:
    """Return the content of a file of a store on this machine's disk.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidInput: it is not an ordinary file, such as a pipe, or cannot be read.
    """
    path.lstat()  # read_file has another error for a file that is not there
    return read_file(path, again="it is made again")


def remove_local(path: Path) -> None:
    """Remove a file of a store on this machine's disk, or the folder in its place, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@final
class UrlStore:
    """Files at a URL, by their names below it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if self.url.startswith("s3://"):
            require(("s3fs",))
        try:
            found: Any = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InvalidInput(f"the shard store {url} cannot be used: {error}") from error
        self._files, self._root = found[0], found[1].rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)
        # A file system that renames shows a file while it is written. Object stores, for which
        # fsspec would copy and remove, show whole objects only.
        self._renames = type(self._files).mv is not AbstractFileSystem.mv

    def names(self, start: str) -> list[str]:
        """The names of the Parquet files that start like this, sorted."""
        self._files.invalidate_cache()
        # A URL may hold brackets.
        found = self._files.glob(f"{glob.escape(self._root)}/{start}*.parquet")
        folder = start.rpartition("/")[0]
        return sorted(f"{folder}/{path.rpartition('/')[2]}" for path in found)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is no such file.
            InvalidInput: on this machine's disk: it is not an ordinary file, or cannot be read.
        """
        path = f"{self._root}/{name}"
        return read_local(Path(path)) if self._local else self._files.cat_file(path)

    def write(self, name: str, data: bytes) -> None:
        """Write a file all or nothing.

        Raises:
            OSError: it cannot be written, or arrives cut short again and again.
        """
        path = f"{self._root}/{name}"
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        for _ in range(ATTEMPTS):
            if self._written(path, data):
                return
        raise OSError(f"{self.url}/{name}: only a part of {len(data):,} bytes arrives there")

    def _written(self, path: str, data: bytes) -> bool:
        """Write a file; False if it arrived cut short, in which case there is none."""
        target = path
        if self._renames:
            target = f"{self._root}/{UPLOADS}/{int(time.time())}-{uuid.uuid4().hex}.part"
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            self._files.pipe_file(target, data)
            self._files.invalidate_cache()
            whole = self._files.size(target) == len(data)
            if whole and self._renames:
                self._files.mv(target, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.rm_file(target)
            raise
        if not whole:
            log.warning("%s: the upload arrived cut short", path)
            self._files.rm_file(target)
        return whole

    def remove(self, name: str) -> None:
        """Remove the file of this name, or the folder in its place."""
        path = f"{self._root}/{name}"
        if self._local:
            remove_local(Path(path))
            return
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(path)

    def sweep(self) -> None:
        """Remove uploads that killed writers began an hour ago or earlier."""
        if not self._renames:
            return
        with contextlib.suppress(FileNotFoundError):
            for path in map(str, self._files.ls(f"{self._root}/{UPLOADS}", detail=False)):
                began = re.fullmatch(r"(\d{1,12})-[0-9a-f]{32}\.part", path.rpartition("/")[2])
                if began and time.time() - int(began[1]) > STALE_SECONDS:
                    self._files.rm_file(path)

    def carry_folder(self, folder: Path) -> str:
        """Upload a folder of inputs unless it is there already; returns its URL, for `fetched`.

        Files that are there are read and compared, so that damaged ones are replaced.
        """
        files = {
            path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()
        }
        place = f"{INPUTS}/{_digest(files)}"
        for name, data in files.items():
            if not self._holds(f"{place}/{name}", data):
                self.write(f"{place}/{name}", data)
        return f"{self.url}/{place}"

    def _holds(self, name: str, data: bytes) -> bool:
        """Whether the file of this name has this content."""
        try:
            same_size = self._files.size(f"{self._root}/{name}") == len(data)
            return same_size and self.read(name) == data
        except FileNotFoundError:
            return False


def fetched(url: str) -> Path:
    """A local copy of a folder that `carry_folder` uploaded, downloaded once.

    A copy that is damaged is downloaded again.

    Raises:
        InvalidInput: it is not there, or is not what its name says.
    """
    digest = url.rpartition("/")[2]
    place = Path(tempfile.gettempdir()) / f"modelpred-inputs-{os.getuid()}" / digest
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise InvalidInput(f"{url} is no folder of inputs")
    _make_private(place.parent)
    if place.is_dir() and _is_whole(place, file_stamp(place)):
        return place
    files = _downloaded(url)
    if _digest(files) != digest:
        raise InvalidInput(f"{url} is not what its name says; run the targets stage again")
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        whole = Path(folder) / digest
        whole.mkdir()
        for name, data in files.items():
            (whole / name).write_bytes(data)
        _replace_folder(place, whole, unused=Path(folder) / "damaged")
    return place


def _replace_folder(place: Path, whole: Path, *, unused: Path) -> None:
    """Put a whole folder at a place, unless another worker has just done so."""
    if os.path.lexists(place) and not (place.is_dir() and _is_whole(place, file_stamp(place))):
        with contextlib.suppress(FileNotFoundError):
            place.rename(unused)
    try:
        whole.rename(place)
    except OSError:  # another worker was faster
        if not place.is_dir():
            raise


def file_stamp(*folders: Path) -> tuple[int, ...]:
    """Times and sizes of the files in these folders: the same as long as nobody writes to them."""
    files = [path for folder in folders for path in sorted(folder.glob("*"))]
    return tuple(value for s in map(Path.lstat, files) for value in (s.st_mtime_ns, s.st_size))


@functools.lru_cache(maxsize=8)
def _is_whole(place: Path, stamp: tuple[int, ...]) -> bool:
    """Whether a local copy has the hash in its name; checked once, because nobody writes to it."""
    del stamp  # only part of the key
    try:
        return _digest({path.name: path.read_bytes() for path in place.iterdir()}) == place.name
    except OSError:
        return False


def _make_private(folder: Path) -> None:
    """Makes the folder in a folder that others can write to, and refuses one that another user may have filled.

    Raises:
        InvalidInput: it is no folder, belongs to another user, or is open to others, who may also be able to
            replace it.
    """
    above = folder.parent.stat()
    shared = above.st_mode & 0o002 and not above.st_mode & stat.S_ISVTX
    if above.st_uid not in (0, os.getuid()) or shared:
        raise InvalidInput(
            f"other users can replace what is in {folder.parent}; set TMPDIR to another folder"
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InvalidInput(
            f"{folder} is not a private folder of this user; remove it, or set TMPDIR to another folder"
        )


def _downloaded(url: str) -> dict[str, bytes]:
    """The files of a folder at a URL, by name; none if there is no such folder."""
    found: Any = fsspec.url_to_fs(url)
    found[0].invalidate_cache()
    try:
        listed = found[0].ls(found[1], detail=True)
    except FileNotFoundError:
        return {}
    entries = {str(one["name"]): int(one["size"]) for one in listed}
    return {
        path.rpartition("/")[2]: found[0].cat_file(path)
        for path, size in entries.items()
        if INPUT_NAME.fullmatch(path.rpartition("/")[2]) and size <= LARGEST_INPUT
    }


def _digest(files: dict[str, bytes]) -> str:
    listing = "".join(
        f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files)
    )
    return hashlib.sha256(listing.encode()).hexdigest()
