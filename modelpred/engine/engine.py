"""An engine gives the models of subsets, by retraining or by prediction, and knows what each costs."""

import logging
from typing import final

from modelpred.engine.choice import Costs, EngineChoice, require_engine
from modelpred.engine.costs import (
    estimated_answer_seconds,
    estimated_fit_seconds,
    seconds_a_model,
)
from modelpred.engine.preparation import Plan, Prepared, Problem, Targets, prepare
from modelpred.errors import InvalidInput
from modelpred.numbers import Number, steps_number
from modelpred.predictor import Predictor, Refined
from modelpred.refits import Progress, Refit, Retraining, silent

log = logging.getLogger(__name__)


@final
class Engine:
    """Exact retraining of a pool's subsets, and a predictor that is fitted when it is first used.

    Args:
        problem: the family and the pool.
        plan: how a predictor is prepared.
        prepared: a predictor that exists already.
    """

    def __init__(self, problem: Problem, plan: Plan, prepared: Prepared | None = None) -> None:
        self.problem = problem
        self.plan = plan
        self._prepared = prepared
        self._exact_seconds: float | None = None
        self._predicted_seconds: dict[float | int, float] = {}

    @property
    def is_prepared(self) -> bool:
        """Whether there is a predictor already."""
        return self._prepared is not None

    def prepared(self, *, progress: Progress = silent) -> Prepared:
        """Return the targets and the predictor; make them at the first call."""
        if not self.problem.model.has_parameters:
            self._refuse_prediction()
        if self._prepared is None:
            self._prepared = prepare(self.problem, self.plan, progress=progress)
        return self._prepared

    @property
    def predictor(self) -> Predictor:
        """The fitted predictor."""
        return self.prepared().predictor

    @property
    def targets(self) -> Targets:
        """The trained subsets that it was fitted to and is judged by."""
        return self.prepared().targets

    @property
    def truth(self) -> Retraining:
        """Exact retraining."""
        return self.problem.truth

    def choose(self, engine: str, *, models: int, refine: Number = 0) -> EngineChoice:
        """Return which engine is to give so many models.

        Args:
            engine: auto, exact or predicted.
            models: their number, about.
            refine: Newton steps of each prediction.

        Raises:
            InvalidInput: an unknown engine, or a family whose models have no parameters to predict.
        """
        named = require_engine(engine)
        if not self.problem.model.has_parameters:
            if named == "predicted":
                self._refuse_prediction()
            return EngineChoice("exact", models)
        costs = self.costs(refine=steps_number(refine))
        choice = EngineChoice(costs.cheaper(models) if named == "auto" else named, models, costs)
        log.info("%s", choice)
        return choice

    def refit(
        self, choice: EngineChoice, *, refine: Number = 0, progress: Progress = silent
    ) -> Refit:
        """Return the chosen refit, which maps weights to parameters."""
        refine = steps_number(refine)
        if choice.exact:
            return self.truth
        predictor = self.prepared(progress=progress).predictor
        return Refined(predictor, refine) if refine else predictor

    def _refuse_prediction(self) -> None:
        raise InvalidInput(
            f"{self.problem.model.title} has no parameters to predict: it is trained on each subset; "
            "ask for values, suspects or models, with engine='exact'"
        )

    def costs(self, *, refine: float | int = 0) -> Costs:
        """Return the seconds of both engines: measured, or estimated before there is a predictor."""
        problem, count = self.problem, len(self.problem.points.labels)
        if self._exact_seconds is None:
            self._exact_seconds = seconds_a_model(
                problem.truth, count, expected=problem.full_seconds
            )
        exact = self._exact_seconds
        if self._prepared is None:
            answer = estimated_answer_seconds(problem, self.plan)
            training = self.plan.subsets.drawn(count) * exact
            return Costs(exact, answer, training + estimated_fit_seconds(problem, self.plan))
        if refine not in self._predicted_seconds:
            predictor = self._prepared.predictor
            self._predicted_seconds[refine] = seconds_a_model(
                lambda weights: predictor.predict(weights, refine=refine), count
            )
        return Costs(exact, self._predicted_seconds[refine], 0.0)
