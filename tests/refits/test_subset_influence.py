"""Sums of effects of subsets against slow loops, and products of gradients against the gradients themselves."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, vmap

from modelpred.refits import subset_influence
from modelpred.refits.gradient_products import gradient_products
from modelpred.refits.subset_influence import Model, subset_sums
from modelpred.refits.training_effects import Residuals
from modelpred.targets import TorchTarget, points_of

ACTIVATIONS = st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid])


def rows(count, *, classes, seed):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 3))
    labels = generator.integers(0, classes, count) if classes else generator.normal(size=count)
    return points_of(features, labels, classes)


def gradients(target, points, parameters):
    def margin(theta, row, label):
        return target.margins(target.scores(theta[None], row[None]), label[None])[0, 0]

    return vmap(grad(margin), in_dims=(None, 0, 0))(parameters, points.features, points.labels)


networks = st.fixed_dictionaries(
    {
        "classes": st.sampled_from([0, 2, 3]),
        "widths": st.lists(st.integers(1, 5), max_size=2),
        "biases": st.tuples(*[st.booleans()] * 3),
        "activations": st.tuples(*[ACTIVATIONS] * 2),
    }
)


def made(network, *, seed):
    """A recipe of a chain of layers, and parameters."""
    classes = network["classes"]
    widths = [3, *network["widths"], classes or 1]

    def build():
        layers = []
        for place, sizes in enumerate(itertools.pairwise(widths)):
            layers += [activation() for activation in network["activations"][place - 1 : place]]
            layers.append(nn.Linear(*sizes, bias=network["biases"][place]))
        return nn.Sequential(*layers)

    loss = "cross_entropy" if classes else "mse"
    target = TorchTarget(build=build, loss=loss, precision="float64")
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(target.module.size, generator=generator, dtype=torch.float64)
    return target, classes, theta


@given(network=networks, seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_products_of_a_chain_are_those_of_its_gradients(network, seed):
    target, classes, theta = made(network, seed=seed)
    points = rows(9, classes=classes, seed=seed)
    found = gradient_products(target, points, 6, theta, seed=0)
    own = gradients(target, points, theta)
    torch.testing.assert_close(found, own @ own[:6].T)


class Doubled(nn.Module):
    """No chain: its layer is used twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, features):
        """Outputs of rows."""
        return self.last(self.layer(torch.tanh(self.layer(features))))


def test_products_of_another_module_are_projected():
    target = TorchTarget(build=Doubled, precision="float64")
    points = rows(600, classes=2, seed=0)
    found = gradient_products(target, points, 500, target.module.start, seed=0)
    own = gradients(target, points, target.module.start)
    exact = own @ own[:500].T
    # 500 dimensions keep products of n-dimensional gradients to about 1 / sqrt(500) of the lengths.
    lengths = own.norm(dim=1)
    assert ((found - exact).abs() / (lengths[:, None] * lengths[:500])).square().mean() < 4 / 500


@given(network=networks, seed=st.integers(0, 10**6), weighted=st.booleans())
@settings(max_examples=12, deadline=None)
def test_sums_are_those_of_a_loop_over_rows(network, seed, weighted):
    target, classes, theta = made(network, seed=seed)
    generator = np.random.default_rng(seed)
    points, tested = rows(8, classes=classes, seed=seed), rows(3, classes=classes, seed=seed + 1)
    if weighted:
        points = points_of(
            points.features, points.labels, classes, sample_weight=generator.uniform(0.5, 2, 8)
        )
    models = [
        Model(
            theta + torch.from_numpy(generator.normal(size=len(theta))),
            torch.from_numpy(generator.permutation([1, 1, 1, 1, 0, 0, 0, 0])),
        )
        for _ in range(2)
    ]
    subsets = torch.from_numpy(generator.integers(0, 2, (5, 8)))
    found = subset_sums(
        target,
        points,
        tested,
        models,
        subsets,
        centre=torch.full((8,), 0.5),
        quality=lambda _: 0.0,  # of equal ridges, the first
    )
    first, second, products = slow_sums(target, points, tested, models, subsets)
    torch.testing.assert_close(found.first, first)
    torch.testing.assert_close(found.products, products)
    for own, exact in zip(found.second, second, strict=classes != 0):
        torch.testing.assert_close(own, exact)


