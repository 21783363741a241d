"""Margins of subsets from gradients at models of random subsets, to second order in the weights.

At a model trained on a subset v, with K the products of gradients (gradient_products.py), residuals
q_i = -d loss_i / d f_i and curvatures r_i = q_i (1 - q_i) (1 for numbers), R = diag(r) on the rows of v,

    V = (K - K R^1/2 (R^1/2 K R^1/2 + lambda)^-1 R^1/2 K) / lambda

is how far the margins move by a unit of residual (influence function with the Gauss-Newton matrix). Let o_i be
q_i times the factor of training_effects.py, which puts the residual that the row has in training in the place of
the one it has outside. With weights x less their mean,

    first[t]   = sum_i x_i V[t, i] o_i
    moved[i]   = sum_(j not i) V[i, j] o_j x_j
    second[t]  = -sum_i x_i V[t, i] r_i moved[i]

are the terms of first and second order: a row has less effect if other rows of the subset have made its residual
small. All are means over models; that of r is taken over the models with the row, and over those without it.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.memory import require_memory
from modelpred.refits.gradient_products import gradient_products
from modelpred.refits.training_effects import Residuals
from modelpred.targets import Points, TorchTarget

RIDGES = (0.03, 0.1, 0.3, 1.0)
"""lambda as shares of the mean of R^1/2 K R^1/2's diagonal."""
TRIED = 4  # models by which the ridge is chosen
LEAST_CURVATURE = 1e-6


@dataclass(frozen=True)
class Model:
    """A model of a subset.

    Attributes:
        parameters: trained.
        weights: of its subset, [points].
    """

    parameters: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Sums:
    """What the models' gradients say of subsets.

    Attributes:
        first: sums of effects.
        second: of second order, with r of the models that have the row, and of those that do not.
        products: (x o)' V (x o) of each two subsets.
    """

    first: Float[Tensor, "subsets test_rows"]
    second: tuple[Float[Tensor, "subsets test_rows"], ...]
    products: Float[Tensor, "subsets subsets"]

    def plus(self, other: "Sums") -> "Sums":
        """Both added."""
        pairs = zip(self.second, other.second, strict=True)
        return Sums(
            self.first + other.first,
            tuple(one + two for one, two in pairs),
            self.products + other.products,
        )


def subset_sums(
    target: TorchTarget,
    points: Points,
    tested: Points,
    models: Sequence[Model],
    subsets: Tensor,
    *,
    centre: Tensor,
    quality: Callable[[Tensor], float],
) -> Sums:
    """The sums for subsets.

    Args:
        target: the recipe of the models.
        points: the pool.
        tested: the test rows.
        models: of random subsets.
        subsets: weights [subsets, points].
        centre: the weights' mean, [points].
        quality: from `first` to a number, by which the ridge is chosen.

    Raises:
        InvalidInput: there is not the memory for the products of all rows.
    """
    count = len(points.labels)
    needed = 4 * (count + len(tested.labels)) * count * centre.to(target.working).element_size()
    require_memory(needed, what=f"products of the gradients of {count:,} rows")
    changes = (subsets.to(target.working) - centre.to(target.working)) * points.factors.to(
        target.working
    )
    influences = _Influences(target, points, points.joined(tested), tuple(models), changes)
    tried = [influences.sums(place, RIDGES) for place in range(min(TRIED, len(models)))]
    by_ridge = [_total(own) for own in zip(*tried, strict=True)]
    best = max(range(len(RIDGES)), key=lambda place: quality(by_ridge[place].first))
    rest = [
        influences.sums(place, RIDGES[best : best + 1])[0]
        for place in range(len(tried), len(models))
    ]
    return _total((by_ridge[best], *rest))


def _total(sums: Sequence[Sums]) -> Sums:
    total = sums[0]
    for own in sums[1:]:
        total = total.plus(own)
    return total


@dataclass(frozen=True, eq=False)
class _Influences:
    """What is common to all models: their margins of the pool, and the changes of subsets."""

    target: TorchTarget
    points: Points
    both: Points
    models: tuple[Model, ...]
    changes: Tensor

    @functools.cached_property
    def margins(self) -> Tensor:
        """Margins of the pool under each model."""
        parameters = torch.stack([each.parameters for each in self.models]).to(self.target.working)
        scores = self.target.scores(parameters, self.points.features)
        return self.target.margins(scores, self.points.labels)

    @functools.cached_property
    def sizes(self) -> Tensor:
        """|q| of the pool at each model."""
        return self.margins.abs() if self.target.regression else torch.sigmoid(-self.margins)

    @functools.cached_property
    def residuals(self) -> Residuals:
        """Means of |q| over models with the row and without it."""
        return self._means(self.sizes)

    @functools.cached_property
    def curvatures(self) -> Sequence[Tensor]:
        """Means of r over models with the row and without it; of numbers one for both."""
        found = self._means(self._curvature(self.sizes))
        return (found.inside[0], found.outside[0])[: 1 if self.target.regression else 2]

    def _means(self, values: Tensor) -> Residuals:
        weights = torch.stack([each.weights for each in self.models])
        return Residuals.of(values[:, None], weights)

    def _curvature(self, sizes: Tensor) -> Tensor:
        if self.target.regression:
            return torch.ones_like(sizes)
        return (sizes * (1 - sizes)).clamp(min=LEAST_CURVATURE)

    def sums(self, place: int, ridges: Sequence[float]) -> list[Sums]:
        """Those of one model, for each ridge."""
        model, own, regression = self.models[place], self.sizes[place], self.target.regression
        products = gradient_products(self.target, self.both, len(own), model.parameters, seed=place)
        factors = self.residuals.factors(own[None], model.weights, regression=regression)[0]
        effects = (-self.margins[place] if regression else own) * factors
        weights = self.points.weighted(model.weights[None].to(own))[0]
        roots = (weights * self._curvature(own)).sqrt()
        return [self._sums(products, effects, roots, ridge) for ridge in ridges]

    def _sums(self, products: Tensor, effects: Tensor, roots: Tensor, ridge: float) -> Sums:
        pool, tested = products.split([len(effects), len(products) - len(effects)])
        used = roots > 0
        roots = roots[used]
        rows = pool[used] * roots[:, None]  # R^1/2 K
        inner = rows[:, used] * roots
        penalty = float(ridge * inner.diagonal().mean())
        inner.diagonal().add_(penalty)
        factor = torch.linalg.cholesky(inner)

        def moved(left: Tensor) -> Tensor:
            """Return X V, given X K."""
            return (
                left - torch.cholesky_solve((left[:, used] * roots).T, factor).T @ rows
            ) / penalty

        each = torch.linalg.solve_triangular(factor, rows, upper=False).square_().sum(0)
        own = (pool.diagonal() - each) / penalty  # V[i, i]
        by_test = moved(tested)
        changes = self.changes * effects
        total = moved(changes @ pool)
        others = -self.changes * (total - changes * own)
        second = tuple((others * curvature) @ by_test.T for curvature in self.curvatures)
        return Sums(changes @ by_test.T, second, total @ changes.T)
