"""Trains the batches of models that a study needs: in this process, or on a cluster as the targets.

With MODELPRED_RUNNER=dask or ray (flows/runners.py), a batch of at least LEAST models is cut into blocks, which
are trained as those of the stage `targets`: one task each, into the shard store. A study that was interrupted finds its
finished blocks there. Models of rows other than those of the data set, and those with a start, are trained in this process.

Families that C trains have the same parameters to the last bit either way; objectives and gradient norms differ by
rounding. Of other families, parameters also differ by rounding if other models share their block, in one process, too.
"""

import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from flows import local_training
from flows.artifacts import shard_store
from modelpred.dataset import Dataset
from modelpred.progress import Progress
from modelpred.refits.retraining import Retraining, Training, train_here
from modelpred.subsets import Subsets, write_subsets
from modelpred.targets import TrainedTargets
from modelpred.targets.jobs import BlockJob
from modelpred.targets.points import Points, dataset_points
from modelpred.targets.shards import read_shards
from modelpred.targets.store import block_jobs, collect_shards

LEAST = 64  # models: a flow takes about a second to start and to finish
MOST_IN_BLOCK = 250  # models of one task
TASKS = 16  # of a batch at least, so that a dozen workers have work
HERE = ("", "threads", local_training.PLAIN)
LARGEST_COUNT = torch.iinfo(torch.int32).max
FOLDER = Path(".modelpred")  # of the project; the machines of a cluster see it, or a store at a URL


def study_training(dataset: Dataset, folder: Path) -> Training:
    """What trains the models of a study: this process, or the cluster that MODELPRED_RUNNER names.

    Args:
        dataset: the data set.
        folder: where it was read from.

    Raises:
        InvalidInput: a runner that does not exist, or that cannot be used.
    """
    if _here():
        return train_here
    from flows import runners  # noqa: PLC0415 - Prefect is needed on a cluster only

    runners.runner()
    return ClusterTraining(dataset_points(dataset), folder)


@contextmanager
def cluster_api() -> Generator[None]:
    """Keep one Prefect API for all batches of the block; without a cluster, do nothing."""
    if _here():
        yield
        return
    from flows.server import prefect_api  # noqa: PLC0415

    with prefect_api():
        yield


def _here() -> bool:
    return os.environ.get("MODELPRED_RUNNER", "") in HERE


@final
@dataclass(frozen=True)
class ClusterTraining:
    """Trains large batches on the cluster and the rest in this process.

    Attributes:
        points: the training rows of the data set.
        folder: of the data set.
    """

    points: Points
    folder: Path

    def __call__(
        self,
        retraining: Retraining,
        weights: Num[Tensor, "subsets points"],
        *,
        progress: Progress,
    ) -> TrainedTargets:
        """Return the trained models of these subsets."""
        counts = self._counts(retraining, weights)
        if counts is None:
            return train_here(retraining, weights, progress=progress)
        size = min(MOST_IN_BLOCK, -(-len(counts) // TASKS))
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="batch-", dir=FOLDER) as place:
            subsets, found = Path(place) / "subsets", Path(place) / "targets"
            write_subsets(_subsets(counts), subsets)
            jobs = block_jobs(
                dataset=self.folder,
                subsets=subsets,
                store=shard_store(),
                model=retraining.model,
                tolerance=retraining.tolerance,
                block_size=size,
            )
            collect_shards(jobs, found, train=lambda missing: _train(missing, of=len(jobs)))
            progress(len(counts), len(counts), "retraining")
            return _joined([shard.trained for shard in read_shards(found)])

    def _counts(self, retraining: Retraining, weights: Tensor) -> Tensor | None:
        """The weights as counts; None if the models are to be trained in this process."""
        if len(weights) < LEAST or retraining.start is not None:
            return None
        if not _same(retraining.points, self.points) or not _whole(weights):
            return None
        kind = torch.uint8 if weights.max() <= np.iinfo(np.uint8).max else torch.int32
        return weights.to(kind)


def _train(missing: Sequence[BlockJob], *, of: int) -> None:
    from flows.runners import train_blocks  # noqa: PLC0415

    train_blocks(missing, finished=of - len(missing))


def _same(points: Points, others: Points) -> bool:
    return points is others or (
        points.sample_weight is None
        and points.classes == others.classes
        and points.features.dtype == others.features.dtype
        and torch.equal(points.features, others.features)
        and torch.equal(points.labels, others.labels)
    )


def _whole(weights: Tensor) -> bool:
    """Whether each weight is a count, as weights in files are."""
    if weights.dtype == torch.uint8:
        return True
    return bool(((weights >= 0) & (weights <= LARGEST_COUNT) & (weights == weights.round())).all())


def _subsets(counts: Tensor) -> Subsets:
    """The batch as subsets that have no other meaning than their order."""
    many = len(counts)
    names = tuple(f"test-uniform-{number:06d}" for number in range(many))
    return Subsets(names, ("test",) * many, ("uniform",) * many, counts.contiguous())


def _joined(parts: Sequence[TrainedTargets]) -> TrainedTargets:
    columns = (column.name for column in fields(TrainedTargets))
    return TrainedTargets(
        **{
            name: torch.cat([torch.as_tensor(getattr(part, name)) for part in parts])
            for name in columns
        }
    )
