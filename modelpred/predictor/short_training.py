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
and how much of the time to go before curvature makes long steps wild, is fitted: of a few plans the
one that comes nearest to some of the bank's targets.

A ridge regression on the bank leads on from there (and from the subset's size and class shares): to
the trained parameters, or to what is left, or not at all, whichever is best on rows held out.

Refinement adds gradients. Where a longer plan comes nearer than the prediction trained on from rest
does, the longer plan is followed: more opening steps and more pieces; with as many gradients as
training has steps it is training. Everything is a function of the subset's weights and needs no
fitted number per point, so it is defined for points that the bank never held.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from modelpred.predictor.anchors import Anchors, BoundAnchors, Preconditioner
from modelpred.refits import LinearDatamodel
from modelpred.targets import Points, TargetModel, target_model, train_targets
from modelpred.targets.model import class_counts
from modelpred.targets.threads import torch_threads

SHARE = 0.25  # of the gradients of training
MEMORIES = 3  # but at least so many times 1 / (1 - momentum): before that nothing flows yet
STAGES, PIECES, GROWTHS = (3, 4, 5, 6, 8), (1, 2, 3, 4), (1.5, 2.0)
REACHES = (1.0, 0.4, 0.1)
TRIED_ON = 128  # subsets of the bank that plans are compared on
DAMPING = 0.05  # keeps stiff directions from ringing; the usual value
HELD_OUT = 5  # every so many rows judge the ridge
LEAST_FOR_RIDGE = 20
WILD = 4.0  # standard deviations at which inputs of the ridge are cut
COMPARED = 10  # gradients that ways of refinement are compared with
BLOCK = 256  # subsets trained together

Gradient = Callable[[Tensor], Tensor]


@runtime_checkable
class FixedSteps(Protocol):
    """What a family trained by fixed steps of momentum has beside the seam."""

    @property
    def steps(self) -> int:
        """Steps of training."""
        ...

    @property
    def learning_rate(self) -> float:
        """Length of a step."""
        ...

    @property
    def momentum(self) -> float:
        """Share of the last step that is kept."""
        ...

    def initial(self, features: int, classes: int) -> Tensor:
        """Parameters that every training starts from, [parameters]."""
        ...


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
class ShortTraining(Anchors):
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
            and self.scale.shape == (inputs,)
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

    def bind(self, model: TargetModel, points: Points, dtype: torch.dtype) -> "BoundShortTraining":
        """The training on these points."""
        device = points.features.device
        ours = {name: tensor.to(device, dtype) for name, tensor in self.tensors().items()}
        return BoundShortTraining(
            ShortTraining(**ours, pool=self.pool), model, points.to(dtype=dtype)
        )


@final
@dataclass(frozen=True)
class BoundShortTraining(BoundAnchors):
    """A short training on given points."""

    anchors: ShortTraining
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

    def led_on(self, weights: Tensor, reached: Tensor) -> Tensor:
        """What the ridge makes of where the plan ends."""
        ours = self.anchors
        inputs = ridge_inputs(weights, reached, self.points, pool=ours.pool)
        scaled = ((inputs - ours.centre) / ours.scale).clamp(-WILD, WILD)
        return ours.kept * reached + ours.intercept + scaled @ ours.coefficients

    def preconditioner(self, weights: Tensor) -> Preconditioner:
        """The identity: a gradient step is a gradient step."""
        del weights
        return lambda gradients: gradients

    def refined(self, points: Points, weights: Tensor, *, start: Tensor, gradients: int) -> Tensor:
        """Parameters (float64) after so many gradients more than the plan has.

        Args:
            points: the bound points, float64.
            weights: [subsets, points], float64.
            start: the prediction, float64; trained on from rest where that is better.
            gradients: to be spent beside those of the prediction.
        """
        wanted = self.plan.gradients + gradients
        if not bool(self.anchors.lengthens):
            return trained_on(self.model, points, weights, start, steps=gradients)
        if wanted >= _fixed(self.model).steps:
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
        with torch_threads(1 if weights.device.type == "cpu" else torch.get_num_threads()):
            for rows in order.split(BLOCK):
                opened = self.opened(weights[rows])
                place, velocity = next(itertools.islice(opened, plan.opening, None))
                ends[rows] = self.finished(plan, weights[rows], place, velocity)
        return ends

    def opened(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters and velocities after 0, 1, 2, ... steps of training."""
        family, gradient = _fixed(self.model), self.model.gradient_function(weights, self.points)
        theta = self.anchors.start.expand(len(weights), -1)
        velocity = torch.zeros_like(theta)
        while True:
            yield theta, velocity
            velocity = family.momentum * velocity - family.learning_rate * gradient(theta)
            theta = theta + velocity

    def finished(self, plan: Plan, weights: Tensor, place: Tensor, velocity: Tensor) -> Tensor:
        """Where the plan ends from its opening's end."""
        family, gradient = _fixed(self.model), self.model.gradient_function(weights, self.points)
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


def ridge_inputs(weights: Tensor, reached: Tensor, points: Points, *, pool: int) -> Tensor:
    """Where a plan ends, shares of classes, and size, [subsets, inputs]."""
    total = weights.sum(1, keepdim=True).clamp(min=1e-9)
    size = pool / total
    return torch.cat([reached, class_counts(weights, points) / total, size.log(), 1 / size], 1)


def trained_on(
    model: TargetModel, points: Points, weights: Tensor, start: Tensor, *, steps: int
) -> Tensor:
    """Parameters after so many steps of training from `start` and from rest."""
    shorter = target_model(model.name, **{**model.settings, "steps": steps})
    return train_targets(
        shorter, points.features, points.labels, weights, start=start, classes=points.classes
    ).parameters


def fit_short_training(
    model: TargetModel, points: Points, weights: Tensor, parameters: Tensor
) -> ShortTraining:
    """The short training of a family of fixed steps that comes nearest to the bank's targets.

    Args:
        model: the family.
        points: the pool.
        weights: [subsets, points] of the bank.
        parameters: their trained parameters.
    """
    start = _fixed(model).initial(points.features.shape[1], points.classes).to(points.features)
    plain = _without_ridge(start, parameters, points)
    # Evenly over sizes: small subsets are curved most, large ones are asked about most.
    by_size = weights.sum(1).argsort(stable=True)
    even = torch.linspace(0, len(weights) - 1, min(TRIED_ON, len(weights)), dtype=torch.float64)
    tried = by_size[even.round().long()]
    plan = _best_plan(plain.bind(model, points, torch.float32), weights[tried], parameters[tried])
    planned = dataclasses.replace(
        plain, plan=torch.tensor(dataclasses.astuple(plan), dtype=torch.float64)
    )
    bound = planned.bind(model, points, torch.float32)
    reached = bound.follow(plan, weights.float()).to(parameters)
    led = _with_ridge(
        planned, ridge_inputs(weights, reached, points, pool=plain.pool), reached, parameters
    )
    return dataclasses.replace(
        led,
        lengthens=_whether_longer_is_better(led, model, points, weights[tried], parameters[tried]),
    )


def plans(gradients: int, *, reach: float) -> list[Plan]:
    """Plans of so many gradients, at least a third of them opening steps; first, all of them."""
    divided = [
        Plan(gradients - pieces * stages, pieces, stages, growth, reach)
        for stages, pieces, growth in itertools.product(STAGES, PIECES, GROWTHS)
        if gradients / 3 <= gradients - pieces * stages and (pieces > 1 or growth == GROWTHS[0])
    ]
    return [Plan(gradients, 0, 1, 1.0, reach), *divided]


def _best_plan(bound: BoundShortTraining, weights: Tensor, parameters: Tensor) -> Plan:
    family = _fixed(bound.model)
    least = round(MEMORIES / (1 - family.momentum))
    gradients = min(family.steps, max(math.ceil(SHARE * family.steps), least))
    tried, true = weights.float(), parameters.float()
    openings = list(itertools.islice(bound.opened(tried), gradients + 1))

    def error(plan: Plan) -> float:
        reached = bound.finished(plan, tried, *openings[plan.opening])
        # Squared: a plan that goes wild on few subsets is worse than one that is never exact.
        errors = (reached - true).norm(dim=1) / true.norm(dim=1).clamp(min=1e-6)
        return float(errors.square().mean())

    best = Plan(gradients, 0, 1, 1.0, 1.0)
    for reach in REACHES:
        best = min(plans(gradients, reach=reach), key=error)
        if best.pieces:
            break  # long steps are not wild: no need to stop early
    return best


def _with_ridge(
    anchors: ShortTraining, inputs: Tensor, reached: Tensor, true: Tensor
) -> ShortTraining:
    """The anchors with the ridge that is best on every fifth row, fitted on all; or as they are."""
    if len(true) < LEAST_FOR_RIDGE:
        return anchors
    scale = inputs.std(0)
    # One scale for all parameters: the ridge then shrinks what moves little more.
    scale[: true.shape[1]] = reached.std()
    scale = torch.where(scale > 0, scale, 1.0)
    centre = inputs.mean(0)
    scaled = ((inputs - centre) / scale).clamp(-WILD, WILD)
    held = torch.arange(len(true)) % HELD_OUT == 0
    best, error = anchors, _error(reached[held], true[held])
    for kept in (0.0, 1.0):
        left = true - kept * reached
        ridge = LinearDatamodel.fit(scaled[~held], left[~held])
        found = _error(kept * reached[held] + ridge(scaled[held]), true[held])
        if found < error:
            ridge = LinearDatamodel.fit(scaled, left, penalty=ridge.penalty)
            error, best = found, dataclasses.replace(
                anchors, kept=torch.full_like(anchors.kept, kept), centre=centre, scale=scale,
                coefficients=ridge.coefficients, intercept=ridge.intercept,
            )  # fmt: skip
    return best


def _whether_longer_is_better(
    anchors: ShortTraining, model: TargetModel, points: Points, weights: Tensor, true: Tensor
) -> Tensor:
    bound = anchors.bind(model, points, torch.float32)
    wanted = bound.plan.gradients + COMPARED
    if wanted >= _fixed(model).steps:
        return torch.ones_like(anchors.lengthens)
    longer = bound.follow(bound.plan.lengthened(wanted), weights.float())
    predicted = bound(weights.float()).to(true)
    onward = trained_on(model, points, weights, predicted, steps=COMPARED)
    better = _error(longer.to(true), true) < _error(onward, true)
    return torch.full_like(anchors.lengthens, float(better))


def _without_ridge(start: Tensor, parameters: Tensor, points: Points) -> ShortTraining:
    """A short training whose plan is not chosen yet, and that ends where the plan does."""
    one, middle = start.new_ones(1), parameters.mean(0)
    inputs = len(start) + max(1, points.classes) + 2
    return ShortTraining(
        start=start,
        middle=middle,
        farthest=(parameters - middle).norm(dim=1).max()[None],
        plan=start.new_zeros(5),
        lengthens=one,
        kept=one,
        centre=start.new_zeros(inputs),
        scale=start.new_ones(inputs),
        coefficients=start.new_zeros(inputs, len(start)),
        intercept=torch.zeros_like(start),
        pool=len(points.features),
    )


def _error(reached: Tensor, true: Tensor) -> float:
    """Mean relative error, of a row at most 1: few rows should not decide for all."""
    errors = (reached - true).norm(dim=1) / true.norm(dim=1).clamp(min=1e-6)
    return float(errors.clamp(max=1).mean())


def _fixed(model: TargetModel) -> FixedSteps:
    if not isinstance(model, FixedSteps):
        raise TypeError(f"{model.name} is not trained by fixed steps")
    return model
