"""With more features than rows all is done in the space of the rows: the same numbers, in linear time in the features."""

from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from modelpred.predictor import PredictorConfig, fit_predictor, read_predictor, write_predictor
from modelpred.predictor.anchors import fit_size_path
from modelpred.predictor.newton_path import fit_newton_path, has_newton_path
from modelpred.refits.influence import Influence, NewtonStep, RescaledInfluence
from modelpred.targets import points_of, target_model, train_targets
from modelpred.targets.linear import Linear

REDUCED = ("refits.influence", "predictor.anchors", "predictor.newton_inverse")
REDUCED += ("predictor.newton_path", "predictor.newton_leverage")
CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}
FAMILIES = [(name, intercept) for name in CLASSES for intercept in ("free", "penalised", "none")]


@contextmanager
def in_all_features():
    """As if there were no space of the rows: every Hessian is one of all features."""
    patches = [patch(f"modelpred.{name}.row_space_of", lambda *_: None) for name in REDUCED]
    patches.append(patch("modelpred.predictor.newton_inverse._directions", _all_directions))
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def _all_directions(points):
    return points.features.shape[1] + 1


def drawn(name, intercept, *, seed, rows, features, weighted, subsets=9):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(rows, features)) * generator.uniform(0.2, 2, size=features)
    classes = CLASSES[name]
    labels = generator.normal(size=rows) + 5
    if classes:
        labels = generator.integers(0, classes, size=rows)
        labels[:classes] = np.arange(classes)
    factors = generator.uniform(0.5, 2, size=rows) if weighted else None
    points = points_of(table, labels, classes, sample_weight=factors)
    weights = torch.from_numpy(generator.integers(0, 3, size=(subsets, rows))).double()
    weights[:, : max(classes, 1)] = 1
    return target_model(name, C=0.5, intercept=intercept), points, weights


def optima(model, points, weights):
    return train_targets(
        model, points.features, points.labels, weights, tolerance=1e-10, classes=points.classes,
        sample_weight=points.sample_weight,
    ).parameters  # fmt: skip


def near(first, second, limit):
    assert float((first - second).norm() / second.norm()) <= limit


draws = {
    "family": st.sampled_from(FAMILIES),
    "seed": st.integers(0, 10**6),
    "shape": st.tuples(st.integers(6, 12), st.integers(1, 20)),
    "weighted": st.booleans(),
}


@settings(max_examples=25, deadline=None)
@given(**draws)
def test_expansions_are_those_of_all_features(family, seed, shape, weighted):
    rows, features = shape[0], sum(shape)
    model, points, weights = drawn(
        *family, seed=seed, rows=rows, features=features, weighted=weighted
    )
    full = optima(model, points, torch.ones(1, rows).double())[0]
    for refit in (Influence, RescaledInfluence):
        found = refit(model, points, full)(weights)
        with in_all_features():
            near(found, refit(model, points, full)(weights), 1e-8)
    found = NewtonStep(model, points, full, tolerance=1e-10)(weights)
    with in_all_features():
        near(found, NewtonStep(model, points, full, tolerance=1e-10)(weights), 1e-6)


@settings(max_examples=15, deadline=None)
@given(**draws, joint=st.booleans())
def test_the_size_path_is_that_of_all_features(family, seed, shape, weighted, joint):
    rows, features = shape[0], sum(shape)
    model, points, weights = drawn(
        *family, seed=seed, rows=rows, features=features, weighted=weighted
    )
    # A gradient of any direction, as at parameters that left the space of the rows.
    gradients = torch.from_numpy(
        np.random.default_rng(seed).normal(
            size=(len(weights), optima(model, points, weights).shape[1])
        )
    )
    if model.shift_free:  # a shift of all intercepts has neither curvature nor gradient
        intercepts = gradients.unflatten(1, (-1, features + 1))[..., -1]
        intercepts -= intercepts.mean(1, keepdim=True)
    with patch("modelpred.predictor.anchors.JOINT_BLOCK", 400 if joint else 1):
        bound = fit_size_path(model, points).bind(model, points, torch.float64)
        with in_all_features():
            whole = fit_size_path(model, points).bind(model, points, torch.float64)
    assert bound.path.basis.shape[2] < whole.path.basis.shape[2]
    if joint:  # of blocks that are not the whole Hessian the diagonal depends on the basis
        near(bound(weights), whole(weights), 1e-3)
    outside = gradients - _inside(points, gradients)
    near(bound.preconditioner(weights)(outside), outside, 1e-9)


