"""Where a prediction starts for a family of fixed steps: its own training, in few long steps.

Training by n steps of rate r and momentum m follows, after its first swings, the gradient flow
theta' = -grad F_w(theta) at r / (1 - m) units of time a step. So the first `opening` steps are
taken as they are, with the subset's own weights. Then the velocity v runs out, to
theta + m (1 - m^k) / (1 - m) v in the k steps that are left, and the flow goes on from there over

    r / (1 - m) (k - m (1 - m^k) / (1 - m))

units of time, the time in which a constant gradient would have moved a body at rest as far. It is
integrated in a few pieces that grow by a factor, each by a Runge-Kutta-Chebyshev step of s gradients:
with T_j the Chebyshev polynomials, w0 = 1 + 0.05 / s^2 and w1 = T_s(w0) / T_s'(w0)

    y_1 = y_0 - h w1 / w0 grad(y_0)
    y_j = (1 - a - b) y_0 + a y_{j-1} + b y_{j-2} - h c grad(y_{j-1})
    a = 2 w0 T_{j-1}(w0) / T_j(w0),  b = -T_{j-2}(w0) / T_j(w0),  c = 2 w1 T_{j-1}(w0) / T_j(w0)

that is stable for curvatures up to 1.93 s^2 / h, where s plain steps of the same length in all would
be up to 2 s / h (Sommeijer, Shampine and Verwer 1998, the scheme of first order). A quarter of the
gradients of training, in single precision, then ends near the trained parameters. How to divide it,
and a ridge regression that leads on from there, are fitted to the bank (coarse_fit.py).

Refinement adds gradients. Where a longer plan comes nearer than the prediction trained on from rest
does, the longer plan is followed: more opening steps and more pieces; with as many gradients as
training has steps it is training. Everything is a function of the subset's weights and needs no
fitted number per point, so it is defined for points that the bank never held.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from modelpred.predictor.anchors import Anchors, BoundAnchors, Preconditioner
from modelpred.targets import Points, TargetModel, train_targets
from modelpred.targets.model import IterativeFamily
from modelpred.targets.points import class_counts
from modelpred.targets.threads import thread_count, torch_threads

DAMPING = 0.05  # keeps stiff directions from ringing; the usual value
WILD = 4.0  # standard deviations at which inputs of the ridge are cut
BLOCK = 256  # subsets trained together

Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """How gradients are divided: `opening` steps, then `pieces` of `stages` gradients each."""

    opening: int
    pieces: int
    stages: int
    growth: float  # of a piece beside the one before
    reach: float  # share of the time that is left after the opening

    @property
    def gradients(self) -> int:
        """Number of gradients in all."""
        return self.opening + self.pieces * self.stages

    def lengthened(self, gradients: int) -> "Plan":
        """A plan of more gradients: half of them open, if the plan has no more pieces already."""
        pieces = max(self.pieces, gradients // 2 // self.stages)
        opening = gradients - pieces * self.stages
        return dataclasses.replace(self, opening=opening, pieces=pieces)

    def lengths(self, time: float) -> list[float]:
        """Lengths of the pieces, which sum to the plan's share of the time."""
        parts = [self.growth**piece for piece in range(self.pieces)]
        return [self.reach * time * part / sum(parts) for part in parts]


