"""The seam of target models: a family as pure batched functions of flat parameters.

A target model is trained on N points (x_i, y_i) with subset weights w_i >= 0. Its parameters theta
minimise (or, for a family of fixed steps, descend) an objective

    F_w(theta) = penalty(theta) + scale(w) * sum_i w_i loss(scores(theta, x_i), y_i)

where scale(w) is C for the convex families and 1 / sum_i w_i for the network. Everything else in the
package - regularisers, influence, Newton steps, refinement, certificates, studies - is written
against the functions below and never asks which family it has.

Axes: subsets, points, features, classes, outputs, parameters. `outputs` is 1 for a family with one
score a point (binary or regression) and the number of classes otherwise.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Num
from numpy.typing import NDArray
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.threads import threads_for

Array = Tensor | NDArray[Any]

# Identity rows a call to `hessian` handles at once are chosen to keep its scores below this.
HESSIAN_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Points:
    """The pool: one row of features and one label a point; `classes` is 0 for regression.

    Attributes:
        features: of each point.
        labels: of each point.
        classes: how many there are.
        sample_weight: factor of each point's loss in every subset; None is 1 for all.
    """

    features: Float[Tensor, "points features"]
    labels: Num[Tensor, " points"]
    classes: int
    sample_weight: Float[Tensor, " points"] | None = None

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "Points":
        """The same points with features (and regression labels) of another precision or device."""
        labels = self.labels.to(device=device)
        return Points(
            features=self.features.to(dtype=dtype, device=device),
            labels=labels.to(dtype=dtype) if labels.is_floating_point() else labels,
            classes=self.classes,
            sample_weight=None
            if self.sample_weight is None
            else self.sample_weight.to(dtype=dtype, device=device),
        )

    def take(self, rows: Int[Tensor, " rows"]) -> "Points":
        """Only some points, by their positions."""
        factors = None if self.sample_weight is None else self.sample_weight[rows]
        return Points(self.features[rows], self.labels[rows], self.classes, factors)

    def joined(self, other: "Points") -> "Points":
        """These points, then the others; a point without a sample weight has 1."""
        factors = None
        if self.sample_weight is not None or other.sample_weight is not None:
            factors = torch.cat([each.factors for each in (self, other)])
        return Points(
            torch.cat([self.features, other.features]),
            torch.cat([self.labels, other.labels]),
            self.classes,
            factors,
        )

    @property
    def factors(self) -> Float[Tensor, " points"]:
        """The sample weights, 1 where there are none."""
        ones = self.features.new_ones(len(self.features))
        return ones if self.sample_weight is None else self.sample_weight

    def weighted(self, weights: Float[Tensor, "subsets points"]) -> Float[Tensor, "subsets points"]:
        """The factor of each loss: how often a subset takes the point, times its sample weight."""
        return weights if self.sample_weight is None else weights * self.sample_weight


def points_of(
    features: Array,
    labels: Array,
    classes: int | None = None,
    *,
    sample_weight: Array | None = None,
) -> Points:
    """Checked points in float64 from arrays.

    Args:
        features: [points, features], finite.
        labels: [points]; class indices 0..classes-1, or real numbers for regression.
        classes: number of classes, 0 for regression. Default: 0 for floating labels, else the
            highest label + 1 (at least 2).
        sample_weight: [points], finite and above zero.

    Raises:
        InvalidInput: a wrong shape, a value that is not finite, a label outside the classes, or a
            sample weight that is not above zero.
    """
    features = torch.as_tensor(features)
    labels = torch.as_tensor(labels).to(features.device)
    if features.ndim != 2 or labels.ndim != 1 or features.shape[0] != labels.shape[0]:
        raise InvalidInput(
            "expected features [points, features] and labels [points], got "
            f"{list(features.shape)} and {list(labels.shape)}; pass one row and one label a point"
        )
    if features.shape[0] == 0 or features.shape[1] == 0:
        raise InvalidInput(
            f"expected at least one point and one feature, got {list(features.shape)}"
        )
    features = features.to(torch.float64)
    if not bool(torch.isfinite(features).all()):
        row, column = (~torch.isfinite(features)).nonzero()[0].tolist()
        raise InvalidInput(
            f"feature {column} of point {row} is {float(features[row, column])}; expected finite "
            "numbers, so fill or drop missing cells first"
        )
    if classes is None:
        classes = 0 if labels.is_floating_point() else max(2, int(labels.max()) + 1)
    factors = None if sample_weight is None else _checked_sample_weight(sample_weight, features)
    return Points(features, _checked_labels(labels, classes), classes, factors)


def _checked_sample_weight(sample_weight: Array, features: Tensor) -> Tensor:
    factors = torch.as_tensor(sample_weight).to(features)
    if factors.shape != features.shape[:1]:
        raise InvalidInput(
            f"sample_weight has shape {list(factors.shape)}, expected one number for each of "
            f"{len(features)} points"
        )
    if not bool(((factors > 0) & torch.isfinite(factors)).all()):
        raise InvalidInput(
            "sample_weight has values that are not finite and above zero; leave out rows of weight 0"
        )
    return factors


def _checked_labels(labels: Tensor, classes: int) -> Tensor:
    if classes == 0:
        real = labels.to(torch.float64)
        if not bool(torch.isfinite(real).all()):
            raise InvalidInput("labels have values that are not finite; drop those points first")
        return real
    if classes < 2:
        raise InvalidInput(f"expected two or more classes (or 0 for regression), got {classes}")
    whole = labels.to(torch.int64)
    if bool((whole != labels).any()):
        raise InvalidInput("labels are not whole numbers; expected class indices 0..classes-1")
    if int(whole.min()) < 0 or int(whole.max()) >= classes:
        raise InvalidInput(
            f"labels run from {int(whole.min())} to {int(whole.max())} but there are {classes} "
            f"classes; expected indices 0 to {classes - 1}"
        )
    return whole


def class_counts(
    weights: Float[Tensor, "subsets points"], points: Points
) -> Float[Tensor, "subsets groups"]:
    """Total weight of each class in each subset; for regression one group holds all points."""
    weights = points.weighted(weights)
    if points.classes == 0:
        return weights.sum(1, keepdim=True)
    rows = torch.nn.functional.one_hot(points.labels, points.classes).to(weights.dtype).T
    return (rows.contiguous() @ weights.T).T  # four times faster than with few columns


@dataclasses.dataclass(frozen=True)
class Solution:
    """Trained parameters of a block of subsets and what the solver knows about them."""

    parameters: Float[Tensor, "subsets parameters"]
    gradient_norm: Float[Tensor, " subsets"]  # largest absolute entry
    objective: Float[Tensor, " subsets"]
    iterations: Int[Tensor, " subsets"]
    converged: Bool[Tensor, " subsets"]


@runtime_checkable  # shapes are checked at run time in tests
class Solver(Protocol):
    """Trains a block of subsets, from the family's own start or from `start`."""

    def __call__(
        self,
        weights: Float[Tensor, "subsets points"],
        *,
        start: Float[Tensor, "subsets parameters"] | None,
        tolerance: float,
    ) -> Solution:
        """The block's solution; `converged` says which rows met the tolerance."""
        ...


