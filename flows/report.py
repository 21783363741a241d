"""Stage `report`: writes the results of the run as one HTML file that needs no network."""

import json
from importlib.metadata import version

import polars as pl

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    REPORT,
    SETTINGS,
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
from modelpred.studies import STUDIES
from modelpred.studies.utility import read_result


def main() -> None:
    """Read the results of all stages and write the page."""
    params, dataset = read_params(PARAMS), read_dataset(DATASET)
    # Without the gates: they are checked at publication, which is not part of the report.
    shown = params.model_dump(mode="json", exclude={"gates", "report", *STUDIES})
    # The family that was trained, in place of `auto`.
    shown["targets"]["model"] = params.targets.build(classes=len(dataset.classes)).name
    folders = {
        study: STUDIES_FOLDER / study for study in STUDIES if (STUDIES_FOLDER / study).is_dir()
    }
    for study, folder in folders.items():
        shown[study] = json.loads((folder / SETTINGS).read_text())
    shown["report"] = params.report.model_dump(mode="json")
    inputs = ReportInputs(
        params=shown,
        dataset=dataset,
        fidelity=pl.read_parquet(PREDICTOR / "fidelity.parquet", glob=False),
        history=pl.read_parquet(PREDICTOR / "history.parquet", glob=False),
        studies={study: read_result(folder) for study, folder in folders.items()},
        targets_metrics=json.loads((TARGETS / "metrics.json").read_text()),
        predictor_metrics=json.loads((PREDICTOR / "metrics.json").read_text()),
        lineage={
            # Without the git commit: the page depends on its inputs alone, so DVC can restore it.
            "data versions (DVC)": lineage()["dvc"],
            "predictor fingerprint": predictor_fingerprint(PREDICTOR),
            "versions": {name: version(name) for name in ("modelpred", "torch", "numpy")},
        },
    )
    with written(REPORT) as folder:
        write_report(inputs, folder)


if __name__ == "__main__":
    run_stage("report", main)
