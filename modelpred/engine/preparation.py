"""What prediction needs before its first answer: subsets, their trained models, a fitted predictor."""

import logging
import math
import time
from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from modelpred.engine.choice import ACCURACY
from modelpred.errors import InvalidInput
from modelpred.predictor import Predictor, PredictorConfig, fit_predictor
from modelpred.predictor.fit_memory import require_fit_memory
from modelpred.predictor.step_count import capped_errors
from modelpred.refits import Progress, Retraining
from modelpred.subsets import Role, Subsets, SubsetsConfig, draw_subsets
from modelpred.targets import Points, TargetModel, TrainedTargets
from modelpred.targets.bank import Bank
from modelpred.targets.outcomes import bank_counts, lost, outcomes
from modelpred.targets.training import require_training_memory

log = logging.getLogger("modelpred.api.estimator")
DRAWN_FIRST = 125  # subsets for the fit of an automatic preparation; more are drawn when needed


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
    truth = Retraining(model, points, tolerance=tolerance)
    full = truth.full_parameters()
    seconds = time.perf_counter() - began
    return Problem(truth.model, points, full.to(torch.float64), seconds, tolerance, row_ids)


@dataclass(frozen=True)
class Targets:
    """Subsets and what training gave for each."""

    subsets: Subsets
    trained: TrainedTargets

    @property
    def bank(self) -> Bank:
        """The subsets with their trained parameters."""
        return Bank.of(self.subsets, self.trained)

    @property
    def outcomes(self) -> pl.DataFrame:
        """How many subsets were trained, and how many of them are of no use, by role and design."""
        return outcomes(bank_counts(self.bank), self.subsets.redrawn)


@dataclass(frozen=True)
class Round:
    """A predictor that was fitted on the way to the one in use.

    Attributes:
        network: what was fitted, as in `PredictorConfig.network`.
        targets: number of trained subsets that it was fitted to.
        error: mean relative error of the parameters on the validation subsets; nan without any.
        seconds: of training and fitting up to there.
    """

    network: str
    targets: int
    error: float
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """Trained targets and the predictor fitted to them.

    Attributes:
        targets: every subset that was trained, with its parameters.
        predictor: fitted to them.
        rounds: what was fitted, in order; empty if it was read from files.
        why: why no more targets were trained.
    """

    targets: Targets
    predictor: Predictor
    rounds: tuple[Round, ...] = ()
    why: str = ""

    @property
    def seen(self) -> Bool[Tensor, " subsets"]:
        """Whether the predictor was fitted to or watched on each subset; the others judge it."""
        return torch.tensor([role != "test" for role in self.targets.subsets.roles])

    @property
    def least_size(self) -> float:
        """Smallest total weight of the subsets that the predictor was fitted to or watched on."""
        return float(self.targets.subsets.sizes[self.seen].min())

    @property
    def seconds(self) -> float | None:
        """Seconds that the preparation took; None if it was read from files."""
        return self.rounds[-1].seconds if self.rounds else None


@dataclass(frozen=True)
class Plan:
    """How to prepare: which subsets to train, and the settings of the predictor.

    Attributes:
        subsets: the subsets that are drawn, in numbers for this pool (a scale of 1).
        predictor: settings of the predictor.
        automatic: train fewer of them if more are not worth it, and those that only judge when they
            are first needed.
        accuracy: largest mean relative error of predicted parameters that `auto` accepts.
    """

    subsets: SubsetsConfig
    predictor: PredictorConfig
    automatic: bool = False
    accuracy: float = ACCURACY

    @property
    def targets(self) -> int:
        """Number of subsets for the fit."""
        return sum(self.subsets.fit.values())

    @property
    def trained(self) -> int:
        """Number of subsets that are trained before the first prediction, at most."""
        held_out = 0 if self.automatic else sum(self.subsets.test.values())
        return self.targets + sum(self.subsets.validation.values()) + held_out

    def require_memory(self, model: TargetModel, points: Points) -> None:
        """Check that there is memory for it.

        Raises:
            InvalidInput: there is less.
        """
        total = self.subsets.total
        require_training_memory(model, points, subsets=total)
        require_fit_memory(self.predictor, model, points, subsets=total)