def slow_sums(target, points, tested, models, subsets):
    """The formulas of subset_influence.py, term by term."""
    count, numbers = len(points.labels), target.regression
    margins = torch.cat(
        [
            target.margins(target.scores(one.parameters[None], points.features), points.labels)
            for one in models
        ]
    )
    sizes = margins.abs() if numbers else torch.sigmoid(-margins)
    curvatures = torch.ones_like(sizes) if numbers else (sizes * (1 - sizes)).clamp(min=1e-6)
    taken = torch.stack([one.weights for one in models])
    residuals = Residuals.of(sizes[:, None], taken)
    means = Residuals.of(curvatures[:, None], taken)
    first, products = torch.zeros(5, 3).double(), torch.zeros(5, 5).double()
    second = [torch.zeros(5, 3).double() for _ in range(2)]
    for place, model in enumerate(models):
        own, tests = (gradients(target, each, model.parameters) for each in (points, tested))
        curvature = curvatures[place] * model.weights * points.factors
        gauss = own.T @ (curvature[:, None] * own)
        each = (curvature * own.square().sum(1))[curvature > 0]
        penalty = subset_influence.RIDGES[0] * each.mean()
        inverse = torch.linalg.inv(gauss + penalty * torch.eye(len(gauss), dtype=torch.float64))
        moves, by_test = own @ inverse @ own.T, tests @ inverse @ own.T
        factors = residuals.factors(sizes[place][None], model.weights, regression=numbers)[0]
        effects = (-margins[place] if numbers else sizes[place]) * factors
        x = (subsets - 0.5) * points.factors
        for w, i, j in itertools.product(range(5), range(count), range(count)):
            products[w] += x[w, i] * effects[i] * moves[i, j] * effects[j] * x[:, j]
            if i == j:
                first[w] += x[w, i] * by_test[:, i] * effects[i]
                continue
            for sums, mean in zip(second, (means.inside, means.outside), strict=True):
                moved = moves[i, j] * effects[j] * x[w, j]
                sums[w] -= x[w, i] * by_test[:, i] * mean[0, i] * moved
    return first, second, products


def test_the_second_order_predicts_least_squares_better():
    """Least squares with a penalty has all derivatives in closed form."""
    points, tested = rows(60, classes=0, seed=0), rows(20, classes=0, seed=1)
    target = TorchTarget(build=lambda: nn.Linear(3, 1, bias=False), loss="mse", precision="float64")
    generator = np.random.default_rng(0)

    def solved(weights):
        features = points.features
        gauss = features.T @ (weights[:, None] * features) + 1e-6 * torch.eye(3)
        return torch.linalg.solve(gauss, features.T @ (weights * points.labels))

    subsets = torch.from_numpy(
        np.stack([generator.permutation([1.0] * 30 + [0.0] * 30) for _ in range(40)])
    )
    models = [Model(solved(each), each) for each in subsets[:20]]
    truth = torch.stack(
        [tested.features @ solved(each) - tested.labels for each in subsets[20:]]
    ).double()
    found = subset_sums(
        target,
        points,
        tested,
        models,
        subsets[20:],
        centre=torch.full((60,), 0.5),
        quality=lambda _: 0.0,
    )
    truth = truth - truth.mean(0)

    def left(*sums):
        design = torch.stack([each - each.mean(0) for each in sums]).flatten(1).T
        fitted = design @ torch.linalg.lstsq(design, truth.flatten()[:, None]).solution
        return float((truth.flatten() - fitted[:, 0]).square().sum() / truth.square().sum())

    alone, both = left(found.first), left(found.first, *found.second)
    assert alone < 0.2
    assert both < 0.8 * alone


def test_too_little_memory_is_refused(monkeypatch):
    monkeypatch.setattr("modelpred.memory.UNCHECKED", 0)
    monkeypatch.setattr("modelpred.memory.available_memory", lambda: 10)
    points = rows(8, classes=2, seed=0)
    target = TorchTarget(build=lambda: nn.Linear(3, 2))
    model = Model(target.module.start, torch.ones(8))
    with pytest.raises(Exception, match="products of the gradients of 8 rows"):
        subset_sums(
            target,
            points,
            points,
            [model],
            torch.ones(2, 8),
            centre=torch.ones(8),
            quality=lambda _: 0.0,
        )
