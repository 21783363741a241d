"""Blocks of subsets to train, what trains one into the store, and what collects a version's shards out of it.

The store (entries.py) keeps finished shards under their fingerprint, outside of the stage's output, so that an interrupted
stage resumes and a larger or smaller request reuses what is there. Outputs are copies that share no inode with the store:
DVC protects, relinks and caches its outputs, and a change to one copy must not reach the others.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch

from modelpred.subsets import Subsets
from modelpred.targets.entries import Entry, ShardStore
from modelpred.targets.families import rebuilt_target
from modelpred.targets.jobs import BlockJob, JobInputs, job_inputs, read_inputs
from modelpred.targets.model import TargetModel
from modelpred.targets.parquet import CorruptShard, Shard, ShardMetadata, shard_bytes
from modelpred.targets.points import dataset_points
from modelpred.targets.remote import is_url
from modelpred.targets.shards import (
    ManifestEntry,
    shard_fingerprint,
    write_file,
    write_manifest,
)
from modelpred.targets.training import require_training_memory, train_targets

ROUNDS = 2  # of training what the store lacks: an entry may be damaged as soon as it is written


def find_shard(job: BlockJob) -> str | None:
    """The name of a job's shard in the store; None if it is not there. Its content is not read."""
    return ShardStore(job.store).find(job.fingerprint)


def block_jobs(
    *,
    dataset: Path,
    subsets: Path,
    store: str | Path,
    model: TargetModel,
    tolerance: float,
    block_size: int,
) -> list[BlockJob]:
    """One job per block, in the order of the subsets."""
    inputs = read_inputs(dataset, subsets, block_size)
    return [
        BlockJob(
            block=name,
            block_size=block_size,
            fingerprint=shard_fingerprint(inputs.contents, model, tolerance, block),
            dataset=dataset.absolute(),
            subsets=subsets.absolute(),
            store=str(store).rstrip("/") if is_url(store) else Path(store).absolute(),
            model=model.name,
            settings=model.settings,
            tolerance=tolerance,
        )
        for name, block in inputs.blocks.items()
    ]


