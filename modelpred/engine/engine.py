"""An engine gives the models of subsets, by retraining or by prediction, and knows what each costs."""

import logging
from dataclasses import replace
from typing import final

from modelpred.engine.choice import (
    LESS_CERTAIN,
    WORTH,
    Costs,
    EngineChoice,
    accurate,
    require_engine,
)
from modelpred.engine.costs import (
    FEWEST_TIMED,
    estimated_costs,
    learned_seconds,
    seconds_a_model,
)
from modelpred.engine.learning import Allowance, LearningRounds, learning_rounds
from modelpred.engine.mixed import Mixed
from modelpred.engine.preparation import (
    Bench,
    Plan,
    Prepared,
    Problem,
    Targets,
    prepare,
    problem_of,
    validation_error,
)
from modelpred.errors import InvalidInput
from modelpred.numbers import Number, steps_number
from modelpred.predictor import Predictor, Refined
from modelpred.predictor.newton_network import NewtonNetwork
from modelpred.refits import Progress, Refit, Retraining, silent
from modelpred.targets import Points

SHARE = 4
"""`auto` trains at most a model for each so many that are asked for, after the first round."""

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
        self._rounds: LearningRounds | None = None
        self._bench: Bench | None = None
        self._exact_seconds: float | None = None
        self._predicted_seconds: dict[float | int, float] = {}
        self._error: float | None = None

    def over(self, points: Points, *, row_ids: tuple[str, ...]) -> "Engine":
        """Return the engine of another pool, with this one's predictor bound to it if there is one.

        The targets, the sizes that the predictor knows and its error stay those of this pool: no
        models of the other pool's subsets are trained to measure them.

        Args:
            points: the other pool.
            row_ids: their ids.

        Raises:
            InvalidInput: training the model of all its rows did not converge.
        """
        old = self.problem
        problem = problem_of(old.model, points, tolerance=old.tolerance, row_ids=row_ids)
        if self._prepared is None:
            return Engine(problem, self.plan)
        predictor = self._prepared.predictor.for_points(points, row_ids=row_ids)
        other = Engine(problem, self.plan, replace(self._prepared, predictor=predictor))
        other._error = self.error
        return other

    @property
    def is_prepared(self) -> bool:
        """Whether there is a predictor already."""
        return self._prepared is not None

    def prepared(self, *, progress: Progress = silent) -> Prepared:
        """Return the targets and the predictor; make them at the first call.

        A preparation that an `auto` call made as far as it paid for that call goes on to its end.

        Args:
            progress: called with (done, total, what).
        """
        if self._prepared is None or (self._rounds is not None and self._rounds.ahead):
            return self._prepare(None, progress=progress)
        return self._prepared

    def _prepare(self, allowance: Allowance | None, *, progress: Progress) -> Prepared:
        if not self._predictable:
            self._refuse_prediction()
        problem, plan = self.problem, self.plan
        bench = self._bench = self._bench or Bench(problem, plan)
        if not plan.automatic:
            self._prepared = prepare(problem, plan, bench, progress=progress)
        else:
            self._rounds = self._rounds or learning_rounds(problem, plan, bench)
            self._prepared = self._rounds.go_on(allowance=allowance, progress=progress)
        self._error = None
        self._predicted_seconds.clear()
        return self._prepared

    @property
    def so_far(self) -> Prepared:
        """What was prepared so far, perhaps for an `auto` call only; all of it if nothing was."""
        return self._prepared or self.prepared()

    def with_test_subsets(self, *, progress: Progress = silent) -> Prepared:
        """Return the same with the models of the test subsets, which measure the predictor's errors."""
        prepared, bench = self.prepared(progress=progress), self._bench
        if bench is not None:
            bench.train(bench.role("test"), progress=progress)
            if len(bench.rows) > len(prepared.targets.subsets):
                self._prepared = prepared = replace(prepared, targets=bench.targets)
        return prepared

    @property
    def predictor(self) -> Predictor:
        """The predictor as it was fitted so far."""
        return self.so_far.predictor

    @property
    def targets(self) -> Targets:
        """The trained subsets: those that the predictor was fitted to, and the test subsets."""
        return self.with_test_subsets().targets

    @property
    def preparation_seconds(self) -> float:
        """Seconds that training the targets and fitting took, or would take again."""
        prepared = self.so_far
        if prepared.seconds is not None:
            return prepared.seconds
        fit = float(prepared.predictor.history[-1]["seconds"])
        return int(prepared.seen.sum()) * self.costs().exact + fit

    @property
    def truth(self) -> Retraining:
        """Exact retraining."""
        return self.problem.truth

    def choose(
        self,
        engine: str,
        *,
        models: int,
        checked: int = 0,
        refine: Number = 0,
        progress: Progress = silent,
    ) -> EngineChoice:
        """Return which engine is to give so many models.

        `auto` prepares the predictor if its estimated costs promise to pay, and then decides by its
        measured costs and error.

        Args:
            engine: auto, exact or predicted.
            models: their number, about, of sizes that the predictor knows.
            checked: number of predictions that `auto` retrains, too, to correct for their error.
            refine: Newton steps of each prediction. `auto` takes none where the error is small
                enough without.
            progress: of the preparation.

        Raises:
            InvalidInput: an unknown engine, or a family whose models have no parameters to predict.
        """
        named, steps = require_engine(engine), steps_number(refine)
        if not self._predictable:
            if named == "predicted":
                self._refuse_prediction()
            return EngineChoice("exact", models)
        if named == "auto":
            choice = self._cheaper(models, steps, checked=checked, progress=progress)
        else:
            if named == "predicted":
                self.prepared(progress=progress)
            costs = self.costs(refine=steps, models=models)
            choice = EngineChoice(named, models, steps, costs)
        log.info("%s", choice)
        return choice

    def _cheaper(
        self, models: int, refine: float | int, *, checked: int, progress: Progress
    ) -> EngineChoice:
        costs = self.costs(refine=refine, models=models)
        if checked and not costs.promising:
            return EngineChoice("exact", models, 0, costs, checked, why=LESS_CERTAIN)
        if costs.cheaper(models, checked=checked) == "predicted":
            allowance = self._allowance(models, costs)
            may_go_on = self._rounds is not None and self._rounds.permits(allowance)
            if not self.is_prepared or may_go_on:
                self._prepare(allowance, progress=progress)
        if self.is_prepared:
            if not accurate(self.error, self.plan.accuracy):
                return EngineChoice("exact", models, 0, self.costs(models=models), checked)
            if isinstance(self.predictor.network, NewtonNetwork):
                refine = 0  # a Newton step costs more than the gradients, which are near already
            costs = self.costs(refine=refine, models=models)
            if checked and not costs.promising:
                return EngineChoice("exact", models, 0, costs, checked, why=LESS_CERTAIN)
        chosen = costs.cheaper(models, checked=checked)
        least = self.so_far.least_size if chosen == "predicted" else 0.0
        return EngineChoice(chosen, models, refine, costs, checked, least)

    def _allowance(self, models: int, costs: Costs) -> Allowance:
        """What preparing for so many models may cost beside the first round: a share of retraining them."""
        learned = learned_seconds(self.problem, self.plan, costs.exact)
        pays = learned < models * costs.exact / SHARE
        return Allowance(models // SHARE, self.plan.accuracy, learned=pays)

    @property
    def error(self) -> float:
        """Mean relative error of the predictor on validation subsets; nan if there are none."""
        if self._error is None:
            prepared = self.so_far
            if prepared.rounds:
                self._error = min(each.error for each in prepared.rounds)
            else:
                self._error = validation_error(prepared.predictor, prepared.targets.bank)
        return self._error

    def refit(self, choice: EngineChoice, *, progress: Progress = silent) -> Refit:
        """Return the chosen refit, which maps weights to parameters."""
        if choice.exact:
            return self.truth
        predictor = (self._prepared or self.prepared(progress=progress)).predictor
        refit = Refined(predictor, choice.refine) if choice.refine else predictor
        return Mixed(refit, self.truth, choice.retrained_below) if choice.retrained_below else refit

    @property
    def _predictable(self) -> bool:
        return self.problem.model.has_parameters and self.problem.model.predictable

    def _refuse_prediction(self) -> None:
        if self.problem.model.has_parameters:
            raise InvalidInput(
                f"parameters of {self.problem.model.title} are not predicted, as they depend on the luck "
                "of a seed; use engine='exact', and fidelity() for what predictions of scores know"
            )
        raise InvalidInput(
            f"{self.problem.model.title} has no parameters to predict: it is trained on each subset; "
            "ask for values, suspects or models, with engine='exact'"
        )

    def costs(self, *, refine: float | int = 0, models: int | None = None) -> Costs:
        """Return the seconds of both engines: measured, or estimated before there is a predictor.

        Args:
            refine: Newton steps of each prediction.
            models: number of models that are needed. If retraining them takes at most `WORTH` by a
                short timing, that time is returned, which is an upper bound. Default: many.
        """
        problem, count = self.problem, len(self.problem.points.labels)
        exact = self._retraining_seconds(models)
        if self._prepared is None:
            return estimated_costs(problem, self.plan, exact)
        if refine not in self._predicted_seconds:
            predictor = self._prepared.predictor
            self._predicted_seconds[refine] = seconds_a_model(
                lambda weights: predictor.predict(weights, refine=refine), count, least=FEWEST_TIMED
            )
        return Costs(exact, self._predicted_seconds[refine], 0.0)

    def _retraining_seconds(self, models: int | None) -> float:
        if self._exact_seconds is not None:
            return self._exact_seconds
        problem, count = self.problem, len(self.problem.points.labels)
        longest = problem.full_seconds  # of all rows, and the first
        if models is not None and models * longest <= WORTH:
            return longest
        enough = WORTH / models if models else 0.0
        found = seconds_a_model(problem.truth, count, expected=longest, enough=enough)
        if found > enough:
            self._exact_seconds = found
        return found
