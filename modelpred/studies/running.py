"""Runs one study, for the pipeline and for notebooks alike."""

from dataclasses import replace
from importlib import import_module

from pydantic import BaseModel

from modelpred.predictor import Predictor, answer_curve
from modelpred.refits import retrainings
from modelpred.studies import STUDIES
from modelpred.studies.answering import AnsweringConfig, with_engine
from modelpred.studies.context import StudyContext, full_model
from modelpred.studies.results import StudyResult


def run_study(name: str, config: BaseModel, context: StudyContext) -> StudyResult:
    """Return the result of a study, with its engine and the models that failed in its metrics.

    Args:
        name: of the study in STUDIES.
        config: the study's own section of params.yaml.
        context: its input.
    """
    if STUDIES[name].get("parameters") and not context.model.has_parameters:
        reason = f"it needs parameters, and those of {context.model.name} are not predicted"
        return StudyResult({"skipped": reason, "failed": {}, "failed_told": ""}, {})
    if STUDIES[name].get("curve"):
        context = _with_all_variants(context)
    answered = None
    if isinstance(config, AnsweringConfig):
        context, answered = with_engine(config, context)
    found: StudyResult = import_module(f"modelpred.studies.{name}").run(config, context)
    failed = {"failed": context.failures.counts(), "failed_told": str(context.failures)}
    engine = {} if answered is None else {"engine": answered.metrics}
    return replace(found, metrics={**found.metrics, **engine, **failed})


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
