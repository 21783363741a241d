"""A refit answers: which parameters would this subset give? Retraining is the true answer.

Every refit is a callable from weights [subsets, points] to parameters [subsets, parameters]. Those
that train are here: training the subset's model, cold or from a start; the model of all rows, which
ignores the edit; and the model of all rows fine-tuned on the subset, which is what people do to a
network.
"""

from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.progress import Progress, silent
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Array, Points
from modelpred.targets.shapes import Parameters, ParameterVector, WeightVector
from modelpred.targets.training import TrainedTargets, train_targets
from modelpred.targets.weights import weights_of


@runtime_checkable
class Refit(Protocol):
    """Parameters of the model that each subset of the pool would give."""

    @property
    def name(self) -> str:
        """Name of the refit in tables."""
        ...

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return parameters in float64 for weights of any numeric type, a row per subset."""
        ...


def checked_weights(weights: Array, *, points: int) -> Float[Tensor, "subsets points"]:
    """Return the weights in float64; InvalidInput if they are not weights of this many points."""
    return weights_of(weights, points=points).to(torch.float64)


@runtime_checkable
class Extendable(Protocol):
    """A refit that can be used with other points than those it was made with."""

    def for_points(self, points: Points) -> Refit:
        """Return the refit for other points, of which the first are the current ones."""
        ...


def continued(around: WeightVector, old: Points, new: Points) -> Float[Tensor, " more_points"]:
    """Return weights of a longer pool: those of the old points, and zero for the added ones.

    Raises:
        InvalidInput: the new pool does not begin with the old points.
    """
    count = len(old.labels)
    if not (
        torch.equal(new.features[:count], old.features)
        and torch.equal(new.labels[:count], old.labels)
    ):
        raise InvalidInput(
            f"the new pool does not begin with the {count} points of the old one; add points at "
            "its end"
        )
    return torch.cat([around, around.new_zeros(len(new.labels) - count)])


@runtime_checkable
class Training(Protocol):
    """Trains the models of a retraining on subsets: in this process, or on other machines."""

    def __call__(
        self,
        retraining: "Retraining",
        weights: Num[Tensor, "subsets points"],
        *,
        progress: Progress,
    ) -> TrainedTargets:
        """Return the trained models; they do not depend on where they are trained."""
        ...


def train_here(
    retraining: "Retraining", weights: Num[Tensor, "subsets points"], *, progress: Progress
) -> TrainedTargets:
    """Return the models of these subsets, trained in this process."""
    points = retraining.points
    return train_targets(
        retraining.model,
        points.features,
        points.labels,
        weights,
        tolerance=retraining.tolerance,
        start=retraining.start,
        progress=lambda done, total: progress(done, total, "retraining"),
        classes=points.classes,
        sample_weight=points.sample_weight,
    )


@final
class Retraining:
    """Exact retraining of every subset: the truth that other refits are measured against.

    Args:
        model: the family of models.
        points: the pool that the weights refer to.
        tolerance: largest distance to the optimum, relative to the parameters, at which a target
            counts as converged (see `train_targets`).
        start: parameters [parameters] of a warm start; without, the family's own.
        training: what trains a batch of models; default: this process.
    """

    def __init__(
        self,
        model: TargetModel,
        points: Points,
        *,
        tolerance: float = 1e-6,
        start: ParameterVector | None = None,
        training: Training = train_here,
    ) -> None:
        self.model = model.for_rows(points)
        self.points = points
        self.tolerance = tolerance
        self.start = start
        self.training = training

    @property
    def name(self) -> str:
        """`retraining`, or `warm_retraining` with a start."""
        return "retraining" if self.start is None else "warm_retraining"

    def __call__(
        self, weights: Num[Tensor, "subsets points"], *, progress: Progress = silent
    ) -> Parameters:
        """Return the trained parameters; nan for a subset whose training did not converge."""
        trained = self.train(weights, progress=progress)
        found = trained.parameters.to(torch.float64)
        return torch.where(trained.converged[:, None], found, torch.nan)

    def for_points(self, points: Points) -> "Retraining":
        """Return retraining for other points."""
        return self._changed(points=points)

    def with_tolerance(self, tolerance: float) -> "Retraining":
        """Return retraining to another tolerance."""
        return self._changed(tolerance=tolerance)

    def _changed(
        self, *, points: Points | None = None, tolerance: float | None = None
    ) -> "Retraining":
        return Retraining(
            self.model,
            points or self.points,
            tolerance=tolerance or self.tolerance,
            start=self.start,
            training=self.training,
        )

    def full_parameters(self) -> ParameterVector:
        """Return the parameters of the model of all rows.

        Raises:
            InvalidInput: training did not converge.
        """
        trained = self.train(torch.ones(1, len(self.points.labels), dtype=torch.float64))
        if not bool(trained.converged[0]):
            raise InvalidInput(
                f"the {self.model.title} model of all rows did not converge: "
                f"{self.model.advice(float(trained.gradient_norm[0]))}"
            )
        return trained.parameters[0]

    def train(
        self, weights: Num[Tensor, "subsets points"], *, progress: Progress = silent
    ) -> TrainedTargets:
        """Return parameters, objective, gradient norm and flags of every subset."""
        return self.training(self, weights, progress=progress)


@final
class FullModel:
    """Baseline: the model trained on all rows, whatever the edit."""

    name = "full_model"

    def __init__(self, model: TargetModel, points: Points, full_parameters: Tensor) -> None:
        self.model = model
        self.points = points
        self.full_parameters = full_parameters

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return the full-data parameters once per subset."""
        rows = checked_weights(weights, points=len(self.points.labels))
        return self.full_parameters.repeat(len(rows), 1)

    def for_points(self, points: Points) -> "FullModel":
        """Return the same refit: added points have no effect."""
        return FullModel(self.model, points, self.full_parameters)


@final
class FineTuned:
    """The model of all rows, trained on with the subset for a few of the family's own steps.

    Args:
        model: a family that takes a fixed number of training steps (mlp).
        points: the pool.
        full_parameters: [parameters].
        steps: training steps from them and from rest.
        tolerance: as `Retraining`.

    Raises:
        InvalidInput: a family that is trained to its optimum, where a start does not matter.
    """

    def __init__(
        self,
        model: TargetModel,
        points: Points,
        full_parameters: Tensor,
        *,
        steps: int,
        tolerance: float = 1e-6,
    ) -> None:
        if (recipe := model.recipe) is None:
            raise InvalidInput(
                f"{model.name} is trained to its optimum, not for some steps; use Retraining with "
                "a start"
            )
        self.model = model
        self.points = points
        self.full_parameters = full_parameters
        self.steps = steps
        self.tolerance = tolerance
        self._tuning = Retraining(
            recipe.with_steps(steps),
            points,
            tolerance=tolerance,
            start=full_parameters,
        )

    @property
    def name(self) -> str:
        """`fine_tuned_10` for ten steps."""
        return f"fine_tuned_{self.steps}"

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return the parameters after those steps."""
        return self._tuning(weights)

    def for_points(self, points: Points) -> "FineTuned":
        """Return the refit for other points."""
        return FineTuned(
            self.model, points, self.full_parameters, steps=self.steps, tolerance=self.tolerance
        )
