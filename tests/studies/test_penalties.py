"""Laplace approximations averaged over penalties: evidence by quadrature, laws, coverage."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies.coverage import KnownModel, simulated_coverage
from modelpred.studies.penalties import SCALE, AnyPenalty, approximations, penalty_draws
from modelpred.targets import points_of, target_model


def table(seed, *, rows=60, features=2, classes=2):
    draws = np.random.default_rng(seed)
    cells = draws.normal(size=(rows, features))
    signal = cells @ draws.normal(size=(features, classes))
    noise = draws.gumbel(size=signal.shape)
    labels = (signal + noise).argmax(axis=1)
    labels[:classes] = np.arange(classes)
    return points_of(cells, labels, classes)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_evidence_is_the_integral_over_the_parameter(seed):
    """One feature, no intercept: probabilities of the penalties by quadrature."""
    points = table(seed, rows=80, features=1)
    found = approximations(target_model("logistic", intercept="none"), points, tolerance=1e-8)
    theta = np.linspace(-30, 30, 20_001)
    signs = 2 * points.labels.numpy() - 1
    scores = np.outer(signs * points.features[:, 0].numpy(), theta)
    likelihood = -np.logaddexp(0, -scores).sum(axis=0)
    size = float(points.features.square().mean().sqrt())
    exact = []
    for each in found:
        normal = -(theta**2) / (2 * each.C) - np.log(each.C) / 2
        deviation = np.sqrt(each.C) * size / SCALE
        exact.append(logsumexp(likelihood + normal) + np.log(deviation / (1 + deviation**2)))
    shares = [
        np.exp(np.array(logs) - logsumexp(logs))
        for logs in ([each.log_probability for each in found], exact)
    ]
    # Laplace's error is of the order 1 / rows.
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-8, 8), classes=st.integers(2, 3))
def test_the_penalty_of_the_model_does_not_matter(seed, power, classes):
    points = table(seed, classes=classes)
    name = "logistic" if classes == 2 else "softmax"
    one, other = (
        {
            round(np.log2(each.C)): each
            for each in approximations(target_model(name, C=C), points, tolerance=1e-8)
        }
        for C in (1.0, 2.0**power)
    )
    best = max(one, key=lambda step: one[step].log_probability)
    assert best == max(other, key=lambda step: other[step].log_probability)
    assert other[best].optimum.numpy() == pytest.approx(one[best].optimum.numpy(), abs=1e-5)
    assert other[best].log_probability == pytest.approx(one[best].log_probability, abs=1e-5)


def test_draws_have_the_approximation_s_moments():
    points = table(0)
    model = target_model("logistic")
    draws = penalty_draws(model, points, draws=50_000, generator=np.random.default_rng(0)).numpy()
    found = approximations(model, points, tolerance=1e-8)
    share = np.exp([each.log_probability for each in found])
    share /= share.sum()
    means = np.stack([each.optimum.numpy() for each in found])
    mean = share @ means
    spread = sum(
        weight * (each.normal.directions.T @ each.normal.directions).numpy()
        for weight, each in zip(share, found, strict=True)
    ) + np.cov(means.T, aweights=share, ddof=0)
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.02)
    assert np.cov(draws.T) == pytest.approx(spread, abs=0.02 * spread.max())


def test_softmax_is_logistic_regression_of_two_classes_with_twice_the_penalty():
    """Scores of two classes are a difference of parameters, whose prior has twice the variance."""
    points = table(1)
    generator = np.random.default_rng(0)
    two = penalty_draws(target_model("softmax"), points, draws=4000, generator=generator)
    one = penalty_draws(target_model("logistic"), points, draws=4000, generator=generator)
    ends = [
        np.quantile(
            model.probabilities(model.scores(found, points.features))[..., 1], (0.05, 0.95), axis=0
        )
        for model, found in ((target_model("softmax"), two), (target_model("logistic"), one))
    ]
    # The prior of the penalty is of each parameter, not of the difference.
    assert ends[0] == pytest.approx(ends[1], abs=0.03)


def test_intervals_hold_the_truth_under_a_strong_penalty():
    """The bootstrap's intervals of 90% hold the truth in less than 80% of the cases."""
    draws = np.random.default_rng(1)
    known = KnownModel(
        target_model("logistic", C=0.01),
        torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64),
        torch.tensor(draws.normal(size=(200, 2))),
        torch.tensor(draws.normal(size=(30, 2))),
        2,
    )

    def any_penalty(model, points):
        return AnyPenalty(model, points, draws)

    found = simulated_coverage(
        known,
        tables=20,
        resamples=200,
        generator=np.random.default_rng(2),
        refits_of={"bootstrap": Retraining, "any penalty": any_penalty},
    )
    # 20 tables: a standard error of some three points.
    for share in (found["any penalty"].probabilities, found["any penalty"].parameters):
        assert share.mean > 0.8
    assert found["bootstrap"].parameters.high < 0.8


@pytest.mark.parametrize("name", ["svm", "ridge", "mlp"])
def test_families_without_a_penalised_likelihood_are_refused(name):
    points = points_of(np.eye(4), np.array([0, 1, 0, 1]), 0 if name == "ridge" else 2)
    with pytest.raises(InvalidInput, match=f"{name} is no penalised likelihood"):
        penalty_draws(target_model(name), points, draws=2, generator=np.random.default_rng(0))


def test_too_many_parameters_are_refused():
    points = points_of(np.zeros((3000, 3000)), np.arange(3000) % 2, 2)
    with pytest.raises(InvalidInput, match="3,001 parameters here"):
        penalty_draws(target_model("logistic"), points, draws=2, generator=np.random.default_rng(0))
