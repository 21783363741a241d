"""Linear support vector machine with squared hinge: LinearSVC(loss="squared_hinge").

Its loss of a point is the sum over outputs of max(0, 1 - s m)^2 with s = +1 for the output's own
class, -1 for others. It has kinks where margins are violated just so: its curvature jumps there.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.linear import Linear, linear_solver, one_by_one, signs_of
from modelpred.targets.points import Points
from modelpred.targets.score_loss import Curvature
from modelpred.targets.shapes import Labels, Parameters, PerPoint, ScoresByOutput, Weights
from modelpred.targets.solving import Solver

LINE_STEPS = 3  # of Newton's method along a line
LONGEST = 4.0


@final
@dataclass(frozen=True)
class Svm(Linear):
    """Linear support vector machine with squared hinge; one against the rest beyond two classes."""

    name = "svm"
    smooth = False
    compiled = "squared hinge"
    default_intercept = "penalised"

    def outputs(self, classes: int) -> int:
        """One for two classes, else one a class."""
        if classes < 2:
            raise InvalidInput(f"svm is for 2 or more classes, got {classes}; use ridge")
        return 1 if classes == 2 else classes

    def score_losses(self, scores: ScoresByOutput, labels: Labels) -> PerPoint:
        """Sum over outputs of max(0, 1 - s m)^2."""
        return (1 - signs_of(labels, scores) * scores).clamp(min=0).square().sum(0)

    def score_slopes(
        self, scores: ScoresByOutput, labels: Labels, out: Tensor | None = None
    ) -> ScoresByOutput:
        """-2 s max(0, 1 - s m)."""
        signs = signs_of(labels, scores)
        short = torch.sub(torch.mul(scores, signs, out=out), 1, out=out)
        return torch.mul(torch.clamp(short, max=0, out=out), 2 * signs, out=out)

    def score_curvature(self, scores: ScoresByOutput, labels: Labels, scale: PerPoint) -> Curvature:
        """2 where the margin is violated: a generalised derivative, the loss has a kink there."""
        violated = signs_of(labels, scores) * scores < 1
        return (violated.to(scores.dtype) * (2 * scale),)

    def best_lengths(
        self, parameters: Parameters, weights: Weights, points: Points, directions: Parameters
    ) -> Float[Tensor, " subsets"]:
        """By Newton's method along the line, on margins alone."""
        scores, along = (self._scores(each, points.features) for each in (parameters, directions))
        signs, scale = signs_of(points.labels, scores), 2 * self.C * points.weighted(weights)
        short, along = scores.mul_(signs).sub_(1), along.mul_(signs)
        penalty = self._penalty(points, like=parameters)
        linear = (penalty * parameters * directions).sum(1)
        square = (penalty * directions.square()).sum(1)
        lengths = parameters.new_ones(len(parameters))
        for _ in range(LINE_STEPS):
            here = torch.addcmul(short, lengths[:, None], along)
            slopes = along * scale
            slopes.mul_(here < 0)
            slope = (here.mul_(slopes)).sum((0, 2)) + linear + lengths * square
            bend = slopes.mul_(along).sum((0, 2)) + square
            lengths = (lengths - slope / bend.clamp(min=1e-30)).clamp(0, LONGEST)
        return lengths

    def solver(self, points: Points) -> Solver:
        """Newton's method; one against the rest is that many problems of two classes."""
        if points.classes == 2:
            return linear_solver(self, points)
        return one_by_one(
            [
                linear_solver(self, Points(points.features, (points.labels == own).long(), 2))
                for own in range(points.classes)
            ]
        )
