"""Jobs for workers: one block of subsets to train, and the data set and subsets that it is made of."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from modelpred.dataset import Dataset, read_dataset
from modelpred.errors import InvalidInput
from modelpred.subsets import Subsets, blocks, read_subsets
from modelpred.targets.families import rebuilt_target
from modelpred.targets.parquet import Sha256
from modelpred.targets.remote import Url, UrlStore, fetched, file_stamp
from modelpred.targets.shards import RowContents, row_contents, shard_fingerprint

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
class JobInputs:
    """What jobs train on.

    Attributes:
        dataset: the rows to train on.
        contents: hashes of each row's features and label.
        blocks: subsets by the name of their block.
        redrawn: how many lacked a class and were drawn again (`Subsets.redrawn`).
    """

    dataset: Dataset
    contents: RowContents
    blocks: dict[str, Subsets]
    redrawn: Mapping[str, int]


def read_inputs(dataset: Path, subsets: Path, block_size: int) -> JobInputs:
    """Data set and subsets in these folders; read again only if their files change."""
    return _read_inputs(
        dataset.absolute(), subsets.absolute(), block_size, file_stamp(dataset, subsets)
    )


@functools.lru_cache(maxsize=2)
def _read_inputs(
    dataset: Path, subsets: Path, block_size: int, stamp: tuple[int, ...]
) -> JobInputs:
    del stamp  # only part of the key
    read = read_dataset(dataset)
    drawn = read_subsets(subsets)
    return JobInputs(read, row_contents(read), dict(blocks(drawn, block_size)), drawn.redrawn)


def job_inputs(job: BlockJob) -> tuple[JobInputs, Subsets]:
    """The inputs of a job and its block.

    Raises:
        InvalidInput: the job does not fit the data set or the subsets that are there now.
    """
    dataset, subsets = (
        fetched(one) if isinstance(one, str) else one for one in (job.dataset, job.subsets)
    )
    inputs = read_inputs(dataset, subsets, job.block_size)
    model = rebuilt_target(job.model, **job.settings)
    block = inputs.blocks.get(job.block)
    if block is None or job.fingerprint != shard_fingerprint(
        inputs.contents, model, job.tolerance, block
    ):
        raise InvalidInput(
            f"block {job.block} is not that of the job; data set or subsets changed "
            "since: run the targets stage again"
        )
    return inputs, block


def carry_inputs(jobs: Sequence[BlockJob]) -> list[BlockJob]:
    """The jobs for machines that have no copy of the inputs, which are uploaded to a store at a URL.

    Jobs of a store in a folder stay as they are.
    """

    @functools.cache
    def carried(store: Url | Path, folder: Url | Path) -> Url | Path:
        if isinstance(store, Path) or isinstance(folder, str):
            return folder
        return UrlStore(store).carry_folder(folder)

    return [
        job.model_copy(
            update={
                "dataset": carried(job.store, job.dataset),
                "subsets": carried(job.store, job.subsets),
            }
        )
        for job in jobs
    ]