@dataclasses.dataclass(frozen=True)
class TargetModel(ABC):
    """A family of models with its settings (the dataclass fields of a final class).

    All functions are pure, differentiable by autograd, work in the precision and on the device of
    their arguments (`Points.to` converts points), and treat each subset on its own.
    """

    name: ClassVar[str]
    convex: ClassVar[bool]
    regression: ClassVar[bool]
    probabilistic: ClassVar[bool]  # whether `probabilities` are defined
    quadratic: ClassVar[bool] = False  # whether the objective is, so that one Newton step is exact

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
    def scores(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        features: Float[Tensor, "points features"],
    ) -> Float[Tensor, "subsets points outputs"]:
        """Scores of each subset's model on any points (training or test)."""

    @abstractmethod
    def losses(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Loss of each point, neither weighted nor multiplied with C."""

    @abstractmethod
    def probabilities(
        self, scores: Float[Tensor, "subsets points outputs"]
    ) -> Float[Tensor, "subsets points classes"]:
        """Class probabilities; InvalidInput for a family that has none."""

    @abstractmethod
    def correct(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Bool[Tensor, "subsets points"]:
        """Whether the highest score is the label's; InvalidInput for regression."""

    @abstractmethod
    def margins(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """How far each point is on the right side, in the family's own scores."""

    @abstractmethod
    def objective(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, " subsets"]:
        """F_w(theta)."""

    @abstractmethod
    def gradient(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, "subsets parameters"]:
        """Gradient of `objective` in the parameters."""

    @abstractmethod
    def hessian_vector_product(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
        vectors: Float[Tensor, "subsets parameters"],
    ) -> Float[Tensor, "subsets parameters"]:
        """Second derivative of `objective` applied to one vector a subset."""

    def gradient_function(
        self,
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Callable[[Tensor], Tensor]:
        """`gradient` of fixed subsets: what their weights alone decide is computed once."""
        return lambda parameters: self.gradient(parameters, weights, points)

    def hessian_product(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Callable[[Tensor], Tensor]:
        """`hessian_vector_product` for many vectors: what they do not change is computed once."""
        return lambda vectors: self.hessian_vector_product(parameters, weights, points, vectors)

    def inverse_hessians(
        self,
        parameters: Float[Tensor, "subsets parameters"],  # noqa: ARG002 - shared signature
        weights: Float[Tensor, "subsets points"],  # noqa: ARG002 - shared signature
        points: Points,  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, "subsets parameters parameters"] | None:
        """Inverse second derivative of each subset's `objective`, nan if there is none.

        None where products with the second derivative do better.
        """
        return None

    def best_lengths(
        self,
        parameters: Float[Tensor, "subsets parameters"],  # noqa: ARG002 - shared signature
        weights: Float[Tensor, "subsets points"],  # noqa: ARG002 - shared signature
        points: Points,  # noqa: ARG002 - shared signature
        directions: Float[Tensor, "subsets parameters"],  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, " subsets"] | None:
        """About the multiple of each direction that makes `objective` least.

        None where Newton's step has about that length already.
        """
        return None

    @abstractmethod
    def point_gradients(
        self, parameters: Float[Tensor, " parameters"], points: Points
    ) -> Float[Tensor, "points parameters"]:
        """Gradient of each point's own term (C loss_i; loss_i for the network), without penalty."""

    @abstractmethod
    def bytes_per_subset(self, points: Points) -> int:
        """Size of the largest array that training one subset passes over again and again."""

    @abstractmethod
    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """Which subsets, by their class counts, get `prior` instead of being trained."""

    @abstractmethod
    def prior(
        self, counts: Float[Tensor, "subsets groups"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """The model that knows class counts only, smoothed: coefficients 0, log(n_k + 1/2)."""

    @abstractmethod
    def representative(
        self, parameters: Float[Tensor, "subsets parameters"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """Of all parameters that make the same model, those that training returns."""

    @abstractmethod
    def distance_bound(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, " subsets"] | None:
        """Upper bound on the distance to what training returns, without training (float64).

        None for a family that has no optimum to be near; infinity for a subset without one.
        """

    @abstractmethod
    def solver(self, points: Points) -> Solver:
        """A function that trains blocks of subsets; what the points alone decide is done once."""

    def with_prior(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, "subsets parameters"]:
        """The parameters, with `prior` for the subsets that have no optimum: that is their model."""
        counts = class_counts(weights, points)
        prior_only = self.without_optimum(counts)
        if not bool(prior_only.any()):
            return parameters
        answers = parameters.clone()
        answers[prior_only] = self.prior(counts[prior_only], points.features.shape[1]).to(answers)
        return answers

    def test_loss(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, " subsets"]:
        """Mean loss over the points; of a regression the root mean squared error, in label units."""
        if self.regression:
            return self.margins(scores, labels).square().mean(dim=1).sqrt()
        return self.losses(scores, labels).mean(dim=1)

    def score_blocks(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        points: Points,
        *,
        limit: int,
    ) -> Iterator[Float[Tensor, "block points outputs"]]:
        """Scores of consecutive subsets on all points, about `limit` bytes at once."""
        row_bytes = 8 * len(points.features) * max(1, points.classes)
        largest = self.largest_scored(parameters, points, limit=limit)
        for block in parameters.split(max(1, limit // row_bytes)):
            if len(block):
                with threads_for(largest):
                    scores = self.scores(block, points.features)
                yield scores  # outside: what the caller computes has a size of its own

    def largest_scored(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        points: Points,
        *,
        limit: int,
    ) -> int:
        """Bytes of the largest array in `score_blocks`: the points' features, or a block's scores."""
        row_bytes = 8 * len(points.features) * max(1, points.classes)
        block = min(len(parameters), max(1, limit // row_bytes))
        return max(8 * points.features.numel(), block * row_bytes)

    def hessian(
        self,
        parameters: Float[Tensor, " parameters"],
        weights: Float[Tensor, " points"],
        points: Points,
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
