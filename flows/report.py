"""Stage `report`: what the run found, as one HTML file that reads offline."""

import json
from importlib.metadata import version

import polars as pl

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    REPORT,
    STUDIES,
    STUDIES_FOLDER,
    TARGETS,
    lineage,
    written,
)
from flows.runtime import run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.predictor import predictor_fingerprint
from modelpred.report import ReportInputs, write_report
from modelpred.studies.utility import read_result


def main() -> None:
    """Gathers every stage's results and writes the page."""
    params, dataset = read_params(PARAMS), read_dataset(DATASET)
    # No gates: they judge the predictor when it is published, and the page does not tell of it.
    told = params.model_dump(mode="json", exclude={"gates"})
    # The reader wants the family that was trained, not that it was chosen by the label.
    told["targets"]["model"] = params.targets.build(classes=len(dataset.classes)).name
    inputs = ReportInputs(
        params=told,
        dataset=dataset,
        fidelity=pl.read_parquet(PREDICTOR / "fidelity.parquet", glob=False),
        history=pl.read_parquet(PREDICTOR / "history.parquet", glob=False),
        studies={
            study: read_result(STUDIES_FOLDER / study)
            for study in STUDIES
            if (STUDIES_FOLDER / study).is_dir()
        },
        targets_metrics=json.loads((TARGETS / "metrics.json").read_text()),
        predictor_metrics=json.loads((PREDICTOR / "metrics.json").read_text()),
        lineage={
            # No git commit: the page follows from the data alone, so that it is restored with them.
            "data versions (DVC)": lineage()["dvc"],
            "predictor fingerprint": predictor_fingerprint(PREDICTOR),
            "versions": {name: version(name) for name in ("modelpred", "torch", "numpy")},
        },
    )
    with written(REPORT) as folder:
        write_report(inputs, folder)


if __name__ == "__main__":
    run_stage("report", main)
