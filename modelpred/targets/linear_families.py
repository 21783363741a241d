"""Logistic and softmax regression and ridge: losses of linear scores.

| family           | outputs         | loss of a point                                          |
|------------------|-----------------|----------------------------------------------------------|
| logistic         | 1               | log(1 + exp(-s m)), s = +1 for class 1, -1 for class 0   |
| softmax          | classes         | logsumexp(m) - m_y                                       |
| ridge            | 1               | (y - m)^2 / 2                                            |
| ridge_classifier | 1, or classes   | sum of (s - m)^2 / 2, s = +1 for the own class, else -1  |

With linear.py's penalty these are scikit-learn's LogisticRegression, Ridge(alpha=1/C) and
RidgeClassifier(alpha=1/C).
"""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from modelpred.errors import InvalidInput
from modelpred.targets.linear import Linear, linear_solver, one_by_one, signs_of
from modelpred.targets.points import Points
from modelpred.targets.score_loss import Curvature
from modelpred.targets.shapes import Labels, Parameters, PerPoint, ScoresByOutput
from modelpred.targets.solving import Solution, Solver


@final
@dataclass(frozen=True)
class Logistic(Linear):
    """Logistic regression of two classes."""

    name = "logistic"
    compiled = "logistic"
    probabilistic = True

    def outputs(self, classes: int) -> int:
        """One; InvalidInput unless there are two classes."""
        if classes != 2:
            raise InvalidInput(f"logistic is for 2 classes, got {classes}; use softmax")
        return 1

    def score_losses(self, scores: ScoresByOutput, labels: Labels) -> PerPoint:
        """log(1 + exp(-s m))."""
        return softplus(-signs_of(labels, scores) * scores[0])

    def score_slopes(
        self, scores: ScoresByOutput, labels: Labels, out: Tensor | None = None
    ) -> ScoresByOutput:
        """sigmoid(m) - y."""
        return torch.sub(torch.sigmoid(scores, out=out), labels.to(scores.dtype), out=out)

    def score_curvature(self, scores: ScoresByOutput, labels: Labels, scale: PerPoint) -> Curvature:  # noqa: ARG002 - shared signature
        """Probability times its complement."""
        # scale (1 - p) p in one pass, and autograd follows it.
        return (torch.ops.aten.sigmoid_backward(scale[None], torch.sigmoid(scores)),)

    def prior(self, counts: Float[Tensor, "subsets groups"], features: int) -> Parameters:
        """Intercept log((n_1 + 1/2) / (n_0 + 1/2)); zero where it is penalised."""
        if self.intercept_penalty:
            return counts.new_zeros(len(counts), features + 1)
        logs = (counts + 0.5).log()
        intercepts = logs[:, 1:] - logs[:, :1]
        return torch.cat([counts.new_zeros(len(counts), features), intercepts], 1)


@final
@dataclass(frozen=True)
class Softmax(Linear):
    """Multinomial logistic regression; intercepts are given with zero mean."""

    name = "softmax"
    compiled = "softmax"
    probabilistic = True
    shift_free = True

    def outputs(self, classes: int) -> int:
        """One a class."""
        if classes < 2:
            raise InvalidInput(f"softmax is for 2 or more classes, got {classes}; use ridge")
        return classes

    def score_losses(self, scores: ScoresByOutput, labels: Labels) -> PerPoint:
        """Logsumexp of the scores minus the label's score."""
        own = scores.gather(0, labels.expand(1, scores.shape[1], -1))[0]
        return scores.logsumexp(0) - own

    def score_slopes(
        self, scores: ScoresByOutput, labels: Labels, out: Tensor | None = None
    ) -> ScoresByOutput:
        """Probabilities minus one_hot(y)."""
        own = torch.nn.functional.one_hot(labels, len(scores)).T[:, None]
        return torch.sub(torch.softmax(scores, 0, out=out), own.to(scores.dtype), out=out)

    def score_curvature(self, scores: ScoresByOutput, labels: Labels, scale: PerPoint) -> Curvature:  # noqa: ARG002 - shared signature
        """diag(p) - p p': its diagonal, then scaled p, then p."""
        probability = torch.softmax(scores, 0)
        scaled = probability * scale
        return scaled - scaled * probability, scaled, probability

    def curvature_product(
        self, curvature: Curvature, directions: ScoresByOutput, out: Tensor | None = None
    ) -> ScoresByOutput:
        """Scaled p times (v - sum_k p_k v_k)."""
        _, scaled, probability = curvature
        mean = (probability * directions).sum(0, keepdim=True)
        return torch.mul(torch.sub(directions, mean, out=out), scaled, out=out)

    def prior(self, counts: Float[Tensor, "subsets groups"], features: int) -> Parameters:
        """Intercepts log(n_k + 1/2) with zero mean; zero where they are penalised."""
        if self.intercept_penalty:
            return counts.new_zeros(len(counts), counts.shape[1] * (features + 1))
        logs = (counts + 0.5).log()
        intercepts = logs - logs.mean(1, keepdim=True)
        coefficients = counts.new_zeros(*counts.shape, features)
        return torch.cat([coefficients, intercepts[..., None]], 2).flatten(1)


