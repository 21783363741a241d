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

Inside, scores are [outputs, subsets, points], so that one matrix product serves all subsets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelpred.targets.certificate import distance_bound
from modelpred.targets.compiled.newton import compiled_solver, is_compiled
from modelpred.targets.matrices import OuterProducts
from modelpred.targets.newton import SURE, newton_solver
from modelpred.targets.points import Points
from modelpred.targets.row_space import RowSpace, row_space
from modelpred.targets.score_loss import Curvature, ScoreLoss
from modelpred.targets.shapes import (
    Features,
    Labels,
    Parameters,
    ParameterVector,
    PerPoint,
    Scores,
    Weights,
    WeightVector,
)
from modelpred.targets.solving import Solution, Solver

DENSE = 64  # parameters up to which Hessians are made and inverted


@dataclass(frozen=True)
class Linear(ScoreLoss):
    """What all linear families share; a family adds its loss as a function of the scores."""

    def parameter_count(self, features: int, classes: int) -> int:
        """Outputs x (features + 1)."""
        return self.outputs(classes) * (features + 1)

    def scores(self, parameters: Parameters, features: Features) -> Scores:
        """Coefficients times features plus intercept."""
        return self._scores(parameters, features).permute(1, 2, 0)

    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """Loss of each point, neither weighted nor multiplied with C."""
        return self.score_losses(scores.permute(2, 0, 1), labels)

    def objective(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, " subsets"]:
        """1/2 sum of squares + C sum_i w_i loss_i."""
        losses = self.score_losses(self._scores(parameters, points.features), points.labels)
        weights = points.weighted(weights)
        penalised = self._penalty(points, like=parameters) * parameters
        return (penalised * parameters).sum(1) / 2 + self.C * (weights * losses).sum(1)

    def gradient(self, parameters: Parameters, weights: Weights, points: Points) -> Parameters:
        """Penalised theta + C sum_i w_i (dloss/dm)_i a_i."""
        return self.gradient_function(weights, points)(parameters)

    def gradient_function(self, weights: Weights, points: Points) -> Callable[[Tensor], Tensor]:
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
        self, parameters: Parameters, weights: Weights, points: Points, vectors: Parameters
    ) -> Parameters:
        """Penalised V + C sum_i w_i H_i (V a_i) a_i'."""
        curvature = self._curvature(parameters, weights, points)
        directions = self._scores(vectors, points.features)
        data = self.curvature_product(curvature, directions) @ self.design(points.features)
        return data.transpose(0, 1).flatten(1) + self._penalty(points, like=parameters) * vectors

    def hessian_product(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Callable[[Tensor], Tensor]:
        """Two products with the points for each call; the curvature is computed once."""
        design = self.design(points.features)
        curvature = self._curvature(parameters, weights, points)
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

    def hessian(
        self, parameters: ParameterVector, weights: WeightVector, points: Points
    ) -> Float[Tensor, "parameters parameters"]:
        """Penalty + C sum_i w_i H_i (x) a_i a_i': one product of the design for each pair of outputs."""
        design, outputs = self.design(points.features), self.outputs(points.classes)
        curvature = self._curvature(parameters[None], weights[None], points)
        blocks = design.new_empty(outputs, design.shape[1], outputs, design.shape[1])
        for first in range(outputs):
            unit = design.new_zeros(outputs, 1, len(design))
            unit[first] = 1
            bent = self.curvature_product(curvature, unit)[:, 0]
            for second in range(first + 1):
                block = (design * bent[second, :, None]).T @ design
                blocks[first, :, second] = block
                blocks[second, :, first] = block.T
        size = parameters.shape[0]
        penalty = self._penalty(points, like=parameters)
        return blocks.reshape(size, size) + torch.diag(penalty)

    def output_hessians(
        self,
        parameters: ParameterVector,
        weights: WeightVector,
        points: Points,
        *,
        negligible: float = 0.0,
    ) -> Float[Tensor, "outputs size size"]:
        """Diagonal blocks of `hessian`, without forming the rest.

        Args:
            parameters: of one subset.
            weights: of that subset.
            points: the pool.
            negligible: share of an output's curvature whose points are left out, those of least.
        """
        design, penalty = self.design(points.features), self._penalty(points, like=parameters)
        blocks = [
            _weighted_product(design, bent, negligible)
            for bent in self.output_curvatures(parameters, weights, points)
        ]
        return torch.stack(blocks) + torch.diag_embed(penalty.unflatten(0, (len(blocks), -1)))

    def output_curvatures(
        self, parameters: ParameterVector, weights: WeightVector, points: Points
    ) -> Float[Tensor, "outputs points"]:
        """C w_i times the second derivative of each point's loss in each score alone."""
        curvature = self._curvature(parameters[None], weights[None], points)
        return curvature[0][:, 0].expand(self.outputs(points.classes), -1)

    def inverse_hessians(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, "subsets parameters parameters"] | None:
        """For one score with kinks and few features: by one product with the points' outer products.

        A smooth loss keeps its curvature between steps, and few products solve well enough.
        """
        if self.smooth or self.outputs(points.classes) > 1 or parameters.shape[1] > DENSE:
            return None
        curvature = self._curvature(parameters, weights, points)[0][0]
        penalty = self._penalty(points, like=parameters).expand(len(parameters), -1)
        return OuterProducts.of(self.design(points.features)).inverses(curvature, penalty)

    def point_gradients(
        self, parameters: ParameterVector, points: Points
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

    def representative(self, parameters: Parameters, features: int) -> Parameters:
        """The same parameters; softmax intercepts are shifted to zero mean."""
        if not self.shift_free:
            return parameters
        theta = parameters.unflatten(1, (-1, features + 1)).clone()
        theta[..., -1] -= theta[..., -1].mean(1, keepdim=True)
        return theta.flatten(1)

    def distance_bound(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, " subsets"]:
        """By strong convexity, free intercepts profiled out (see certificate.py)."""
        return distance_bound(self, parameters, weights, points)

    def solver(self, points: Points) -> Solver:
        """Newton's method, in C where that has the loss (compiled/), else by torch (newton.py)."""
        return linear_solver(self, points)

    def parameter_names(
        self, features: Sequence[str], classes: Sequence[str]
    ) -> list[tuple[str, str]]:
        """For each output its class, where there are several, and each feature, then the intercept."""
        outputs = self.outputs(len(classes))
        return [
            (classes[output] if outputs > 1 else "", name)
            for output in range(outputs)
            for name in (*features, "intercept")
        ]

    def _scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        theta = parameters.unflatten(1, (-1, features.shape[1] + 1)).transpose(0, 1)
        scores = theta[..., :-1] @ features.T
        return scores if self._kind == "none" else scores + theta[..., -1:]

    def _curvature(self, parameters: Tensor, weights: Tensor, points: Points) -> Curvature:
        scale = self.C * points.weighted(weights)
        return self.score_curvature(self._scores(parameters, points.features), points.labels, scale)

    def _penalty(self, points: Points, *, like: Tensor) -> Tensor:
        penalty = like.new_ones(self.outputs(points.classes), points.features.shape[1] + 1)
        penalty[:, -1] = self.intercept_penalty
        return penalty.flatten()


def _weighted_product(design: Tensor, weights: Tensor, negligible: float) -> Tensor:
    """sum_i weights_i a_i a_i' over the points whose weights are not among the negligible ones."""
    if negligible:
        ordered, places = weights.sort()
        strong = places[ordered.cumsum(0) > negligible * ordered.sum()]
        design, weights = design[strong], weights[strong]
    return (design * weights[:, None]).T @ design


def linear_solver(model: Linear, points: Points) -> Solver:
    """Newton's method, in C where that has the loss (compiled/), else by torch (newton.py)."""
    if (space := row_space(points)) is not None:
        return _row_space_solver(model, points, space)
    if model.compiled is None:
        return newton_solver(model, points)
    general = partial(newton_solver, model, points)
    return compiled_solver(model.compiled, model, points, otherwise=general) or general()


def trains_in_c(model: object, points: Points) -> bool:
    """Whether a compiled kernel trains the family on these points; a Newton step by torch costs more."""
    if not isinstance(model, Linear) or model.compiled is None:
        return False
    space = row_space(points)
    return is_compiled(model.compiled, model, points if space is None else space.points)


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


def row_space_of(model: object, points: Points) -> RowSpace | None:
    """The space of the rows for a linear family with more features than points, else None."""
    return row_space(points) if isinstance(model, Linear) else None


def _row_space_solver(model: Linear, points: Points, space: RowSpace) -> Solver:
    """The solver for more features than points, in time linear in the features."""
    solver = linear_solver(model, space.points)

    lengths = points.features.norm(dim=0)

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        begin = None if start is None else space.reduced(start)
        found = solver(weights, start=begin, tolerance=tolerance)
        digits = _digits_lost(space.lifted(found.parameters), lengths)
        for lost in digits[found.converged & (digits > 0)].unique().tolist():
            rows = found.converged & (digits == lost)
            again = solver(
                weights[rows], start=found.parameters[rows], tolerance=tolerance / 10**lost
            )
            for name, column in vars(found).items():
                column[rows] = getattr(again, name)
        parameters = space.lifted(found.parameters)
        norm = model.gradient(parameters, weights, points).abs().amax(1)
        rounded = _length_of_rounding(model, parameters, weights, points, space)
        size = parameters.unflatten(1, (-1, len(lengths) + 1))[..., :-1].norm(dim=(1, 2))
        near = rounded <= SURE * tolerance * size
        return replace(
            found, parameters=parameters, gradient_norm=norm, converged=found.converged & near
        )

    return solve


def _length_of_rounding(
    model: Linear, parameters: Tensor, weights: Tensor, points: Points, space: RowSpace
) -> Tensor:
    """How far the rounding of the row space may move each row's coefficients [subsets].

    The decomposition rounds all entries of a row of the features by parts of the longest. Its residual
    times the slopes is missing in the gradient, and the Hessian is at least the penalty's, 1.
    """
    residual = points.features - space.points.features @ space.basis.T
    scores = model.scores(parameters, points.features).permute(2, 0, 1)
    slopes = model.score_slopes(scores, points.labels) * (model.C * points.weighted(weights))
    return (slopes @ residual).norm(dim=(0, 2))


def _digits_lost(parameters: Tensor, lengths: Tensor) -> Tensor:
    """How many more digits each row needs in the space of the rows, beyond those to spare there.

    An error there has a part of the coefficients' size, in any direction. Times the lengths of the
    columns it has a larger part, if the coefficients are those of short columns.
    """
    coefficients = parameters.unflatten(1, (-1, len(lengths) + 1))[..., :-1]
    size, sized = coefficients.norm(dim=(1, 2)), (coefficients * lengths).norm(dim=(1, 2))
    strain = lengths.max() * size / sized
    return (SURE * strain).log10().ceil().nan_to_num(0, 0, 0).clamp(min=0).long()


def signs_of(labels: Tensor, like: Tensor) -> Tensor:
    """+1 for the output's own class, -1 for others: [points] for one output, else with outputs."""
    if len(like) == 1:
        return labels.to(like.dtype) * 2 - 1
    indices = torch.arange(len(like), device=like.device)
    return (labels == indices[:, None, None]).to(like.dtype) * 2 - 1
