"""Stage `studies`: what the predictor is for, one study at a time: `python -m flows.studies edits`."""

import sys

from prefect import flow

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    STUDIES_FOLDER,
    TARGETS,
    trained,
    written,
)
from flows.runtime import Progress, run_stage
from modelpred.dataset import InvalidInput, read_dataset
from modelpred.params import read_params
from modelpred.predictor import read_predictor
from modelpred.refits import Retraining, rivals
from modelpred.studies import calibration, edits, valuation
from modelpred.studies.utility import StudyContext, write_result
from modelpred.targets import points_of
from modelpred.targets.shards import read_bank

RUNS = {"edits": edits.run, "valuation": valuation.run, "calibration": calibration.run}


@flow(flow_run_name="{study}")
def studies(study: str) -> None:
    """Runs one study with the predictor, its rivals, and retraining as the truth."""
    if study not in RUNS:
        raise InvalidInput(f"unknown study {study!r}; known: {', '.join(RUNS)}")
    params = read_params(PARAMS)
    with Progress(study) as progress:
        result = RUNS[study](getattr(params, study), context(progress))
    with written(STUDIES_FOLDER / study) as folder:
        write_result(result, folder)


def context(progress: Progress) -> StudyContext:
    """The artifacts as a study takes them."""
    dataset = read_dataset(DATASET)
    predictor = read_predictor(PREDICTOR)
    weights, parameters = trained(read_bank(TARGETS), role="fit")
    model, points = predictor.model, predictor.points
    cheap = rivals(model, points, weights, parameters)
    return StudyContext(
        model=model,
        points=points,
        test_points=points_of(dataset.test_features, dataset.test_labels, len(dataset.classes)),
        refits={"predictor": predictor, **cheap},
        truth=Retraining(model, points),
        row_ids=dataset.row_ids,
        progress=progress,
    )


if __name__ == "__main__":
    run_stage(studies, study=" ".join(sys.argv[1:]))
