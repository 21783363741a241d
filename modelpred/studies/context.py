"""The input of a study, and its models.

**Failed models are nan.** If training did not converge, or a prediction is not finite, the parameters
are nan (`refitted`, `retrained`), and so are all numbers computed from them (`scored`). Failures are
counted for each refit in `StudyContext.failures`.
"""

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from modelpred.dataset.cells import column_of
from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.predictor import Predictor, Refined
from modelpred.refits.retraining import Progress, Refit, Retraining, checked_weights, silent
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points

PREDICTOR = "predictor"


class Failures:
    """Counts the models and the failed models of each refit."""

    def __init__(self) -> None:
        self.models: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def record(self, name: str, failed: Bool[Tensor, " subsets"]) -> None:
        """Count the models of one call."""
        self.models[name] += len(failed)
        self.failed[name] += int(failed.sum())

    def counts(self) -> dict[str, dict[str, int]]:
        """Models and failures of each refit that had any failure."""
        return {
            name: {"models": self.models[name], "failed": count}
            for name, count in self.failed.items()
            if count
        }

    def __str__(self) -> str:
        """One line with all failures; empty if there are none."""
        parts = [
            f"{count:,} of {self.models[name]:,} models of {name.replace('_', ' ')}"
            for name, count in self.failed.items()
            if count
        ]
        if not parts:
            return ""
        return f"{', '.join(parts)} did not converge or were not finite and are excluded"


@dataclass(frozen=True)
class Preparation:
    """Preparation of the predictor before its first query.

    Attributes:
        targets: number of models trained for the fit and for its validation.
        fit_seconds: seconds of the fit.
    """

    targets: int
    fit_seconds: float

    @classmethod
    def of(cls, predictor: Predictor, *, targets: int) -> "Preparation | None":
        """The preparation of a predictor; None if it has no history of its fit."""
        if not predictor.history:
            return None
        return cls(targets, max(epoch["seconds"] for epoch in predictor.history))


@dataclass(frozen=True)
class StudyContext:
    """The input of a study.

    Attributes:
        truth: exact retraining of the target family on the training points.
        test_points: the rows on which models are scored.
        refits: the fitted predictor and the other methods, by name.
        row_ids: id of each training point.
        seed: combined with the study's own seed in every draw.
        progress: called with (done, total, what).
        rows: the original cells of the training points, for groups of rows.
        mislabelled: [points], whether a wrong label was planted; None if none was. Studies use it to
            evaluate methods and never pass it to a method.
        feature_names: names of the features; may be empty.
        class_names: names of the classes; may be empty.
        test_row_ids: id of each test row; may be empty.
        preparation: cost of the predictor before its first query; may be None.
        answered_by: name of the refit that the study evaluates, if it is among the refits.
        failures: counts of failed models, shared by copies of the context.
    """

    truth: Retraining
    test_points: Points
    refits: Mapping[str, Refit]
    row_ids: tuple[str, ...]
    seed: int = 0
    progress: Progress = silent
    rows: pl.DataFrame | None = None
    mislabelled: Bool[Tensor, " points"] | None = None
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    test_row_ids: tuple[str, ...] = ()
    preparation: Preparation | None = None
    answered_by: str = PREDICTOR
    failures: Failures = field(default_factory=Failures, repr=False, compare=False)

    @property
    def subject(self) -> str:
        """Name of the refit that the study evaluates: the predictor unless named, or the first refit."""
        return self.answered_by if self.answered_by in self.refits else next(iter(self.refits))

    @property
    def model(self) -> TargetModel:
        """The family of the target models."""
        return self.truth.model

    @property
    def points(self) -> Points:
        """The training points that weights refer to."""
        return self.truth.points

    @property
    def pool(self) -> int:
        """Number of training points."""
        return len(self.points.labels)

    def generator(self, *, seed: int, study: str, block: int) -> np.random.Generator:
        """Return the generator of one block of draws of one study."""
        return np.random.default_rng([self.seed, seed, zlib.crc32(study.encode()), block])


