"""Stage `studies`: runs one study with the fitted predictor: `python -m flows.studies edits`."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from flows.artifacts import (
    ARTIFACTS,
    DATASET,
    PARAMS,
    PREDICTOR,
    STUDIES_FOLDER,
    TARGETS,
    write_json,
    written,
)
from flows.runtime import Progress, run_stage
from modelpred.dataset import read_dataset
from modelpred.errors import InvalidInput
from modelpred.params import read_params
from modelpred.predictor import Predictor, answer_curve, read_predictor
from modelpred.refits import Retraining, retrainings, rivals
from modelpred.refits.retraining import Progress as Report
from modelpred.studies import (
    attribution,
    calibration,
    edits,
    labels,
    lds,
    memorization,
    selection,
    valuation,
)
from modelpred.studies.costs import Preparation
from modelpred.studies.utility import StudyContext, StudyResult, full_model, write_result
from modelpred.targets import points_of
from modelpred.targets.shards import read_bank


def _preparation(artifacts: Path) -> Preparation:
    """Cost of the predictor before its first prediction."""
    roles = read_bank(artifacts / TARGETS.name).roles
    history = pl.read_parquet(artifacts / PREDICTOR.name / "history.parquet", glob=False)
    return Preparation(
        targets=sum(role != "test" for role in roles),
        fit_seconds=float(history["seconds"].to_numpy().max()),
    )


def _with_all_variants(context: StudyContext) -> StudyContext:
    """The context with the predictor's variants and warm-started retraining added to its refits."""
    predictor, truth = context.refits[context.subject], context.truth
    start = full_model(context)[0]
    exact = retrainings(truth.model, truth.points, tolerance=truth.tolerance, start=start)
    warm = {name: refit for name, refit in exact.items() if name != truth.name}
    curve = answer_curve(predictor) if isinstance(predictor, Predictor) else {}
    return replace(
        context,
        refits={context.subject: predictor, **curve, **context.refits, **warm},
    )


RUNS = {
    "edits": edits.run,
    "lds": lds.run,
    "valuation": valuation.run,
    "labels": labels.run,
    "selection": selection.run,
    "memorization": memorization.run,
    "calibration": calibration.run,
    "attribution": attribution.run,
}
JUDGING = ("edits", "lds")  # studies that also compare refined predictors and warm starts
# `dvc plots` draws a line for each file: these tables are also written one file for each method.
PLOTTED = {"edits": "edits", "calibration": "reliability"}

# The few numbers of each study that `dvc metrics` compares, with their keys in its metrics.
HEADLINES = {
    "edits": {"edits.parameter_error": ("predictor", "parameter_error")},
    "lds": {"lds.direct": ("predictor", "direct"), "lds.additive": ("predictor", "additive")},
    "valuation": {
        "valuation.spearman": ("spearman",),
        "valuation.ceiling": ("truth_reliability",),
    },
    "labels": {"labels.auroc": ("best_auroc",)},
    "selection": {
        "selection.loss": ("methods", "swapped", "loss"),
        "selection.lead": ("lead",),
    },
    "memorization": {
        "memorization.agreement": ("different",),
        "memorization.ceiling": ("ceiling",),
    },
    "calibration": {
        "calibration.ece": ("predicted_bootstrap", "ece_width"),
        "calibration.std_ratio": ("std_ratio",),
    },
    "attribution": {
        "attribution.spearman": ("spearman",),
        "attribution.confirmed": ("flips", "predictor", "confirmed"),
    },
}


def run(study: str) -> None:
    """Run one study with the predictor, the other methods, and retraining as the truth; write it."""
    if study not in RUNS:
        raise InvalidInput(f"unknown study {study!r}; known: {', '.join(RUNS)}")
    params = read_params(PARAMS)
    with Progress(study) as progress:
        result = result_of(
            study, getattr(params, study), tolerance=params.targets.tolerance, progress=progress
        )
    if result.metrics["failed"]:
        sys.stderr.write(f"{study}: WARNING: {result.metrics['failed_told']}{os.linesep}")
    with written(STUDIES_FOLDER / study) as folder:
        write_result(result, folder)
        write_json(headline(study, result.metrics), folder / "headline.json")
        if study in PLOTTED:
            table = result.tables[PLOTTED[study]]
            for method, rows in table.partition_by("method", as_dict=True).items():
                rows.write_csv(folder / f"{PLOTTED[study]}-{method[0]}.csv")


# Any: each study has a configuration of its own.
def result_of(
    study: str,
    config: Any,  # noqa: ANN401
    *,
    tolerance: float,
    progress: Report,
    artifacts: Path = ARTIFACTS,
) -> StudyResult:
    """The result of a study on a folder of artifacts, with the number of models that failed."""
    known = context(progress, tolerance=tolerance, artifacts=artifacts)
    if study in JUDGING:
        known = _with_all_variants(known)
    if study == "edits":
        found = edits.run(config, known, preparation=_preparation(artifacts))
    else:
        found = RUNS[study](config, known)
    failed = {"failed": known.failures.counts(), "failed_told": str(known.failures)}
    return replace(found, metrics={**found.metrics, **failed})


def headline(study: str, metrics: dict[str, Any]) -> dict[str, float | None]:
    """A study's headline numbers; None for a number that the params left out."""
    numbers: dict[str, float | None] = {}
    for name, keys in HEADLINES[study].items():
        value: Any = metrics
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        numbers[name] = value
    return numbers


def context(progress: Report, *, tolerance: float, artifacts: Path = ARTIFACTS) -> StudyContext:
    """The input of a study, read from artifacts; other methods and retraining use the tolerance."""
    dataset = read_dataset(artifacts / DATASET.name)
    predictor = read_predictor(artifacts / PREDICTOR.name)
    weights, parameters = read_bank(artifacts / TARGETS.name).usable(role="fit")
    model, points = predictor.model, predictor.points
    cheap = rivals(model, points, weights, parameters, tolerance=tolerance)
    return StudyContext(
        model=model,
        points=points,
        test_points=points_of(dataset.test_features, dataset.test_labels, len(dataset.classes)),
        refits={"predictor": predictor, **cheap},
        truth=Retraining(model, points, tolerance=tolerance),
        row_ids=dataset.row_ids,
        rows=dataset.rows,
        mislabelled=dataset.mislabelled,
        progress=progress,
        feature_names=dataset.feature_names,
        class_names=dataset.classes,
        test_row_ids=dataset.test_row_ids,
    )


if __name__ == "__main__":
    name = " ".join(sys.argv[1:])
    run_stage(name or "studies", lambda: run(name))
