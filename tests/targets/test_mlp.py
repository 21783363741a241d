"""The network against a plain loop that trains one model with autograd."""

import numpy as np
import pytest
import torch
from torch import nn

from modelpred.targets import target_model, train_targets

pytestmark = pytest.mark.usefixtures("trained_by")

SETTINGS = {"hidden": 5, "steps": 60, "learning_rate": 0.3, "weight_decay": 0.01, "seed": 4}


def plain_training(model, points, weights):
    """One model: torch modules, autograd, SGD with momentum."""
    features = points.features.shape[1]
    lower = nn.Linear(features, model.hidden, dtype=torch.float64)
    upper = nn.Linear(model.hidden, points.classes, dtype=torch.float64)
    initial = model.initial(features, points.classes)
    split = model.hidden * (features + 1)
    with torch.no_grad():
        for layer, part in ((lower, initial[:split]), (upper, initial[split:])):
            table = part.reshape(layer.out_features, layer.in_features + 1)
            layer.weight.copy_(table[:, :-1])
            layer.bias.copy_(table[:, -1])
    optimizer = torch.optim.SGD(
        [*lower.parameters(), *upper.parameters()],
        lr=model.learning_rate,
        momentum=model.momentum,
    )
    for _ in range(model.steps):
        optimizer.zero_grad()
        scores = upper(torch.tanh(lower(points.features)))
        losses = nn.functional.cross_entropy(scores, points.labels, reduction="none")
        decay = lower.weight.square().sum() + upper.weight.square().sum()
        objective = (weights * losses).sum() / weights.sum() + model.weight_decay / 2 * decay
        objective.backward()
        optimizer.step()
    tables = [torch.cat([part.weight, part.bias[:, None]], 1) for part in (lower, upper)]
    return torch.cat([table.detach().flatten() for table in tables])


@pytest.fixture
def network():
    return target_model("mlp", **SETTINGS, precision="float64")


def test_training_is_the_plain_loop(network, make_pool, counts):
    points = make_pool(3)
    weights = counts(points, 4)
    trained = train_targets(network, points.features, points.labels, weights)
    for row in range(4):
        expected = plain_training(network, points, weights[row])
        # 60 steps in float64; only the order of sums differs.
        torch.testing.assert_close(trained.parameters[row], expected, rtol=1e-10, atol=1e-10)
    assert bool(trained.converged.all())
    assert trained.iterations.tolist() == [60] * 4


def test_single_precision_is_near_the_plain_loop(make_pool, counts):
    # Gradients round at 6e-8 relative; state is float64, so nothing grows over the steps.
    points = make_pool(3)
    weights = counts(points, 4)
    network = target_model("mlp", **SETTINGS)
    assert network.settings["precision"] == "float32"
    trained = train_targets(network, points.features, points.labels, weights)
    for row in range(4):
        expected = plain_training(network, points, weights[row])
        assert float((trained.parameters[row] - expected).norm() / expected.norm()) <= 1e-6


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("points", "features", "hidden"), [(90, 7, 5), (70, 30, 16)])
def test_company_changes_no_bit(precision, points, features, hidden):
    generator = np.random.default_rng(0)
    table = generator.normal(size=(points, features))
    labels = generator.integers(0, 3, size=points)
    weights = generator.integers(0, 3, size=(100, points))
    weights[generator.random(weights.shape) < generator.random((100, 1))] = 0
    network = target_model("mlp", hidden=hidden, steps=40, precision=precision)

    def parameters(rows, block=None):
        return train_targets(network, table, labels, rows, block=block).parameters

    together = parameters(weights)
    order = generator.permutation(100)
    assert np.array_equal(parameters(weights, block=7), together)
    assert np.array_equal(parameters(weights[order], block=64), together[order])
    for row in (0, 17, 99):
        assert np.array_equal(parameters(weights[row : row + 1])[0], together[row])


def test_the_start_is_shared_and_follows_the_seed(network, make_pool):
    points = make_pool(3)
    first = network.initial(6, 3)
    assert torch.equal(first, target_model("mlp", **network.settings).initial(6, 3))
    other = target_model("mlp", **{**network.settings, "seed": 5})
    assert not torch.equal(first, other.initial(6, 3))
    weights = np.ones((2, len(points.features)))
    trained = train_targets(network, points.features, points.labels, weights)
    # Equal up to the order of sums: products treat the rows of a block in different tiles.
    torch.testing.assert_close(trained.parameters[0], trained.parameters[1], rtol=1e-12, atol=1e-12)


def test_empty_and_one_sided_subsets_are_defined(network, make_pool):
    points = make_pool(3)
    weights = np.zeros((2, len(points.features)))
    weights[1, points.labels.numpy() == 1] = 1
    trained = train_targets(network, points.features, points.labels, weights)
    assert trained.degenerate.tolist() == [True, True]
    scores = network.scores(trained.parameters, points.features)
    losses = network.losses(scores, points.labels)
    torch.testing.assert_close(losses[0], torch.full_like(losses[0], np.log(3)))
    expected = plain_training(network, points, torch.tensor(weights[1]))
    torch.testing.assert_close(trained.parameters[1], expected, rtol=1e-10, atol=1e-10)


def test_a_start_continues_training(network, make_pool, counts):
    points = make_pool(3)
    weights = counts(points, 2)
    trained = train_targets(network, points.features, points.labels, weights)
    further = train_targets(
        network, points.features, points.labels, weights, start=trained.parameters
    )
    assert bool((further.objective < trained.objective).all())


def test_a_run_away_is_not_called_converged(make_pool):
    points = make_pool(3)
    wild = target_model("mlp", hidden=3, learning_rate=1e200, steps=20)
    trained = train_targets(wild, points.features * 1e3, points.labels, np.ones((1, 40)))
    assert trained.converged.tolist() == [False]
