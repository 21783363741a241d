"""Laws that every family of target models obeys, and the borders of the seam."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.targets import TargetsConfig, points_of, target_model, train_targets
from tests.targets.conftest import FAMILIES, pool


def random_parameters(model, points, subsets, seed=2):
    size = model.parameter_count(points.features.shape[1], points.classes)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(subsets, size, generator=generator, dtype=torch.float64)


def test_gradient_is_the_derivative_of_the_objective(family, counts):
    model, points = family
    weights = counts(points, 3)
    parameters = random_parameters(model, points, 3).requires_grad_()
    (automatic,) = torch.autograd.grad(
        model.objective(parameters, weights, points).sum(), parameters
    )
    analytic = model.gradient(parameters.detach(), weights, points)
    # Both are exact up to rounding of sums of 40 terms.
    torch.testing.assert_close(analytic, automatic, rtol=1e-11, atol=1e-11)
    step = 1e-6 * random_parameters(model, points, 3, seed=3)
    theta = parameters.detach()
    difference = model.objective(theta + step, weights, points) - model.objective(
        theta - step, weights, points
    )
    # Central differences: error of order step^2 = 1e-12, cancellation 1e-14, of values near 1e-5.
    torch.testing.assert_close(difference / 2, (analytic * step).sum(1), rtol=1e-6, atol=1e-11)


def test_hessian_vector_product_is_the_derivative_of_the_gradient(family, counts):
    model, points = family
    weights = counts(points, 3)
    parameters = random_parameters(model, points, 3)
    vectors = random_parameters(model, points, 3, seed=3)
    step = 1e-7  # below the nearest kink of the squared hinge
    difference = (
        model.gradient(parameters + step * vectors, weights, points)
        - model.gradient(parameters - step * vectors, weights, points)
    ) / (2 * step)
    product = model.hessian_vector_product(parameters, weights, points, vectors)
    torch.testing.assert_close(product, difference, rtol=1e-5, atol=1e-5)


def test_hessian_is_symmetric_and_gives_the_products(family, counts, monkeypatch):
    model, points = family
    weights = counts(points, 1)[0]
    parameters, vector = random_parameters(model, points, 2)
    hessian = model.hessian(parameters, weights, points)
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-11, atol=1e-11)
    product = model.hessian_vector_product(parameters[None], weights[None], points, vector[None])
    torch.testing.assert_close(hessian @ vector, product[0], rtol=1e-11, atol=1e-11)
    monkeypatch.setattr("modelpred.targets.model.HESSIAN_BYTES", 1)
    torch.testing.assert_close(model.hessian(parameters, weights, points), hessian)


def test_the_gradient_of_fixed_subsets_is_the_gradient(family, counts):
    model, points = family
    weights = counts(points, 5)
    weights[4] = 0
    gradient = model.gradient_function(weights, points)
    for seed in (2, 3):  # what is computed once is not spoiled by use
        parameters = random_parameters(model, points, 5, seed=seed)
        expected = model.gradient(parameters, weights, points)
        torch.testing.assert_close(gradient(parameters), expected, rtol=1e-11, atol=1e-11)


def test_products_and_matrices_of_many_subsets_are_the_single_ones(family, counts):
    model, points = family
    weights = counts(points, 3)
    parameters = random_parameters(model, points, 3)
    vectors = random_parameters(model, points, 3, seed=3)
    before = vectors.clone()
    expected = model.hessian_vector_product(parameters, weights, points, vectors)
    product = model.hessian_product(parameters, weights, points)
    for _ in range(2):  # what is computed once is not spoiled by use
        torch.testing.assert_close(product(vectors), expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(vectors, before)
    if model.optimum is None:
        return  # no Newton steps are taken
    inverses = model.optimum.inverse_hessians(parameters, weights, points)
    assert (inverses is not None) == (model.name == "svm" and points.classes == 2)
    if inverses is not None:
        back = (inverses @ expected[:, :, None])[:, :, 0]
        torch.testing.assert_close(back, vectors, rtol=1e-9, atol=1e-9)


def test_best_lengths_end_where_the_objective_is_flat_along_the_line(make_pool, counts):
    points = make_pool(2)
    model, weights = target_model("svm"), counts(points, 5)
    parameters = random_parameters(model, points, 5)
    directions = -0.01 * model.gradient(parameters, weights, points)
    lengths = model.best_lengths(parameters, weights, points, directions)
    ends = parameters + lengths[:, None] * directions

    def slopes(theta):
        return (model.gradient(theta, weights, points) * directions).sum(1).abs()

    assert bool((slopes(ends) < 0.05 * slopes(parameters)).all())
    smooth = target_model("logistic")
    assert smooth.best_lengths(parameters, weights, points, directions) is None


def test_point_gradients_add_up_to_the_gradient_of_the_data_term(family, counts):
    model, points = family
    weights = counts(points, 1)
    parameters = random_parameters(model, points, 1)
    total = weights[0] @ model.point_gradients(parameters[0], points)
    if model.name == "mlp":
        total = total / weights.sum()
    penalty = model.gradient(parameters, torch.zeros_like(weights), points)[0]
    gradient = model.gradient(parameters, weights, points)[0]
    torch.testing.assert_close(total + penalty, gradient, rtol=1e-11, atol=1e-11)


def test_weight_two_is_the_row_twice(family, counts):
    model, points = family
    weights = counts(points, 2)
    parameters = random_parameters(model, points, 2)
    index = torch.arange(len(points.features)).repeat_interleave(weights[0].long())
    repeated = points_of(points.features[index], points.labels[index], points.classes)
    ones = torch.ones(1, len(index), dtype=torch.float64)
    for function in (model.objective, model.gradient):
        twice = function(parameters[:1], weights[:1], points)
        expected = function(parameters[:1], ones, repeated)
        torch.testing.assert_close(twice, expected, rtol=1e-11, atol=1e-11)


def test_a_batch_is_the_loop(family, counts):
    model, points = family
    weights = counts(points, 4)
    parameters = random_parameters(model, points, 4)
    vectors = random_parameters(model, points, 4, seed=5)
    for row in range(4):
        one = slice(row, row + 1)
        for function in (model.objective, model.gradient):
            torch.testing.assert_close(
                function(parameters, weights, points)[one],
                function(parameters[one], weights[one], points),
            )
        torch.testing.assert_close(
            model.hessian_vector_product(parameters, weights, points, vectors)[one],
            model.hessian_vector_product(parameters[one], weights[one], points, vectors[one]),
        )


def test_the_objective_is_made_of_the_losses(family, counts):
    model, points = family
    weights = counts(points, 2)
    parameters = random_parameters(model, points, 2)
    losses = model.losses(model.scores(parameters, points.features), points.labels)
    data = (weights * losses).sum(1)
    data = data / weights.sum(1) if model.name == "mlp" else data * model.C
    penalty = model.objective(parameters, torch.zeros_like(weights), points)
    torch.testing.assert_close(model.objective(parameters, weights, points), penalty + data)


def test_margins_and_correctness_agree_with_the_scores(family):
    model, points = family
    scores = model.scores(random_parameters(model, points, 3), points.features)
    margins = model.margins(scores, points.labels)
    if model.regression:
        torch.testing.assert_close(margins.square() / 2, model.losses(scores, points.labels))
        return
    correct = model.correct(scores, points.labels)
    if (
        scores.shape[2] == 1 or not model.probabilistic
    ):  # a log-odds margin is positive above 1/2 only
        assert torch.equal(correct, margins > 0)
    if not model.probabilistic:
        return
    probabilities = model.probabilities(scores)
    torch.testing.assert_close(probabilities.sum(2), torch.ones_like(margins))
    index = points.labels[:, None].expand(3, -1, 1)
    own = probabilities.gather(2, index)[..., 0]
    torch.testing.assert_close(-own.log(), model.losses(scores, points.labels))
    torch.testing.assert_close((own / (1 - own)).log(), margins, rtol=1e-6, atol=1e-6)
    assert torch.equal(correct, probabilities.argmax(2) == points.labels)


def test_what_a_family_lacks_is_refused(make_pool):
    svm, ridge = target_model("svm"), target_model("ridge")
    scores = torch.zeros(1, 40, 1, dtype=torch.float64)
    for model in (svm, ridge):
        with pytest.raises(InvalidInput, match="no probabilities"):
            model.probabilities(scores)
    with pytest.raises(InvalidInput, match="no classes"):
        ridge.correct(scores, make_pool(0).labels)
    for name, classes in (("logistic", 3), ("softmax", 0), ("svm", 0), ("ridge", 2), ("mlp", 0)):
        with pytest.raises(InvalidInput, match=name):
            target_model(name).parameter_count(4, classes)


def test_settings_rebuild_the_model(family):
    model, _ = family
    assert target_model(model.name, **model.settings) == model


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(InvalidInput, match="unknown target model 'logit'; known: logistic"):
        target_model("logit")
    with pytest.raises(InvalidInput, match="logistic has no setting 'hidden'; known: C"):
        target_model("logistic", hidden=3)
    for name, wrong in (
        ("ridge", {"C": 0.0}),
        ("svm", {"C": float("nan")}),
        ("mlp", {"hidden": 0}),
        ("mlp", {"momentum": 1.0}),
    ):
        with pytest.raises(InvalidInput, match=r"[Ee]xpect"):
            target_model(name, **wrong)


def test_the_configuration_builds_its_family():
    softmax = TargetsConfig(model="softmax", C=2.0).build(classes=3)
    assert softmax == target_model("softmax", C=2.0)
    assert TargetsConfig(model="mlp", hidden=3).build(classes=2).settings["hidden"] == 3
    with pytest.raises(ValidationError):
        TargetsConfig(l2_penality=1.0)


@pytest.mark.parametrize(
    ("classes", "chosen", "refused"),
    [
        (
            2,
            "logistic",
            {
                "ridge": "has 2 classes; expected one of auto, logistic, softmax, svm, ridge_classifier, mlp"
            },
        ),
        (
            3,
            "softmax",
            {
                "logistic": "has 3 classes; expected one of auto, softmax, svm, ridge_classifier, "
                "mlp"
            },
        ),
        (0, "ridge", {"svm": "is a number; expected one of auto, ridge"}),
    ],
)
def test_the_family_fits_the_label_or_is_refused_with_the_reason(classes, chosen, refused):
    assert TargetsConfig(model="auto").build(classes=classes).name == chosen
    for name, reason in refused.items():
        with pytest.raises(InvalidInput) as error:
            TargetsConfig.model_validate({"model": name}).build(classes=classes)
        assert str(error.value) == f"the model {name} does not fit the label, which {reason}"


def test_points_are_checked():
    good = np.zeros((3, 2))
    assert points_of(good, np.array([0, 1, 1])).classes == 2
    assert points_of(good, np.array([0.5, 1, 1])).classes == 0
    assert points_of(good, np.array([0.0, 1, 1]), 2).labels.dtype == torch.int64
    bad = good.copy()
    bad[1, 1] = np.nan
    for features, labels, classes, message in (
        (bad, np.array([0, 1, 1]), None, "feature 1 of point 1 is nan"),
        (good, np.array([0, 1]), None, r"got \[3, 2\] and \[2\]"),
        (good, np.array([0, 1, 5]), 3, "labels run from 0 to 5 but there are 3 classes"),
        (good, np.array([0, -1, 1]), None, "labels run from -1"),
        (good, np.array([0, 0.5, 1]), 2, "not whole numbers"),
        (good, np.array([0, np.inf, 1]), 0, "not finite"),
        (good, np.array([0, 0, 0]), 1, "two or more classes"),
        (np.zeros((0, 2)), np.zeros(0), 0, "at least one point"),
    ):
        with pytest.raises(InvalidInput, match=message):
            points_of(features, labels, classes)


def test_points_change_precision_and_keep_class_labels(make_pool):
    points = make_pool(3).to(dtype=torch.float32)
    assert points.features.dtype == torch.float32
    assert points.labels.dtype == torch.int64
    assert make_pool(0).to(dtype=torch.float32).labels.dtype == torch.float32


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from([name for name in FAMILIES if name != "mlp"]),
    seed=st.integers(0, 10**6),
)
def test_a_sample_weight_is_a_factor_of_its_row_in_every_subset(name, seed):
    classes, given_settings = FAMILIES[name]
    model, plain = target_model(name.split("-")[0], **given_settings), pool(classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    factors = torch.rand(40, generator=generator, dtype=torch.float64) + 0.1
    weights = torch.randint(0, 4, (3, 40), generator=generator).double()
    weights[:, : max(classes, 1)] = 1
    weighted = points_of(plain.features, plain.labels, classes, sample_weight=factors)
    theta = random_parameters(model, plain, 3)
    for function in (model.objective, model.gradient, model.distance_bound):
        torch.testing.assert_close(
            function(theta, weights, weighted), function(theta, weights * factors, plain)
        )
    torch.testing.assert_close(
        model.hessian_product(theta, weights, weighted)(theta),
        model.hessian_vector_product(theta, weights * factors, plain, theta),
    )
    torch.testing.assert_close(
        model.point_gradients(theta[0], weighted),
        factors[:, None] * model.point_gradients(theta[0], plain),
    )
    inputs = model, plain.features, plain.labels
    torch.testing.assert_close(
        train_targets(*inputs, weights, classes=classes, sample_weight=factors).parameters,
        train_targets(*inputs, weights * factors, classes=classes).parameters,
    )


def test_sample_weights_are_checked():
    good = np.zeros((3, 2)), np.array([0, 1, 1])
    with pytest.raises(InvalidInput, match="one number for each of 3 points"):
        points_of(*good, sample_weight=np.ones(2))
    with pytest.raises(InvalidInput, match="above zero; leave out rows of weight 0"):
        points_of(*good, sample_weight=np.array([1, 0, 1]))
