"""Retraining as a refit, and the table of rivals."""

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.refits import EXACT, FineTuned, FullModel, Retraining, retrainings, rivals
from modelpred.targets import target_model

SAME_OPTIMUM = 1e-8  # two solutions with gradients below 1e-10, relative to their size


def test_retraining_is_a_stationary_point_of_each_subsets_own_objective(case):
    weights = case.weights(6)
    parameters = case.truth(weights)
    gradient = case.model.gradient(parameters, weights.double(), case.points)
    assert gradient.abs().max() <= 1e-10


def test_cold_and_warm_retraining_meet_in_one_optimum(case):
    weights = case.weights(9)
    warm = Retraining(case.model, case.points, tolerance=1e-10, start=case.full)
    assert torch.allclose(warm(weights), case.truth(weights), rtol=SAME_OPTIMUM, atol=SAME_OPTIMUM)
    assert (warm.name, case.truth.name) == ("warm_retraining", "retraining")


def test_train_tells_flags_and_progress(logistic):
    weights = logistic.weights(5)
    weights[2] = (logistic.points.labels == 1).long()  # one class only: no optimum
    steps = []
    trained = logistic.truth.train(
        weights, progress=lambda done, total, what: steps.append((done, total, what))
    )
    assert trained.degenerate.tolist() == [False, False, True, False, False]
    assert steps[-1] == (5, 5, "retraining")
    assert torch.equal(trained.parameters, logistic.truth(weights))


def test_weights_of_another_pool_are_refused(logistic):
    for refit in (logistic.truth, FullModel(logistic.model, logistic.points, logistic.full)):
        with pytest.raises(InvalidInput, match="drawn for another pool or split"):
            refit(torch.ones(1, 41))


def test_rivals_are_all_there_and_none_is_worse_than_no_change(case):
    weights = case.weights(300, high=2)
    table = rivals(case.model, case.points, weights, case.truth(weights))
    assert list(table) == [
        "full_model",
        "influence",
        "rescaled_influence",
        "newton_step",
        "linear_datamodel",
    ]
    held_out = case.weights(50, high=2, seed=2)
    truth = case.truth(held_out)
    errors = {name: float((refit(held_out) - truth).norm()) for name, refit in table.items()}
    assert max(errors, key=lambda name: errors[name]) == "full_model"
    assert errors["newton_step"] < errors["influence"]


def test_without_trained_subsets_there_is_no_linear_datamodel(case):
    nothing = case.weights(0)
    table = rivals(case.model, case.points, nothing, case.truth(nothing))
    assert "linear_datamodel" not in table
    assert "newton_step" in table


def test_a_network_has_the_rivals_that_are_defined_for_it(logistic):
    network = target_model("mlp", hidden=2, steps=5)
    weights = logistic.weights(20, high=2)
    parameters = Retraining(network, logistic.points)(weights)
    assert list(rivals(network, logistic.points, weights, parameters)) == [
        "full_model",
        "fine_tuned_10",
        "fine_tuned_30",
        "linear_datamodel",
    ]


@pytest.fixture
def network(logistic):
    """A small network, in the precision of the loop that judges it, and its full-data parameters."""
    model = target_model("mlp", hidden=3, steps=12, precision="float64")
    return model, Retraining(model, logistic.points)(torch.ones(1, 40))[0]


def test_fine_tuning_is_momentum_from_the_full_model_and_from_rest(logistic, network):
    model, full = network
    weights = logistic.weights(3, high=2)
    tuned = FineTuned(model, logistic.points, full, steps=4)(weights)
    for row, found in zip(weights.double(), tuned, strict=True):
        theta, velocity = full.clone(), torch.zeros_like(full)
        for _ in range(4):
            slope = model.gradient(theta[None], row[None], logistic.points)[0]
            velocity = model.momentum * velocity - model.learning_rate * slope
            theta = theta + velocity
        torch.testing.assert_close(found, theta, rtol=1e-10, atol=1e-12)


def test_fine_tuning_on_a_longer_pool_sees_the_added_points(logistic, network):
    model, full = network
    first = type(logistic.points)(logistic.points.features[:30], logistic.points.labels[:30], 2)
    grown = FineTuned(model, first, full, steps=3).for_points(logistic.points)
    weights = logistic.weights(2, high=2)
    torch.testing.assert_close(
        grown(weights), FineTuned(model, logistic.points, full, steps=3)(weights)
    )


def test_a_family_with_an_optimum_is_not_fine_tuned(logistic):
    with pytest.raises(InvalidInput, match="logistic is trained to its optimum"):
        FineTuned(logistic.model, logistic.points, logistic.full, steps=3)


def test_retraining_comes_cold_and_where_a_start_matters_not_warm(case, network, logistic):
    found = retrainings(case.model, case.points, start=case.full)
    assert tuple(found) == EXACT
    assert found["warm_retraining"].start is case.full
    model, full = network
    assert list(retrainings(model, logistic.points, start=full)) == ["retraining"]


def test_the_model_of_all_rows_is_that_of_all_weights_one_or_is_refused(case):
    assert torch.equal(case.truth.full_parameters(), case.full)
    beyond = 1e-300
    with pytest.raises(InvalidInput, match="model of all rows did not converge"):
        rivals(case.model, case.points, *bank_of(case), tolerance=beyond)


def bank_of(case):
    weights = case.weights(30)
    return weights, case.truth(weights)
