"""Stage `dataset`: the table named in params.yaml becomes scaled points, split into pool and test."""

import tempfile
from pathlib import Path

from prefect import flow

from flows.artifacts import DATASET, PARAMS, written
from flows.revisions import fetch
from flows.runtime import run_stage
from modelpred.dataset import Dataset, prepare, read_dataset, write_dataset
from modelpred.params import read_params


@flow
def dataset() -> None:
    """Loads, splits and scales the table."""
    config = read_params(PARAMS).dataset
    prepared = prepare(config, since=dataset_of(config.since) if config.since else None)
    with written(DATASET) as folder:
        write_dataset(prepared, folder)


def dataset_of(revision: str) -> Dataset:
    """The data set of a revision, read through DVC."""
    with tempfile.TemporaryDirectory() as place:
        return read_dataset(fetch(revision, (DATASET,), into=Path(place)) / DATASET.name)


if __name__ == "__main__":
    run_stage(dataset)
