"""Linear target models: logistic and softmax regression, squared-hinge SVM, ridge.

With design rows a_i = [x_i, 1] and one row of theta per output, scores m = theta a and

    F_w(theta) = 1/2 sum of squares of theta (without intercepts, except SVM) + C sum_i w_i loss_i

| family   | outputs         | loss of a point                                             |
|----------|-----------------|-------------------------------------------------------------|
| logistic | 1               | log(1 + exp(-s m)), s = +1 for class 1, -1 for class 0      |
| softmax  | classes         | logsumexp(m) - m_y                                          |
| svm      | 1, or classes   | sum over outputs of max(0, 1 - s m)^2, one class against the rest |
| ridge    | 1               | (y - m)^2 / 2                                               |

Gradient: C sum_i w_i (dloss/dm)_i a_i + penalised theta. Hessian on V: C sum_i w_i H_i (V a_i) a_i'
+ penalised V, with H_i the second derivative of the loss in the scores. These are scikit-learn's
LogisticRegression, LinearSVC(loss="squared_hinge") and Ridge(alpha=1/C).

Inside, scores lie as [outputs, subsets, points], so that one matrix product serves all subsets.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.nn.functional import softplus

from modelpred.dataset.tables import InvalidInput
from modelpred.targets.model import Points, Solution, Solver, TargetModel
from modelpred.targets.newton import newton_solver

Curvature = tuple[Tensor, ...]


@dataclass(frozen=True)
class Linear(TargetModel):
    """What all linear families share; a family adds its loss as a function of the scores."""

    C: float = 1.0

    convex: ClassVar[bool] = True
    intercept_penalty: ClassVar[float] = 0.0
    quadratic: ClassVar[bool] = False
    shift_free: ClassVar[bool] = False  # equal shifts of all intercepts change nothing

    def __post_init__(self) -> None:
        if not (math.isfinite(self.C) and self.C > 0):
            raise InvalidInput(f"C is {self.C}; expected a positive number")

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """Scores a point."""

    @abstractmethod
    def score_losses(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "subsets points"]:
        """Loss of each point."""

    @abstractmethod
    def score_slopes(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "outputs subsets points"]:
        """First derivative of the loss in the scores."""

    @abstractmethod
    def score_curvature(
        self,
        scores: Float[Tensor, "outputs subsets points"],
        labels: Num[Tensor, " points"],
        scale: Float[Tensor, "subsets points"],
    ) -> Curvature:
        """Second derivative in the scores times `scale`; first item is its diagonal."""

    def curvature_product(
        self,
        curvature: Curvature,
        directions: Float[Tensor, "outputs subsets points"],
        out: Tensor | None = None,
    ) -> Float[Tensor, "outputs subsets points"]:
        """`score_curvature` applied to directions; into `out` (may be `directions`) if given."""
        return torch.mul(curvature[0], directions, out=out)

    def parameter_count(self, features: int, classes: int) -> int:
        """Outputs x (features + 1)."""
        return self.outputs(classes) * (features + 1)

    def scores(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        features: Float[Tensor, "points features"],
    ) -> Float[Tensor, "subsets points outputs"]:
        """Coefficients times features plus intercept."""
        return self._scores(parameters, features).permute(1, 2, 0)

    def losses(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Loss of each point, neither weighted nor multiplied with C."""
        return self.score_losses(scores.permute(2, 0, 1), labels)

    def objective(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, " subsets"]:
        """1/2 sum of squares + C sum_i w_i loss_i."""
        losses = self.score_losses(self._scores(parameters, points.features), points.labels)
        penalised = self._penalty(points, like=parameters) * parameters
        return (penalised * parameters).sum(1) / 2 + self.C * (weights * losses).sum(1)

    def gradient(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, "subsets parameters"]:
        """Penalised theta + C sum_i w_i (dloss/dm)_i a_i."""
        slopes = self.score_slopes(self._scores(parameters, points.features), points.labels)
        data = (slopes * (self.C * weights)) @ _design(points.features)
        return data.transpose(0, 1).flatten(1) + self._penalty(points, like=parameters) * parameters

    def hessian_vector_product(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
        vectors: Float[Tensor, "subsets parameters"],
    ) -> Float[Tensor, "subsets parameters"]:
        """Penalised V + C sum_i w_i H_i (V a_i) a_i'."""
        curvature = self.score_curvature(
            self._scores(parameters, points.features), points.labels, self.C * weights
        )
        directions = self._scores(vectors, points.features)
        data = self.curvature_product(curvature, directions) @ _design(points.features)
        return data.transpose(0, 1).flatten(1) + self._penalty(points, like=parameters) * vectors

    def point_gradients(
        self, parameters: Float[Tensor, " parameters"], points: Points
    ) -> Float[Tensor, "points parameters"]:
        """C (dloss/dm)_i a_i of each point."""
        slopes = self.score_slopes(self._scores(parameters[None], points.features), points.labels)
        terms = self.C * slopes[:, 0].T[:, :, None] * _design(points.features)[:, None, :]
        return terms.flatten(1)

    def bytes_per_subset(self, points: Points) -> int:
        """Scores of all points, in the working precision of the solver."""
        return 4 * len(points.features) * self.outputs(points.classes)

    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """Empty subsets; for logistic and softmax any class missing lets intercepts run away."""
        return counts.sum(1) == 0

    def prior(
        self, counts: Float[Tensor, "subsets groups"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """All zero: the optimum of the penalty alone, of least norm where that leaves a choice."""
        size = self.parameter_count(features, counts.shape[1] if counts.shape[1] > 1 else 0)
        return counts.new_zeros(len(counts), size)

    def representative(
        self, parameters: Float[Tensor, "subsets parameters"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """The same parameters; softmax intercepts are shifted to zero mean."""
        if not self.shift_free:
            return parameters
        theta = parameters.unflatten(1, (-1, features + 1)).clone()
        theta[..., -1] -= theta[..., -1].mean(1, keepdim=True)
        return theta.flatten(1)

    def solver(self, points: Points) -> Solver:
        """Newton's method by preconditioned conjugate gradients (see newton.py)."""
        return newton_solver(self, points)

    def _scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        theta = parameters.unflatten(1, (-1, features.shape[1] + 1)).transpose(0, 1)
        return theta[..., :-1] @ features.T + theta[..., -1:]

    def _penalty(self, points: Points, *, like: Tensor) -> Tensor:
        penalty = like.new_ones(self.outputs(points.classes), points.features.shape[1] + 1)
        penalty[:, -1] = self.intercept_penalty
        return penalty.flatten()


def _design(features: Tensor) -> Tensor:
    """[features, 1]."""
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def _signs(labels: Tensor, like: Tensor) -> Tensor:
    """+1 for the output's own class, -1 for others: [points] for one output, else with outputs."""
    if len(like) == 1:
        return labels.to(like.dtype) * 2 - 1
    indices = torch.arange(len(like), device=like.device)
    return (labels == indices[:, None, None]).to(like.dtype) * 2 - 1


def true_class_margins(
    scores: Float[Tensor, "subsets points outputs"],
    labels: Num[Tensor, " points"],
    *,
    soft: bool,
) -> Float[Tensor, "subsets points"]:
    """Score of the label's class minus logsumexp (soft) or maximum of the other scores."""
    own = torch.nn.functional.one_hot(labels, scores.shape[2]).to(torch.bool)
    others = scores.masked_fill(own, -math.inf)
    rest = others.logsumexp(2) if soft else others.amax(2)
    index = labels[:, None].expand(len(scores), -1, 1)
    return scores.gather(2, index)[..., 0] - rest


@final
@dataclass(frozen=True)
class Logistic(Linear):
    """Logistic regression of two classes."""

    name: ClassVar[str] = "logistic"
    regression: ClassVar[bool] = False

    def outputs(self, classes: int) -> int:
        """One; InvalidInput unless there are two classes."""
        if classes != 2:
            raise InvalidInput(f"logistic is for 2 classes, got {classes}; use softmax")
        return 1

    def score_losses(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "subsets points"]:
        """log(1 + exp(-s m))."""
        return softplus(-_signs(labels, scores) * scores[0])

    def score_slopes(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "outputs subsets points"]:
        """sigmoid(m) - y."""
        return torch.sigmoid(scores) - labels.to(scores.dtype)

    def score_curvature(
        self,
        scores: Float[Tensor, "outputs subsets points"],
        labels: Num[Tensor, " points"],  # noqa: ARG002 - shared signature
        scale: Float[Tensor, "subsets points"],
    ) -> Curvature:
        """Probability times its complement."""
        probability = torch.sigmoid(scores)
        return ((probability - probability * probability) * scale,)

    def probabilities(
        self, scores: Float[Tensor, "subsets points outputs"]
    ) -> Float[Tensor, "subsets points classes"]:
        """[1 - p, p], each computed without cancellation."""
        return torch.cat([torch.sigmoid(-scores), torch.sigmoid(scores)], 2)

    def correct(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Bool[Tensor, "subsets points"]:
        """Whether the score's sign is the label's."""
        return (scores[..., 0] > 0) == labels.to(torch.bool)

    def margins(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Signed score: log odds of the label's class."""
        return scores[..., 0] * (labels * 2 - 1)

    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """Subsets with a class missing: the intercept would run away."""
        return (counts == 0).any(1)

    def prior(
        self, counts: Float[Tensor, "subsets groups"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """Intercept log((n_1 + 1/2) / (n_0 + 1/2))."""
        logs = (counts + 0.5).log()
        intercepts = logs[:, 1:] - logs[:, :1]
        return torch.cat([counts.new_zeros(len(counts), features), intercepts], 1)


@final
@dataclass(frozen=True)
class Softmax(Linear):
    """Multinomial logistic regression; intercepts are given with zero mean."""

    name: ClassVar[str] = "softmax"
    regression: ClassVar[bool] = False
    shift_free: ClassVar[bool] = True

    def outputs(self, classes: int) -> int:
        """One a class."""
        if classes < 2:
            raise InvalidInput(f"softmax is for 2 or more classes, got {classes}; use ridge")
        return classes

    def score_losses(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "subsets points"]:
        """Logsumexp of the scores minus the label's score."""
        own = scores.gather(0, labels.expand(1, scores.shape[1], -1))[0]
        return scores.logsumexp(0) - own

    def score_slopes(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "outputs subsets points"]:
        """Probabilities minus one_hot(y)."""
        own = torch.nn.functional.one_hot(labels, len(scores)).T[:, None]
        return torch.softmax(scores, 0) - own.to(scores.dtype)

    def score_curvature(
        self,
        scores: Float[Tensor, "outputs subsets points"],
        labels: Num[Tensor, " points"],  # noqa: ARG002 - shared signature
        scale: Float[Tensor, "subsets points"],
    ) -> Curvature:
        """diag(p) - p p': its diagonal, then scaled p, then p."""
        probability = torch.softmax(scores, 0)
        scaled = probability * scale
        return scaled - scaled * probability, scaled, probability

    def curvature_product(
        self,
        curvature: Curvature,
        directions: Float[Tensor, "outputs subsets points"],
        out: Tensor | None = None,
    ) -> Float[Tensor, "outputs subsets points"]:
        """Scaled p times (v - sum_k p_k v_k)."""
        _, scaled, probability = curvature
        mean = (probability * directions).sum(0, keepdim=True)
        return torch.mul(torch.sub(directions, mean, out=out), scaled, out=out)

    def probabilities(
        self, scores: Float[Tensor, "subsets points outputs"]
    ) -> Float[Tensor, "subsets points classes"]:
        """Softmax of the scores."""
        return torch.softmax(scores, 2)

    def correct(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Bool[Tensor, "subsets points"]:
        """Whether the highest score is the label's."""
        return scores.argmax(2) == labels

    def margins(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Log odds of the label's class against all others."""
        return true_class_margins(scores, labels, soft=True)

    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """Subsets with a class missing: its intercept would run away."""
        return (counts == 0).any(1)

    def prior(
        self, counts: Float[Tensor, "subsets groups"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """Intercepts log(n_k + 1/2) with zero mean."""
        logs = (counts + 0.5).log()
        intercepts = logs - logs.mean(1, keepdim=True)
        coefficients = counts.new_zeros(*counts.shape, features)
        return torch.cat([coefficients, intercepts[..., None]], 2).flatten(1)


@final
@dataclass(frozen=True)
class Svm(Linear):
    """Linear support vector machine with squared hinge; one against the rest beyond two classes."""

    name: ClassVar[str] = "svm"
    regression: ClassVar[bool] = False
    intercept_penalty: ClassVar[float] = 1.0

    def outputs(self, classes: int) -> int:
        """One for two classes, else one a class."""
        if classes < 2:
            raise InvalidInput(f"svm is for 2 or more classes, got {classes}; use ridge")
        return 1 if classes == 2 else classes

    def score_losses(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "subsets points"]:
        """Sum over outputs of max(0, 1 - s m)^2."""
        return (1 - _signs(labels, scores) * scores).clamp(min=0).square().sum(0)

    def score_slopes(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "outputs subsets points"]:
        """-2 s max(0, 1 - s m)."""
        signs = _signs(labels, scores)
        return -2 * signs * (1 - signs * scores).clamp(min=0)

    def score_curvature(
        self,
        scores: Float[Tensor, "outputs subsets points"],
        labels: Num[Tensor, " points"],
        scale: Float[Tensor, "subsets points"],
    ) -> Curvature:
        """2 where the margin is violated: a generalised derivative, the loss has a kink there."""
        violated = _signs(labels, scores) * scores < 1
        return (violated.to(scores.dtype) * (2 * scale),)

    def probabilities(
        self,
        scores: Float[Tensor, "subsets points outputs"],  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, "subsets points classes"]:
        """An SVM has none: InvalidInput."""
        raise InvalidInput("svm has no probabilities; use logistic, softmax or mlp")

    def correct(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Bool[Tensor, "subsets points"]:
        """Whether the sign, or the highest score, is the label's."""
        if scores.shape[2] == 1:
            return (scores[..., 0] > 0) == labels.to(torch.bool)
        return scores.argmax(2) == labels

    def margins(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Signed score, or the label's score minus the highest other."""
        if scores.shape[2] == 1:
            return scores[..., 0] * (labels * 2 - 1)
        return true_class_margins(scores, labels, soft=False)

    def solver(self, points: Points) -> Solver:
        """Newton's method; one against the rest is that many problems of two classes."""
        if points.classes == 2:
            return newton_solver(self, points)
        solvers = [
            newton_solver(self, Points(points.features, (points.labels == own).long(), 2))
            for own in range(points.classes)
        ]

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
            starts = [None] * points.classes if start is None else start.chunk(points.classes, 1)
            parts = [
                solver(weights, start=begin, tolerance=tolerance)
                for solver, begin in zip(solvers, starts, strict=True)
            ]
            return Solution(
                parameters=torch.cat([part.parameters for part in parts], 1),
                gradient_norm=torch.stack([part.gradient_norm for part in parts]).amax(0),
                objective=torch.stack([part.objective for part in parts]).sum(0),
                iterations=torch.stack([part.iterations for part in parts]).amax(0),
                converged=torch.stack([part.converged for part in parts]).all(0),
            )

        return solve


@final
@dataclass(frozen=True)
class Ridge(Linear):
    """Ridge regression with a free intercept."""

    name: ClassVar[str] = "ridge"
    quadratic: ClassVar[bool] = True
    regression: ClassVar[bool] = True

    def outputs(self, classes: int) -> int:
        """One; InvalidInput for classes."""
        if classes != 0:
            raise InvalidInput(f"ridge is for regression, got {classes} classes; use softmax")
        return 1

    def score_losses(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "subsets points"]:
        """(y - m)^2 / 2."""
        return (scores[0] - labels).square() / 2

    def score_slopes(
        self, scores: Float[Tensor, "outputs subsets points"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "outputs subsets points"]:
        """Score minus label."""
        return scores - labels

    def score_curvature(
        self,
        scores: Float[Tensor, "outputs subsets points"],  # noqa: ARG002 - shared signature
        labels: Num[Tensor, " points"],  # noqa: ARG002 - shared signature
        scale: Float[Tensor, "subsets points"],
    ) -> Curvature:
        """1."""
        return (scale[None],)

    def probabilities(
        self,
        scores: Float[Tensor, "subsets points outputs"],  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, "subsets points classes"]:
        """A regression has none: InvalidInput."""
        raise InvalidInput("ridge has no probabilities; it predicts a number")

    def correct(
        self,
        scores: Float[Tensor, "subsets points outputs"],  # noqa: ARG002 - shared signature
        labels: Num[Tensor, " points"],  # noqa: ARG002 - shared signature
    ) -> Bool[Tensor, "subsets points"]:
        """A regression is not right or wrong: InvalidInput."""
        raise InvalidInput("ridge has no classes to get right; use losses")

    def margins(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Minus the residual: m - y."""
        return scores[..., 0] - labels
