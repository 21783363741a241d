"""Stage `subsets`: draws the subsets for the fit, for validation and for testing the predictor."""

import os
import sys

from flows.artifacts import DATASET, PARAMS, SUBSETS, written
from flows.runtime import run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.subsets import draw_subsets, write_subsets


def main() -> None:
    """Draw the subsets of every role and design, and write them."""
    config = read_params(PARAMS).subsets
    dataset = read_dataset(DATASET)
    drawn = draw_subsets(
        config,
        points=len(dataset.labels),
        labels=dataset.labels if dataset.classes else None,
        earlier=dataset.earlier,
        written=True,
    )
    with written(SUBSETS, made_from=(DATASET,)) as folder:
        write_subsets(drawn, folder)
    for kind, count in drawn.redrawn.items():
        asked = sum(name.startswith(f"{kind}-") for name in drawn.ids)
        sys.stdout.write(
            f"subsets: {kind}: {count:,} of {asked:,} lacked a class and were drawn again{os.linesep}"
        )


if __name__ == "__main__":
    run_stage("subsets", main)
