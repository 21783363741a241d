"""Stage `subsets`: draws the subsets to train on, and those held out to measure the predictor."""

from flows.artifacts import DATASET, PARAMS, SUBSETS, written
from flows.runtime import run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.subsets import draw_subsets, write_subsets


def main() -> None:
    """Draws every design's subsets for each role."""
    config = read_params(PARAMS).subsets
    dataset = read_dataset(DATASET)
    drawn = draw_subsets(config, points=len(dataset.labels), earlier=dataset.earlier)
    with written(SUBSETS) as folder:
        write_subsets(drawn, folder)


if __name__ == "__main__":
    run_stage("subsets", main)
