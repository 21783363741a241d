"""Long stable steps land where many short ones do, and more gradients come nearer to training."""

import dataclasses
import math

import pytest
import torch

from modelpred.metrics import relative_errors
from modelpred.predictor.coarse_fit import fit_coarse_training, plans
from modelpred.predictor.coarse_training import Plan, chebyshev_step
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import target_model, train_targets
from tests.predictor.conftest import make_points


@pytest.fixture(scope="module")
def network():
    """A small network, its pool and 80 trained subsets."""
    points = make_points("softmax", 40)
    model = target_model("mlp", hidden=3, steps=80, precision="float64")
    drawn = draw_subsets(
        SubsetsConfig(fit={"uniform": 80}, validation={"uniform": 1}, test={"uniform": 1}),
        points=40,
    )
    weights = drawn.weights.to(torch.float64)
    trained = train_targets(model, points.features, points.labels, weights, classes=3)
    return model, points, weights, trained.parameters


@pytest.fixture(scope="module")
def anchors(network):
    """The short training fitted to them."""
    return fit_coarse_training(*network)


def test_a_chebyshev_step_of_one_stage_is_a_step_of_euler():
    start = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    moved = chebyshev_step(lambda here: 3 * here, start, length=0.1, stages=1)
    torch.testing.assert_close(moved, start - 0.1 * 3 * start, rtol=1e-12, atol=0)


def test_a_chebyshev_step_is_of_first_order():
    start = torch.tensor([[1.0]], dtype=torch.float64)
    errors = [
        abs(float(chebyshev_step(lambda here: here, start, length=t, stages=5)) - math.exp(-t))
        for t in (0.1, 0.05)
    ]
    # One step of a scheme of first order errs by a multiple of the squared length.
    assert 3.7 < errors[0] / errors[1] < 4.3


@pytest.mark.parametrize("stages", [2, 5, 8])
def test_a_chebyshev_step_is_stable_as_far_as_promised(stages):
    curvatures = torch.linspace(0, 1.93 * stages**2, 500, dtype=torch.float64)
    moved = chebyshev_step(
        lambda here: curvatures * here, torch.ones_like(curvatures), length=1.0, stages=stages
    )
    assert float(moved.abs().max()) <= 1 + 1e-12
    # Well inside, where plain steps of the same cost would grow, everything shrinks.
    assert float(moved[curvatures > 1].abs().max()) < 0.97


def test_plans_spend_their_gradients_and_no_more():
    for budget in (1, 5, 38):
        found = plans(budget, reach=1.0)
        assert found
        assert {plan.gradients for plan in found} == {budget}
    lengths = Plan(opening=20, pieces=3, stages=6, growth=2.0, reach=0.5).lengths(140.0)
    assert lengths == pytest.approx([10, 20, 40])


def test_opening_alone_is_training(network, anchors):
    model, points, weights, true = network
    bound = anchors.bind(model, points, torch.float64)
    reached = bound.follow(
        Plan(opening=80, pieces=0, stages=1, growth=1.0, reach=1.0), weights[:10]
    )
    torch.testing.assert_close(reached, true[:10], rtol=1e-9, atol=1e-10)


def test_more_gradients_come_nearer(network, anchors):
    model, points, weights, true = network
    bound = anchors.bind(model, points, torch.float32)
    start = bound(weights.float()).double()
    refined = [bound.refined(points, weights, start=lambda: start, gradients=k) for k in (10, 20)]
    errors = [relative_errors(answer, true).mean() for answer in (start, *refined)]
    assert errors[2] < errors[1] < errors[0] < 0.25


def test_with_the_gradients_of_training_it_is_training(network, anchors):
    model, points, weights, true = network
    longer = dataclasses.replace(anchors, lengthens=torch.ones(1, dtype=torch.float64))
    bound = longer.bind(model, points, torch.float32)
    assert torch.equal(bound.refined(points, weights, start=lambda: true, gradients=60), true)


def test_the_ridge_is_left_out_where_it_does_not_help(network, anchors):
    """Targets that are where the plan ends leave nothing to learn, and noise teaches nothing."""
    model, points, weights, _ = network
    bound = anchors.bind(model, points, torch.float32)
    reached = bound.follow(bound.plan, weights.float()).double()
    found = fit_coarse_training(model, points, weights, reached)
    assert float(found.kept) == 1
    assert not bool(found.coefficients.any())


def test_a_family_without_fixed_steps_is_refused(network):
    _, points, weights, true = network
    with pytest.raises(TypeError, match="softmax is not trained by fixed steps"):
        fit_coarse_training(target_model("softmax"), points, weights, true)