def train_block(
    job: BlockJob, *, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> str:
    """Train one block and keep it in the store; returns the shard's name there.

    Raises:
        InvalidInput: the job does not fit the data set or the subsets that are there now.
    """
    inputs, block = job_inputs(job)
    if found := _load_shard(job, inputs, block):
        return found.name
    model, dataset = rebuilt_target(job.model, **job.settings), inputs.dataset
    trained = train_targets(
        model,
        dataset.features.to(device),
        dataset.labels.to(device),
        block.weights.to(device),
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
    return ShardStore(job.store).add(block, trained, metadata)


def _load_shard(job: BlockJob, inputs: JobInputs, block: Subsets) -> Entry | None:
    """A job's finished shard, read once and checked; None if it must be trained.

    A shard that fails a check is removed from the store.
    """
    return ShardStore(job.store).load(
        job.fingerprint, fault=lambda shard: _fault(shard, job, inputs, block)
    )


def _fault(shard: Shard, job: BlockJob, inputs: JobInputs, block: Subsets) -> str | None:
    """How a shard differs from what its job is to train; None if it does not."""
    metadata = shard.metadata
    if (metadata.model, metadata.settings) != (job.model, job.settings):
        return "it holds the parameters of another model"
    if metadata.tolerance != job.tolerance:
        return f"its tolerance is {metadata.tolerance}, expected {job.tolerance}"
    features, classes = inputs.dataset.features.shape[1], len(inputs.dataset.classes)
    width = rebuilt_target(job.model, **job.settings).parameter_count(features, classes)
    if (found := shard.trained.parameters.shape[1]) != width:
        return f"it has {found} parameters for each subset, expected {width}"
    names = (shard.block.ids, shard.block.roles, shard.block.designs)
    same = names == (block.ids, block.roles, block.designs)
    if same and metadata.dataset == inputs.dataset.fingerprint:
        weights = shard.block.weights
        same = weights.shape == block.weights.shape and bool((weights == block.weights).all())
    elif same:  # A shard of another version has the same subsets among other rows.
        same = torch.equal(shard.block.sizes, block.sizes)
    return None if same else "it holds other subsets"


def _for_version(entry: Entry, inputs: JobInputs, block: Subsets) -> tuple[Shard, bytes]:
    """A shard as this version of the data set has it, and its bytes.

    A shard may have been trained when the pool had other rows beside those that its subsets take: its
    numbers hold, its weights are those of this pool.
    """
    shard = entry.shard
    if shard.metadata.dataset == inputs.dataset.fingerprint:
        return shard, entry.data
    metadata = shard.metadata.model_copy(update={"dataset": inputs.dataset.fingerprint})
    shard = Shard(block, shard.trained, metadata)
    return shard, shard_bytes(shard.block, shard.trained, metadata)


@dataclass(frozen=True)
class Collected:
    """The shards of a version, as they were read.

    Attributes:
        entries: of the manifest, in the order of the jobs.
        subsets: number of subsets.
        parameters: number of parameters of each.
        not_converged: subsets whose training did not converge.
        degenerate: subsets that lack a class or have no weight.
        counts: role, design, subsets, degenerate and not_converged of each shard.
    """

    entries: tuple[ManifestEntry, ...]
    subsets: int
    parameters: int
    not_converged: int
    degenerate: int
    counts: pl.DataFrame


def collect_shards(
    jobs: Sequence[BlockJob],
    folder: Path,
    *,
    train: Callable[[Sequence[BlockJob]], object] | None = None,
) -> Collected:
    """Copy the jobs' shards out of the store, after training those that it lacks, and write their manifest.

    A shard that is in the store is read once. Shards of other versions are removed from the folder.

    Args:
        jobs: one for each block.
        folder: where the copies go.
        train: trains jobs into the store; None: the store must hold all shards.

    Raises:
        CorruptShard: a job's shard is not in the store.
        InvalidInput: there is not the memory to train the largest block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copied: dict[str, _Copy] = {}

    def copy_from_store(wanted: Sequence[BlockJob]) -> list[BlockJob]:
        """Copy what the store holds; returns the jobs that it lacks."""
        for job in wanted:
            inputs, block = job_inputs(job)
            if entry := _load_shard(job, inputs, block):
                copied[job.block] = _copy(*_for_version(entry, inputs, block), job, folder)
        return [job for job in wanted if job.block not in copied]

    missing = copy_from_store(jobs)
    for _ in range(ROUNDS if train else 0):
        if missing and train:
            _require_memory(missing)
            train(missing)
            missing = copy_from_store(missing)
    if missing:
        raise CorruptShard(
            f"{missing[0].block}: not in the store {missing[0].store}; train it first"
        )
    found = [copied[job.block] for job in jobs]
    entries = tuple(one.entry for one in found)
    write_manifest(folder, entries)
    _remove_others(folder, {entry.file for entry in entries})
    for store in {job.store for job in jobs}:
        ShardStore(store).sweep()
    return Collected(
        entries,
        subsets=sum(entry.rows for entry in entries),
        parameters=max((one.parameters for one in found), default=0),
        not_converged=sum(one.not_converged for one in found),
        degenerate=sum(one.degenerate for one in found),
        counts=pl.DataFrame(
            [
                {
                    "role": one.role,
                    "design": one.design,
                    "subsets": one.entry.rows,
                    "degenerate": one.degenerate,
                    "not_converged": one.not_converged,
                }
                for one in found
            ]
        ),
    )


def _require_memory(jobs: Sequence[BlockJob]) -> None:
    """Refuse blocks that cannot be trained before the workers start."""
    for job in jobs:
        inputs, block = job_inputs(job)
        table = inputs.dataset
        points = dataset_points(table)
        model = rebuilt_target(job.model, **job.settings)
        require_training_memory(model, points, subsets=len(block))


@dataclass(frozen=True)
class _Copy:
    entry: ManifestEntry
    role: str
    design: str
    parameters: int
    not_converged: int
    degenerate: int


def _copy(shard: Shard, data: bytes, job: BlockJob, folder: Path) -> _Copy:
    """Write a shard of the store into the folder of a version."""
    entry = ManifestEntry(
        file=f"{job.block}.parquet",
        fingerprint=job.fingerprint,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        rows=len(shard.block.ids),
        designs=dict(Counter(shard.block.designs)),
    )
    write_file(folder / entry.file, data)
    return _Copy(
        entry,
        role=shard.block.roles[0],  # a block is of one role and design
        design=shard.block.designs[0],
        parameters=shard.trained.parameters.shape[1],
        not_converged=int((~shard.trained.converged).sum()),
        degenerate=int(shard.trained.degenerate.sum()),
    )


def _remove_others(folder: Path, listed: set[str]) -> None:
    """Remove shards and temporary files that the manifest does not list."""
    for path in (*folder.glob("*.parquet"), *folder.glob(".*.part")):
        if path.name not in listed:
            path.unlink()
