"""What all studies share: what they are given, what they return, and how good a model is.

A study asks refits about subsets and scores the models that come back on test rows. Scores
[subsets, test rows, outputs] are formed in blocks of bounded size and reduced at once.

**A model that failed has no number.** Where training did not converge, or a prediction is not
finite, the parameters are nan (`refitted`, `retrained`), and so is whatever is computed from them
(`scored`). Both count what failed, by refit, in `StudyContext.failures`.
"""

import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from modelpred.dataset.cells import column_of
from modelpred.errors import InvalidInput
from modelpred.refits.retraining import Progress, Refit, Retraining, checked_weights, silent
from modelpred.targets.model import Points, TargetModel
from modelpred.targets.threads import threads_for

# Scores formed at once: small enough for the processor's cache, large enough for its products.
SCORE_BYTES = 4 * 2**20
PREDICTOR = "predictor"

UtilityName = Literal["loss", "accuracy", "squared_error"]
Scoring = Callable[[Tensor, Tensor], Tensor]
"""(scores [subsets, rows, outputs], labels [rows]) -> a number per subset, the higher the better"""


class Failures:
    """How many models each refit was asked for, and how many of them failed."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def record(self, name: str, failed: Bool[Tensor, " subsets"]) -> None:
        """Count the answers of one call."""
        self.asked[name] += len(failed)
        self.failed[name] += int(failed.sum())

    def counts(self) -> dict[str, dict[str, int]]:
        """Models and failures of each refit that had any failure."""
        return {
            name: {"models": self.asked[name], "failed": count}
            for name, count in self.failed.items()
            if count
        }

    def __str__(self) -> str:
        """One line for a person; empty where nothing failed."""
        parts = [
            f"{count:,} of {self.asked[name]:,} models of {name.replace('_', ' ')}"
            for name, count in self.failed.items()
            if count
        ]
        if not parts:
            return ""
        return f"{', '.join(parts)} did not converge or were not finite and are left out"


@dataclass(frozen=True)
class Preparation:
    """What was done before the first query.

    Attributes:
        targets: subsets that were trained, to fit on and to watch the fit with.
        fit_seconds: what fitting took.
    """

    targets: int
    fit_seconds: float


@dataclass(frozen=True)
class StudyContext:
    """What a study works on.

    Attributes:
        model: the family of the target models.
        points: the pool that weights refer to.
        test_points: the rows on which models are scored.
        refits: the fitted predictor and its rivals, by name.
        truth: exact retraining.
        row_ids: a name for each point of the pool.
        seed: goes into every draw, together with the study's own.
        progress: called with (done, total, what).
        rows: the original cells of the pool's points, where a study can find groups.
        mislabelled: [points], where wrong labels were planted; None where none were. A study may
            judge methods by it and must show it to none.
        feature_names: what the features are called; empty if nobody said.
        class_names: what the classes are called; empty if nobody said.
        test_row_ids: a name for each test row; empty if nobody said.
        preparation: what the predictor cost before its first query; None if nobody said.
        failures: what failed so far; copies of the context share it.
    """

    model: TargetModel
    points: Points
    test_points: Points
    refits: Mapping[str, Refit]
    truth: Retraining
    row_ids: tuple[str, ...]
    seed: int = 0
    progress: Progress = silent
    rows: pl.DataFrame | None = None
    mislabelled: Bool[Tensor, " points"] | None = None
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    test_row_ids: tuple[str, ...] = ()
    preparation: Preparation | None = None
    failures: Failures = field(default_factory=Failures, repr=False, compare=False)

    @property
    def subject(self) -> str:
        """The refit that the study is about: the predictor, or else the first there is."""
        return PREDICTOR if PREDICTOR in self.refits else next(iter(self.refits))

    @property
    def pool(self) -> int:
        """Number of points that weights refer to."""
        return len(self.points.labels)

    def generator(self, *, seed: int, study: str, block: int) -> np.random.Generator:
        """Return the generator of one block of draws of one study."""
        return np.random.default_rng([self.seed, seed, zlib.crc32(study.encode()), block])


@dataclass(frozen=True)
class StudyResult:
    """What a study found: numbers for people and gates, tables for figures."""

    metrics: dict[str, Any]
    tables: dict[str, pl.DataFrame]


def refitted(
    refit: Refit, weights: Num[Tensor, "subsets points"], context: StudyContext
) -> Float[Tensor, "subsets parameters"]:
    """Return a refit's parameters, the family's prior-only model where no optimum exists.

    A subset without some class has no logistic optimum; its model is then given by definition
    (see `TargetModel.without_optimum`), which no refit has to guess. A model that failed is nan,
    and counted.
    """
    return recorded(refit(weights), weights, context, refit.name)


def recorded(
    answers: Float[Tensor, "subsets parameters"],
    weights: Num[Tensor, "subsets points"],
    context: StudyContext,
    name: str,
) -> Float[Tensor, "subsets parameters"]:
    """Return the answers of a refit to these weights as `refitted` does."""
    rows = checked_weights(weights, points=context.pool)
    return _counted(context.model.with_prior(answers, rows, context.points), context, name)


def retrained(
    weights: Num[Tensor, "subsets points"], context: StudyContext, *, progress: Progress = silent
) -> Float[Tensor, "subsets parameters"]:
    """Return the parameters of exact retraining; nan where it did not converge, and counted."""
    return _counted(context.truth(weights, progress=progress), context, context.truth.name)


def full_model(
    context: StudyContext, weights: Float[Tensor, " points"] | None = None
) -> Float[Tensor, "one parameters"]:
    """Return the exactly trained parameters of all rows, or of these weights.

    Raises:
        InvalidInput: training did not converge, so that there is nothing to compare to.
    """
    everything = torch.ones(context.pool) if weights is None else weights
    full = retrained(everything[None], context)
    if not bool(finished(full)[0]):
        raise InvalidInput(
            f"the {context.model.name} model of all {context.pool} rows did not converge, so there "
            "is nothing to compare to; scale the features, or change targets.tolerance or targets.C"
        )
    return full


def finished(parameters: Float[Tensor, "subsets parameters"]) -> Bool[Tensor, " subsets"]:
    """Return which models did not fail."""
    return parameters.isfinite().all(dim=1)


def _counted(answers: Tensor, context: StudyContext, name: str) -> Tensor:
    failed = ~finished(answers)
    context.failures.record(name, failed)
    return answers.masked_fill(failed[:, None], torch.nan)


def score_blocks(
    model: TargetModel, parameters: Float[Tensor, "subsets parameters"], points: Points
) -> Iterator[Float[Tensor, "block points outputs"]]:
    """Return the scores of consecutive subsets on all points, a bounded number at once."""
    return model.score_blocks(parameters, points, limit=SCORE_BYTES)


def mean_test_losses(
    model: TargetModel, parameters: Float[Tensor, "subsets parameters"], points: Points
) -> Float[Tensor, " subsets"]:
    """Return the loss of every subset's model on the points: see `TargetModel.test_loss`."""
    return scored(lambda scores: model.test_loss(scores, points.labels), model, parameters, points)


