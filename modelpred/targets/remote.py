"""A store of finished shards at any URL that fsspec knows (`s3://bucket/shards`, ...), shared by machines.

It keeps what `ShardStore` keeps in a folder, under the same names; hashes are checked whenever an entry is read. It
also carries the inputs of a run, so that a machine with no copy of them can train its blocks:

    <url>/<first two>/<fingerprint>-<sha256>.parquet      finished shards
    <url>/inputs/<sha256 of the folder>/<file>            data set and subsets of a run

Credentials and endpoints are fsspec's own affair (its config files, or FSSPEC_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...).
"""

import contextlib
import glob
import hashlib
import logging
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Any, final

import fsspec
from pydantic import Field

from modelpred.errors import InvalidInput
from modelpred.subsets import Subsets
from modelpred.targets.parquet import ShardMetadata, shard_bytes
from modelpred.targets.training import TrainedTargets

INPUTS = "inputs"
# Plain names only: a name out of a store never becomes a path into another folder.
INPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
LARGEST_INPUT = 4 * 2**30

Url = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://.+")]

log = logging.getLogger(__name__)


def is_url(where: object) -> bool:
    """Whether this names a store at a URL and not a folder."""
    return isinstance(where, str) and "://" in where


@final
class UrlStore:
    """Finished shards by fingerprint at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            found: Any = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InvalidInput(f"the shard store {url} cannot be used: {error}") from error
        self._files, self._root = found[0], found[1].rstrip("/")

    def find(self, fingerprint: str) -> str | None:
        """The finished shard of this fingerprint, its hash verified; None where there is none.

        An entry whose content does not match its hash is named in the log and removed, so that it is made again.
        """
        self._files.invalidate_cache()
        root = glob.escape(self._root)  # a URL may hold brackets
        for path in sorted(self._files.glob(f"{root}/{fingerprint[:2]}/{fingerprint}-*.parquet")):
            try:
                content = hashlib.sha256(self._files.cat_file(path)).hexdigest()
            except FileNotFoundError:
                continue
            if path.rpartition("/")[2] == f"{fingerprint}-{content}.parquet":
                return path
            log.warning("%s: content does not match its hash; removed, to be made again", path)
            self._files.rm_file(path)
        return None

    def read(self, found: str) -> bytes:
        """The content of an entry that `find` found."""
        return self._files.cat_file(found)

    def add(self, block: Subsets, trained: TrainedTargets, metadata: ShardMetadata) -> str:
        """Keeps a finished shard. One that was cut short does not match its name and is made again."""
        data = shard_bytes(block, trained, metadata)
        name = f"{metadata.fingerprint}-{hashlib.sha256(data).hexdigest()}.parquet"
        path = f"{self._root}/{metadata.fingerprint[:2]}/{name}"
        self._put(path, data)
        return path

    def sweep(self) -> None:
        """Nothing lies under temporary names here."""

    def keep_folder(self, folder: Path) -> str:
        """Carries a folder of inputs; returns where it lies, for `fetched`."""
        files = {
            path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()
        }
        url = f"{self.url}/{INPUTS}/{_digest(files)}"
        place = f"{self._root}/{INPUTS}/{_digest(files)}"
        for name, data in files.items():
            if not self._files.exists(f"{place}/{name}"):
                self._put(f"{place}/{name}", data)
        return url

    def _put(self, path: str, data: bytes) -> None:
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, data)


def fetched(url: str) -> Path:
    """A local copy of a folder that `keep_folder` carried, fetched once.

    Raises:
        InvalidInput: it is not there, or is not what its name says.
    """
    digest = url.rpartition("/")[2]
    place = Path(tempfile.gettempdir()) / f"modelpred-inputs-{os.getuid()}" / digest
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise InvalidInput(f"{url} is no folder of inputs")
    _make_private(place.parent)
    if place.is_dir():
        return place
    files = _downloaded(url)
    if _digest(files) != digest:
        raise InvalidInput(f"{url} is not what its name says; run the targets stage again")
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        whole = Path(folder) / digest
        whole.mkdir()
        for name, data in files.items():
            (whole / name).write_bytes(data)
        try:
            whole.rename(place)
        except OSError:  # another worker was faster
            if not place.is_dir():
                raise
    return place


def _make_private(folder: Path) -> None:
    """Makes the folder in a folder that others can write to, and refuses one that another user may have filled.

    Raises:
        InvalidInput: it is no folder, belongs to another user, or is open to others.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InvalidInput(
            f"{folder} is not a private folder of this user; remove it, or set TMPDIR to another folder"
        )


def _downloaded(url: str) -> dict[str, bytes]:
    """The files of a folder at a URL, by name."""
    found: Any = fsspec.url_to_fs(url)
    entries = {str(one["name"]): int(one["size"]) for one in found[0].ls(found[1], detail=True)}
    return {
        path.rpartition("/")[2]: found[0].cat_file(path)
        for path, size in entries.items()
        if INPUT_NAME.fullmatch(path.rpartition("/")[2]) and size <= LARGEST_INPUT
    }


def _digest(files: dict[str, bytes]) -> str:
    told = "".join(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256(told.encode()).hexdigest()
