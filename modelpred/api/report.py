"""The pipeline's report of a fit in memory: the same studies, the same page."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
from pydantic import BaseModel, ValidationError

from modelpred.api.files import Fitted
from modelpred.engine import Targets
from modelpred.errors import InvalidInput
from modelpred.params import Params
from modelpred.refits import Progress, Refit
from modelpred.report import ReportConfig, ReportInputs, baseline_of, write_report
from modelpred.studies import STUDIES
from modelpred.studies.context import Preparation, StudyContext
from modelpred.studies.running import run_study
from modelpred.targets import Points

NO_TEST = "a report needs test rows: pass fit(..., test=(X_test, y_test))"


def study_configs(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseModel]:
    """The config of every study, with its defaults where nothing is given.

    Raises:
        InvalidInput: an unknown study or setting, or a value out of range.
    """
    for name in settings:
        if name not in STUDIES:
            raise InvalidInput(f"unknown study {name!r}; known: {', '.join(STUDIES)}")
    configs: dict[str, BaseModel] = {}
    for name in STUDIES:
        kind: Any = Params.model_fields[name].annotation
        try:
            configs[name] = kind.model_validate(dict(settings.get(name, {})))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise InvalidInput(f"{name}.{key}: {first['msg']}") from error
    return configs


def report_of(
    fitted: Fitted,
    folder: Path,
    *,
    test_points: Points,
    configs: Mapping[str, BaseModel],
    fidelity: pl.DataFrame,
    others: Mapping[str, Refit],
    rows: int,
    progress: Progress,
) -> Path:
    """Write the report and return the path of its page.

    Args:
        fitted: the fit.
        folder: to write to.
        test_points: the test rows of the fit.
        configs: of all studies, see `study_configs`.
        fidelity: errors on held-out subsets.
        others: the other methods, see `modelpred.refits.rivals`.
        rows: most and least valuable rows that are listed.
        progress: called with the progress of each study.
    """
    problem, dataset, prepared = fitted.problem, fitted.dataset, fitted.engine.prepared()
    context = StudyContext(
        problem.truth,
        test_points,
        {"predictor": prepared.predictor, **others},
        problem.row_ids,
        rows=dataset.rows,
        progress=progress,
        feature_names=dataset.feature_names,
        class_names=dataset.classes,
        test_row_ids=dataset.test_row_ids,
        preparation=Preparation.of(prepared.predictor, targets=int(prepared.seen.sum())),
    )
    studies = {name: run_study(name, config, context) for name, config in configs.items()}
    inputs = ReportInputs(
        params=_params(fitted, configs, rows=rows),
        dataset=dataset,
        fidelity=fidelity,
        history=pl.DataFrame(prepared.predictor.history) if prepared.predictor.history else None,
        studies=studies,
        targets_metrics=_targets_metrics(prepared.targets),
        predictor_metrics={},
        lineage={"versions": {name: version(name) for name in ("modelpred", "torch", "numpy")}},
        baseline=baseline_of(
            problem.model, problem.points, test_points, tolerance=problem.tolerance
        ),
    )
    return write_report(inputs, folder)


def _targets_metrics(targets: Targets) -> dict[str, object]:
    return targets.outcomes.select(cs.integer().sum()).row(0, named=True)


def _params(
    fitted: Fitted, configs: Mapping[str, BaseModel], *, rows: int
) -> dict[str, dict[str, Any]]:
    plan, problem = fitted.engine.plan, fitted.problem
    return {
        "subsets": plan.subsets.model_dump(mode="json"),
        "targets": {
            "model": problem.model.name,
            **problem.model.settings,
            "tolerance": problem.tolerance,
        },
        "predictor": plan.predictor.model_dump(mode="json"),
        **{name: config.model_dump(mode="json") for name, config in configs.items()},
        "report": ReportConfig(rows=rows).model_dump(mode="json"),
    }
