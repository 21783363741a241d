"""The store of finished shards, and what trains a block into it.

The store keeps shards under their fingerprint, outside of the stage's output, so that an interrupted stage resumes and
a larger or smaller request reuses what is there. An entry's name is `<fingerprint>-<sha256 of the file>.parquet`: name
and hash appear in one rename, and a changed byte shows. Outputs are copies that share no inode with the store: DVC
protects, relinks and caches its outputs, and what befalls one copy must not befall the others. A store may also lie at
a URL (remote.py).
"""

import contextlib
import functools
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field

from modelpred.dataset import Dataset, read_dataset
from modelpred.errors import InvalidInput
from modelpred.subsets import Subsets, blocks, read_subsets
from modelpred.targets.families import target_model
from modelpred.targets.model import TargetModel
from modelpred.targets.parquet import (
    CorruptShard,
    Sha256,
    Shard,
    ShardMetadata,
    parse_shard,
    shard_bytes,
)
from modelpred.targets.remote import Url, UrlStore, fetched, is_url
from modelpred.targets.shards import (
    ManifestEntry,
    RowContents,
    row_contents,
    shard_fingerprint,
    write_file,
    write_manifest,
)
from modelpred.targets.training import TrainedTargets, train_targets

STALE_SECONDS = 3600.0

log = logging.getLogger(__name__)

BlockName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=190)]


class BlockJob(BaseModel):
    """What a worker needs to train one block, as names and numbers that travel as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: BlockName
    block_size: int = Field(ge=1)
    fingerprint: Sha256
    dataset: Url | Path
    subsets: Url | Path
    store: Url | Path
    model: str
    settings: dict[str, float | int | str]
    tolerance: float = Field(gt=0)


@dataclass(frozen=True)
class ShardStore:
    """Finished shards by fingerprint, in `<folder>/<first two>/<fingerprint>-<sha256>.parquet`."""

    folder: Path

    def path(self, fingerprint: str, sha256: str) -> Path:
        """Where the shard of this fingerprint and content lies, there or not."""
        return self.folder / fingerprint[:2] / f"{fingerprint}-{sha256}.parquet"

    def find(self, fingerprint: str) -> Path | None:
        """The finished shard of this fingerprint, its hash verified; None where there is none.

        An entry whose content does not match its hash is named in the log and removed, so that it is made again.
        """
        for path in sorted((self.folder / fingerprint[:2]).glob(f"{fingerprint}-*.parquet")):
            with contextlib.suppress(FileNotFoundError):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                if path == self.path(fingerprint, content):
                    return path
                log.warning("%s: content does not match its hash; removed, to be made again", path)
                path.unlink()
        return None

    def read(self, found: Path) -> bytes:
        """The content of an entry that `find` found."""
        return found.read_bytes()

    def add(self, block: Subsets, trained: TrainedTargets, metadata: ShardMetadata) -> Path:
        """Keeps a finished shard; an interrupted call leaves no entry behind."""
        data = shard_bytes(block, trained, metadata)
        path = self.path(metadata.fingerprint, hashlib.sha256(data).hexdigest())
        write_file(path, data)
        path.chmod(0o444)  # nobody should edit it; that its hash holds is checked all the same
        return path

    def sweep(self) -> None:
        """Removes what killed writers left under temporary names an hour ago or earlier."""
        for left in self.folder.glob("*/.*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink()


def open_store(where: str | Path) -> ShardStore | UrlStore:
    """The store in a folder or at a URL."""
    return UrlStore(str(where)) if is_url(where) else ShardStore(Path(where))


def find_shard(job: BlockJob) -> str | Path | None:
    """Where a job's finished shard lies, its hash verified; None where it is not trained yet."""
    return open_store(job.store).find(job.fingerprint)


def block_jobs(
    *,
    dataset: Path,
    subsets: Path,
    store: str | Path,
    model: TargetModel,
    tolerance: float,
    block_size: int,
) -> list[BlockJob]:
    """One job per block, in the order of the subsets: train those that `find_shard` misses."""
    known = row_contents(read_dataset(dataset))
    where = open_store(store)
    if isinstance(where, UrlStore):
        places, kept = [where.keep_folder(one) for one in (dataset, subsets)], where.url
    else:
        places, kept = [dataset.absolute(), subsets.absolute()], where.folder.absolute()
    return [
        BlockJob(
            block=name,
            block_size=block_size,
            fingerprint=shard_fingerprint(known, model, tolerance, block),
            dataset=places[0],
            subsets=places[1],
            store=kept,
            model=model.name,
            settings=model.settings,
            tolerance=tolerance,
        )
        for name, block in blocks(read_subsets(subsets), block_size)
    ]


