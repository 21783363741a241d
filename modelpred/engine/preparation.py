"""What prediction needs before its first answer: subsets, their trained models, a fitted predictor."""

import logging
import time
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor import Predictor, PredictorConfig, fit_predictor
from modelpred.predictor.fit_memory import require_fit_memory
from modelpred.refits import Progress, Retraining
from modelpred.subsets import Subsets, SubsetsConfig, draw_subsets
from modelpred.targets import Points, TargetModel, TrainedTargets
from modelpred.targets.outcomes import bank_counts, lost, outcomes
from modelpred.targets.shards import Bank
from modelpred.targets.training import require_training_memory

log = logging.getLogger("modelpred.api.estimator")


@dataclass(frozen=True)
class Problem:
    """A family of models on a pool of rows.

    Attributes:
        model: the family.
        points: the pool.
        full_parameters: of the model of all rows, trained exactly.
        full_seconds: that training it took.
        tolerance: of all training.
        row_ids: id of each row.
    """

    model: TargetModel
    points: Points
    full_parameters: Float64[Tensor, " parameters"]
    full_seconds: float
    tolerance: float
    row_ids: tuple[str, ...]

    @property
    def truth(self) -> Retraining:
        """Exact retraining."""
        return Retraining(self.model, self.points, tolerance=self.tolerance)


def problem_of(
    model: TargetModel, points: Points, *, tolerance: float, row_ids: tuple[str, ...]
) -> Problem:
    """Return the problem, with the model of all rows trained.

    Raises:
        InvalidInput: its training did not converge.
    """
    began = time.perf_counter()
    model = model.for_rows(points)
    ones = torch.ones(1, len(points.labels), dtype=torch.float64)
    trained = Retraining(model, points, tolerance=tolerance).train(ones)
    if not bool(trained.converged[0]):
        raise InvalidInput(
            f"the {model.title} model of all rows did not converge: "
            f"{model.advice(float(trained.gradient_norm[0]))}"
        )
    seconds = time.perf_counter() - began
    return Problem(model, points, trained.parameters[0], seconds, tolerance, row_ids)


@dataclass(frozen=True)
class Targets:
    """Subsets and what training gave for each."""

    subsets: Subsets
    trained: TrainedTargets

    @property
    def bank(self) -> Bank:
        """The subsets with their trained parameters."""
        return Bank.of(self.subsets, self.trained)


@dataclass(frozen=True)
class Prepared:
    """Trained targets and the predictor fitted to them.

    Attributes:
        targets: every subset that was trained, with its parameters.
        predictor: fitted to them.
        seconds: that preparing took; None if it was read from files.
    """

    targets: Targets
    predictor: Predictor
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """How to prepare: which subsets to train, and the settings of the predictor."""

    subsets: SubsetsConfig
    predictor: PredictorConfig

    def targets(self, points: int) -> int:
        """Number of subsets of so many points for the fit."""
        return sum(self.subsets.counts(points)["fit"].values())

    def require_memory(self, model: TargetModel, points: Points) -> None:
        """Check that there is memory for it.

        Raises:
            InvalidInput: there is less.
        """
        total = self.subsets.drawn(len(points.labels))
        require_training_memory(model, points, subsets=total)
        require_fit_memory(self.predictor, model, points, subsets=total)


def prepare(problem: Problem, plan: Plan, *, progress: Progress) -> Prepared:
    """Return targets of the planned subsets and the predictor fitted to them."""
    began = time.perf_counter()
    model, points = problem.model, problem.points
    plan.require_memory(model, points)
    drawn = draw_subsets(
        plan.subsets,
        points=len(points.labels),
        labels=points.labels if points.classes else None,
    )
    trained = problem.truth.train(
        drawn.weights, progress=lambda done, total, _: progress(done, total, "training")
    )
    targets = Targets(drawn, trained)
    warn_of_failures(targets)
    predictor = fit_predictor(
        plan.predictor,
        model,
        points,
        *targets.bank.usable(role="fit"),
        validation=targets.bank.usable(role="validation"),
        tolerance=problem.tolerance,
        row_ids=problem.row_ids,
        progress=lambda done, total, what: progress(done, total, f"fitting, {what}"),
    )
    return Prepared(targets, predictor, time.perf_counter() - began)


def warn_of_failures(targets: Targets) -> None:
    """Log how many models did not converge and how many subsets have no model."""
    failed = int((~targets.trained.converged).sum())
    if failed:
        log.warning(
            "%d of %d models did not converge and are left out", failed, len(targets.subsets)
        )
    if message := lost(outcomes(bank_counts(targets.bank), targets.subsets.redrawn)):
        log.warning("%s", message)
