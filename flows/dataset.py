"""Stage `dataset`: the table named in params.yaml becomes scaled points, split into pool and test."""

import os
import sys
import tempfile
from pathlib import Path

from flows.artifacts import DATASET, PARAMS, written
from flows.revisions import fetch
from flows.runtime import run_stage
from modelpred.dataset import Dataset, DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.dataset.sources import places_of
from modelpred.params import read_params


def main() -> None:
    """Loads, splits and scales the table."""
    config = read_params(PARAMS).dataset
    for place in unwatched(config):
        sys.stderr.write(
            f"dataset: WARNING: {place} lies outside of dataset.watch ({config.watch}): dvc repro does "
            f"not notice when it changes; set dataset.watch to it, or move it{os.linesep}"
        )
    prepared = prepare(config, since=dataset_of(config.since) if config.since else None)
    with written(DATASET) as folder:
        write_dataset(prepared, folder)


def unwatched(config: DatasetConfig) -> list[Path]:
    """What the config reads beside the file or folder whose changes DVC notices."""
    watched = Path(config.watch).absolute()
    return [place for place in places_of(config) if not place.absolute().is_relative_to(watched)]


def dataset_of(revision: str) -> Dataset:
    """The data set of a revision, read through DVC."""
    with tempfile.TemporaryDirectory() as place:
        return read_dataset(fetch(revision, (DATASET,), into=Path(place)) / DATASET.name)


if __name__ == "__main__":
    run_stage("dataset", main)
