"""Set functions: theta_hat(w) = rho(pool_i w_i phi(x_i, y_i)), nothing per subset in Python.

Pooling over a fixed pool of points is one matrix product, weights [subsets, points] times phi
[points, pooled]. Two are built here:

*Paper*: the published DeepSets: phi 128-128-128, sum, rho 128-128-64, ELU, no biases, then linear.

*Anchored*: starts at the anchor (anchors.py). A first correction sees the anchor and the size of
the subset, and, if asked for, a pooled phi: a mean over the subset's points or attention
(attention.py). Then come learned steps. Each evaluates the subset's own optimality condition where
it stands, v = precondition(grad F_w(theta)), which is a set function too (a sum over points), and
learns how far to follow it, how much of the last move to keep, and what to add:

    theta_0 = anchor(w);   theta_1 = theta_0 + scale first(theta_0, size, pool)
    m_t = theta_t - theta_{t-1}
    theta_{t+1} = theta_t - a_t v_t + b_t m_t + scale step_t(theta_t, size, v_t, m_t)

Every theta_t is an answer: it was fitted to the trained parameters as the last was, and costs less.

So it is an unrolled descent whose every step is fitted to land near the trained parameters (Gregor
and LeCun 2010 unroll a solver in this way; doing it over the weights of a training set is this
project's own). A step costs two matrix products over the points and a small layer, less than
forming one Hessian. Every part is equal under permutation, and a weight of two is the row twice.
"""

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from modelpred.predictor.anchors import Anchors, BoundAnchors, BoundSizePath
from modelpred.predictor.attention import AttentionPool
from modelpred.predictor.backtracking import Backtracking
from modelpred.targets import Points, TargetModel

SIZE_FEATURES = 3
LARGEST_LINEAR = 2**18  # entries of a linear path
CONSTANT = 1e-12  # share of the largest spread up to which a column only varies by rounding
CLIP = 8.0  # standardised inputs beyond this are cut: nothing in fitting lies there


def point_inputs(points: Points, centre: Tensor, scale: Tensor) -> Tensor:
    """Input of phi [points, features + labels]: standardised features, one-hot or scaled label."""
    if points.classes == 0:
        labels = points.labels[:, None]
    else:
        labels = torch.nn.functional.one_hot(points.labels, points.classes)
    joined = torch.cat([points.features, labels.to(points.features)], 1)
    return (joined - centre.to(joined)) / scale.to(joined)


def size_features(weights: Tensor, pool: int) -> Tensor:
    """[subsets, 3]: log share, share, inverse share.

    Functions of the total weight alone: what tells a weight of two from two equal rows has no place.
    A subset larger than the pool of the fit passes for one as large: no fit has seen any larger.
    """
    total = weights.sum(1, keepdim=True).clamp(min=1e-9)
    share = (total / pool).clamp(max=1)
    return torch.cat([share.log(), share, 1 / share], 1)


@dataclass(frozen=True)
class BoundPoints:
    """Points as a network wants them: model functions, phi's inputs and pooled anchors.

    `unseen` [points] is 1 for points that no fit saw; None where all were seen.
    """

    model: TargetModel
    points: Points
    inputs: Tensor
    anchors: BoundAnchors | None
    unseen: Tensor | None = None


class SetNetwork(ABC, nn.Module):
    """A set function from weights to parameters, in float32."""

    learned_from: ClassVar[int]
    """Index of the first stage that has learned weights."""

    @property
    @abstractmethod
    def last_stage(self) -> int:
        """Index of the stage whose prediction is the answer."""

    @abstractmethod
    def stages(
        self, weights: Tensor, bound: BoundPoints, prepared: Tensor | None
    ) -> Iterator[Tensor]:
        """Predictions [subsets, parameters] of each stage, computed as they are asked for.

        Args:
            weights: [subsets, points].
            bound: the points.
            prepared: `prepare(weights)` if it was computed before.
        """

    def answer(self, weights: Tensor, bound: BoundPoints, *, stage: int | None = None) -> Tensor:
        """The prediction of a stage, by default the last; later ones are not computed."""
        stage = self.last_stage if stage is None else stage
        return next(itertools.islice(self.stages(weights, bound, None), stage, None))

    @abstractmethod
    def prepare(self, weights: Tensor, bound: BoundPoints) -> Tensor | None:
        """What does not depend on learned weights, so that fitting computes it once."""

    @abstractmethod
    def bind(self, model: TargetModel, points: Points) -> BoundPoints:
        """Points in the network's precision and device, with what the network pools."""


def _dense(sizes: Sequence[int], activation: type[nn.Module], *, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after, bias=bias), activation()]
    return nn.Sequential(*layers)