@final
@dataclass(frozen=True)
class CoarseTraining(Anchors):
    """Where training starts, the plan that is followed from there, and what leads on."""

    start: Tensor  # [parameters]
    middle: Tensor  # [parameters], mean of the bank's targets
    farthest: Tensor  # [1], the largest distance of one of them from it
    plan: Tensor  # [5], the entries of Plan
    lengthens: Tensor  # [1], whether refinement is a longer plan
    kept: Tensor  # [1], how much of where the plan ends stays beside the ridge
    centre: Tensor  # [inputs] of the ridge
    scale: Tensor  # [inputs]
    coefficients: Tensor  # [inputs, parameters]
    intercept: Tensor  # [parameters]
    pool: int

    kind: ClassVar[str] = "short_training"

    def __post_init__(self) -> None:
        inputs = len(self.centre)
        fits = (
            self.start.ndim == 1
            and self.middle.shape == self.start.shape
            and self.plan.shape == (5,)
            and not bool((self.plan < 0).any())
            and all(each.shape == (1,) for each in (self.farthest, self.lengthens, self.kept))
            and self.centre.shape == self.scale.shape == (inputs,)
            and self.coefficients.shape == (inputs, len(self.start))
            and self.intercept.shape == self.start.shape
        )
        if not fits:
            raise ValueError("the tensors of the short training do not fit each other")

    @property
    def parameter_count(self) -> int:
        """Number of the family's parameters."""
        return len(self.start)

    def tensors(self) -> dict[str, Tensor]:
        """All fields but the pool's size."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name != "pool"}

    def bind(self, model: TargetModel, points: Points, dtype: torch.dtype) -> "BoundCoarseTraining":
        """The training on these points."""
        device = points.features.device
        ours = {name: tensor.to(device, dtype) for name, tensor in self.tensors().items()}
        return BoundCoarseTraining(
            CoarseTraining(**ours, pool=self.pool), model, points.to(dtype=dtype)
        )


@final
@dataclass(frozen=True)
class BoundCoarseTraining(BoundAnchors):
    """A short training on given points."""

    anchors: CoarseTraining
    model: TargetModel
    points: Points

    @property
    def plan(self) -> Plan:
        """The fitted plan."""
        opening, pieces, stages, growth, reach = self.anchors.plan.tolist()
        return Plan(int(opening), int(pieces), int(stages), growth, reach)

    def __call__(self, weights: Tensor) -> Tensor:
        """Where the plan ends, led on by the ridge."""
        return self.led_on(weights, self.follow(self.plan, weights))

    def led_on(self, weights: Tensor, coarse: Tensor) -> Tensor:
        """What the ridge makes of where the plan ends."""
        ours = self.anchors
        inputs = ridge_inputs(weights, coarse, self.points, pool=ours.pool)
        scaled = ((inputs - ours.centre) / ours.scale).clamp(-WILD, WILD)
        return ours.kept * coarse + ours.intercept + scaled @ ours.coefficients

    def preconditioner(self, weights: Tensor) -> Preconditioner:
        """The identity: a gradient step is a gradient step."""
        del weights
        return lambda gradients: gradients

    def refined(
        self,
        points: Points,
        weights: Tensor,
        *,
        start: Callable[[], Tensor],
        gradients: int,
    ) -> Tensor:
        """Parameters (float64) after so many gradients more than the plan has.

        Args:
            points: the bound points, float64.
            weights: [subsets, points], float64.
            start: gives the prediction, float64; asked, and trained on from rest, only where that
                is better than a longer plan.
            gradients: to be spent beside those of the prediction.
        """
        wanted = self.plan.gradients + gradients
        if not bool(self.anchors.lengthens):
            return trained_on(self.model, points, weights, start(), steps=gradients)
        if wanted >= recipe_of(self.model).steps:
            trained = train_targets(
                self.model, points.features, points.labels, weights, classes=points.classes
            )
            return trained.parameters
        longer = self.follow(self.plan.lengthened(wanted), weights.to(self.points.features))
        return longer.to(torch.float64)

    def follow(self, plan: Plan, weights: Tensor) -> Tensor:
        """Where a plan ends, [subsets, parameters]; subsets of about one size together."""
        order = (weights > 0).sum(1).argsort(stable=True)
        ends = torch.empty(len(weights), self.anchors.parameter_count).to(weights)
        # Two threads may split a product of a subset otherwise than one does.
        with torch_threads(1 if weights.device.type == "cpu" else thread_count()):
            for rows in order.split(BLOCK):
                opened = self.opened(weights[rows])
                place, velocity = next(itertools.islice(opened, plan.opening, None))
                ends[rows] = self.finished(plan, weights[rows], place, velocity)
        return ends

    def opened(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters and velocities after 0, 1, 2, ... steps of training."""
        family, gradient = (
            recipe_of(self.model),
            self.model.gradient_function(weights, self.points),
        )
        theta = self.anchors.start.expand(len(weights), -1)
        velocity = torch.zeros_like(theta)
        while True:
            yield theta, velocity
            velocity = family.momentum * velocity - family.learning_rate * gradient(theta)
            theta = theta + velocity

    def finished(self, plan: Plan, weights: Tensor, place: Tensor, velocity: Tensor) -> Tensor:
        """Where the plan ends from its opening's end."""
        family, gradient = (
            recipe_of(self.model),
            self.model.gradient_function(weights, self.points),
        )
        left, momentum = family.steps - plan.opening, family.momentum
        slip = momentum * (1 - momentum**left) / (1 - momentum)
        theta = place + slip * velocity
        for length in plan.lengths(family.learning_rate / (1 - momentum) * (left - slip)):
            theta = chebyshev_step(gradient, theta, length=length, stages=plan.stages)
        # A subset that is curved more than any that was tried may have gone wild.
        away = theta - self.anchors.middle
        distance = away.norm(dim=1, keepdim=True).clamp(min=1e-30)
        shorter = self.anchors.middle + (self.anchors.farthest / distance) * away
        tamed = torch.where(distance > self.anchors.farthest, shorter, theta)
        finite = torch.isfinite(tamed).all(1, keepdim=True)
        return torch.where(finite, tamed, self.anchors.middle)


def chebyshev_step(gradient: Gradient, start: Tensor, *, length: float, stages: int) -> Tensor:
    """Where theta' = -gradient(theta) leads in a time of `length` (see the module's text)."""
    above = 1 + DAMPING / stages**2
    values, slopes = [1.0, above], [0.0, 1.0]
    for order in range(2, stages + 1):
        values.append(2 * above * values[-1] - values[-2])
        slopes.append(2 * values[order - 1] + 2 * above * slopes[-1] - slopes[-2])
    inner = values[stages] / slopes[stages]
    before, now = start, start - length * inner / above * gradient(start)
    for order in range(2, stages + 1):
        ahead = 2 * above * values[order - 1] / values[order]
        back = -values[order - 2] / values[order]
        along = 2 * inner * values[order - 1] / values[order] * length
        moved = (1 - ahead - back) * start + ahead * now + back * before - along * gradient(now)
        before, now = now, moved
    return now


def ridge_inputs(weights: Tensor, coarse: Tensor, points: Points, *, pool: int) -> Tensor:
    """Where a plan ends, shares of classes, and size, [subsets, inputs]."""
    total = weights.sum(1, keepdim=True).clamp(min=1e-9)
    size = pool / total
    return torch.cat([coarse, class_counts(weights, points) / total, size.log(), 1 / size], 1)


def trained_on(
    model: TargetModel, points: Points, weights: Tensor, start: Tensor, *, steps: int
) -> Tensor:
    """Parameters after so many steps of training from `start` and from rest."""
    return train_targets(
        recipe_of(model).with_steps(steps),
        points.features,
        points.labels,
        weights,
        start=start,
        classes=points.classes,
    ).parameters


def recipe_of(model: TargetModel) -> IterativeFamily:
    """The family, which must be trained in a fixed number of steps (TypeError otherwise)."""
    if (recipe := model.recipe) is None:
        raise TypeError(f"{model.name} is not trained by fixed steps")
    return recipe
