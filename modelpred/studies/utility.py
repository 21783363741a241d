"""Scores of models, and the game of a refit, shared by all studies.

Scores [subsets, test rows, outputs] are computed in blocks of bounded size, and each block is reduced at
once. The score of a failed model is nan (context.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.context import (
    StudyContext,
    finished,
    full_model,
    refitted,
    retrained,
    with_failures_counted,
)
from modelpred.studies.direct_removals import Removals, can_remove_directly, direct_removals
from modelpred.studies.group_expansion import GroupExpansion, can_expand
from modelpred.studies.output_gains import OutputGains
from modelpred.studies.row_gains import RowGains, has_row_gains
from modelpred.studies.score_gains import ScoreGains
from modelpred.targets.linear import Linear
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.scoring import accuracies, mean_test_losses, scored, squared_errors

UtilityName = Literal["loss", "accuracy", "squared_error"]
Scoring = Callable[[Tensor, Tensor], Tensor]
"""(scores [subsets, rows, outputs], labels [rows]) -> a number per subset; higher is better"""


def utilities_of(
    model: TargetModel,
    parameters: Float[Tensor, "subsets parameters"],
    points: Points,
    *,
    utility: UtilityName | Scoring,
) -> Float[Tensor, " subsets"]:
    """Return the utility of every subset's model on the points; higher is better, nan if it failed.

    The utility is minus the mean loss (for a regression the root mean squared error, in the label's
    units), the accuracy, minus the mean squared error, or the value of a function of scores [subsets,
    rows, outputs] and labels [rows], which is called with a bounded number of subsets.
    """
    if utility == "loss":
        return -mean_test_losses(model, parameters, points)
    if utility == "accuracy":
        return accuracies(model, parameters, points)
    if utility == "squared_error":
        return -squared_errors(model, parameters, points)
    return scored(lambda scores: _checked(utility, scores, points), model, parameters, points)


def _checked(scoring: Scoring, scores: Tensor, points: Points) -> Tensor:
    utilities = torch.as_tensor(scoring(scores, points.labels))
    if utilities.shape != scores.shape[:1]:
        raise InvalidInput(
            f"the utility returned {list(utilities.shape)} for scores {list(scores.shape)}; expected "
            f"a number for each of {len(scores)} subsets"
        )
    return utilities.to(torch.float64)


@dataclass(frozen=True)
class Approximation:
    """A game that is near another one and quick to evaluate.

    Attributes:
        utility: maps weights to the utility of each subset.
        parameters: of the models, which decide the time of an evaluation.
    """

    utility: Callable[[Tensor], Tensor]
    parameters: int


@final
class ModelGame:
    """The game of a refit: maps weights to the utility of their models."""

    def __init__(self, refit: Refit, context: StudyContext, utility: UtilityName | Scoring) -> None:
        self.refit, self.context = refit, context
        self.utility: UtilityName | Scoring = utility

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Float[Tensor, " subsets"]:
        """Return the utility of every subset's model; nan if it failed."""
        context = self.context
        parameters = refitted(self.refit, weights, context)
        return utilities_of(context.model, parameters, context.test_points, utility=self.utility)

    @property
    def retrains(self) -> bool:
        """Whether the models are trained, not predicted or approximated."""
        return isinstance(self.refit, Retraining)

    def row_gains(self, generator: np.random.Generator) -> RowGains | None:
        """Return what computes gains of all rows from trained models; None if nothing does."""
        context = self.context
        if not has_row_gains(context.model, context.points, self.utility):
            return None
        assert isinstance(context.model, Linear)
        return row_gains_of(
            context.model, context.points, context.test_points,
            train=self._trained, generator=generator,
        )  # fmt: skip

    def removals(self) -> Removals | None:
        """Return the scores without each row, computed directly; None if nothing does."""
        context = self.context
        if self.utility != "loss" or not can_remove_directly(context.model, context.points):
            return None
        full = full_model(context)[0]
        return direct_removals(context.truth, context.test_points, full)

    def expansion(self, members: UInt8[Tensor, "groups points"]) -> Approximation | None:
        """Return the approximate game of groups of rows; None if nothing expands their models."""
        context, model = self.context, self.context.model
        size = model.parameter_count(context.points.features.shape[1], context.points.classes)
        if model.optimum is None or not model.has_parameters or not can_expand(size, len(members)):
            return None
        full = retrained(torch.ones(1, context.pool, dtype=torch.uint8), context)
        if not bool(finished(full)[0]):
            return None
        models = GroupExpansion(model.optimum, context.points, members, full[0])

        def utility(weights: Tensor) -> Tensor:
            own = models(weights)
            return utilities_of(model, own, context.test_points, utility=self.utility)

        return Approximation(utility, parameters=size)

    def _trained(self, weights: Tensor, points: Points) -> Tensor:
        return with_failures_counted(
            self.context.truth.for_points(points)(weights), self.context, "row_gains"
        )


def row_gains_of(
    model: Linear,
    points: Points,
    test_points: Points,
    *,
    train: Callable[[Tensor, Points], Tensor],
    generator: np.random.Generator,
) -> RowGains:
    """Return what computes gains of all rows from one model; the arguments are those of `RowGains`."""
    kind = ScoreGains if model.outputs(points.classes) == 1 else OutputGains
    return kind(model, points, test_points, train=train, generator=generator)


def game_of(
    refit: Refit, context: StudyContext, *, utility: UtilityName | Scoring = "loss"
) -> ModelGame:
    """Return the game of this refit: a function from weights to the utility of their models."""
    return ModelGame(refit, context, utility)


def require_utility(context: StudyContext, *, utility: UtilityName, key: str) -> None:
    """Raise InvalidInput if the family does not have this utility."""
    model = context.model
    if utility == "accuracy" and model.regression:
        raise InvalidInput(f"{model.name} has no accuracy; set {key} to loss")
    if utility == "squared_error" and not (model.regression or model.probabilistic):
        raise InvalidInput(f"{model.name} has no probabilities to square; set {key} to loss")
