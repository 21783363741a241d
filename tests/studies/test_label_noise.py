"""The number of wrong labels: the model of label noise against enumeration, and tables with known noise."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import log_softmax, softmax

from modelpred.studies.label_noise import (
    LEAST_RATE,
    MOST_RATE,
    _log_odds,
    _Noise,
    _Parts,
    wrong_labels,
)

few = settings(max_examples=6, deadline=None)


def drawn(seed, *, rows, classes, rates, sharpness=1.0, spread=2.5):
    """Log probabilities, true labels of these probabilities (sharpened), and noisy labels."""
    draws = np.random.default_rng(seed)
    logs = draws.normal(size=(rows, classes)) * spread
    p = softmax(sharpness * logs, axis=1)
    true = (draws.random((rows, 1)) > p.cumsum(1)[:, :-1]).sum(1)
    other = (true + draws.integers(1, classes, size=rows)) % classes
    flipped = draws.random(rows) < np.broadcast_to(rates, classes)[true]
    return logs, true, np.where(flipped, other, true)


@few
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 5),
    by_class=st.booleans(),
    rows=st.integers(4, 60),
)
def test_the_gradient_is_that_of_finite_differences(seed, classes, by_class, rows):
    logs, _, labels = drawn(seed, rows=rows, classes=classes, rates=0.2)
    noise = _Noise(log_softmax(logs, axis=1), labels)
    rates = classes if by_class else 1
    values = np.random.default_rng(seed).normal(size=2 * classes + rates)

    def value(at):
        return noise.objective(at)[0]

    gradient = noise.objective(values)[1]
    # A forward difference of 1.5e-8 of a value of some hundred has about six digits.
    assert gradient == pytest.approx(approx_fprime(values, value), rel=1e-4, abs=2e-3)


@few
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5))
def test_the_probability_of_a_wrong_label_is_that_of_all_true_classes(seed, classes):
    draws = np.random.default_rng(seed)
    logs, _, labels = drawn(seed, rows=12, classes=classes, rates=0.3)
    rates = draws.uniform(0.01, 0.45, size=classes)
    parts = _Parts(draws.uniform(0.3, 3, size=classes), draws.normal(size=classes), rates)
    found = 1 / (1 + np.exp(-_log_odds(parts, logs, labels)))
    for row, label in enumerate(labels):
        true = softmax(parts.sharpness * logs[row] + parts.bias)
        joint = [
            true[k] * (1 - rates[k] if k == label else rates[k] / (classes - 1))
            for k in range(classes)
        ]
        assert found[row] == pytest.approx(1 - joint[label] / sum(joint), abs=1e-9)


@pytest.mark.parametrize(
    ("classes", "rates"),
    [(2, 0.0), (2, 0.05), (2, (0.02, 0.2)), (2, 0.2), (4, 0.0), (4, 0.1), (3, (0.0, 0.05, 0.3))],
)
def test_intervals_hold_the_number_of_wrong_labels(classes, rates):
    """Six tables each; 95% intervals miss three or more of six in 0.2% of the cases."""
    held, errors = 0, []
    for seed in range(6):
        logs, true, labels = drawn(seed, rows=1000, classes=classes, rates=rates, sharpness=1.5)
        found = wrong_labels(logs, labels)
        wrong = int((labels != true).sum())
        held += found.low <= wrong <= found.high
        errors.append(found.count - wrong)
        assert 0 <= found.low <= found.count <= found.high <= 1000
        assert found.count == pytest.approx(found.probability.sum())
    assert held >= 4
    assert abs(np.mean(errors)) < 20


def test_without_wrong_labels_the_interval_begins_at_zero_and_few_rows_are_marked():
    logs, _, labels = drawn(3, rows=2000, classes=2, rates=0.0)
    found = wrong_labels(logs, labels)
    assert found.low == 0
    assert found.inspected.sum() == round(found.count) < 60


@few
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 4), rate=st.sampled_from([0.0, 0.1, 0.3]))
def test_names_of_the_classes_do_not_matter(seed, classes, rate):
    logs, _, labels = drawn(seed, rows=300, classes=classes, rates=rate)
    order = np.random.default_rng(seed).permutation(classes)
    first, second = (
        wrong_labels(logs, labels),
        wrong_labels(logs[:, order], order.argsort()[labels]),
    )
    # The optimiser stops where its steps gain nothing.
    assert second.count == pytest.approx(first.count, rel=0.01, abs=0.2)
    assert second.probability == pytest.approx(first.probability, abs=0.01)


@few
@given(seed=st.integers(0, 10**6))
def test_a_surer_label_of_the_same_class_is_not_likelier_to_be_wrong(seed):
    logs, _, labels = drawn(seed, rows=100, classes=2, rates=0.1)
    found = wrong_labels(logs, labels)
    share = softmax(logs, axis=1)[np.arange(100), labels]
    for label in range(2):
        chosen = np.flatnonzero(labels == label)
        ordered = found.log_odds[chosen[np.argsort(share[chosen])]]
        assert all(later <= earlier + 1e-9 for earlier, later in pairwise(ordered))


@few
@given(
    logs=st.lists(st.tuples(*[st.floats(-1e300, 1e300) for _ in range(2)]), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_estimates_of_any_evidence_are_numbers(logs, seed):
    labels = np.random.default_rng(seed).integers(0, 2, size=len(logs))
    found = wrong_labels(np.array(logs), labels)
    assert np.isfinite(found.log_odds).all()
    assert 0 <= found.low <= found.count <= found.high <= len(logs)
    assert ((found.rates >= LEAST_RATE) & (found.rates <= LEAST_RATE + MOST_RATE)).all()