def _inputs_of(job: BlockJob) -> tuple[Dataset, RowContents, dict[str, Subsets]]:
    """The data set, what training sees of its rows, and the blocks of a job."""
    folders = [fetched(one) if isinstance(one, str) else one for one in (job.dataset, job.subsets)]
    return _inputs(*folders, job.block_size, _stamp(*folders))


@functools.lru_cache(maxsize=2)
def _inputs(
    dataset: Path, subsets: Path, block_size: int, stamp: tuple[int, ...]
) -> tuple[Dataset, RowContents, dict[str, Subsets]]:
    """The inputs of jobs, kept from one job to the next while their files stay as they are."""
    del stamp  # only part of the key
    read = read_dataset(dataset)
    return read, row_contents(read), dict(blocks(read_subsets(subsets), block_size))


def _stamp(*folders: Path) -> tuple[int, ...]:
    files = [path for folder in folders for path in sorted(folder.glob("*"))]
    return tuple(value for s in map(Path.stat, files) for value in (s.st_mtime_ns, s.st_size))


def train_block(
    job: BlockJob, *, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> str | Path:
    """Trains one block and keeps it in the store; returns the shard's path there.

    Raises:
        InvalidInput: the job does not fit the data set or the subsets that are there now.
    """
    store = open_store(job.store)
    if found := store.find(job.fingerprint):
        return found
    dataset, contents, known = _inputs_of(job)
    model = target_model(job.model, **job.settings)
    block = known.get(job.block)
    if block is None or shard_fingerprint(contents, model, job.tolerance, block) != job.fingerprint:
        raise InvalidInput(
            f"block {job.block} is not the one that was asked for; data set or subsets changed "
            "since: run the targets stage again"
        )
    trained = train_targets(
        model,
        dataset.features.to(device),
        dataset.labels.to(device),
        block.weights.to(device=device, dtype=torch.float64),
        tolerance=job.tolerance,
        classes=len(dataset.classes),
        progress=progress,
    )
    metadata = ShardMetadata(
        fingerprint=job.fingerprint,
        dataset=dataset.fingerprint,
        model=job.model,
        settings=job.settings,
        tolerance=job.tolerance,
    )
    return store.add(block, trained, metadata)


def _for_version(job: BlockJob, data: bytes) -> tuple[Shard, bytes]:
    """The shard of the store as this version of the data set has it, and its bytes.

    A shard may have been trained when the pool had other rows beside those that its subsets take: its
    numbers hold, its weights are those of this pool.
    """
    shard = parse_shard(data, name=f"{job.store}: {job.block}")
    dataset, _, known = _inputs_of(job)
    if shard.metadata.dataset == dataset.fingerprint:
        return shard, data
    metadata = shard.metadata.model_copy(update={"dataset": dataset.fingerprint})
    shard = Shard(known[job.block], shard.trained, metadata)
    return shard, shard_bytes(shard.block, shard.trained, metadata)


def collect_shards(jobs: Sequence[BlockJob], folder: Path) -> tuple[ManifestEntry, ...]:
    """Copies the jobs' finished shards out of the store and writes their manifest; returns its entries.

    Shards of other versions are removed from the folder.

    Raises:
        CorruptShard: a job's shard is not in the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[ManifestEntry] = []
    for job in jobs:
        data = _content(job)
        if data is None:
            raise CorruptShard(f"{job.block}: not in the store {job.store}; train it first")
        shard, data = _for_version(job, data)
        entry = ManifestEntry(
            file=f"{job.block}.parquet",
            fingerprint=job.fingerprint,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            rows=len(shard.block.ids),
            designs=dict(Counter(shard.block.designs)),
        )
        write_file(folder / entry.file, data)
        entries.append(entry)
    write_manifest(folder, entries)
    listed = {entry.file for entry in entries}
    for path in (*folder.glob("*.parquet"), *folder.glob(".*.part")):
        if path.name not in listed:
            path.unlink()
    for store in {job.store for job in jobs}:
        open_store(store).sweep()
    return tuple(entries)


def _content(job: BlockJob) -> bytes | None:
    """The bytes of a job's finished shard, None where there is none."""
    store = open_store(job.store)
    if isinstance(store, UrlStore):
        entry = store.find(job.fingerprint)
        return None if entry is None else store.read(entry)
    found = store.find(job.fingerprint)
    return None if found is None else store.read(found)