def row_losses(
    model: TargetModel, parameters: Float[Tensor, "subsets parameters"], points: Points
) -> Float[Tensor, "subsets points"]:
    """Return each point's part in `mean_test_losses`, which is their mean.

    Of a regression, whose loss is the root of a mean, the parts are its linearisation by the squared
    residuals r², rmse + (r² - rmse²) / (2 rmse): their spread gives its standard error.
    """

    def reduce(scores: Tensor) -> Tensor:
        if not model.regression:
            return model.losses(scores, points.labels)
        root = model.test_loss(scores, points.labels)[:, None]
        squares = model.margins(scores, points.labels).square()
        tiny = torch.finfo(root.dtype).tiny
        return (root + squares / root.clamp(min=tiny)) / 2

    return scored(reduce, model, parameters, points, columns=(len(points.labels),))


def accuracies(
    model: TargetModel, parameters: Float[Tensor, "subsets parameters"], points: Points
) -> Float[Tensor, " subsets"]:
    """Return the share of points that every subset's model gets right; InvalidInput for ridge."""
    return scored(
        lambda scores: model.correct(scores, points.labels).double().mean(dim=1),
        model,
        parameters,
        points,
    )


def squared_errors(
    model: TargetModel, parameters: Float[Tensor, "subsets parameters"], points: Points
) -> Float[Tensor, " subsets"]:
    """Return the mean squared residual, or Σ_k (p_k - [y = k])² for classes; InvalidInput for svm."""

    def reduce(scores: Tensor) -> Tensor:
        if model.regression:
            return model.margins(scores, points.labels).square().mean(dim=1)
        truth = torch.nn.functional.one_hot(points.labels, points.classes)
        return (model.probabilities(scores) - truth).square().sum(dim=2).mean(dim=1)

    return scored(reduce, model, parameters, points)


