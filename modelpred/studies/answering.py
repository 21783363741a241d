"""The models of a study: predicted, retrained, or whichever costs less (`engine` in params.yaml).

The pipeline has fitted the predictor by the time of its studies, so that `auto` compares the costs of a
model, and asks for the error that the fit measured. Both are written beside the results.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelpred.engine import ACCURACY, EngineName, accurate, duration
from modelpred.engine.costs import MOST_TIMED, seconds_a_model
from modelpred.predictor import Predictor, Refined
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.context import StudyContext
from modelpred.studies.results import written_number


class AnsweringConfig(BaseModel):
    """Keys of the sections whose study needs models, of either engine.

    Attributes:
        engine: predicted, exact (retrained), or auto: whichever costs less a model here, and exact if
            predictions are not accurate enough.
        accuracy: largest mean relative error of predicted parameters at which auto predicts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = "predicted"
    accuracy: float = Field(default=ACCURACY, gt=0)


@dataclass(frozen=True)
class Answered:
    """Which engine gave the models of a study, and why.

    Attributes:
        asked: the setting.
        used: predicted or exact.
        error: mean relative error of the predictor on validation subsets; nan if unknown.
        exact_seconds: of retraining a model.
        predicted_seconds: of predicting a model, with the study's Newton steps; nan if the setting is
            exact, since the predictor's first answers may take longer than the study.
    """

    asked: EngineName
    used: Literal["predicted", "exact"]
    error: float
    exact_seconds: float
    predicted_seconds: float

    @property
    def metrics(self) -> dict[str, Any]:
        """What is written with the results."""
        return {
            "asked": self.asked,
            "used": self.used,
            "error": written_number(self.error),
            "exact_seconds": self.exact_seconds,
            "predicted_seconds": written_number(self.predicted_seconds),
            "summary": str(self),
        }

    def __str__(self) -> str:
        """The engine and what a model costs with both, in one line."""
        exact, predicted = duration(self.exact_seconds), duration(self.predicted_seconds)
        if math.isnan(self.predicted_seconds):
            return f"The models were retrained, in {exact} each."
        if self.used == "exact":
            return f"The models were retrained, in {exact} each; a prediction takes {predicted}."
        return f"The models were predicted, in {predicted} each; retraining takes {exact}."


def with_engine(
    config: AnsweringConfig, context: StudyContext
) -> tuple[StudyContext, Answered | None]:
    """Return the context whose subject is the chosen engine's refit, and the choice.

    The choice is None if the subject is retraining: there is nothing to choose.
    """
    subject = context.refits[context.subject]
    if isinstance(subject, Retraining):
        return context, None
    answered = _answered(config, context, subject)
    if answered.used == "predicted":
        return context, answered
    truth = context.truth
    refits = {truth.name: truth, **context.refits}
    return replace(context, refits=refits, answered_by=truth.name), answered


def _answered(config: AnsweringConfig, context: StudyContext, subject: Refit) -> Answered:
    refine = getattr(config, "refine", 0)
    if isinstance(subject, Predictor) and refine:
        subject = Refined(subject, refine)
    exact = seconds_a_model(context.truth, context.pool)
    error = fit_error(subject)
    if config.engine == "exact":
        return Answered("exact", "exact", error, exact, math.nan)
    predicted = seconds_a_model(subject, context.pool, least=MOST_TIMED)
    if config.engine != "auto":
        used = config.engine
    else:
        pays = predicted < exact and accurate(error, config.accuracy)
        used = "predicted" if pays else "exact"
    return Answered(config.engine, used, error, exact, predicted)


def fit_error(refit: Refit) -> float:
    """Return the mean relative error on validation subsets that the fit recorded; nan if unknown."""
    predictor = refit.predictor if isinstance(refit, Refined) else refit
    if not isinstance(predictor, Predictor):
        return math.nan
    errors = [float(epoch["validation_error"]) for epoch in predictor.history]
    if not errors:
        return math.nan
    # Only `anchored` ends with the weights of its best epoch.
    return min(errors) if predictor.config.network == "anchored" else errors[-1]