@final
class PaperNetwork(SetNetwork):
    """The published DeepSets, kept as it was so that improvements have a base line."""

    learned_from = 0

    def __init__(self, features: int, labels: int, parameters: int) -> None:
        super().__init__()
        # The published scripts feed one label column, also for classes.
        self.phi = _dense([features + labels, 128, 128, 128], nn.ELU, bias=False)
        self.rho = nn.Sequential(
            _dense([128, 128, 128, 64], nn.ELU, bias=False), nn.Linear(64, parameters)
        )
        self.register_buffer("centre", torch.zeros(features + labels))
        self.register_buffer("scale", torch.ones(features + labels))

    def bind(self, model: TargetModel, points: Points) -> BoundPoints:
        """Raw features and label, as published."""
        like = self.get_buffer("centre")
        ours = points.to(dtype=like.dtype, device=like.device)
        inputs = torch.cat([ours.features, ours.labels[:, None].to(ours.features)], 1)
        return BoundPoints(model, ours, inputs, None)

    def prepare(self, weights: Tensor, bound: BoundPoints) -> Tensor | None:
        """Nothing."""
        del weights, bound

    @property
    def last_stage(self) -> int:
        """The only one."""
        return 0

    def stages(
        self, weights: Tensor, bound: BoundPoints, prepared: Tensor | None
    ) -> Iterator[Tensor]:
        """One stage."""
        del prepared
        yield self.rho(weights @ self.phi(bound.inputs))


@final
class MeanPool(nn.Module):
    """Weights [subsets, points] and inputs [points, inputs] -> mean phi [subsets, pooled]."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(inputs, pooled), nn.GELU(), nn.Linear(pooled, pooled))

    def forward(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """The pool of each subset."""
        return (weights @ self.phi(inputs)) / weights.sum(1, keepdim=True).clamp(min=1e-9)


@final
class AnchoredNetwork(SetNetwork):
    """The anchored, staged network of the module's text."""

    learned_from = 1

    centre: Tensor
    scale: Tensor
    size_centre: Tensor
    size_scale: Tensor
    parameter_centre: Tensor
    parameter_scale: Tensor
    step_scale: Tensor
    correction_scale: Tensor

    def __init__(
        self,
        anchors: Anchors,
        *,
        inputs: int,
        pooled: int,
        width: int,
        steps: int,
        step_width: int,
        induced: int = 0,
    ) -> None:
        super().__init__()
        parameters = anchors.parameter_count
        self.anchors = anchors
        self.pool: nn.Module | None = None
        if pooled:
            attention = AttentionPool(inputs, pooled, induced=induced) if induced else None
            pool = MeanPool(inputs, pooled) if attention is None else attention
            self.pool, self.normalise = pool, nn.LayerNorm(pooled)
        self.first = Correction(parameters + SIZE_FEATURES + pooled, width, parameters)
        self.steps = nn.ModuleList(
            Correction(3 * parameters + SIZE_FEATURES, step_width, parameters) for _ in range(steps)
        )
        self.follow = nn.Parameter(torch.full((steps,), 0.7))
        self.keep = nn.Parameter(torch.full((steps,), 0.3))
        for name, size in {
            "centre": inputs,
            "scale": inputs,
            "size_centre": SIZE_FEATURES,
            "size_scale": SIZE_FEATURES,
            "parameter_centre": parameters,
            "parameter_scale": parameters,
            "step_scale": parameters,
            "correction_scale": 1,
        }.items():
            self.register_buffer(name, torch.ones(size))

    def bind(self, model: TargetModel, points: Points) -> BoundPoints:
        """Standardised inputs and anchors pooled over these points."""
        exact = points.to(dtype=torch.float64, device=self.centre.device)
        anchors = self.anchors.bind(model, exact, self.centre.dtype)
        ours = points.to(dtype=self.centre.dtype, device=self.centre.device)
        return BoundPoints(model, ours, point_inputs(ours, self.centre, self.scale), anchors)

    def rescaled(self, bound: BoundPoints) -> BoundPoints:
        """The same points after `standardise`: anchors do not depend on the scales."""
        inputs = point_inputs(bound.points, self.centre, self.scale)
        return dataclasses.replace(bound, inputs=inputs)

    def standardise(
        self, totals: Tensor, steps: Tensor, parameters: Tensor, points: Points
    ) -> None:
        """Set input and output scales from the subsets of the fit.

        Args:
            totals: total weight of each, [subsets, 1].
            steps: preconditioned gradients at the anchor, [subsets, parameters].
            parameters: their targets.
            points: the pool.
        """
        unit = torch.ones(self.centre.shape[0])
        raw = point_inputs(points.to(dtype=torch.float32), 0 * unit, unit)
        sizes = size_features(totals, self.anchors.pool)
        for name, values in {"": raw, "size_": sizes, "parameter_": parameters}.items():
            self.get_buffer(f"{name}centre").copy_(values.mean(0))
            self.get_buffer(f"{name}scale").copy_(_spread(values))
        self.step_scale.copy_(_spread(steps))

    def prepare(self, weights: Tensor, bound: BoundPoints) -> Tensor | None:
        """The anchors, [subsets, parameters]."""
        assert bound.anchors is not None
        return bound.anchors(weights)

    @property
    def last_stage(self) -> int:
        """One after the first correction for every learned step."""
        return 1 + len(self.steps)

    def stages(
        self, weights: Tensor, bound: BoundPoints, prepared: Tensor | None
    ) -> Iterator[Tensor]:
        """Predictions theta_0, theta_1, ... of the module's text."""
        theta = self.prepare(weights, bound) if prepared is None else prepared
        assert theta is not None
        theta, guard = _kept(theta, weights, bound)
        yield theta
        sizes = (size_features(weights, self.anchors.pool) - self.size_centre) / self.size_scale
        parts = [self._here(theta), sizes]
        if self.pool is not None:
            parts.append(self.normalise(self.pool(weights, bound.inputs)))
        move = self.correction_scale * self.first(torch.cat(parts, 1))
        theta = theta + (move if guard is None else guard.shortened(theta, move))
        yield theta
        move = torch.zeros_like(theta)
        assert bound.anchors is not None
        precondition = bound.anchors.preconditioner(weights)
        gradient = bound.model.gradient_function(weights, bound.points)
        unit = self.step_scale.reciprocal()
        for step, follow, keep in zip(self.steps, self.follow, self.keep, strict=True):
            way = _cut(precondition(gradient(theta)), theta)
            scaled = torch.cat([way * unit, move * unit], 1)
            seen = torch.cat([self._here(theta), sizes, scaled.clamp(-CLIP, CLIP)], 1)
            move = keep * move - follow * way + self.correction_scale * step(seen)
            move = move if guard is None else guard.shortened(theta, move)
            theta = theta + move
            yield theta

    def _here(self, theta: Tensor) -> Tensor:
        return ((theta - self.parameter_centre) / self.parameter_scale).clamp(-CLIP, CLIP)


