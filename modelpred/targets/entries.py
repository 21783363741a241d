"""Finished shards by fingerprint, in a folder or at a URL.

The path of an entry is `<place>/<first two>/<fingerprint>-<sha256 of the file>.parquet`: name and hash appear at once, and a
changed byte shows. An entry is checked whenever it is read: its hash, its schema, and what the caller expects of it. One
that fails is named in the log and removed, so that it is trained again.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from modelpred.errors import InvalidInput
from modelpred.subsets import Subsets
from modelpred.targets.parquet import CorruptShard, Shard, ShardMetadata, parse_shard, shard_bytes
from modelpred.targets.remote import STALE_SECONDS, UrlStore, is_url, read_local, remove_local
from modelpred.targets.shards import write_file
from modelpred.targets.training import TrainedTargets

log = logging.getLogger(__name__)


class FileStore(Protocol):
    """Files in folders of one level, by names such as `ab/abcd.parquet`."""

    def names(self, start: str) -> list[str]:
        """The names of the files that start like this, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is no such file.
            InvalidInput: it is damaged beyond reading.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file all or nothing."""
        ...

    def remove(self, name: str) -> None:
        """Remove the entry of this name."""
        ...

    def sweep(self) -> None:
        """Remove what killed writers left an hour ago or earlier."""
        ...


@final
@dataclass(frozen=True)
class FolderStore:
    """Files in a folder of this machine, or of a file system that several machines share."""

    folder: Path

    def names(self, start: str) -> list[str]:
        """The names of the files that start like this, sorted."""
        above, _, first = start.rpartition("/")
        found = (self.folder / above).glob(f"{first}*.parquet")
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is no such file.
            InvalidInput: it is not an ordinary file, or cannot be read.
        """
        return read_local(self.folder / name)

    def write(self, name: str, data: bytes) -> None:
        """Write a file all or nothing, for reading only."""
        path = self.folder / name
        write_file(path, data)
        path.chmod(0o444)  # Nobody should edit it. Its hash is checked all the same.

    def remove(self, name: str) -> None:
        """Remove the file or folder of this name."""
        remove_local(self.folder / name)

    def sweep(self) -> None:
        """Remove temporary files that killed writers left an hour ago or earlier."""
        for left in self.folder.glob("*/.*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink()


@dataclass(frozen=True)
class Entry:
    """A checked shard of the store, with the bytes of its file."""

    name: str
    data: bytes
    shard: Shard


@final
class ShardStore:
    """Finished shards by fingerprint, in a folder or at a URL."""

    def __init__(self, place: str | Path) -> None:
        self.files: FileStore = UrlStore(str(place)) if is_url(place) else FolderStore(Path(place))

    def find(self, fingerprint: str) -> str | None:
        """The name of the first entry with this fingerprint, unread; None if there is none."""
        return next(iter(self.files.names(_start(fingerprint))), None)

    def load(
        self, fingerprint: str, *, fault: Callable[[Shard], str | None] = lambda _: None
    ) -> Entry | None:
        """The shard of this fingerprint, read once and checked; None if there is none.

        An entry that fails a check is named in the log and removed.

        Args:
            fingerprint: of the shard.
            fault: what else is wrong with a shard, or None.
        """
        for name in self.files.names(_start(fingerprint)):
            try:
                data = self.files.read(name)
                shard = _parse(name, data)
                why = fault(shard)
            except FileNotFoundError:  # another process removed it
                continue
            except InvalidInput as error:
                why = str(error).partition(";")[0]  # the rest is advice for files of a user
            else:
                if why is None:
                    return Entry(name, data, shard)
            self._drop(name, why)
        return None

    def _drop(self, name: str, why: str | None) -> None:
        log.warning("shard %s of the store is removed, to be trained again: %s", name, why)
        try:
            self.files.remove(name)
        except OSError as error:
            # The entry is skipped all the same. If the new one has this name, it replaces it.
            log.warning("shard %s of the store cannot be removed: %s", name, error)

    def add(self, block: Subsets, trained: TrainedTargets, metadata: ShardMetadata) -> str:
        """Keep a finished shard; returns its name. An interrupted call leaves no entry behind."""
        data = shard_bytes(block, trained, metadata)
        name = f"{_start(metadata.fingerprint)}{hashlib.sha256(data).hexdigest()}.parquet"
        self.files.write(name, data)
        return name

    def sweep(self) -> None:
        """Remove what killed writers left under temporary names an hour ago or earlier."""
        self.files.sweep()


def _start(fingerprint: str) -> str:
    return f"{fingerprint[:2]}/{fingerprint}-"


def _parse(name: str, data: bytes) -> Shard:
    """The shard in the content of an entry, which must be what the entry's name says."""
    fingerprint, _, expected = name.rpartition("/")[2].removesuffix(".parquet").partition("-")
    if hashlib.sha256(data).hexdigest() != expected:
        raise CorruptShard("its content does not match the hash in its name")
    shard = parse_shard(data, name="it")
    if shard.metadata.fingerprint != fingerprint:
        raise CorruptShard("it is the shard of another block")
    return shard
