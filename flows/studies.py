"""Stage `studies`: runs one study with the fitted predictor: `python -m flows.studies edits`."""

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.artifacts import (
    ARTIFACTS,
    DATASET,
    PARAMS,
    PREDICTOR,
    SETTINGS,
    STUDIES_FOLDER,
    headline_file,
    write_json,
    written,
)
from flows.runtime import run_stage
from flows.study_training import cluster_api, study_training
from modelpred.dataset import read_dataset
from modelpred.errors import InvalidInput
from modelpred.params import read_params
from modelpred.predictor import Predictor, read_predictor
from modelpred.predictor.consistency import require_rows
from modelpred.predictor.output_predictor import DESCRIPTION_FILE as OUTPUTS
from modelpred.predictor.output_predictor import OutputPredictor, read_outputs
from modelpred.progress import Progress, progress_bar
from modelpred.refits import Retraining
from modelpred.refits.files import RIVALS_FILE, read_rivals
from modelpred.sealed import check_inputs, remake
from modelpred.studies import STUDIES
from modelpred.studies.context import Preparation, StudyContext
from modelpred.studies.results import StudyResult, write_result
from modelpred.studies.running import run_study
from modelpred.targets import dataset_test_points


def run(study: str) -> None:
    """Run one study with the predictor, the other methods, and retraining as the truth; write it."""
    if study not in STUDIES:
        raise InvalidInput(f"unknown study {study!r}; known: {', '.join(STUDIES)}")
    params = read_params(PARAMS)
    config: BaseModel = getattr(params, study)
    with progress_bar(study) as progress, cluster_api():
        result = result_of(study, config, tolerance=params.targets.tolerance, progress=progress)
    if result.metrics["failed"]:
        sys.stderr.write(f"{study}: WARNING: {result.metrics['failed_told']}{os.linesep}")
    with written(STUDIES_FOLDER / study, made_from=(DATASET, PREDICTOR)) as folder:
        write_result(result, folder)
        write_json(settings_of(config), folder / SETTINGS)
        table = result.tables.get(plotted := STUDIES[study].get("plotted", ""))
        if table is not None:
            for method, rows in table.partition_by("method", as_dict=True).items():
                rows.write_csv(folder / f"{plotted}-{method[0]}.csv")
    write_json(headline(study, result.metrics), headline_file(study))


def settings_of(config: BaseModel) -> dict[str, Any]:
    """The section of params.yaml that the study ran with, for the report."""
    return config.model_dump(mode="json")


def result_of(
    study: str,
    config: BaseModel,
    *,
    tolerance: float,
    progress: Progress,
    artifacts: Path = ARTIFACTS,
) -> StudyResult:
    """The result of a study on a folder of artifacts, with the number of models that failed."""
    compared = getattr(config, "rivals", True)
    given = context(progress, tolerance=tolerance, artifacts=artifacts, compared=compared)
    return run_study(study, config, given)


def headline(study: str, metrics: dict[str, Any]) -> dict[str, float | None]:
    """A study's headline numbers; None for a number that the params left out."""
    numbers: dict[str, float | None] = {}
    for name, place in STUDIES[study]["headline"].items():
        value: Any = metrics
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        numbers[name] = value
    return numbers


def context(
    progress: Progress, *, tolerance: float, artifacts: Path = ARTIFACTS, compared: bool = True
) -> StudyContext:
    """The input of a study, read from artifacts; other methods and retraining use the tolerance.

    Without `compared`, the expansions around the model of all rows are left out.
    """
    check_inputs(artifacts / PREDICTOR.name, again=remake("predictor"))
    dataset = read_dataset(artifacts / DATASET.name)
    predictor = _predictor(artifacts / PREDICTOR.name, classes=len(dataset.classes))
    model, points = predictor.model, predictor.points
    require_rows(
        artifacts / PREDICTOR.name, points, predictor.row_ids, dataset, again=remake("predictor")
    )
    cheap = read_rivals(
        artifacts / PREDICTOR.name / RIVALS_FILE,
        model,
        points,
        tolerance=tolerance,
        expanded=compared,
    )
    return StudyContext(
        truth=Retraining(
            model,
            points,
            tolerance=tolerance,
            training=study_training(dataset, artifacts / DATASET.name),
        ),
        test_points=dataset_test_points(dataset),
        refits={"predictor": predictor, **cheap.refits},
        row_ids=dataset.row_ids,
        rows=dataset.rows,
        mislabelled=dataset.mislabelled,
        progress=progress,
        feature_names=dataset.feature_names,
        class_names=dataset.classes,
        test_row_ids=dataset.test_row_ids,
        preparation=Preparation.of(predictor, targets=cheap.trained)
        if isinstance(predictor, Predictor)
        else Preparation(cheap.trained, predictor.seconds),
    )


def _predictor(folder: Path, *, classes: int) -> Predictor | OutputPredictor:
    """The predictor of parameters, or of outputs of the target that params.yaml names."""
    if not (folder / OUTPUTS).exists():
        return read_predictor(folder)
    return read_outputs(folder, read_params(PARAMS).targets.build(classes=classes))


if __name__ == "__main__":
    name = " ".join(sys.argv[1:])
    run_stage(name or "studies", lambda: run(name))
