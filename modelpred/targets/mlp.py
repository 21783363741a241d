"""A network of one hidden tanh layer, trained by full-batch momentum in a fixed number of steps.

    a = W1 [x, 1]     h = tanh(a)     m = W2 [h, 1]
    F_w(theta) = decay/2 (|W1|^2 + |W2|^2, without intercepts)
                 + sum_i w_i (logsumexp(m_i) - m_i,y_i) / sum_i w_i
    velocity <- momentum velocity - rate grad F_w(theta)     theta <- theta + velocity

theta holds each hidden unit's [coefficients, intercept], then each class's. Every subset starts at
the same parameters, drawn from `seed`, and there is no minibatch noise, so the trained parameters
are a function of the weights. Training is in momentum.py; `precision` is that of its products. All
functions here compute in the precision of their arguments.

"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from modelpred.errors import InvalidInput
from modelpred.targets.compiled.momentum import compiled_descent
from modelpred.targets.model import IterativeFamily
from modelpred.targets.momentum import Gathered, Schedule, descend, pool_of
from modelpred.targets.points import Points
from modelpred.targets.shapes import Features, Labels, Parameters, PerPoint, Scores, Weights
from modelpred.targets.solving import Solution, Solver
from modelpred.targets.threads import thread_count, torch_threads


@final
@dataclass(frozen=True)
class Mlp(IterativeFamily):
    """One hidden tanh layer, softmax outputs, a shared start and fixed steps."""

    hidden: Annotated[int, Field(ge=1)] = 16
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    precision: Literal["float32", "float64"] = "float32"

    name = "mlp"
    probabilistic = True

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.steps < 1:
            raise InvalidInput(
                f"mlp has {self.hidden} hidden units and {self.steps} steps; expected 1 or more"
            )
        if not (self.learning_rate > 0 and 0 <= self.momentum < 1 and self.weight_decay >= 0):
            raise InvalidInput(
                "mlp expects learning_rate > 0, 0 <= momentum < 1 and weight_decay >= 0, got "
                f"{self.learning_rate}, {self.momentum} and {self.weight_decay}"
            )
        if self.precision not in {"float32", "float64"}:
            raise InvalidInput(
                f"mlp's precision is {self.precision!r}; expected float32 or float64"
            )

    def parameter_count(self, features: int, classes: int) -> int:
        """Hidden x (features + 1) + classes x (hidden + 1)."""
        if classes < 2:
            raise InvalidInput(f"mlp is for 2 or more classes, got {classes}; use ridge")
        return self.hidden * (features + 1) + classes * (self.hidden + 1)

    def scores(self, parameters: Parameters, features: Features) -> Scores:
        """W2 [tanh(W1 [x, 1]), 1]."""
        return self._forward(parameters, features)[1].mT

    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """Cross-entropy."""
        own = scores.gather(2, labels[:, None].expand(len(scores), -1, 1))[..., 0]
        return scores.logsumexp(2) - own

    def objective(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, " subsets"]:
        """Weight decay plus mean cross-entropy; an empty subset has weight decay only."""
        _, scores = self._forward(parameters, points.features)
        return self._objective_at(scores, parameters, weights, points)

    def gradient(self, parameters: Parameters, weights: Weights, points: Points) -> Parameters:
        """Backpropagation, one product with the shared features for all subsets."""
        hidden, scores = self._forward(parameters, points.features)
        return self._gradient_at(hidden, scores, parameters, weights, points)

    def _objective_at(
        self, scores: Tensor, parameters: Tensor, weights: Tensor, points: Points
    ) -> Tensor:
        losses = self.losses(scores.mT, points.labels)
        decay = self._decay(points, like=parameters)
        return (decay * parameters.square()).sum(1) / 2 + (_shares(weights) * losses).sum(1)

    def _gradient_at(
        self, hidden: Tensor, scores: Tensor, parameters: Tensor, weights: Tensor, points: Points
    ) -> Tensor:
        own = one_hot(points.labels, points.classes).T
        output = (torch.softmax(scores, 1) - own) * _shares(weights)[:, None]
        upper = self._split(parameters, points.features.shape[1])[1]
        inner = (upper[..., :-1].mT @ output) * (1 - hidden.square())
        data = _join(_against(inner, points.features), _against(output, hidden.mT))
        return data + self._decay(points, like=parameters) * parameters

    def gradient_function(self, weights: Weights, points: Points) -> Callable[[Tensor], Tensor]:
        """As in training: on each subset's own points (see momentum.py)."""
        pool = pool_of(points.features, points.labels, points.classes, points.features.dtype)
        gathered = Gathered(pool, weights, hidden=self.hidden)
        decay = self._decay(points, like=weights)

        def gradient(parameters: Tensor) -> Tensor:
            if torch.is_grad_enabled() and (parameters.requires_grad or weights.requires_grad):
                return self.gradient(parameters, weights, points)  # what autograd can follow
            layers = self._split(parameters, points.features.shape[1])
            return torch.addcmul(_join(*gathered.slopes(*layers)), decay, parameters)

        return gradient

    def bytes_per_subset(self, points: Points) -> int:
        """The largest memory for one subset of a small group of momentum.py."""
        return 4 * len(points.features) * (points.features.shape[1] + self.hidden)

    def prior(self, counts: Float[Tensor, "subsets groups"], features: int) -> Parameters:
        """Class intercepts log(n_k + 1/2) with zero mean, all else zero."""
        logs = (counts + 0.5).log()
        upper = counts.new_zeros(*counts.shape, self.hidden + 1)
        upper[..., -1] = logs - logs.mean(1, keepdim=True)
        return _join(counts.new_zeros(len(counts), self.hidden, features + 1), upper)

    def initial(self, features: int, classes: int) -> Float[Tensor, " parameters"]:
        """The start that all subsets share: normal coefficients of variance 1/inputs."""
        generator = torch.Generator().manual_seed(self.seed)
        lower = torch.zeros(1, self.hidden, features + 1, dtype=torch.float64)
        upper = torch.zeros(1, classes, self.hidden + 1, dtype=torch.float64)
        for layer in (lower, upper):
            inputs = layer.shape[2] - 1
            normal = torch.randn(layer[..., :-1].shape, generator=generator, dtype=torch.float64)
            layer[..., :-1] = normal / math.sqrt(inputs)
        return _join(lower, upper)[0]

    def solver(self, points: Points) -> Solver:
        """Momentum from the shared start; `converged` says that the steps ended finite."""
        size = points.features.shape[1]
        device = points.features.device
        initial = self.initial(size, points.classes).to(device)
        schedule = Schedule(self.learning_rate, self.momentum, self.weight_decay, self.steps)
        # An accelerator chooses its kernels by the number of subsets, and then float32 would make
        # answers depend on their company.
        on_cpu = device.type == "cpu"
        working = torch.float32 if on_cpu and self.precision == "float32" else torch.float64
        compiled = None
        if working == torch.float32:
            compiled = compiled_descent(points, schedule, hidden=self.hidden)
        trained = compiled or self._descent(points, schedule, working)

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:  # noqa: ARG001 - fixed steps
            begin = initial[None] if start is None else start
            parameters = trained(begin.expand(len(weights), -1), weights)
            hidden, scores = self._forward(parameters, points.features)
            gradient = self._gradient_at(hidden, scores, parameters, weights, points)
            return Solution(
                parameters=parameters,
                gradient_norm=gradient.abs().amax(1),
                objective=self._objective_at(scores, parameters, weights, points),
                iterations=torch.full((len(weights),), self.steps, device=weights.device),
                converged=torch.isfinite(parameters).all(1),
            )

        return solve

    def _descent(
        self, points: Points, schedule: Schedule, working: torch.dtype
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Trained parameters from starts [subsets, parameters] and weights, by torch."""
        pool = pool_of(points.features, points.labels, points.classes, working)
        on_cpu = points.features.device.type == "cpu"

        def trained(starts: Tensor, weights: Tensor) -> Tensor:
            layers = self._split(starts, points.features.shape[1])
            # Two threads that split a product would make answers depend on their number.
            with torch_threads(1 if on_cpu else thread_count()):
                return _join(*descend(pool, *layers, weights, schedule))

        return trained

    def _split(self, parameters: Tensor, features: int) -> tuple[Tensor, Tensor]:
        size = self.hidden * (features + 1)
        lower = parameters[:, :size].unflatten(1, (self.hidden, features + 1))
        return lower, parameters[:, size:].unflatten(1, (-1, self.hidden + 1))

    def _forward(self, parameters: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._split(parameters, features.shape[1])
        hidden = torch.tanh(_affine(lower, features.T))
        return hidden, _affine(upper, hidden)

    def _decay(self, points: Points, *, like: Tensor) -> Tensor:
        ones = like.new_ones(1, self.parameter_count(points.features.shape[1], points.classes))
        lower, upper = (layer.clone() for layer in self._split(ones, points.features.shape[1]))
        lower[..., -1] = 0
        upper[..., -1] = 0
        return self.weight_decay * _join(lower, upper)[0]


def _shares(weights: Tensor) -> Tensor:
    """w_i / sum of w; zero where all are."""
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, 1)


def _affine(layer: Tensor, inputs: Tensor) -> Tensor:
    """W inputs + b; [subsets, units, points]."""
    return layer[..., :-1] @ inputs + layer[..., -1:]


def _against(slopes: Tensor, inputs: Tensor) -> Tensor:
    """Sum over points of slope times [input, 1]."""
    return torch.cat([slopes @ inputs, slopes.sum(2, keepdim=True)], 2)


def _join(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.cat([lower.flatten(1), upper.flatten(1)], 1)
