"""What `converged` states, on drawn problems of any scale, against optima of more digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.targets import target_model, train_targets
from tests.targets.exact import distance, intercept_size, optimum

pytestmark = pytest.mark.usefixtures("trained_by")
OUTPUTS = {"logistic": 1, "svm": 1, "ridge": 1, "softmax": 3}
powers = st.floats(-1, 1)


def problem(name, *, seed, points, features):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(points, features))
    scores = table @ generator.normal(size=(features, OUTPUTS[name]))
    scores += generator.normal(size=scores.shape)
    labels = scores.argmax(1) if OUTPUTS[name] > 1 else (scores[:, 0] > 0).astype(int)
    labels[:3] = [0, 1, 2] if OUTPUTS[name] > 1 else [0, 1, 1]
    weights = generator.integers(0, 3, size=(3, points)).astype(float)
    weights[:, :3] = 1
    return table, scores[:, 0] if name == "ridge" else labels, weights, generator


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(OUTPUTS)),
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(12, 40), st.integers(1, 6)),
    scales=st.tuples(st.floats(0, 4), st.sampled_from([0, 0, 3, 100])),
    exponents=st.tuples(powers, powers, powers),
)
def test_converged_rows_are_as_near_as_is_stated(name, seed, shape, scales, exponents):
    (points, features), (spread, place) = shape, scales
    table, labels, weights, generator = problem(name, seed=seed, points=points, features=features)
    columns = 10 ** (spread * generator.uniform(-1, 1, size=features))
    table = (table + place * generator.normal(size=features)) * columns
    factor, unit, heavier = 10.0 ** (np.array(exponents) * [5, 9, 3])
    labels, weights = labels * unit if name == "ridge" else labels, weights * heavier
    trained = train_targets(target_model(name, C=factor), table, labels, weights)
    for row in np.flatnonzero(trained.converged):
        scale = np.longdouble(factor) * weights[row]
        exact = optimum(name, table, labels, scale, outputs=OUTPUTS[name])
        assert distance(trained.parameters[row], exact, table) <= 1e-6


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([*OUTPUTS, "softmax"]),
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(8, 16), st.integers(-7, 8)),
    scales=st.tuples(st.sampled_from([0, 3, 6]), st.sampled_from([0, 3, 100, 1e5])),
    exponents=st.tuples(powers, powers),
)
def test_converged_rows_are_as_near_at_the_extremes(name, seed, shape, scales, exponents):
    (points, more), (spread, place) = shape, scales
    features = points + more
    table, labels, weights, generator = problem(name, seed=seed, points=points, features=features)
    columns = 10 ** (spread * generator.uniform(-1, 1, size=features))
    table = (table + place * generator.normal(size=features)) * columns
    factor, heavier = 10.0 ** (np.array(exponents) * [7, 3])
    weights = weights[:1] * heavier
    trained = train_targets(target_model(name, C=factor), table, labels, weights)
    if trained.converged[0]:
        scale = np.longdouble(factor) * weights[0]
        try:
            exact = optimum(name, table, labels, scale, outputs=OUTPUTS[name])
        except ArithmeticError:
            return  # more digits than the oracle has: nothing is known
        assert distance(trained.parameters[0], exact, table) <= 1e-6


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(OUTPUTS)),
    seed=st.integers(0, 10**6),
    exponents=st.tuples(st.floats(-48, 48), st.floats(-98, 98)),
)
def test_weights_and_c_of_any_size_give_a_finite_answer(name, seed, exponents):
    table, labels, weights, _ = problem(name, seed=seed, points=20, features=3)
    factor, heavier = 10.0 ** np.array(exponents)
    weights = weights[:1] * heavier
    trained = train_targets(target_model(name, C=factor), table, labels, weights)
    assert np.isfinite(trained.parameters).all()
    assert np.isfinite(trained.objective).all()
    if trained.converged[0]:
        scale = np.longdouble(factor) * weights[0]
        try:
            exact = optimum(name, table, labels, scale, outputs=OUTPUTS[name])
        except ArithmeticError:
            return
        least = intercept_size(name, table, labels, scale, exact)
        assert distance(trained.parameters[0], exact, table, intercept=least) <= 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.floats(-20, 0))
def test_classes_of_one_weight_have_an_intercept_next_to_zero(seed, power):
    name = "logistic"
    table, labels, weights, _ = problem(name, seed=seed, points=20, features=3)
    factor = 10.0**power
    weights /= np.stack([weights[:, labels == label].sum(1) for label in labels], 1)
    trained = train_targets(target_model(name, C=factor), table, labels, weights)
    assert trained.converged.all()
    for row, parameters in zip(weights, trained.parameters, strict=True):
        scale = np.longdouble(factor) * row
        exact = optimum(name, table, labels, scale)
        least = intercept_size(name, table, labels, scale, exact)
        assert distance(parameters, exact, table, intercept=least) <= 1e-6


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["ridge", "logistic", "svm"]),
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(8, 14), st.integers(1, 5)),
    scales=st.tuples(st.floats(0, 8), st.sampled_from([0, 3, 100, 1e5])),
    power=st.floats(-9, 0),
)
def test_a_long_column_among_more_features_than_points(name, seed, shape, scales, power):
    (points, more), (longer, place) = shape, scales
    table, labels, weights, generator = problem(
        name, seed=seed, points=points, features=points + more
    )
    table = table + place * generator.normal(size=points + more)
    table[:, -1] *= 10**longer
    factor, weights = 10.0**power, weights[:1]
    trained = train_targets(target_model(name, C=factor), table, labels, weights)
    if trained.converged[0]:
        scale = np.longdouble(factor) * weights[0]
        try:
            exact = optimum(name, table, labels, scale)
        except ArithmeticError:
            return
        assert distance(trained.parameters[0], exact, table) <= 1e-6


# Rows that searches have found to be called converged at a larger distance, by the kernels or by torch:
# all margins beyond their kinks, slopes that are a probability less one, and a long column far from zero.
FOUND = {
    "kinks": ("svm", 612010, (23, 4), (0, 0), 7727890553.495742, 58632.39282693721),
    "edges": ("svm", 851542, (20, 3), (0, 0), 43428444.0953957, 4.651597082877301e20),
    "slopes": ("logistic", 538625, (8, 15), (6, 100), 7568449.874255568, 0.024709880234297425),
}


@pytest.mark.parametrize("case", FOUND)
def test_rows_that_were_called_converged_too_far_away(case):
    name, seed, (points, features), (spread, place), factor, heavier = FOUND[case]
    table, labels, weights, generator = problem(name, seed=seed, points=points, features=features)
    columns = 10 ** (spread * generator.uniform(-1, 1, size=features))
    table = (table + place * generator.normal(size=features)) * columns
    weights = weights[:1] * heavier
    trained = train_targets(target_model(name, C=factor), table, labels, weights)
    if trained.converged[0]:
        exact = optimum(name, table, labels, np.longdouble(factor) * weights[0])
        assert distance(trained.parameters[0], exact, table) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([*OUTPUTS, "mlp"]),
    power=st.one_of(st.floats(100.1, 306), st.floats(-320, -105)),
    kind=st.sampled_from([np.float64, np.longdouble]),
)
def test_weights_beyond_all_meaning_are_refused(name, power, kind):
    table, labels, weights, _ = problem("ridge", seed=0, points=20, features=3)
    labels = labels if name == "ridge" else (labels > 0).astype(int)
    with pytest.raises(InvalidInput, match=r"weights.*expected") as refused:
        train_targets(target_model(name), table, labels, (weights * 10.0**power).astype(kind))
    assert "\n" not in str(refused.value)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(OUTPUTS)),
    seed=st.integers(0, 10**6),
    scale=st.floats(-2, 2),
    exponents=st.tuples(powers, powers, powers),
)
def test_problems_of_usual_condition_converge(name, seed, scale, exponents):
    table, labels, weights, _ = problem(name, seed=seed, points=30, features=4)
    factor, unit, heavier = 10.0 ** (np.array(exponents) * [2, 12, 3])
    labels, weights = labels * unit if name == "ridge" else labels, weights * heavier
    trained = train_targets(target_model(name, C=factor), table * 10**scale, labels, weights)
    assert trained.converged.all()


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(list(OUTPUTS)), seed=st.integers(0, 10**6), factor=st.floats(-6, 6))
def test_a_factor_may_stand_in_c_or_in_the_weights(name, seed, factor):
    table, labels, weights, _ = problem(name, seed=seed, points=30, features=4)
    times = 10.0**factor
    here = train_targets(target_model(name, C=1.0), table, labels, weights)
    there = train_targets(target_model(name, C=times), table, labels, weights / times)
    assert np.array_equal(here.converged, there.converged)
    sizes = np.abs(here.parameters).max(1, keepdims=True)
    assert (np.abs(here.parameters - there.parameters) <= 1e-8 * sizes).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), unit=st.floats(-100, 100), place=st.floats(-1e6, 1e6))
def test_ridge_knows_no_unit_of_its_labels(seed, unit, place):
    table, labels, weights, _ = problem("ridge", seed=seed, points=30, features=4)
    model, times = target_model("ridge"), 10.0**unit
    here = train_targets(model, table, labels, weights)
    there = train_targets(model, table, (labels + place) * times, weights)
    assert there.converged.all()
    found = there.parameters / times
    found[:, -1] -= place
    # What the labels themselves lose when they are moved.
    rounding = 1e-15 * (1 + abs(place))
    assert np.abs(found - here.parameters).max() <= 1e-9 + 100 * rounding


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(list(OUTPUTS)), seed=st.integers(0, 10**6), extra=st.integers(1, 12))
def test_more_features_than_points(name, seed, extra):
    table, labels, weights, _ = problem(name, seed=seed, points=12, features=12 + extra)
    trained = train_targets(target_model(name), table, labels, weights)
    assert trained.converged.all()
    for row, parameters in zip(weights, trained.parameters, strict=True):
        exact = optimum(name, table, labels, row, outputs=OUTPUTS[name])
        assert distance(parameters, exact, table) <= 1e-6