def with_refined(context: StudyContext, *, refine: float) -> tuple[str, StudyContext]:
    """Return the name of the refit to evaluate, and the context with it.

    This is the refined predictor, as the first refit. If `refine` is 0 or the context's subject is
    not a predictor, it is the context's own subject.
    """
    subject = context.refits[context.subject]
    if not (refine and isinstance(subject, Predictor)):
        return context.subject, context
    name = f"{context.subject}_refined"
    return name, replace(context, refits={name: Refined(subject, refine), **context.refits})


def refitted(
    refit: Refit, weights: Num[Tensor, "subsets points"], context: StudyContext
) -> Float[Tensor, "subsets parameters"]:
    """Return a refit's parameters, with the family's prior-only model if there is no optimum.

    A subset that lacks a class has no logistic optimum. Its model is given by definition (see
    `TargetModel.without_optimum`). A failed model is nan and counted.
    """
    return recorded(refit(weights), weights, context, refit.name)


def recorded(
    answers: Float[Tensor, "subsets parameters"],
    weights: Num[Tensor, "subsets points"],
    context: StudyContext,
    name: str,
) -> Float[Tensor, "subsets parameters"]:
    """Return a refit's parameters for these weights, treated as in `refitted`."""
    rows = checked_weights(weights, points=context.pool)
    return with_failures_counted(
        context.model.with_prior(answers, rows, context.points), context, name
    )


def retrained(
    weights: Num[Tensor, "subsets points"], context: StudyContext, *, progress: Progress = silent
) -> Float[Tensor, "subsets parameters"]:
    """Return the parameters of exact retraining; nan and counted if training did not converge."""
    return with_failures_counted(
        context.truth(weights, progress=progress), context, context.truth.name
    )


def full_model(
    context: StudyContext, weights: Float[Tensor, " points"] | None = None
) -> Float[Tensor, "one parameters"]:
    """Return the exactly trained parameters of all rows, or of these weights.

    Raises:
        InvalidInput: training did not converge.
    """
    all_rows = torch.ones(context.pool) if weights is None else weights
    full = retrained(all_rows[None], context)
    if not bool(finished(full)[0]):
        raise InvalidInput(
            f"the {context.model.name} model of all {context.pool} rows did not converge; scale the "
            "features, or change targets.tolerance or targets.C"
        )
    return full


def require_models(subsets: int, context: StudyContext, *, what: str) -> None:
    """Check that there is memory for so many subsets, their models and the losses of these.

    Args:
        subsets: their number, which may be any.
        context: its rows and family.
        what: the subsets in words, with the setting that sets their number.
    """
    points = context.points
    parameters = context.model.parameter_count(points.features.shape[1], points.classes)
    # Weights as bytes and as float64; parameters and losses of the truth and of one refit.
    each = 9 * context.pool + 32 * parameters + 24 * len(context.test_points.labels)
    require_memory(subsets * each, what=f"{what}: models of {subsets:,} subsets")


def finished(parameters: Float[Tensor, "subsets parameters"]) -> Bool[Tensor, " subsets"]:
    """Return whether each model is finite, that is, did not fail."""
    return parameters.isfinite().all(dim=1)


def with_failures_counted(answers: Tensor, context: StudyContext, name: str) -> Tensor:
    """Return the parameters with nan for failed models, which are counted."""
    failed = ~finished(answers)
    context.failures.record(name, failed)
    return answers.masked_fill(failed[:, None], torch.nan)


def groups_of(context: StudyContext, *, column: str, key: str) -> tuple[list[str], Tensor]:
    """Return the names of a column's groups and their members, uint8 [groups, points].

    `key` is the setting that error messages name.

    Raises:
        InvalidInput: there is no such column, a cell is missing, or there is only one group.
    """
    rows = pl.DataFrame() if context.rows is None else context.rows
    if column not in rows.columns:
        known = ", ".join(rows.columns) or "none"
        raise InvalidInput(f"{key}: the table has no column {column!r}; known: {known}")
    cells = column_of(rows, column).cast(pl.String)
    if cells.null_count():
        raise InvalidInput(f"{key}: {cells.null_count()} cells of {column!r} are empty; fill them")
    names = sorted(set(cells.to_list()))
    if len(names) < 2:
        raise InvalidInput(f"{key}: {column!r} has one group; expected two or more")
    of_point = torch.tensor([names.index(cell) for cell in cells])
    return names, torch.nn.functional.one_hot(of_point, len(names)).T.to(torch.uint8)
