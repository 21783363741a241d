"""A small table and its subsets in files, and the jobs that train them."""

from pathlib import Path

from modelpred.dataset import Dataset, DatasetConfig, prepare, write_dataset
from modelpred.subsets import SubsetsConfig, draw_subsets, write_subsets
from modelpred.targets import TargetModel
from modelpred.targets.jobs import BlockJob
from modelpred.targets.store import block_jobs


def write_inputs(
    place: Path, config: SubsetsConfig, *, points: int = 30, test: int = 20, seed: int = 0
) -> Dataset:
    """Write dataset/ and subsets/; returns the data."""
    dataset = prepare(DatasetConfig(source="iris", points=points, test=test, seed=seed))
    for folder in ("dataset", "subsets"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    write_dataset(dataset, place / "dataset")
    write_subsets(draw_subsets(config, points=points), place / "subsets")
    return dataset


def jobs_of(
    place: Path,
    store: str | Path,
    model: TargetModel,
    *,
    tolerance: float = 1e-8,
    block_size: int = 10,
) -> list[BlockJob]:
    """Jobs of blocks of the subsets in a folder."""
    return block_jobs(
        dataset=place / "dataset",
        subsets=place / "subsets",
        store=store,
        model=model,
        tolerance=tolerance,
        block_size=block_size,
    )
