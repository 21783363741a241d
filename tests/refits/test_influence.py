"""Expansions around the full model: derivatives, exact cases, and the obvious slow formulas."""

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.refits import FullModel, Influence, NewtonStep, RescaledInfluence
from modelpred.targets import target_model

EXPANSIONS = [Influence, RescaledInfluence, NewtonStep]


def close(actual, expected, tolerance):
    scale = expected.norm(dim=-1).max()
    assert (actual - expected).norm(dim=-1).max() <= tolerance * scale


def test_influence_is_the_derivative_of_retraining(case):
    step = 1e-4
    influence = Influence(case.model, case.points, case.full)
    rows = torch.eye(len(case.points.labels), dtype=torch.float64)[:12] * step
    ahead, behind = case.truth(1 + rows), case.truth(1 - rows)
    # Central differences err by step² times the third derivative; targets are solved to 1e-10.
    close(influence.derivatives[:12], (ahead - behind) / (2 * step), 1e-5)


def test_influence_adds_up_over_points(case):
    influence = Influence(case.model, case.points, case.full)
    weights = case.weights(5)
    expected = case.full + ((weights - 1)[:, :, None] * influence.derivatives).sum(dim=1)
    close(influence(weights), expected, 1e-12)


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_the_full_set_gives_the_full_model(case, expansion):
    refit = expansion(case.model, case.points, case.full)
    everything = torch.ones(2, len(case.points.labels), dtype=torch.uint8)
    assert torch.equal(refit(everything), case.full.expand(2, -1))


def test_one_newton_step_is_exact_for_ridge(ridge):
    newton = NewtonStep(ridge.model, ridge.points, ridge.full, tolerance=1e-13)
    weights = ridge.weights(20)
    close(newton(weights), ridge.truth(weights), 1e-9)  # the targets' own tolerance


def test_newton_step_is_the_dense_solution_row_by_row(case):
    weights = case.weights(8)
    steps = []
    for row in weights.to(torch.float64):
        hessian = case.model.hessian(case.full, row, case.points)
        gradient = case.model.gradient(case.full[None], row[None], case.points)[0]
        # Least squares of least norm: softmax's common intercept shift stays as it is.
        steps.append(torch.linalg.pinv(hessian, hermitian=True) @ gradient)
    expected = case.full - torch.stack(steps)
    exact = NewtonStep(case.model, case.points, case.full, tolerance=1e-12)
    close(exact(weights), expected, 1e-8)  # conjugate gradients to 1e-12 of the gradient
    close(NewtonStep(case.model, case.points, case.full)(weights), expected, 1e-2)


def test_rescaled_influence_is_its_dense_formula(case):
    weights = case.weights(8).to(torch.float64)
    penalty = case.model.hessian(
        case.full, torch.zeros(len(case.points.labels)).double(), case.points
    )
    data = case.model.hessian(case.full, torch.ones(len(case.points.labels)).double(), case.points)
    gradients = case.model.point_gradients(case.full, case.points)
    expected = torch.stack(
        [
            case.full
            - torch.linalg.pinv(penalty + row.mean() * (data - penalty), hermitian=True)
            @ ((row - 1) @ gradients)
            for row in weights
        ]
    )
    rescaled = RescaledInfluence(case.model, case.points, case.full)
    close(rescaled(weights), expected, 1e-9)


def test_rescaled_influence_is_exact_when_every_weight_is_scaled(ridge):
    """The subset's Hessian is then the scaled one, and ridge is quadratic."""
    rescaled = RescaledInfluence(ridge.model, ridge.points, ridge.full)
    weights = torch.tensor([0.5, 2.0, 3.0]).double()[:, None].expand(-1, 40)
    close(rescaled(weights), ridge.truth(weights), 1e-8)


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_batched_equals_one_by_one(case, expansion):
    refit = expansion(case.model, case.points, case.full)
    weights = case.weights(7)
    loop = torch.cat([refit(row[None]) for row in weights])
    # The Newton step stops its block when the worst row is solved to 1e-3.
    close(refit(weights), loop, 1e-2 if expansion is NewtonStep else 1e-12)


def test_blocks_of_the_newton_step_do_not_matter(case):
    weights = case.weights(9)
    whole, parts = (
        NewtonStep(case.model, case.points, case.full, tolerance=1e-12, block=block)(weights)
        for block in (100, 4)
    )
    close(whole, parts, 1e-9)


def test_each_expansion_is_closer_than_the_one_before(logistic):
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(200, 40, generator=generator) < 0.7).to(torch.uint8)
    truth = logistic.truth(weights)
    errors = [
        (refit(logistic.model, logistic.points, logistic.full)(weights) - truth).norm(dim=1).mean()
        for refit in (FullModel, Influence, RescaledInfluence, NewtonStep)
    ]
    assert errors[1] < errors[0]
    assert errors[3] < errors[2] < errors[1]


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_an_empty_subset_gives_finite_parameters(case, expansion):
    refit = expansion(case.model, case.points, case.full)
    assert refit(torch.zeros(1, 40)).isfinite().all()


def test_steps_keep_softmax_intercepts_centred(softmax):
    newton = NewtonStep(softmax.model, softmax.points, softmax.full)
    intercepts = newton(softmax.weights(5)).unflatten(1, (3, -1))[:, :, -1]
    assert intercepts.mean(dim=1).abs().max() < 1e-9


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_weights_of_another_pool_are_refused(logistic, expansion):
    refit = expansion(logistic.model, logistic.points, logistic.full)
    with pytest.raises(InvalidInput, match="weights have 39 points but the data set has 40"):
        refit(torch.ones(2, 39))


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_a_network_has_no_expansion(logistic, expansion):
    network = target_model("mlp", hidden=2)
    full = torch.zeros(network.parameter_count(4, 2), dtype=torch.float64)
    with pytest.raises(InvalidInput, match="mlp has no expansion"):
        expansion(network, logistic.points, full)
