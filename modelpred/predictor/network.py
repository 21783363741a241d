"""Set functions: theta_hat(w) = rho(pool_i w_i phi(x_i, y_i)), nothing per subset in Python.

Pooling over a fixed pool of points is one matrix product, weights [subsets, points] times phi
[points, pooled]. Two are built here:

*Paper*: the published DeepSets: phi 128-128-128, sum, rho 128-128-64, ELU, no biases, then linear.

*Anchored*: starts at the anchor (anchors.py). A first correction takes the anchor and the size of
the subset. Then come learned steps. Each evaluates the subset's own optimality condition at the
current prediction, v = precondition(grad F_w(theta)), which is a set function too (a sum over
points), and learns how far to follow it, how much of the last move to keep, and what to add:

    theta_0 = anchor(w);   theta_1 = theta_0 + scale first(theta_0, size)
    m_t = theta_t - theta_{t-1}
    theta_{t+1} = theta_t - a_t v_t + b_t m_t + scale step_t(theta_t, size, v_t, m_t)

Every theta_t is an answer: it was fitted to the trained parameters as the last was, and costs less.

So it is an unrolled descent whose every step is fitted to land near the trained parameters (Gregor
and LeCun 2010 unroll a solver in this way; doing it over the weights of a training set is this
project's own). A step costs two matrix products over the points and a small layer, less than
forming one Hessian. Every part is equal under permutation, and a weight of two is the row twice.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from modelpred.predictor.anchors import Anchors, BoundAnchors, BoundSizePath
from modelpred.predictor.backtracking import Backtracking
from modelpred.targets import Points, TargetModel

SIZE_FEATURES = 3
LARGEST_LINEAR = 2**18  # entries of a linear path
CONSTANT = 1e-12  # share of the largest spread up to which a column only varies by rounding
CLIP = 8.0  # standardised inputs beyond this are cut: nothing in fitting lies there


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
    """Points in a network's precision, with the functions of the model and pooled anchors.

    `unseen` [points] is 1 for points that no fit saw; None where all were seen.
    """

    model: TargetModel
    points: Points
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

    @abstractmethod
    def answer(self, weights: Tensor, bound: BoundPoints, *, stage: int) -> Tensor:
        """The prediction of a stage; later ones are not computed."""

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

    def bind(self, model: TargetModel, points: Points) -> BoundPoints:
        """The points alone: there are no anchors."""
        like = next(self.parameters())
        return BoundPoints(model, points.to(dtype=like.dtype, device=like.device), None)

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
        """One stage, from raw features and label, as published."""
        del prepared
        features, labels = bound.points.features, bound.points.labels
        inputs = torch.cat([features, labels[:, None].to(features)], 1)
        yield self.rho(weights @ self.phi(inputs))

    def answer(self, weights: Tensor, bound: BoundPoints, *, stage: int) -> Tensor:
        """That of the stages."""
        return next(itertools.islice(self.stages(weights, bound, None), stage, None))


@final
class AnchoredNetwork(SetNetwork):
    """The anchored, staged network of the module's text."""

    learned_from = 1

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
        width: int,
        steps: int,
        step_width: int,
    ) -> None:
        super().__init__()
        parameters = anchors.parameter_count
        self.anchors = anchors
        self.first = Correction(parameters + SIZE_FEATURES, width, parameters)
        self.steps = nn.ModuleList(
            Correction(3 * parameters + SIZE_FEATURES, step_width, parameters) for _ in range(steps)
        )
        self.follow = nn.Parameter(torch.full((steps,), 0.7))
        self.keep = nn.Parameter(torch.full((steps,), 0.3))
        for name, size in {
            "size_centre": SIZE_FEATURES,
            "size_scale": SIZE_FEATURES,
            "parameter_centre": parameters,
            "parameter_scale": parameters,
            "step_scale": parameters,
            "correction_scale": 1,
        }.items():
            self.register_buffer(name, torch.ones(size))

    def bind(self, model: TargetModel, points: Points) -> BoundPoints:
        """The points and the anchors over them."""
        like = self.parameter_centre
        exact = points.to(dtype=torch.float64, device=like.device)
        anchors = self.anchors.bind(model, exact, like.dtype)
        return BoundPoints(model, points.to(dtype=like.dtype, device=like.device), anchors)

    def standardise(self, totals: Tensor, steps: Tensor, parameters: Tensor) -> None:
        """Set input and output scales from the subsets of the fit.

        Args:
            totals: total weight of each, [subsets, 1].
            steps: preconditioned gradients at the anchor, [subsets, parameters].
            parameters: their targets.
        """
        sizes = size_features(totals, self.anchors.pool)
        for name, values in {"size": sizes, "parameter": parameters}.items():
            self.get_buffer(f"{name}_centre").copy_(values.mean(0))
            self.get_buffer(f"{name}_scale").copy_(_spread(values))
        self.step_scale.copy_(_spread(steps))

    def prepare(self, weights: Tensor, bound: BoundPoints) -> Tensor | None:
        """The anchors, [subsets, parameters]."""
        assert bound.anchors is not None
        return bound.anchors(weights)

    @property
    def last_stage(self) -> int:
        """One after the first correction for every learned step."""
        return 1 + len(self.steps)

    def answer(self, weights: Tensor, bound: BoundPoints, *, stage: int) -> Tensor:
        """That of the stages."""
        return next(itertools.islice(self.stages(weights, bound, None), stage, None))

    def stages(
        self, weights: Tensor, bound: BoundPoints, prepared: Tensor | None
    ) -> Iterator[Tensor]:
        """Predictions theta_0, theta_1, ... of the module's text."""
        theta = self.prepare(weights, bound) if prepared is None else prepared
        assert theta is not None
        theta, guard = _kept(theta, weights, bound)
        yield theta
        sizes = (size_features(weights, self.anchors.pool) - self.size_centre) / self.size_scale
        move = self.correction_scale * self.first(torch.cat([self._here(theta), sizes], 1))
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
    limited = origins + guard.shortened(origins, start - origins)
    return start.index_copy(0, rows, limited.index_select(0, rows)), guard


def _cut(step: Tensor, theta: Tensor) -> Tensor:
    """The step, no longer than theta: for a nearly separable subset it would be wild."""
    length = step.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return step * (theta.detach().norm(dim=1, keepdim=True) / length).clamp(max=1)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation by column; 1 where it is zero, or rounding of zero."""
    spread = values.std(0)
    return torch.where(spread > CONSTANT * spread.max(), spread, torch.ones_like(spread))
