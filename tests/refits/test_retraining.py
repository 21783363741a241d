"""Retraining as a refit, and the table of rivals."""

import pytest
import torch

from modelpred.dataset.tables import InvalidInput
from modelpred.refits import FullModel, Retraining, rivals
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
        with pytest.raises(InvalidInput, match="were they drawn for another split"):
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


def test_a_network_has_the_rivals_that_are_defined_for_it(logistic):
    network = target_model("mlp", hidden=2, steps=5)
    weights = logistic.weights(20, high=2)
    parameters = Retraining(network, logistic.points)(weights)
    assert list(rivals(network, logistic.points, weights, parameters)) == [
        "full_model",
        "linear_datamodel",
    ]