class Bench:
    """The drawn subsets of a plan and the models that were trained of them so far.

    Args:
        problem: the family and the pool.
        plan: which subsets.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.problem = problem
        self.config = plan.subsets
        self.most = plan.targets
        self.rows: list[int] = []
        self.parts: list[TrainedTargets] = []
        self.drawn = self._draw(DRAWN_FIRST if plan.automatic else self.most)

    def _draw(self, count: int) -> Subsets:
        """The subsets of a draw with about so many for the fit, of each design its share."""
        points, config = self.problem.points, self.config
        share = min(1.0, count / max(1, self.most))
        fit = {design: math.ceil(share * own) for design, own in config.fit.items()}
        if not self.most:  # none is used, but a draw has some of each role
            fit = {"uniform": 1}
        return draw_subsets(
            config.model_copy(update={"fit": fit}),
            points=len(points.labels),
            labels=points.labels if points.classes else None,
        )

    def draw_more(self, count: int) -> None:
        """Have subsets for a fit of that many; those that were drawn and trained are kept.

        A larger draw begins with the smaller one, except for a subset that would repeat another.
        Such a subset of a small pool is trained anew. If the pool has not so many different subsets,
        those drawn before are all.
        """
        count = min(count, self.most)
        if count <= len(self.role("fit")):
            return
        old = self.drawn
        try:
            self.drawn = self._draw(count)
        except InvalidInput:
            self.most = len(self.role("fit"))
            return
        place = {name: row for row, name in enumerate(self.drawn.ids)}
        before = torch.tensor(self.rows, dtype=torch.int64)
        trained = torch.tensor([place[old.ids[row]] for row in self.rows], dtype=torch.int64)
        same = (self.drawn.weights[trained] == old.weights[before]).all(1)
        self.rows = trained[same].tolist()
        if self.parts:
            self.parts = [_rows_of(_joined(self.parts), same)]

    def role(self, role: Role) -> list[int]:
        """Rows of the drawn subsets with this role."""
        return [row for row, each in enumerate(self.drawn.roles) if each == role]

    def first(self, count: int, role: Role = "fit") -> list[int]:
        """About so many rows with this role, of each design its share; at most `most` for the fit."""
        if role == "fit":
            self.draw_more(count)
        own = self.role(role)
        total = len(own)
        share = min(count, total) / max(1, total)
        rows: list[int] = []
        for design in dict.fromkeys(self.drawn.designs):
            of_design = [row for row in own if self.drawn.designs[row] == design]
            rows += of_design[: round(share * len(of_design))]
        return rows

    def train(self, rows: list[int], *, progress: Progress) -> None:
        """Train the models of these rows that were not trained before."""
        done = set(self.rows)
        new = [row for row in rows if row not in done]
        if not new:
            return
        trained = self.problem.truth.train(
            self.drawn.weights[torch.tensor(new)],
            progress=lambda done, total, _: progress(done, total, "training"),
        )
        self.rows += new
        self.parts.append(trained)

    @property
    def targets(self) -> Targets:
        """The subsets trained so far, in the order in which they were drawn."""
        order = np.argsort(self.rows)
        rows = [self.rows[place] for place in order.tolist()]
        whole = len(rows) == len(self.drawn)
        subsets = self.drawn if whole else replace(self.drawn.at(rows), redrawn=self.drawn.redrawn)
        return Targets(subsets, _rows_of(_joined(self.parts), torch.from_numpy(order)))


def _joined(parts: list[TrainedTargets]) -> TrainedTargets:
    """The rows of all parts."""
    columns = (column.name for column in fields(TrainedTargets))
    return TrainedTargets(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in columns}
    )


def _rows_of(trained: TrainedTargets, rows: Tensor) -> TrainedTargets:
    """Some of the rows."""
    columns = (column.name for column in fields(TrainedTargets))
    return TrainedTargets(**{name: getattr(trained, name)[rows] for name in columns})


def prepare(problem: Problem, plan: Plan, bench: Bench, *, progress: Progress) -> Prepared:
    """Return targets of all planned subsets and the predictor fitted to them."""
    began = time.perf_counter()
    plan.require_memory(problem.model, problem.points)
    rows = list(range(len(bench.drawn)))
    bench.train(rows, progress=progress)
    judging = len(bench.role("test")) / len(rows) * (time.perf_counter() - began)
    targets = bench.targets
    warn_of_failures(targets)
    predictor = fitted(problem, plan.predictor, targets.bank, progress=progress)
    seconds = time.perf_counter() - began - judging
    error = validation_error(predictor, targets.bank)
    made = Round(predictor.config.network, len(bench.role("fit")), error, seconds)
    return Prepared(targets, predictor, (made,), "all planned subsets are trained")


def fitted(
    problem: Problem,
    config: PredictorConfig,
    bank: Bank,
    *,
    start: Predictor | None = None,
    progress: Progress,
) -> Predictor:
    """Return the predictor fitted to a bank."""
    return fit_predictor(
        config,
        problem.model,
        problem.points,
        *bank.usable(role="fit"),
        validation=bank.usable(role="validation"),
        tolerance=problem.tolerance,
        row_ids=problem.row_ids,
        start=start,
        progress=lambda done, total, what: progress(done, total, f"fitting, {what}"),
    )


def validation_error(predictor: Predictor, bank: Bank) -> float:
    """Return the mean relative error on the validation subsets, each at most 1; nan without any."""
    weights, parameters = bank.usable(role="validation")
    if not len(weights):
        return math.nan
    features = predictor.points.features.shape[1]
    errors = capped_errors(predictor.model, predictor.predict(weights), parameters, features)
    return float(errors.mean())


def warn_of_failures(targets: Targets) -> None:
    """Log how many models did not converge and how many subsets have no model."""
    failed = int((~targets.trained.converged).sum())
    if failed:
        log.warning(
            "%d of %d models did not converge and are left out", failed, len(targets.subsets)
        )
    if message := lost(targets.outcomes):
        log.warning("%s", message)
