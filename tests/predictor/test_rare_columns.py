"""Coefficients of rare columns: their conditions of optimality in float64, and what they gain."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.metrics import relative_errors
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.predictor import newton_path as paths
from modelpred.predictor import rare_columns as rare
from modelpred.targets import Points, points_of, target_model, train_targets

FAMILIES = ("logistic", "softmax", "svm")


def encoded(seed: int, *, rows: int, rarest: int, classes: int) -> Points:
    """Two numbers and one column for each of four categories, three of them rare; standardised."""
    generator = np.random.default_rng(seed)
    category = np.zeros(rows, dtype=int)
    places = generator.permutation(rows)[: 3 * rarest].reshape(3, rarest)
    for value, chosen in enumerate(places):
        category[chosen] = value + 1
    columns = np.hstack([generator.normal(size=(rows, 2)), np.eye(4)[category][:, 1:]])
    scores = columns @ generator.normal(size=(5, classes)) * 2
    labels = (scores + generator.gumbel(size=scores.shape)).argmax(1)
    labels[:classes] = np.arange(classes)
    return points_of((columns - columns.mean(0)) / columns.std(0), labels, classes)


def drawn(points: int, count: int, share: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, points, generator=generator) < share).to(torch.uint8)


@given(
    st.sampled_from(FAMILIES), st.sampled_from(["free", "penalised"]), st.integers(0, 2**31),
    st.floats(0.1, 1.0), st.floats(0.01, 3.0),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_steps_lower_the_objective_and_end_at_the_coefficients_optimum(
    family,
    intercept,
    seed,
    share,
    C,  # noqa: N803
):
    points = encoded(seed, rows=200, rarest=4, classes=3 if family == "softmax" else 2)
    model = target_model(family, C=C, intercept=intercept)
    found = rare.rare_columns(model, points)
    assert found is not None
    assert sorted(found.columns.tolist()) == [2, 3, 4]
    assert len(found.rows) == 12
    weights = drawn(200, 5, share, seed)
    generator = torch.Generator().manual_seed(seed)
    size = model.parameter_count(5, points.classes)
    theta = torch.randn(5, size, generator=generator)
    if family == "softmax":  # the mean over outputs is zero at every optimum
        theta = theta.unflatten(1, (3, 6))
        theta = (theta - theta.mean(1, keepdim=True)).flatten(1)
    own = found.weights(weights)

    def objective(parameters: torch.Tensor) -> torch.Tensor:
        return model.objective(parameters.double(), weights.double(), points)

    once = theta + found.changes(theta, own)
    assert bool((objective(once) <= objective(theta) * (1 + 1e-5)).all())
    end = once
    for _ in range(40):
        end = end + found.changes(end, own)
    gradient = model.gradient(end.double(), weights.double(), points).unflatten(1, (-1, 6))
    along = gradient[:, :, found.columns] - gradient[:, :, -1:] * found.common
    scale = 1 + C * float(found.values.abs().sum())
    if model.smooth:  # steps on a hinge are short
        assert float(along.abs().max()) < 1e-3 * scale
    common = torch.ones(200, dtype=torch.bool)
    common[found.rows] = False
    before, after = (model.scores(each.double(), points.features) for each in (theta, end))
    torch.testing.assert_close(after[:, common], before[:, common], rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_one_gradient_is_several_times_nearer_with_rare_columns(family, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(paths, "compiled_rows", lambda *_: None)
        monkeypatch.setattr(paths, "product_dtype", lambda _: torch.float32)
    points = encoded(1, rows=600, rarest=10, classes=3 if family == "softmax" else 2)
    model = target_model(family, C=0.1)
    weights = drawn(600, 100, 0.3, 2)
    true = train_targets(
        model, points.features, points.labels, weights.double(), classes=points.classes
    )
    errors: list[float] = []
    for alone in (True, False):
        if not alone:
            monkeypatch.setattr(paths, "rare_columns", lambda *_: None)
        pool = Points(points.features.clone(), points.labels, points.classes)
        predictor = fit_predictor(
            PredictorConfig(network="newton", steps=1),
            model,
            pool,
            weights[:0],
            true.parameters[:0],
        )
        errors.append(float(relative_errors(predictor.predict(weights), true.parameters).mean()))
    assert errors[0] < 0.6 * errors[1]


@given(st.sampled_from(FAMILIES), st.integers(0, 2**31), st.floats(-4, 4))
@settings(max_examples=8)
def test_steps_lower_the_objective_with_a_penalised_intercept_and_any_common_value(
    family, seed, offset
):
    points = encoded(seed, rows=200, rarest=4, classes=3 if family == "softmax" else 2)
    points = points_of(points.features + offset, points.labels, points.classes)
    model = target_model(family, C=0.1, intercept="penalised")
    found = rare.rare_columns(model, points)
    assert found is not None
    weights = drawn(200, 5, 0.2, seed)
    weights[0, found.rows] = 0  # the penalty alone
    theta = torch.zeros(5, model.parameter_count(5, points.classes))
    if family != "softmax":
        theta[:, -1] = 0.1
    after = theta + found.changes(theta, found.weights(weights))
    before, lowered = (
        model.objective(each.double(), weights.double(), points) for each in (theta, after)
    )
    assert bool((lowered <= before * (1 + 1e-5)).all())


def test_columns_of_many_values_and_models_without_an_intercept_have_none():
    points = encoded(3, rows=100, rarest=2, classes=2)
    assert rare.rare_columns(target_model("logistic", intercept="none"), points) is None
    numbers = points_of(points.features[:, :2], points.labels, 2)
    assert rare.rare_columns(target_model("logistic"), numbers) is None


def test_the_rarest_columns_are_taken_while_their_rows_are_few():
    features = torch.zeros(320, 3, dtype=torch.float64)
    features[:4, 0], features[4:20, 1], features[100:106, 2] = 1, 1, 2
    points = points_of(features, torch.arange(320) % 2, 2)
    found = rare.rare_columns(target_model("logistic"), points)
    assert found is not None
    assert found.columns.tolist() == [0, 2]  # the other would make 26 of 320 rows
    assert found.values.sum(0).tolist() == [4, 12]
