"""A family that defines only what it must gives the numbers of the same family with fast functions."""

# ruff: noqa: ARG002, D102 - signatures are the seam's, and so are their docstrings

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from modelpred.refits import Influence, NewtonStep, Retraining
from modelpred.targets import points_of, target_model
from modelpred.targets.model import ConvexFamily, IterativeFamily, TargetModel
from tests.targets.conftest import FAMILIES, pool

CONVEX = [name for name in FAMILIES if name != "mlp"]


class Delegating(TargetModel):
    """The abstract functions of another family; everything else is the default."""

    inner: Any
    regression = property(lambda self: self.inner.regression)
    probabilistic = property(lambda self: self.inner.probabilistic)

    def parameter_count(self, features, classes):
        return self.inner.parameter_count(features, classes)

    def scores(self, parameters, features):
        return self.inner.scores(parameters, features)

    def losses(self, scores, labels):
        return self.inner.losses(scores, labels)

    def objective(self, parameters, weights, points):
        return self.inner.objective(parameters, weights, points)


@dataclass(frozen=True)
class PlainConvex(Delegating, ConvexFamily):
    """A convex family."""

    inner: Any = None
    name = "plain_convex"


@dataclass(frozen=True)
class PlainSteps(Delegating, IterativeFamily):
    """A family of fixed steps."""

    inner: Any = None
    name = "plain_steps"

    def initial(self, features, classes):
        return self.inner.initial(features, classes)


def drawn(name, seed):
    classes, settings_of = FAMILIES[name]
    model, points = target_model(name.split("-")[0], **settings_of), pool(classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 4, (4, 40), generator=generator).double()
    weights[:, : max(classes, 1)] = 1
    size = model.parameter_count(6, classes)
    theta, vectors = (
        torch.randn(4, size, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return model, {"points": points, "weights": weights, "theta": theta, "vectors": vectors}


def assert_same_functions(plain, model, *, points, weights, theta, vectors):
    near = {"rtol": 1e-9, "atol": 1e-9}  # sums of 40 terms in another order
    torch.testing.assert_close(
        plain.gradient(theta, weights, points), model.gradient(theta, weights, points), **near
    )
    torch.testing.assert_close(
        plain.point_gradients(theta[0], points), model.point_gradients(theta[0], points), **near
    )
    scores = model.scores(theta, points.features)
    torch.testing.assert_close(
        plain.margins(scores, points.labels), model.margins(scores, points.labels), **near
    )
    if model.probabilistic:
        torch.testing.assert_close(plain.probabilities(scores), model.probabilities(scores), **near)
    if not model.regression:
        assert torch.equal(
            plain.correct(scores, points.labels), model.correct(scores, points.labels)
        )
    # Where a margin is just violated the squared hinge has a kink: no point of a draw is there.
    torch.testing.assert_close(
        plain.hessian_vector_product(theta, weights, points, vectors),
        model.hessian_vector_product(theta, weights, points, vectors),
        **near,
    )


@given(name=st.sampled_from(CONVEX), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_derivatives_of_a_convex_family_follow_from_its_objective(name, seed):
    model, rest = drawn(name, seed)
    assert_same_functions(PlainConvex(model), model, **rest)


@given(name=st.sampled_from(CONVEX), seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_the_general_solver_finds_the_optimum(name, seed):
    model, case = drawn(name, seed)
    points, weights = case["points"], case["weights"]
    ours = PlainConvex(model).solver(points)(weights, start=None, tolerance=1e-9)
    true = model.solver(points)(weights, start=None, tolerance=1e-9)
    assert bool(ours.converged.all())
    found = model.representative(ours.parameters, 6)
    # Equal shifts of all softmax intercepts make the same model.
    torch.testing.assert_close(found, true.parameters, rtol=1e-6, atol=1e-7)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_a_family_of_fixed_steps_trains_as_its_recipe_says(seed):
    model, case = drawn("mlp", seed)
    points, weights = case["points"], case["weights"]
    plain = PlainSteps(
        learning_rate=model.learning_rate, momentum=model.momentum, steps=model.steps, inner=model
    )
    assert_same_functions(plain, model, **case)
    ours = plain.solver(points)(weights, start=None, tolerance=1e-6)
    true = model.solver(points)(weights, start=None, tolerance=1e-6)
    # The fast solver multiplies in float32.
    torch.testing.assert_close(ours.parameters, true.parameters, rtol=1e-3, atol=1e-4)
    assert plain.recipe is plain
    assert plain.optimum is None


@dataclass(frozen=True)
class Poisson(ConvexFamily):
    """Counts y with mean exp(m): the loss is exp(m) - y m, and a ridge penalty on all parameters."""

    name = "poisson"
    regression = True

    def parameter_count(self, features, classes):
        return features + 1

    def scores(self, parameters, features):
        return (parameters[:, :-1] @ features.T + parameters[:, -1:])[..., None]

    def losses(self, scores, labels):
        return scores[..., 0].exp() - labels * scores[..., 0]

    def objective(self, parameters, weights, points):
        losses = self.losses(self.scores(parameters, points.features), points.labels)
        return parameters.square().sum(1) / 2 + (points.weighted(weights) * losses).sum(1)


@pytest.mark.parametrize("seed", range(2))
def test_four_functions_make_a_family(seed):
    """Trained as scipy trains it, and expanded around its full-data model."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    counts = torch.poisson((features[:, 0] / 2).exp(), generator=generator)
    points, model = points_of(features, counts, 0), Poisson()
    weights = torch.randint(0, 3, (5, 30), generator=generator).double()
    truth = Retraining(model, points, tolerance=1e-10)
    trained = truth(weights)
    for row in range(5):

        def objective(theta, row=row):
            return float(model.objective(torch.tensor(theta)[None], weights[row : row + 1], points))

        found = minimize(objective, [0.0] * 4, method="BFGS", options={"gtol": 1e-7})
        torch.testing.assert_close(
            trained[row], torch.tensor(found.x, dtype=torch.float64), rtol=1e-4, atol=1e-4
        )
    full = truth(torch.ones(1, 30))[0]
    left_out = torch.ones(10, 30) - torch.eye(10, 30)
    exact = truth(left_out)
    moved = (exact - full).norm(dim=1)
    for kind, share in ((Influence, 0.4), (NewtonStep, 0.1)):
        error = (kind(model, points, full)(left_out) - exact).norm(dim=1)
        assert float((error / moved).median()) <= share