@final
@dataclass(frozen=True)
class Ridge(Linear):
    """Ridge regression with a free intercept."""

    name = "ridge"
    quadratic = True
    compiled = "square"
    curvature_drift = 0.0
    regression = True

    def solver(self, points: Points) -> Solver:
        """The solver for labels near one about zero: their unit and place change no answer.

        Labels are divided by a power of two, which rounds nothing, and moved by their mean where
        the intercept is free.
        """
        place = 0 if self.intercept_penalty else points.labels.mean()
        moved = points.labels - place
        unit = math.ldexp(1, int(torch.frexp(moved.abs().max())[1]))
        solver = linear_solver(self, replace(points, labels=moved / unit))

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
            begin = None if start is None else start.clone()
            if begin is not None:
                begin[:, -1] -= place
                begin /= unit
            found = solver(weights, start=begin, tolerance=tolerance)
            parameters = found.parameters * unit
            parameters[:, -1] += place
            return replace(
                found,
                parameters=parameters,
                gradient_norm=found.gradient_norm * unit,
                objective=found.objective * unit * unit,
            )

        return solve

    def outputs(self, classes: int) -> int:
        """One; InvalidInput for classes."""
        if classes != 0:
            raise InvalidInput(f"ridge is for regression, got {classes} classes; use softmax")
        return 1

    def score_losses(self, scores: ScoresByOutput, labels: Labels) -> PerPoint:
        """(y - m)^2 / 2."""
        return (scores[0] - labels).square() / 2

    def score_slopes(
        self, scores: ScoresByOutput, labels: Labels, out: Tensor | None = None
    ) -> ScoresByOutput:
        """Score minus label."""
        return torch.sub(scores, labels.to(scores.dtype), out=out)

    def score_curvature(self, scores: ScoresByOutput, labels: Labels, scale: PerPoint) -> Curvature:  # noqa: ARG002 - shared signature
        """1."""
        return (scale[None],)


@final
@dataclass(frozen=True)
class RidgeClassifier(Linear):
    """Least squares on the signs of the classes; one against the rest beyond two classes."""

    name = "ridge_classifier"
    quadratic = True
    curvature_drift = 0.0

    def outputs(self, classes: int) -> int:
        """One for two classes, else one a class."""
        if classes < 2:
            raise InvalidInput(
                f"ridge_classifier is for 2 or more classes, got {classes}; use ridge"
            )
        return 1 if classes == 2 else classes

    def score_losses(self, scores: ScoresByOutput, labels: Labels) -> PerPoint:
        """Sum over outputs of (s - m)^2 / 2."""
        return (scores - signs_of(labels, scores)).square().sum(0) / 2

    def score_slopes(
        self, scores: ScoresByOutput, labels: Labels, out: Tensor | None = None
    ) -> ScoresByOutput:
        """Score minus sign."""
        return torch.sub(scores, signs_of(labels, scores), out=out)

    def score_curvature(self, scores: ScoresByOutput, labels: Labels, scale: PerPoint) -> Curvature:  # noqa: ARG002 - shared signature
        """1."""
        return (scale.expand(len(scores), -1, -1),)

    def solver(self, points: Points) -> Solver:
        """One ridge regression of signs for each output."""
        regression = Ridge(self.C, self.intercept)
        owns = [1] if points.classes == 2 else range(points.classes)
        return one_by_one(
            [
                regression.solver(
                    Points(points.features, (points.labels == own).to(points.features) * 2 - 1, 0)
                )
                for own in owns
            ]
        )
