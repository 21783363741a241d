"""Stage `dataset`: the table named in params.yaml becomes scaled points, split into pool and test."""

from prefect import flow

from flows.artifacts import DATASET, PARAMS, written
from flows.runtime import run_stage
from modelpred.dataset import prepare, write_dataset
from modelpred.params import read_params


@flow
def dataset() -> None:
    """Loads, splits and scales the table."""
    prepared = prepare(read_params(PARAMS).dataset)
    with written(DATASET) as folder:
        write_dataset(prepared, folder)


if __name__ == "__main__":
    run_stage(dataset)
