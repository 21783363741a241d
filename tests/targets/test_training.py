"""Training of many subsets: the same answer in any company, hard data, degenerate rows, borders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.targets import target_model, train_targets
from tests.targets.exact import distance, optimum

pytestmark = pytest.mark.usefixtures("trained_by")


def hard_pool(kind, generator):
    """Features and labels of a pool that breaks careless solvers."""
    features = generator.normal(size=(60, 8))
    labels = (features[:, 0] + 0.5 * generator.normal(size=60) > 0).astype(int)
    if kind == "separable":
        labels = (features[:, 0] > 0).astype(int)
        features[:, 0] *= 50
    elif kind == "duplicated rows":
        features[20:40], labels[20:40] = features[:20], labels[:20]
        features[40:], labels[40:] = features[:20], 1 - labels[:20]
    elif kind == "constant columns":
        features[:, 3], features[:, 4] = 0, 7
    elif kind == "scale 1e6":
        features[:, 2] *= 1e6
    elif kind == "scale 1e-6":
        features[:, 2] *= 1e-6
    elif kind == "both scales":
        features[:, 2] *= 1e6
        features[:, 5] *= 1e-6
    elif kind == "fewer points than features":
        features = generator.normal(size=(60, 100))
    return features, labels


KINDS = [
    "separable",
    "duplicated rows",
    "constant columns",
    "scale 1e6",
    "scale 1e-6",
    "both scales",
    "fewer points than features",
    "heavy weights",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["logistic", "softmax", "svm", "ridge", "mlp"])
def test_hard_pools_converge_or_say_so(name, kind):
    generator = np.random.default_rng(0)
    features, labels = hard_pool(kind, generator)
    high = 51 if kind == "heavy weights" else 3
    weights = generator.integers(0, high, size=(40, 60))
    if name == "ridge":
        labels = labels + generator.normal(size=60)
    model = target_model(name)
    trained = train_targets(model, features, labels, weights)
    assert np.isfinite(trained.parameters).all()
    assert trained.converged.all()
    if model.optimum is not None:  # a network's fixed steps end where they end
        for row in range(0, len(weights), 8):
            exact = optimum(
                name, features, labels, weights[row], outputs=2 if name == "softmax" else 1
            )
            assert distance(trained.parameters[row], exact, features) <= 1e-6


@pytest.mark.parametrize("name", ["logistic", "ridge"])
def test_a_column_far_from_zero_is_trained_as_well_as_is_said(name):
    # A column at 1e6 with spread 1: gradients cannot be told from zero below about 1e-4.
    generator = np.random.default_rng(0)
    features, labels = hard_pool("separable", generator)
    features[:, 6] += 1e6
    target = labels.astype(float) if name == "ridge" else labels
    weights = generator.integers(0, 3, size=(10, 60))
    trained = train_targets(target_model(name), features, target, weights)
    assert trained.gradient_norm.max() <= 1e-1
    for row, parameters in zip(weights, trained.parameters, strict=True):
        assert distance(parameters, optimum(name, features, target, row), features) <= 1e-6


def spread(first, second):
    return np.abs(first - second).max()


@pytest.mark.parametrize("name", ["logistic", "softmax", "svm", "ridge", "mlp"])
def test_company_changes_no_answer(name, make_pool):
    classes = {"ridge": 0, "logistic": 2, "svm": 2}.get(name, 4)
    points = make_pool(classes, points=80, features=12)
    features, labels = points.features.numpy(), points.labels.numpy()
    weights = np.random.default_rng(3).integers(0, 3, size=(120, 80))
    weights[:, : max(classes, 1)] = 1
    model = target_model(name)

    def parameters(rows, **options):
        return train_targets(model, features, labels, rows, **options).parameters

    together = parameters(weights)
    order = np.random.default_rng(4).permutation(120)
    assert spread(parameters(weights, block=7), together) <= 1e-9
    assert spread(parameters(weights[order]), together[order]) <= 1e-9
    for row in (0, 17, 119):
        assert spread(parameters(weights[row : row + 1]), together[row : row + 1]) <= 1e-9
    again = parameters(weights)
    assert np.array_equal(again, together)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    points=st.integers(4, 30),
    features=st.integers(1, 40),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_any_subset_ends_at_a_stationary_point(seed, points, features, scale):
    generator = np.random.default_rng(seed)
    table = scale * generator.normal(size=(points, features))
    labels = generator.integers(0, 2, size=points)
    weights = generator.integers(0, 5, size=(8, points))
    for name in ("logistic", "svm", "ridge"):
        model = target_model(name)
        target = labels.astype(float) if name == "ridge" else labels
        trained = train_targets(model, table, target, weights, classes=None)
        solved = ~trained.degenerate
        assert trained.converged.all()
        assert (trained.gradient_norm[solved] <= 1e-6).all()


def test_degenerate_rows_are_defined_and_marked(make_pool):
    points = make_pool(3)
    features, labels = points.features.numpy(), points.labels.numpy()
    weights = np.zeros((3, 40))
    weights[1, labels != 2] = 2
    weights[2] = 1
    model = target_model("softmax")
    trained = train_targets(model, features, labels, weights)
    assert trained.degenerate.tolist() == [True, True, False]
    assert trained.iterations.tolist()[:2] == [0, 0]
    scores = model.scores(torch.tensor(trained.parameters), points.features)
    losses = model.losses(scores, points.labels)
    assert losses[0].tolist() == pytest.approx([np.log(3)] * 40)
    tally = np.array([2 * (labels == k).sum() if k < 2 else 0 for k in range(3)]) + 0.5
    shares = model.probabilities(scores)[1, 0].numpy()
    assert shares == pytest.approx(tally / tally.sum())
    assert not trained.parameters[1].reshape(3, -1)[:, :-1].any()


def test_svm_and_ridge_keep_their_optimum_with_a_class_missing(make_pool):
    points = make_pool(2)
    one_sided = (points.labels == 1).double()[None]
    trained = train_targets(target_model("svm"), points.features, points.labels, one_sided)
    assert trained.degenerate.tolist() == [True]
    assert float(trained.gradient_norm[0]) <= 1e-6
    assert float(trained.parameters.abs().max()) > 0.1
    values = make_pool(0)
    empty = torch.zeros(1, 40)
    trained = train_targets(target_model("ridge"), values.features, values.labels, empty)
    assert trained.degenerate.tolist() == [True]
    assert not trained.parameters.any()


def test_a_start_at_the_answer_needs_no_steps(make_pool, counts):
    points = make_pool(2)
    weights = counts(points, 5)
    model = target_model("logistic")
    trained = train_targets(model, points.features, points.labels, weights, tolerance=1e-7)
    again = train_targets(
        model, points.features, points.labels, weights, tolerance=1e-3, start=trained.parameters
    )
    assert again.iterations.tolist() == [0] * 5
    assert torch.equal(again.parameters, trained.parameters)


def test_a_bad_start_does_no_harm(make_pool, counts):
    points = make_pool(2)
    weights = counts(points, 5)
    model = target_model("logistic")
    far = 300 * torch.ones(5, 7, dtype=torch.float64)
    usual = train_targets(model, points.features, points.labels, weights)
    trained = train_targets(model, points.features, points.labels, weights, start=far)
    assert bool(trained.converged.all())
    torch.testing.assert_close(trained.parameters, usual.parameters, rtol=0, atol=1e-9)


def test_an_unreachable_tolerance_is_said_in_the_row(make_pool, counts):
    points = make_pool(2)
    trained = train_targets(
        target_model("logistic"),
        points.features,
        points.labels,
        counts(points, 2),
        tolerance=1e-40,
    )
    assert not bool(trained.converged.any())
    assert float(trained.gradient_norm.max()) <= 1e-9


def test_progress_and_kinds_of_arrays(make_pool):
    points = make_pool(2)
    weights = np.random.default_rng(0).integers(1, 3, size=(10, 40))
    seen = []
    trained = train_targets(
        target_model("logistic"),
        points.features.numpy(),
        points.labels.numpy(),
        weights.astype(np.uint8),
        block=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert sorted(seen) == [(4, 10), (8, 10), (10, 10)]
    assert isinstance(trained.parameters, np.ndarray)
    for kind in (torch.uint8, torch.int32, torch.float32, torch.float64):
        same = train_targets(
            target_model("logistic"),
            points.features,
            points.labels,
            torch.tensor(weights).to(kind),
            block=4,
        )
        assert np.array_equal(same.parameters.numpy(), trained.parameters)
    none = train_targets(
        target_model("logistic"), points.features, points.labels, torch.zeros(0, 40)
    )
    assert none.parameters.shape == (0, 7)


def test_bad_input_is_refused(make_pool):
    points = make_pool(2)
    model = target_model("logistic")
    ones = np.ones((2, 40))
    for weights, message in (
        (ones[:, :-1], "weights have 39 points but the data set has 40"),
        (ones[0], r"expected \[subsets, points\]"),
        (-ones, "weights run from -1"),
        (ones * np.nan, "expected finite"),
        (ones * np.inf, "expected finite"),
    ):
        with pytest.raises(InvalidInput, match=message):
            train_targets(model, points.features, points.labels, weights)
    for options, message in (
        ({"start": np.zeros(3)}, r"start has shape \[3\]"),
        ({"start": np.full(7, np.nan)}, "start has parameters"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"block": 0}, "block is 0"),
        ({"classes": 3}, "logistic is for 2 classes"),
    ):
        with pytest.raises(InvalidInput, match=message):
            train_targets(model, points.features, points.labels, ones, **options)


def test_a_subset_that_is_solved_early_is_not_carried_away_by_the_others():
    # Three points of 55: its systems are solved in three products, and the others' take twenty.
    generator = np.random.default_rng(292)
    features = generator.normal(size=(55, 35))
    scores = features @ generator.normal(size=(35, 2))
    scores += generator.normal(size=scores.shape)
    labels = (scores[:, 0] > 0).astype(int)
    labels[:2] = 0, 1
    weights = generator.integers(0, 4, size=(12, 55)) * generator.integers(0, 2, (12, 55))
    weights[:, :2] = 1
    weights[0, 3:] = 0
    weights = np.concatenate([weights, weights * 0.7, np.ones((1, 55))])
    trained = train_targets(
        target_model("softmax", C=0.7), features, labels, weights, block=len(weights)
    )
    assert trained.converged.all()


def test_torch_keeps_its_number_of_threads(make_pool, counts):
    points = make_pool(2)
    before = torch.get_num_threads()
    weights = counts(points, 12)
    model = target_model("logistic")
    alone = train_targets(model, points.features, points.labels, weights, block=3)

    def interrupt(done, total):
        raise KeyboardInterrupt

    try:
        torch.set_num_threads(3)
        shared = train_targets(model, points.features, points.labels, weights, block=3)
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyboardInterrupt):
            train_targets(
                model, points.features, points.labels, weights, block=3, progress=interrupt
            )
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(shared.parameters, alone.parameters, rtol=0, atol=1e-9)
