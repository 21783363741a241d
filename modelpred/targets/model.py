"""The seam of target models: a family as pure batched functions of flat parameters.

A target model is trained on N points (x_i, y_i) with subset weights w_i >= 0. Its parameters theta
minimise (or, for a family of fixed steps, descend) an objective

    F_w(theta) = penalty(theta) + scale(w) * sum_i w_i loss(scores(theta, x_i), y_i)

where scale(w) is C for the convex families and 1 / sum_i w_i for the network. Everything else in the
package - regularisers, influence, Newton steps, refinement, certificates, studies - is written
against the functions below. A caller that needs more calls `optimum` or `recipe`: `optimum` gives the functions of a
family that is trained to its optimum, `recipe` those of one that is trained in a fixed number of
steps, and None where the family is not of that kind.

A family defines five methods: `parameter_count`, `scores`, `losses`, `objective` and `solver`, and
each kind of family has a general solver. Derivatives come from torch.func; a family overrides those
that it computes faster.

Axes: subsets, points, features, classes, outputs, parameters. `outputs` is 1 for a family with one
score a point (binary or regression) and the number of classes otherwise.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.numbers import Seed
from modelpred.targets.points import Points, class_counts
from modelpred.targets.shapes import (
    Features,
    Labels,
    Parameters,
    ParameterVector,
    PerPoint,
    Scores,
    Weights,
    WeightVector,
)
from modelpred.targets.solving import Solution, Solver, newton_minimum

# Identity rows a call to `hessian` handles at once are chosen to keep its scores below this.
HESSIAN_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class TargetModel(ABC):
    """A family of models with its settings (the dataclass fields of a final class).

    All functions are pure, differentiable by autograd, work in the precision and on the device of
    their arguments (`Points.to` converts points), and treat each subset on its own.
    """

    name: ClassVar[str]
    regression: ClassVar[bool] = False
    probabilistic: ClassVar[bool] = False  # whether `probabilities` are defined
    quadratic: ClassVar[bool] = False  # whether the objective is, so that one Newton step is exact
    positional: ClassVar[bool] = False  # whether rows are used by their places in the pool
    has_parameters: ClassVar[bool] = True  # False where a model is only known by its outputs
    predictable: ClassVar[bool] = True  # whether a predictor of its parameters can be fitted

    @property
    def title(self) -> str:
        """Name in messages."""
        return self.name

    def advice(self, gradient: float) -> str:
        """Why training did not converge, and what to do.

        Args:
            gradient: largest entry of the gradient where it stopped.
        """
        return f"its largest gradient entry is {gradient:.1e}; scale the features, lower C, or allow a larger tolerance"

    @property
    def optimum(self) -> "ConvexFamily | None":
        """The family, if it is trained to the optimum of its objective."""
        return None

    @property
    def recipe(self) -> "IterativeFamily | None":
        """The family, if it is trained in a fixed number of steps."""
        return None

    def for_rows(self, points: Points, *scored: Points) -> "TargetModel":
        """The family as studies use it that train on these points and score models on the others.

        The family itself, unless its models are only known by their outputs for rows.
        """
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-able settings: `target_model(model.name, **model.settings)` rebuilds the model."""
        return dataclasses.asdict(self)

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Names of the family's settings."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @abstractmethod
    def parameter_count(self, features: int, classes: int) -> int:
        """Number of parameters; InvalidInput where the family cannot have so many classes."""

    @abstractmethod
    def scores(self, parameters: Parameters, features: Features) -> Scores:
        """Scores of each subset's model on any points (training or test)."""

    @abstractmethod
    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """Loss of each point, neither weighted nor multiplied with C."""

    def probabilities(self, scores: Scores) -> Float[Tensor, "subsets points classes"]:
        """Class probabilities: logistic of one score, softmax of several.

        Raises:
            InvalidInput: the family has none.
        """
        if not self.probabilistic:
            instead = "it predicts a number" if self.regression else "use logistic, softmax or mlp"
            raise InvalidInput(f"{self.name} has no probabilities; {instead}")
        if scores.shape[2] == 1:  # [1 - p, p], each computed without cancellation
            return torch.cat([torch.sigmoid(-scores), torch.sigmoid(scores)], 2)
        return torch.softmax(scores, 2)

    def correct(self, scores: Scores, labels: Labels) -> Bool[Tensor, "subsets points"]:
        """Whether the sign of a single score, or the highest of several, is the label's.

        Raises:
            InvalidInput: a regression has no classes.
        """
        if self.regression:
            raise InvalidInput(f"{self.name} has no classes to get right; use losses")
        if scores.shape[2] == 1:
            return (scores[..., 0] > 0) == labels.to(torch.bool)
        return scores.argmax(2) == labels

    def margins(self, scores: Scores, labels: Labels) -> PerPoint:
        """How far each point is on the right side; of a regression minus the residual.

        The signed score. Of several scores the label's against the others: log odds for a family
        with probabilities, else the distance to the highest of them.
        """
        if self.regression:
            return scores[..., 0] - labels
        if scores.shape[2] == 1:
            return scores[..., 0] * (labels * 2 - 1)
        return true_class_margins(scores, labels, soft=self.probabilistic)

    @abstractmethod
    def objective(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, " subsets"]:
        """F_w(theta)."""

    def gradient(self, parameters: Parameters, weights: Weights, points: Points) -> Parameters:
        """Gradient of `objective` in the parameters."""

        def total(theta: Tensor) -> Tensor:
            return self.objective(theta, weights, points).sum()

        return torch.func.grad(total)(parameters)

    def hessian_vector_product(
        self, parameters: Parameters, weights: Weights, points: Points, vectors: Parameters
    ) -> Parameters:
        """Second derivative of `objective` applied to one vector a subset."""

        def along(theta: Tensor) -> Tensor:
            return (self.gradient(theta, weights, points) * vectors).sum()

        return torch.func.grad(along)(parameters)  # the Hessian is symmetric

    def gradient_function(self, weights: Weights, points: Points) -> Callable[[Tensor], Tensor]:
        """`gradient` of fixed subsets: what their weights alone decide is computed once."""
        return lambda parameters: self.gradient(parameters, weights, points)

    def hessian_product(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Callable[[Tensor], Tensor]:
        """`hessian_vector_product` for many vectors: what they do not change is computed once."""
        return lambda vectors: self.hessian_vector_product(parameters, weights, points, vectors)

    def point_gradients(
        self, parameters: ParameterVector, points: Points
    ) -> Float[Tensor, "points parameters"]:
        """Gradient of each point's own term (C loss_i; loss_i for the network), without penalty."""

        def gradient(weights: Tensor) -> Tensor:
            return self.gradient(parameters[None], weights[None], points)[0]

        # Where all weights are zero, the objective is linear in each of them.
        return torch.func.jacrev(gradient)(parameters.new_zeros(len(points.labels))).T

    def bytes_per_subset(self, points: Points) -> int:
        """Size of the largest array that training one subset passes over again and again."""
        return 4 * len(points.features) * max(1, points.classes)

    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """Which subsets, by their class counts, get `prior` instead of being trained: empty ones."""
        return counts.sum(1) == 0

    def prior(self, counts: Float[Tensor, "subsets groups"], features: int) -> Parameters:
        """The model of class counts alone: all parameters zero."""
        size = self.parameter_count(features, counts.shape[1] if counts.shape[1] > 1 else 0)
        return counts.new_zeros(len(counts), size)

    def representative(self, parameters: Parameters, features: int) -> Parameters:
        """Of all parameters that make the same model, those that training returns."""
        return parameters

    def parameter_names(
        self, features: Sequence[str], classes: Sequence[str]
    ) -> list[tuple[str, str]]:
        """The class and the feature that each parameter belongs to: here only its number.

        Args:
            features: their names.
            classes: their names; none for regression.
        """
        size = self.parameter_count(len(features), len(classes))
        return [("", f"parameter {number}") for number in range(size)]

    @abstractmethod
    def solver(self, points: Points) -> Solver:
        """A function that trains blocks of subsets; what the points alone decide is done once."""

    def with_prior(self, parameters: Parameters, weights: Weights, points: Points) -> Parameters:
        """The parameters, with `prior` for the subsets that have no optimum: that is their model."""
        counts = class_counts(weights, points)
        prior_only = self.without_optimum(counts)
        if not bool(prior_only.any()):
            return parameters
        answers = parameters.clone()
        answers[prior_only] = self.prior(counts[prior_only], points.features.shape[1]).to(answers)
        return answers

    def test_loss(self, scores: Scores, labels: Labels) -> Float[Tensor, " subsets"]:
        """Mean loss over the points; of a regression the root mean squared error, in label units."""
        if self.regression:
            return self.margins(scores, labels).square().mean(dim=1).sqrt()
        return self.losses(scores, labels).mean(dim=1)

    def hessian(
        self, parameters: ParameterVector, weights: WeightVector, points: Points
    ) -> Float[Tensor, "parameters parameters"]:
        """Second derivative of `objective` for one subset, as a matrix.

        Singular along equal shifts of all softmax intercepts, which change no probability.
        """
        size = parameters.shape[0]
        identity = torch.eye(size, dtype=parameters.dtype, device=parameters.device)
        row_bytes = 8 * points.features.shape[0] * max(1, points.classes)
        rows = max(1, HESSIAN_BYTES // row_bytes)
        return torch.cat(
            [
                self.hessian_vector_product(
                    parameters.expand(len(vectors), -1),
                    weights.expand(len(vectors), -1),
                    points,
                    vectors,
                )
                for vectors in identity.split(rows)
            ]
        )


@dataclasses.dataclass(frozen=True)
class ConvexFamily(TargetModel):
    """A family that is trained to the optimum of a convex objective, whatever the start.

    `objective` must be linear in the weights, with a positive definite Hessian (or one that is only
    flat along directions that change no score).
    """

    @property
    def optimum(self) -> "ConvexFamily":
        """The family itself."""
        return self

    def inverse_hessians(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, "subsets parameters parameters"] | None:
        """Inverse second derivative of each subset's `objective`, nan if there is none.

        None where products with the second derivative do better.
        """
        return None

    def best_lengths(
        self, parameters: Parameters, weights: Weights, points: Points, directions: Parameters
    ) -> Float[Tensor, " subsets"] | None:
        """About the multiple of each direction that makes `objective` least.

        None where Newton's step has about that length already.
        """
        return None

    def distance_bound(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, " subsets"] | None:
        """Upper bound on the distance to the optimum, without training (float64).

        None where no bound is known; infinity for a subset without an optimum.
        """
        return None

    def solver(self, points: Points) -> Solver:
        """Newton's method with the Hessian as a matrix, one subset after another."""
        minimise = newton_minimum(
            lambda theta, weights: self.objective(theta, weights, points),
            lambda theta, weights: self.gradient(theta, weights, points),
            lambda theta, weights: self.hessian(theta[0], weights[0], points),
        )
        size = self.parameter_count(points.features.shape[1], points.classes)

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
            begin = weights.new_zeros(len(weights), size) if start is None else start
            return minimise(weights, start=begin, tolerance=tolerance)

        return solve


@dataclasses.dataclass(frozen=True)
class IterativeFamily(TargetModel):
    """A family that is trained by a fixed number of steps of momentum from a start that all subsets share.

    velocity <- momentum velocity - learning_rate grad F_w(theta)     theta <- theta + velocity
    """

    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    steps: Annotated[int, Field(ge=1, le=10**6)] = 150
    seed: Seed = 0

    @property
    def recipe(self) -> "IterativeFamily":
        """The family itself."""
        return self

    @abstractmethod
    def initial(self, features: int, classes: int) -> ParameterVector:
        """The parameters that every training starts from, float64; drawn from `seed`."""

    def with_steps(self, steps: int) -> "IterativeFamily":
        """The family with another number of steps."""
        return dataclasses.replace(self, steps=steps)

    def solver(self, points: Points) -> Solver:
        """The steps for all subsets at once, with `gradient_function`."""
        initial = self.initial(points.features.shape[1], points.classes).to(points.features)

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:  # noqa: ARG001 - fixed steps
            theta = (initial[None] if start is None else start).expand(len(weights), -1)
            gradient, velocity = self.gradient_function(weights, points), torch.zeros_like(theta)
            for _ in range(self.steps):
                velocity = self.momentum * velocity - self.learning_rate * gradient(theta)
                theta = theta + velocity
            return Solution(
                parameters=theta,
                gradient_norm=self.gradient(theta, weights, points).abs().amax(1),
                objective=self.objective(theta, weights, points),
                iterations=torch.full((len(weights),), self.steps, device=weights.device),
                converged=torch.isfinite(theta).all(1),
            )

        return solve


def true_class_margins(scores: Scores, labels: Labels, *, soft: bool) -> PerPoint:
    """Score of the label's class minus logsumexp (soft) or maximum of the other scores."""
    own = labels[:, None] == torch.arange(scores.shape[2], device=labels.device)
    others = scores.masked_fill(own, -math.inf)
    rest = others.logsumexp(2) if soft else others.amax(2)
    index = labels[:, None].expand(len(scores), -1, 1)
    return scores.gather(2, index)[..., 0] - rest
