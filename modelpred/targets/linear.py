"""What linear target models share: scores linear in the features, a penalty, a weighted loss.

With design rows a_i = [x_i, 1] and one row of theta per output, scores m = theta a and

    F_w(theta) = 1/2 sum of squares of theta (without free intercepts) + C sum_i w_i loss_i

The setting `intercept` says what the last entry of each row of theta is: `free`, without a penalty;
`penalised` like a coefficient; or `none`, where the design has 0 in place of 1, so that the entry is
0 at the optimum. By default it is penalised for SVM and free for the others. w_i includes the sample
weight of the point, if it has one.

Gradient: C sum_i w_i (dloss/dm)_i a_i + penalised theta. Hessian on V: C sum_i w_i H_i (V a_i) a_i'
+ penalised V, with H_i the second derivative of the loss in the scores. The families, each a loss
as a function of its scores, are in linear_families.py and svm.py.

Inside, scores lie as [outputs, subsets, points], so that one matrix product serves all subsets.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Num
from pydantic import Field
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.certificate import distance_bound
from modelpred.targets.compiled.newton import Loss, compiled_solver
from modelpred.targets.matrices import OuterProducts
from modelpred.targets.model import Points, Solution, Solver, TargetModel
from modelpred.targets.newton import SURE, newton_solver

Curvature = tuple[Tensor, ...]
Intercept = Literal["default", "free", "penalised", "none"]

LARGEST = 1e50  # C: times the largest weight, its square is still a float
DENSE = 64  # parameters up to which Hessians are made and inverted


@dataclass(frozen=True)
class Linear(TargetModel):
    """What all linear families share; a family adds its loss as a function of the scores."""

    C: Annotated[float, Field(gt=0)] = 1.0
    intercept: Intercept = "default"

    convex: ClassVar[bool] = True
    default_intercept: ClassVar[Intercept] = "free"
    compiled: ClassVar[Loss | None] = None  # its name in compiled/newton.py, if C has the loss
    smooth: ClassVar[bool] = True  # the loss has a second derivative everywhere
    shift_free: ClassVar[bool] = False  # equal shifts of all intercepts change nothing
    # Largest relative change of a loss's curvature for a unit by which its scores move apart.
    curvature_drift: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 1 / LARGEST <= self.C <= LARGEST:
            raise InvalidInput(
                f"C is {self.C}; expected a positive number, {1 / LARGEST:g} to {LARGEST:g}"
            )
        if self.intercept not in get_args(Intercept):
            raise InvalidInput(
                f"intercept is {self.intercept!r}; expected one of {', '.join(get_args(Intercept))}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All settings; the kind of intercept only where it is not the family's own."""
        known = asdict(self)
        if self._kind == self.default_intercept:
            del known["intercept"]
        return known

    @property
    def intercept_penalty(self) -> float:
        """Factor of an intercept's square in the penalty, as 1 is of a coefficient's."""
        return float(self._kind != "free")

    @property
    def _kind(self) -> Intercept:
        return self.default_intercept if self.intercept == "default" else self.intercept

    def design(self, features: Float[Tensor, "points features"]) -> Float[Tensor, "points columns"]:
        """[features, 1], or [features, 0] for models without an intercept."""
        last = features.new_full((len(features), 1), float(self._kind != "none"))
        return torch.cat([features, last], 1)

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
        self,
        scores: Float[Tensor, "outputs subsets points"],
        labels: Num[Tensor, " points"],
        out: Tensor | None = None,
    ) -> Float[Tensor, "outputs subsets points"]:
        """First derivative of the loss in the scores; `out` is room for it, perhaps `scores`."""

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
        weights = points.weighted(weights)
        penalised = self._penalty(points, like=parameters) * parameters
        return (penalised * parameters).sum(1) / 2 + self.C * (weights * losses).sum(1)

    def gradient(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, "subsets parameters"]:
        """Penalised theta + C sum_i w_i (dloss/dm)_i a_i."""
        return self.gradient_function(weights, points)(parameters)

    def gradient_function(
        self,
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Callable[[Tensor], Tensor]:
        """Two products with the points for each call."""
        design, scale = self.design(points.features), self.C * points.weighted(weights)
        penalty = self._penalty(points, like=weights)

        outputs = self.outputs(points.classes)
        room = design.new_empty(outputs, *weights.shape)

        def gradient(parameters: Tensor) -> Tensor:
            theta = parameters.unflatten(1, (-1, design.shape[1])).transpose(0, 1)
            if torch.is_grad_enabled() or theta.shape[1] != len(weights):
                slopes = self.score_slopes(theta @ design.T, points.labels) * scale
            else:
                # All in one place: new memory for the largest of all arrays costs as much as a product.
                scores = torch.matmul(theta, design.T, out=room)
                slopes = self.score_slopes(scores, points.labels, out=room).mul_(scale)
            data = slopes @ design
            return torch.addcmul(data.transpose(0, 1).flatten(1), penalty, parameters)

        return gradient

    def hessian_vector_product(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
        vectors: Float[Tensor, "subsets parameters"],
    ) -> Float[Tensor, "subsets parameters"]:
        """Penalised V + C sum_i w_i H_i (V a_i) a_i'."""
        curvature = self.score_curvature(
            self._scores(parameters, points.features),
            points.labels,
            self.C * points.weighted(weights),
        )
        directions = self._scores(vectors, points.features)
        data = self.curvature_product(curvature, directions) @ self.design(points.features)
        return data.transpose(0, 1).flatten(1) + self._penalty(points, like=parameters) * vectors

    def hessian_product(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Callable[[Tensor], Tensor]:
        """Two products with the points for each call; the curvature is computed once."""
        design = self.design(points.features)
        curvature = self.score_curvature(
            self._scores(parameters, points.features),
            points.labels,
            self.C * points.weighted(weights),
        )
        penalty = self._penalty(points, like=parameters)
        outputs = self.outputs(points.classes)
        room = design.new_empty(outputs, len(parameters), len(design))

        def product(vectors: Tensor) -> Tensor:
            along = vectors.unflatten(1, (outputs, -1)).transpose(0, 1)
            if torch.is_grad_enabled():
                bent = self.curvature_product(curvature, along @ design.T)
            else:  # in one place, like the gradient's scores
                bent = torch.matmul(along, design.T, out=room)
                bent = self.curvature_product(curvature, bent, out=bent)
            data = bent @ design
            return torch.addcmul(data.transpose(0, 1).flatten(1), penalty, vectors)

        return product

    def inverse_hessians(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, "subsets parameters parameters"] | None:
        """For one score with kinks and few features: by one product with the points' outer products.

        A smooth loss keeps its curvature between steps, and few products solve well enough.
        """
        if self.smooth or self.outputs(points.classes) > 1 or parameters.shape[1] > DENSE:
            return None
        curvature = self.score_curvature(
            self._scores(parameters, points.features),
            points.labels,
            self.C * points.weighted(weights),
        )[0][0]
        penalty = self._penalty(points, like=parameters).expand(len(parameters), -1)
        return OuterProducts.of(self.design(points.features)).inverses(curvature, penalty)

    def correct(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Bool[Tensor, "subsets points"]:
        """Whether the sign of a single score, or the highest of several, is the label's."""
        if scores.shape[2] == 1:
            return (scores[..., 0] > 0) == labels.to(torch.bool)
        return scores.argmax(2) == labels

    def margins(
        self,
        scores: Float[Tensor, "subsets points outputs"],
        labels: Num[Tensor, " points"],
    ) -> Float[Tensor, "subsets points"]:
        """Signed score; of several the label's against the others: log odds, or minus the highest."""
        if scores.shape[2] == 1:
            return scores[..., 0] * (labels * 2 - 1)
        return true_class_margins(scores, labels, soft=self.probabilistic)

    def point_gradients(
        self, parameters: Float[Tensor, " parameters"], points: Points
    ) -> Float[Tensor, "points parameters"]:
        """C (dloss/dm)_i a_i of each point."""
        slopes = self.score_slopes(self._scores(parameters[None], points.features), points.labels)
        slopes = points.weighted(slopes[:, 0])
        terms = self.C * slopes.T[:, :, None] * self.design(points.features)[:, None, :]
        return terms.flatten(1)

    def bytes_per_subset(self, points: Points) -> int:
        """Scores of all points, in the working precision of the solver."""
        return 4 * len(points.features) * self.outputs(points.classes)

    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """Empty subsets; for free intercepts of logistic and softmax also those that miss a class."""
        if self.probabilistic and not self.intercept_penalty:
            return (counts == 0).any(1)  # the intercept would run away
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

    def distance_bound(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],
        points: Points,
    ) -> Float[Tensor, " subsets"]:
        """By strong convexity, free intercepts profiled out (see certificate.py)."""
        return distance_bound(self, parameters, weights, points)

    def solver(self, points: Points) -> Solver:
        """Newton's method, in C where that has the loss (compiled/), else by torch (newton.py)."""
        return linear_solver(self, points)

    def _scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        theta = parameters.unflatten(1, (-1, features.shape[1] + 1)).transpose(0, 1)
        scores = theta[..., :-1] @ features.T
        return scores if self._kind == "none" else scores + theta[..., -1:]

    def _penalty(self, points: Points, *, like: Tensor) -> Tensor:
        penalty = like.new_ones(self.outputs(points.classes), points.features.shape[1] + 1)
        penalty[:, -1] = self.intercept_penalty
        return penalty.flatten()


def linear_solver(model: Linear, points: Points) -> Solver:
    """Newton's method, in C where that has the loss (compiled/), else by torch (newton.py)."""
    if points.features.shape[1] > len(points.features):
        return _row_space_solver(model, points)
    if model.compiled is None:
        return newton_solver(model, points)
    general = partial(newton_solver, model, points)
    return compiled_solver(model.compiled, model, points, otherwise=general) or general()


def one_by_one(solvers: Sequence[Solver]) -> Solver:
    """The solver of outputs that have nothing in common but the points, from one for each."""

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        starts = [None] * len(solvers) if start is None else start.chunk(len(solvers), 1)
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


def _row_space_solver(model: Linear, points: Points) -> Solver:
    """The solver for more features than points, in time linear in the features.

    The penalty keeps coefficients in the space of the rows, and does not change when that is turned:
    features = small basis', with an orthonormal basis of as many columns as there are points.
    """
    basis, small = torch.linalg.qr(points.features.T)
    solver = linear_solver(model, replace(points, features=small.T.contiguous()))

    lengths = points.features.norm(dim=0)

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        begin = None if start is None else _turned(start, basis)
        found = solver(weights, start=begin, tolerance=tolerance)
        digits = _digits_lost(_turned(found.parameters, basis.T), lengths)
        for lost in digits[found.converged & (digits > 0)].unique().tolist():
            rows = found.converged & (digits == lost)
            again = solver(
                weights[rows], start=found.parameters[rows], tolerance=tolerance / 10**lost
            )
            for name, column in vars(found).items():
                column[rows] = getattr(again, name)
        parameters = _turned(found.parameters, basis.T)
        norm = model.gradient(parameters, weights, points).abs().amax(1)
        return replace(found, parameters=parameters, gradient_norm=norm)

    return solve


def _digits_lost(parameters: Tensor, lengths: Tensor) -> Tensor:
    """How many more digits each row needs in the space of the rows, beyond those to spare there.

    An error there has a part of the coefficients' size, in any direction. Times the lengths of the
    columns it has a larger part, if the coefficients lie in short columns.
    """
    coefficients = parameters.unflatten(1, (-1, len(lengths) + 1))[..., :-1]
    size, sized = coefficients.norm(dim=(1, 2)), (coefficients * lengths).norm(dim=(1, 2))
    strain = lengths.max() * size / sized
    return (SURE * strain).log10().ceil().nan_to_num(0, 0, 0).clamp(min=0).long()


def _turned(parameters: Tensor, by: Tensor) -> Tensor:
    """Parameters whose coefficients are multiplied with a matrix [old, new]."""
    theta = parameters.unflatten(1, (-1, len(by) + 1))
    return torch.cat([theta[..., :-1] @ by, theta[..., -1:]], 2).flatten(1)


def signs_of(labels: Tensor, like: Tensor) -> Tensor:
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
