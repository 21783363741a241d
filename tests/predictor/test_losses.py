"""The three losses against their definitions, one subset at a time."""

import pytest
import torch

from modelpred.predictor.losses import (
    mean_training_loss,
    optimality_loss,
    relative_error_loss,
    squared_error_loss,
    utility_loss,
)


def test_optimality_is_zero_at_trained_parameters(case):
    weights, true = case.held_out
    assert (
        float(optimality_loss(case.model, true, weights, case.points)) < 1e-5
    )  # sqrt(1e-12) floor


def test_optimality_is_the_mean_gradient_length_of_a_slow_loop(case):
    weights, true = case.held_out
    predicted = true + 0.1
    slow = [
        case.model.gradient(row[None], weight[None], case.points).norm()
        for row, weight in zip(predicted, weights, strict=True)
    ]
    fast = optimality_loss(case.model, predicted, weights, case.points)
    assert float(fast) == pytest.approx(float(torch.stack(slow).mean()), rel=1e-9)


def test_optimality_moves_the_prediction_towards_the_optimum(case):
    weights, true = case.held_out
    predicted = (true + 0.05 * torch.ones_like(true)).requires_grad_()
    optimality_loss(case.model, predicted, weights, case.points).backward()
    assert predicted.grad is not None
    # The gradient of every family depends on its prediction: none is cut from the graph.
    assert bool((predicted.grad.norm(dim=1) > 0).all())
    inwards = ((predicted.detach() - true) * predicted.grad).sum(1)
    # Convexity: the angle to the way out is never obtuse where the Hessian is constant (ridge), and
    # rarely elsewhere at this distance.
    assert float((inwards > 0).double().mean()) > 0.9


def test_utility_is_one_number_a_subset(case):
    """A missing squeeze once averaged an n x n table here; equal losses must give exactly zero."""
    weights, true = case.held_out
    assert float(utility_loss(case.model, true, true, weights, case.points)) == 0
    predicted = true + 0.1
    slow = []
    for weight, ours, theirs in zip(weights, predicted, true, strict=True):
        losses = [
            (case.model.losses(case.model.scores(t[None], case.points.features), case.points.labels)[0]
             @ weight) / weight.sum()
            for t in (ours, theirs)
        ]  # fmt: skip
        slow.append((losses[0] - losses[1]).abs())
    fast = utility_loss(case.model, predicted, true, weights, case.points)
    assert float(fast) == pytest.approx(float(torch.stack(slow).mean()), rel=1e-9)


def test_training_loss_counts_a_row_of_weight_two_twice(case):
    weights, true = case.held_out
    once = mean_training_loss(case.model, true, weights, case.points)
    twice = mean_training_loss(case.model, true, 2 * weights, case.points)
    torch.testing.assert_close(once, twice)


def test_parameter_losses_by_hand():
    predicted = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    true = torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert float(relative_error_loss(predicted, true)) == pytest.approx((3 / 4 + 1) / 2)
    assert float(squared_error_loss(predicted, true)) == pytest.approx((9 + 1) / 4)
