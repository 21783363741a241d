"""RequestHandler of a quadratic objective are its exact minimisers, in whatever unit the label is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import ModelPred
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.targets import points_of, target_model, train_targets

POINTS = 24
FAST = settings(max_examples=25, deadline=None)
shapes = {
    "seed": st.integers(0, 999),
    "features": st.integers(1, 6),
    "exponent": st.integers(-2, 4),
    "shift": st.integers(-3, 3),
}


def make_rows(seed, features, exponent, shift):
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(POINTS, features))
    unit = 10.0**exponent
    return cells, unit * (cells[:, 0] + rng.standard_t(2, size=POINTS) + shift)


def fitted(cells, labels, *, network="anchored"):
    points, model = points_of(cells, labels, 0), target_model("ridge")
    rng = np.random.default_rng(0)
    weights = torch.tensor(rng.integers(0, 2, size=(20, POINTS))).double()
    trained = train_targets(model, points.features, points.labels, weights, classes=0)
    config = PredictorConfig(network=network, epochs=1)
    return fit_predictor(config, model, points, weights, trained.parameters)


def minimiser(cells, labels, counts):
    """Half of |coef|^2 plus half of the counted squared residuals, by the normal equations."""
    rows = np.column_stack([cells, np.ones(len(cells))])
    penalty = np.diag([1.0] * cells.shape[1] + [0.0])
    return np.linalg.solve(rows.T @ (counts[:, None] * rows) + penalty, rows.T @ (counts * labels))


@FAST
@given(**shapes)
def test_answers_are_those_of_the_normal_equations(seed, **shape):
    cells, labels = make_rows(seed, **shape)
    predictor = fitted(cells, labels)
    counts = np.random.default_rng(seed).integers(0, 4, size=(5, POINTS))
    counts[:, 0] = 1
    expected = np.stack([minimiser(cells, labels, row.astype(float)) for row in counts])
    for refine in (0, 2):
        found = predictor.predict(torch.from_numpy(counts), refine=refine).numpy()
        scale = np.abs(labels).max()
        assert found == pytest.approx(expected, abs=1e-8 * scale)


@FAST
@given(**shapes)
def test_answers_for_points_that_the_fit_never_saw_are_exact_too(seed, **shape):
    cells, labels = make_rows(seed, **shape)
    other, others = make_rows(seed + 1000, **shape)
    far = np.concatenate([cells, 5 * other]), np.concatenate([labels, others])
    predictor = fitted(cells, labels).for_points(points_of(*far, 0))
    found = predictor(torch.ones(1, 2 * POINTS))[0].numpy()
    expected = minimiser(*far, np.ones(2 * POINTS))
    assert found == pytest.approx(expected, abs=1e-7 * np.abs(far[1]).max())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), exponent=st.integers(0, 4))
def test_values_and_intervals_have_the_unit_of_the_label(seed, exponent):
    unit = 10.0**exponent
    cells, labels = make_rows(seed, features=2, exponent=0, shift=1)
    tests = cells[:8] + 0.5, labels[:8]
    found = []
    for factor in (1.0, unit):
        mp = ModelPred("ridge", subsets=20, progress=False).fit(cells, factor * labels)
        values = mp.values(tests[0], factor * tests[1], permutations=10, engine="predicted")
        exact = mp.values(tests[0], factor * tests[1], permutations=10, engine="exact")
        assert values["value"].to_numpy() == pytest.approx(
            exact["value"].to_numpy(), abs=1e-7 * factor
        )
        ends = mp.predictive(tests[0], resamples=20, engine="predicted")
        found.append([values["value"].to_numpy(), ends.low, ends.high, ends.spread])
    for one, scaled in zip(*found, strict=True):
        assert scaled == pytest.approx(unit * one, abs=1e-6 * unit)


@FAST
@given(**shapes)
def test_derivatives_are_those_of_the_minimiser(seed, **shape):
    from modelpred.studies.parameter_attribution import derivatives  # noqa: PLC0415

    cells, labels = make_rows(seed, **shape)
    found = derivatives(fitted(cells, labels)).numpy()
    step = 1e-4
    for row in (0, POINTS - 1):
        ends = []
        for sign in (1, -1):
            counts = np.ones(POINTS)
            counts[row] += sign * step
            ends.append(minimiser(cells, labels, counts))
        expected = (ends[0] - ends[1]) / (2 * step)
        assert found[:, row] == pytest.approx(expected, abs=2e-4 * np.abs(labels).max())


def test_the_published_network_answers_itself():
    cells, labels = make_rows(0, features=3, exponent=0, shift=0)
    published = fitted(cells, labels, network="paper")
    assert not published.exact
    assert published.stages > 0 or not torch.allclose(
        published(torch.ones(1, POINTS))[0],
        torch.from_numpy(minimiser(cells, labels, np.ones(POINTS))),
    )