def goodness(
    model: TargetModel,
    parameters: Float[Tensor, "subsets parameters"],
    points: Points,
    *,
    utility: UtilityName | Scoring,
) -> Float[Tensor, " subsets"]:
    """Return how good every subset's model is on the points: the higher the better; nan if it failed.

    Minus the mean loss (of a regression the root mean squared error, in label units), the accuracy, minus the mean squared error, or what a function of scores
    [subsets, rows, outputs] and labels [rows] says, called with a bounded number of subsets.
    """
    if utility == "loss":
        return -mean_test_losses(model, parameters, points)
    if utility == "accuracy":
        return accuracies(model, parameters, points)
    if utility == "squared_error":
        return -squared_errors(model, parameters, points)
    return scored(lambda scores: _scored(utility, scores, points), model, parameters, points)


def _scored(scoring: Scoring, scores: Tensor, points: Points) -> Tensor:
    found = torch.as_tensor(scoring(scores, points.labels))
    if found.shape != scores.shape[:1]:
        raise InvalidInput(
            f"the utility returned {list(found.shape)} for scores {list(scores.shape)}; expected a "
            f"number for each of {len(scores)} subsets"
        )
    return found.to(torch.float64)


def game_of(
    refit: Refit, context: StudyContext, *, utility: UtilityName | Scoring = "loss"
) -> Callable[[Num[Tensor, "subsets points"]], Float[Tensor, " subsets"]]:
    """Return the utility of subsets: how good their models by this refit are on the test rows."""

    def worth(weights: Num[Tensor, "subsets points"]) -> Float[Tensor, " subsets"]:
        parameters = refitted(refit, weights, context)
        return goodness(context.model, parameters, context.test_points, utility=utility)

    return worth


def groups_of(context: StudyContext, *, column: str, key: str) -> tuple[list[str], Tensor]:
    """Return the names of a column's groups and their members, uint8 [groups, points].

    `key` is what the user has to change, for errors.

    Raises:
        InvalidInput: no such column, a missing cell, or fewer than two groups.
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


def require_utility(context: StudyContext, *, utility: UtilityName, key: str) -> None:
    """Raise InvalidInput when the family has no such score."""
    model = context.model
    if utility == "accuracy" and model.regression:
        raise InvalidInput(f"{model.name} has no accuracy; set {key} to loss")
    if utility == "squared_error" and not (model.regression or model.probabilistic):
        raise InvalidInput(f"{model.name} has no probabilities to square; set {key} to loss")


def scored(
    reduce: Callable[[Tensor], Tensor],
    model: TargetModel,
    parameters: Float[Tensor, "subsets parameters"],
    points: Points,
    *,
    columns: tuple[int, ...] = (),
) -> Float[Tensor, "subsets *columns"]:
    """Return what `reduce` makes of the scores of every subset's model; nan for one that failed.

    Args:
        reduce: from scores [subsets, points, outputs] to numbers [subsets, *columns]; it never sees
            the scores of a model that failed.
        model: the family.
        parameters: of the models.
        points: the rows to score.
        columns: the shape of what is said of one model.
    """
    with threads_for(model.largest_scored(parameters, points, limit=SCORE_BYTES)):
        blocks = score_blocks(model, parameters, points)
        parts = [_reduced(reduce, scores, columns) for scores in blocks]
    return torch.cat(parts) if parts else parameters.new_zeros(0, *columns)


def _reduced(
    reduce: Callable[[Tensor], Tensor], scores: Tensor, columns: tuple[int, ...]
) -> Tensor:
    """What `scored` says of a block."""
    kept = scores.sum(dim=(1, 2)).isfinite()
    if bool(kept.all()):
        return reduce(scores).to(torch.float64)
    part = torch.full((len(scores), *columns), torch.nan, dtype=torch.float64)
    if bool(kept.any()):
        part[kept] = reduce(scores[kept]).to(torch.float64)
    return part


def written_number(value: float | Tensor) -> float | None:
    """Return a finite number as it is, and None for what JSON and tables cannot hold."""
    number = float(value)
    return number if math.isfinite(number) else None


def write_result(result: StudyResult, folder: Path) -> None:
    """Write metrics.json and every table as Parquet and, for plots and spreadsheets, as CSV.

    A table with lists in its cells has no place in a CSV file and is Parquet alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.metrics, indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    for name, table in result.tables.items():
        table.write_parquet(folder / f"{name}.parquet")
        if not any(kind.is_nested() for kind in table.dtypes):
            table.write_csv(folder / f"{name}.csv")


def read_result(folder: Path) -> StudyResult:
    """Return the result that `write_result` wrote."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    tables = {
        path.stem: pl.read_parquet(path, glob=False) for path in sorted(folder.glob("*.parquet"))
    }
    return StudyResult(metrics, tables)