@final
class Correction(nn.Module):
    """One hidden layer, beside a linear path where that is small; zero at the start."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.deep = _dense([inputs, width], nn.GELU, bias=True)
        self.last = nn.Linear(width, outputs)
        # For a thousand parameters the path would cost more than the gradient it is to correct.
        small = inputs * outputs <= LARGEST_LINEAR
        self.linear = nn.Linear(inputs, outputs, bias=False) if small else None

    def silence(self) -> None:
        """Make the correction zero, so that fitting starts from the anchor."""
        for layer in (self.last, self.linear):
            if layer is not None:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor) -> Tensor:
        """Correction [subsets, outputs] in units of the network's correction scale."""
        bent = self.last(self.deep(inputs))
        return bent if self.linear is None else bent + self.linear(inputs)


def initialise(network: SetNetwork, generator: torch.Generator) -> None:
    """Draw the starting weights: uniform within 1 / sqrt(inputs), PyTorch's own rule, seeded."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
    for module in network.modules():
        if isinstance(module, Correction):
            module.silence()


def _kept(start: Tensor, weights: Tensor, bound: BoundPoints) -> tuple[Tensor, Backtracking | None]:
    """The anchors, and what keeps subsets with points that no fit saw from there on, if any do."""
    if bound.unseen is None or not isinstance(bound.anchors, BoundSizePath):
        return start, None
    rows = (weights.detach() @ bound.unseen.to(weights)).nonzero()[:, 0]
    if not len(rows):
        return start, None
    origins = bound.anchors.origins(weights)
    guard = Backtracking(bound.model, bound.points, weights, rows, origins)
    kept = origins + guard.shortened(origins, start - origins)
    return start.index_copy(0, rows, kept.index_select(0, rows)), guard


def _cut(step: Tensor, theta: Tensor) -> Tensor:
    """The step, no longer than theta: for a nearly separable subset it would be wild."""
    length = step.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return step * (theta.detach().norm(dim=1, keepdim=True) / length).clamp(max=1)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation by column; 1 where it is zero, or rounding of zero."""
    spread = values.std(0)
    return torch.where(spread > CONSTANT * spread.max(), spread, torch.ones_like(spread))