def _inside(points, gradients):
    basis = torch.linalg.qr(points.features.T)[0]
    theta = gradients.unflatten(1, (-1, len(basis) + 1)).clone()
    theta[..., :-1] = theta[..., :-1] @ basis @ basis.T
    return theta.flatten(1)


@settings(max_examples=15, deadline=None)
@given(**draws | {"family": st.sampled_from([each for each in FAMILIES if each[0] != "ridge"])})
# The margin of a row lies on its kink.
@example(family=("svm", "penalised"), seed=499, shape=(10, 2), weighted=False)
# Few rows of other weights than one, in the space of the rows.
@example(family=("softmax", "free"), seed=475712, shape=(6, 20), weighted=False)
def test_the_newton_path_is_that_of_all_features(family, seed, shape, weighted):
    rows, features = shape[0], sum(shape)
    model, points, weights = drawn(
        *family, seed=seed, rows=rows, features=features, weighted=weighted
    )
    assert isinstance(model, Linear)
    with patch("modelpred.predictor.newton_path.product_dtype", lambda _: torch.float32):
        bound = fit_newton_path(model, points).bind(model, points, torch.float32)
        found = bound(weights.to(torch.uint8))
        gradients = model.gradient(found.double(), weights, points).float()
        steps = bound.preconditioner(weights.to(torch.uint8))(gradients)
        with in_all_features():
            whole = fit_newton_path(model, points).bind(model, points, torch.float32)
            expected = whole(weights.to(torch.uint8))
            assume(family[0] != "svm" or not _jumps(model, points, weights, expected))
            near(found, expected, 1e-3)
            near(steps, whole.preconditioner(weights.to(torch.uint8))(gradients), 1e-3)


def _jumps(model, points, weights, expected):
    """Whether a change of the features by rounding moves the answers: a margin lies on its kink."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=points.features.shape))
    other = replace(points, features=points.features * (1 + 1e-7 * noise))
    found = fit_newton_path(model, other).bind(model, other, torch.float32)
    moved = found(weights.to(torch.uint8)) - expected
    return float(moved.norm() / expected.norm()) > 1e-4


@pytest.mark.parametrize("network", ["newton", "anchored"])
@pytest.mark.parametrize("name", ["logistic", "softmax", "svm"])
def test_a_predictor_of_wide_rows_is_that_of_all_features_and_survives_its_file(
    tmp_path, network, name
):
    model, points, weights = drawn(
        name, "free", seed=3, rows=30, features=90, weighted=False, subsets=90
    )
    weights = weights.clamp(max=1)
    truth = optima(model, points, weights)
    config = PredictorConfig(network=network, epochs=2, steps=1)
    fitted = fit_predictor(config, model, points, weights[:60], truth[:60])
    found = fitted.predict(weights[60:])
    if name != "svm":  # whose kinks enlarge what float32 rounds
        with in_all_features():
            whole = fit_predictor(config, model, points, weights[:60], truth[:60])
        near(found, whole.predict(weights[60:]), 0.05)
    write_predictor(fitted, tmp_path)
    assert torch.equal(read_predictor(tmp_path).predict(weights[60:]), found)


def test_a_table_of_twenty_thousand_columns_needs_no_square_of_them():
    model, points, weights = drawn(
        "logistic", "free", seed=1, rows=20, features=20_000, weighted=False
    )
    assert has_newton_path(model, points)
    path = fit_newton_path(model, points)
    assert path.basis.shape == (1, 20_001, 21)
    full = optima(model, points, torch.ones(1, 20).double())[0]
    assert NewtonStep(model, points, full)(weights).shape == (9, 20_001)
    assert fit_size_path(model, points).basis.shape == (1, 20_001, 21)
