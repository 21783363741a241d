"""Stage `dataset`: reads the table of params.yaml, splits it into training and test rows, scales them."""

import os
import sys
import tempfile
from pathlib import Path

from flows.artifacts import DATASET, PARAMS, written
from flows.revisions import advice_at, fetch
from flows.runtime import run_stage
from modelpred.dataset import Dataset, DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.dataset.sources import places_of
from modelpred.params import read_params


def main() -> None:
    """Read, split and scale the table, and write the data set."""
    config = read_params(PARAMS).dataset
    for path in unwatched(config):
        sys.stderr.write(
            f"dataset: WARNING: {path} is outside dataset.watch ({config.watch}), so dvc repro does "
            f"not notice when it changes; set dataset.watch to it, or move it{os.linesep}"
        )
    prepared = prepare(config, since=dataset_of(config.since) if config.since else None)
    with written(DATASET) as folder:
        write_dataset(prepared, folder)


def unwatched(config: DatasetConfig) -> list[Path]:
    """Paths that the config reads outside the file or folder that DVC watches."""
    watched = Path(config.watch).absolute()
    return [path for path in places_of(config) if not path.absolute().is_relative_to(watched)]


def dataset_of(revision: str) -> Dataset:
    """The data set of a revision, read through DVC."""
    with tempfile.TemporaryDirectory() as copy, advice_at(revision):
        return read_dataset(fetch(revision, (DATASET,), into=Path(copy)) / DATASET.name)


if __name__ == "__main__":
    run_stage("dataset", main)
