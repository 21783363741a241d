"""ModelPred of a torch module that is trained as a whole."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import nn

from modelpred import InvalidInput, ModelPred
from modelpred.refits import Retraining
from modelpred.targets import TorchTarget

ROWS = 30


def network():
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 2), nn.GroupNorm(1, 3), nn.ReLU(), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(27, 3),
    )  # fmt: skip


def small():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))


def line():
    return nn.Linear(2, 1)


TARGET = TorchTarget(build=network, batch_size=10, epochs=4, momentum=0.9)
IMAGES = np.random.default_rng(0).random((ROWS, 4, 4))
WORDS = np.array(["one", "three", "two"])[np.arange(ROWS) % 3]
TEST = IMAGES[:9] + 0.01, WORDS[:9]


@pytest.fixture(scope="module")
def model():
    """A fit of images with three classes."""
    return ModelPred(TARGET, subsets=20, progress=False).fit(IMAGES, WORDS, test=TEST)


def test_models_are_those_of_training(model):
    edited = model.without([0, 5])
    assert edited.engine.exact
    weights = np.isin(np.arange(ROWS), [0, 5], invert=True).astype(float)
    np.testing.assert_array_equal(edited.parameters, model.retrain(weights[None])[0])
    assert "predictions" in str(edited.compare())
    assert set(model.predict(IMAGES)) <= set(WORDS)


def test_a_model_goes_back_to_torch(model):
    edited = model.without([0, 5])
    outputs = edited.to_torch()(torch.from_numpy(IMAGES.reshape(ROWS, 16)).float())
    chances = outputs.softmax(1).detach().numpy()
    np.testing.assert_allclose(chances, edited.predict_proba(IMAGES), atol=1e-5)


def test_studies_retrain(model):
    assert model.values(*TEST, method="leave_one_out").height == ROWS
    assert model.select(8, *TEST, swaps=0).height == 8
    assert len(model.with_points(*TEST).weights) == ROWS + 9
    assert model.predictive(IMAGES[:3], resamples=5).mean.shape == (3, 3)


def test_fidelity_says_first_what_can_be_known(model):
    table = model.fidelity(seeds=2, subsets=8, held_out=6)
    assert table["measure"][0] == "agreement of two seeds"
    assert "LDS, linear datamodel" in table["measure"].to_list()


def test_parameters_are_not_predicted(model):
    with pytest.raises(InvalidInput, match="depend on the luck of a seed; use engine='exact'"):
        model.without([0], engine="predicted")
    with pytest.raises(InvalidInput, match="depend on the luck"):
        model.predict_parameters(np.ones((1, ROWS)))
    with pytest.raises(InvalidInput, match="is not saved"):
        model.save("folder")


def test_a_table_with_sample_weights_is_fitted_by_name():
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.normal(size=(ROWS, 2)), columns=["a", "b"])
    target = TorchTarget(build=line, loss="mse", epochs=30, batch_size=100, precision="float64")
    numbers = table["a"] - table["b"]
    factors = np.where(np.arange(ROWS) % 2, 2.0, 1.0)
    fitted = ModelPred(target, subsets=20, progress=False).fit(
        table, numbers, sample_weight=factors
    )
    twice = ModelPred(target, subsets=20, progress=False).fit(table, numbers)
    expected = twice.retrain(factors[None])[0]
    np.testing.assert_allclose(fitted.full_parameters, expected, rtol=1e-9)
    assert fitted.predict(table[["b", "a"]]) == pytest.approx(fitted.predict(table))
    fitted.forget([0])
    assert len(fitted.row_ids) == ROWS - 1


def test_a_fit_is_cloned_and_told(model):
    again = clone(model).fit(IMAGES, WORDS)
    assert np.array_equal(again.full_parameters, model.full_parameters)
    assert "a torch module of 105 parameters, 4 epochs of sgd" in repr(model)


REFUSED = {
    "other rows": (lambda model: model.predict(IMAGES[:, :2]), "rows of shape \\[2, 4\\]"),
    "a column": (lambda model: clone(model).fit(IMAGES[:, 0, 0], WORDS), "expected \\[rows, ...\\]"),
    "other classes": (
        lambda model: clone(model).fit(IMAGES, np.arange(ROWS) % 2), "has 3 outputs, but there are 2"),
    "settings": (lambda _: ModelPred(TARGET, C=1.0), "C is a setting of"),
    "labels": (lambda model: clone(model).fit(IMAGES, WORDS[:5]), "5 labels for 30 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(case, model):
    call, told = REFUSED[case]
    with pytest.raises(InvalidInput, match=told) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_effects_are_what_rows_add_to_the_test_loss():
    """Against the mean losses of 800 halves with each row and without it, of four seeds."""
    generator = np.random.default_rng(0)
    points, tested = (generator.normal(size=(rows, 3)) for rows in (24, 60))
    labels, known = (
        (own[:, 0] + own[:, 1] * own[:, 2] > 0).astype(int) for own in (points, tested)
    )
    labels[:6] = 1 - labels[:6]
    target = TorchTarget(build=small, epochs=10, learning_rate=0.3, batch_size=24)
    model = ModelPred(target, progress=False).fit(points, labels, test=(tested, known))
    found = model.training_effects(runs=10, followed=10)
    assert found.columns == ["row_id", "label", "effect", "standard_error"]
    weights = (generator.random((800, 24)) < 0.5).astype(np.uint8)
    weights[weights.sum(1) == 0, 0] = 1
    rows, scores = model.fitted.scored_points, np.zeros(800)
    for seed in range(4):
        own = replace(target, seed=seed)
        trained = Retraining(own, model.fitted.problem.points)(torch.from_numpy(weights[seed::4]))
        losses = own.losses(own.scores(trained, rows.features.float()), rows.labels).mean(1).numpy()
        scores[seed::4] = losses.mean() - losses
    worth = [scores[own == 1].mean() - scores[own == 0].mean() for own in weights.T]
    order = [model.row_ids.index(name) for name in found["row_id"]]
    assert np.corrcoef(found["effect"], np.array(worth)[order])[0, 1] > 0.8


def test_effects_are_for_a_recipe():
    model = ModelPred("logistic").fit(np.eye(12), np.arange(12) % 2)
    with pytest.raises(InvalidInput, match="training_effects is for a TorchTarget"):
        model.training_effects()
