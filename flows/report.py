"""Stage `report`: writes the results of the run as one HTML file that needs no network."""

import os
from dataclasses import asdict
from importlib.metadata import version

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    REPORT,
    SETTINGS,
    STUDIES_FOLDER,
    TARGETS,
    lineage,
    write_json,
    written,
)
from flows.runtime import run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.predictor import predictor_fingerprint
from modelpred.predictor.output_predictor import TENSORS_FILE as OUTPUTS
from modelpred.report import ReportInputs, baseline_of, write_report
from modelpred.report.answers import answers, title
from modelpred.sealed import (
    changed_input,
    check_inputs,
    read_file,
    read_json,
    read_table,
    remake,
    sha256,
)
from modelpred.studies import STUDIES
from modelpred.studies.results import read_result, study_again
from modelpred.targets import dataset_points, dataset_test_points


def main() -> None:
    """Read the results of all stages and write the page."""
    params, dataset = read_params(PARAMS), read_dataset(DATASET)
    # Without the gates: they are checked at publication, which is not part of the report.
    shown = params.model_dump(mode="json", exclude={"gates", "report", *STUDIES})
    # The family that was trained, in place of `auto`.
    model = params.targets.build(classes=len(dataset.classes))
    shown["targets"]["model"] = model.name
    folders = {
        study: STUDIES_FOLDER / study
        for study in STUDIES
        if os.path.lexists(STUDIES_FOLDER / study)
    }
    check_inputs(TARGETS, again=remake("targets"))
    check_inputs(PREDICTOR, again=remake("predictor"))
    skipped = {study: reason for study in folders if (reason := _outdated(study))}
    folders = {study: folder for study, folder in folders.items() if study not in skipped}
    for study, folder in folders.items():
        shown[study] = read_json(folder / SETTINGS, again=study_again(study))
    predictor = remake("predictor")
    shown["report"] = params.report.model_dump(mode="json")
    inputs = ReportInputs(
        params=shown,
        dataset=dataset,
        fidelity=read_table(PREDICTOR / "fidelity.parquet", again=predictor),
        history=read_table(PREDICTOR / "history.parquet", again=predictor),
        studies={study: read_result(folder) for study, folder in folders.items()},
        targets_metrics=read_json(TARGETS / "metrics.json", again=remake("targets")),
        skipped=skipped,
        predictor_metrics=read_json(PREDICTOR / "metrics.json", again=predictor),
        lineage={
            # Without the git commit: the page depends on its inputs alone, so DVC can restore it.
            "data versions (DVC)": lineage()["dvc"],
            "predictor fingerprint": _fingerprint(),
            "versions": {name: version(name) for name in ("modelpred", "torch", "numpy")},
        },
        baseline=baseline_of(
            model,
            dataset_points(dataset),
            dataset_test_points(dataset),
            tolerance=params.targets.tolerance,
        ),
    )
    made_from = (DATASET, TARGETS, PREDICTOR, *folders.values())
    with written(REPORT, made_from=made_from) as folder:
        write_report(inputs, folder)
        # For `modelpred summary`: the first screen as data.
        write_json(
            {
                "title": title(inputs),
                "rows": inputs.dataset.rows_used,
                "baseline": inputs.baseline and inputs.baseline.sentence,
                "answers": [asdict(answer) for answer in answers(inputs)],
            },
            folder / "answers.json",
        )


def _outdated(study: str) -> str | None:
    """Why the results of a study are not shown; None if they are those of the present predictor."""
    changed = changed_input(STUDIES_FOLDER / study, again=study_again(study))
    if changed is None:
        return None
    return f"its results are of another {changed}; run it again: dvc repro studies@{study}"


def _fingerprint() -> str:
    """The fingerprint of the predictor of parameters, or of outputs."""
    if not (PREDICTOR / OUTPUTS).exists():
        return predictor_fingerprint(PREDICTOR)
    return sha256(read_file(PREDICTOR / OUTPUTS, again=remake("predictor")))


if __name__ == "__main__":
    run_stage("report", main)
