"""Mapped estimators against scikit-learn's own fits, with drawn settings on drawn data."""

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC, LinearSVC

from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Boxed,
    adapted,
    adapted_coefficients,
    coefficient_table,
    fitted_estimator,
)
from modelpred.estimators.mapping import NoFamily, mapped
from modelpred.targets import target_model, train_targets
from tests.sklearn_settings import SEARCH

ROWS = 40


@st.composite
def problems(draw, classes):
    """Features of drawn place and unit, labels, and sample weights or None."""
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    features = generator.normal(size=(ROWS, draw(st.integers(1, 5))))
    features = features * draw(st.sampled_from([0.3, 1.0, 5.0])) + draw(st.sampled_from([0.0, 2.0]))
    scores = features @ generator.normal(size=(features.shape[1], max(classes, 1)))
    scores = scores + generator.normal(size=scores.shape)
    if classes:
        labels = (
            scores.argmax(1) if classes > 2 else (scores[:, 0] > scores[:, 0].mean()).astype(int)
        )
        labels[: 2 * classes] = np.tile(np.arange(classes), 2)
        labels = np.array(["north", "south", "west"])[labels] if draw(st.booleans()) else 3 * labels
    else:
        labels = scores[:, 0] * draw(st.sampled_from([1.0, 100.0])) + 7
    factors = generator.uniform(0.2, 3, size=ROWS) if draw(st.booleans()) else None
    return features, labels, factors


strengths = st.sampled_from([0.01, 0.3, 1.0, 20.0])
scalings = st.sampled_from([0.5, 1.0, 10.0])


@st.composite
def logistics(draw, classes):
    """A LogisticRegression at a tight tolerance."""
    liblinear = classes == 2 and draw(st.booleans())
    own = {"intercept_scaling": draw(scalings)} if liblinear else {}
    return linear_model.LogisticRegression(
        C=draw(strengths),
        fit_intercept=draw(st.booleans()),
        solver="liblinear"
        if liblinear
        else draw(st.sampled_from(["newton-cholesky", "newton-cg"])),
        tol=1e-10,
        max_iter=10_000,
        **own,
    )


@st.composite
def machines(draw, classes):
    """A LinearSVC at a tight tolerance."""
    return LinearSVC(
        C=draw(strengths),
        fit_intercept=draw(st.booleans()),
        intercept_scaling=draw(scalings),
        dual=False,
        tol=1e-12,
        max_iter=100_000,
    )


@st.composite
def ridges(draw, classes):
    """A Ridge, or a RidgeClassifier for classes."""
    kind = linear_model.RidgeClassifier if classes else linear_model.Ridge
    return kind(alpha=1 / draw(strengths), fit_intercept=draw(st.booleans()))


KINDS = {
    "logistic": (logistics, 2),
    "softmax": (logistics, 3),
    "svm": (machines, 2),
    "svm-many": (machines, 3),
    "ridge": (ridges, 0),
    "ridge_classifier": (ridges, 2),
    "ridge_classifier-many": (ridges, 3),
}


@st.composite
def cases(draw):
    """An estimator with its rows, and class weights where they are weights of rows."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    estimators, classes = KINDS[kind]
    estimator = draw(estimators(classes))
    features, labels, factors = draw(problems(classes))
    if classes and kind != "svm-many":
        names = np.unique(labels).tolist()
        uneven = {name: 0.5 + at for at, name in enumerate(names)}
        estimator.class_weight = draw(st.sampled_from([None, "balanced", uneven]))
    return estimator, features, labels, factors


def own_fit(estimator, features, labels, factors):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the limit of rounding
        return clone(estimator).fit(features, labels, sample_weight=factors)


def trained(found, features, labels, weights):
    """Exact parameters of subsets [subsets, parameters], and the classes' names."""
    mapping = found.mapped
    classes = np.array([]) if mapping.regression else np.unique(labels)
    encoded = labels if mapping.regression else np.searchsorted(classes, labels)
    answer = train_targets(
        target_model(mapping.family, **mapping.settings),
        features / mapping.divisor,
        encoded,
        weights,
        tolerance=1e-9,
        classes=len(classes),
        sample_weight=mapping.sample_weight,
    )
    assert answer.converged.all()
    return answer.parameters, classes


def require_near(ours, theirs):
    """Coefficients and intercepts within 1e-5 of their size; a shift of all softmax scores is free."""
    pairs = []
    for model in (ours, theirs):
        outputs = len(np.atleast_2d(model.coef_))
        intercepts = np.broadcast_to(model.intercept_, outputs)
        if len(intercepts) > 1 and hasattr(model, "predict_proba"):
            intercepts = intercepts - intercepts.mean()
        pairs.append(np.concatenate([np.ravel(model.coef_), np.ravel(intercepts)]))
    size = max(1e-3, np.linalg.norm(pairs[1]))
    assert np.linalg.norm(pairs[0] - pairs[1]) <= 1e-5 * size


@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_the_full_model_is_the_fit_of_the_estimator(case):
    estimator, features, labels, factors = case
    found, same = adapted(estimator, features, labels, sample_weight=factors, what="X")
    np.testing.assert_array_equal(same, features)
    parameters, classes = trained(found, features, labels, np.ones((1, ROWS)))
    ours = fitted_estimator(found, parameters[0], classes)
    theirs = own_fit(estimator, features, labels, factors)
    assert type(ours) is type(estimator)
    assert ours.get_params() == estimator.get_params()
    require_near(ours, theirs)
    assert np.shape(ours.intercept_) == np.shape(theirs.intercept_)
    assert ours.predict(features).shape == theirs.predict(features).shape
    assert ours.predict(features).dtype == theirs.predict(features).dtype
    table = coefficient_table({"own": adapted_coefficients(found, parameters[0])}, classes)
    told = table["own"].to_numpy().reshape(-1, features.shape[1] + 1)
    np.testing.assert_allclose(told[:, :-1], np.atleast_2d(ours.coef_), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(case=cases(), seed=st.integers(0, 10**6))
def test_the_model_of_a_subset_is_the_fit_to_its_rows(case, seed):
    estimator, features, labels, factors = case
    if getattr(estimator, "class_weight", None) == "balanced":
        estimator.class_weight = None  # computed once on all rows, so a fit to the subset differs
    found, _ = adapted(estimator, features, labels, sample_weight=factors, what="X")
    counts = np.random.default_rng(seed).integers(0, 3, size=ROWS)
    counts[:6] = 1
    parameters, classes = trained(found, features, labels, counts[None])
    held = counts > 0
    weights = (counts if factors is None else counts * factors)[held].astype(float)
    theirs = own_fit(estimator, features[held], labels[held], weights)
    require_near(fitted_estimator(found, parameters[0], classes), theirs)


LOGISTIC_CV = SEARCH | {"Cs": [0.01, 0.1, 1], "tol": 1e-10, "max_iter": 9999}
SEARCHES = [
    (linear_model.LogisticRegressionCV(**LOGISTIC_CV), 2, "C_"),
    (linear_model.RidgeCV(alphas=[0.1, 1, 10]), 0, "alpha_"),
    (linear_model.RidgeClassifierCV(alphas=[0.1, 1, 10]), 3, "alpha_"),
]


@pytest.mark.parametrize(("estimator", "classes", "chosen"), SEARCHES)
@pytest.mark.parametrize("seed", range(3))
def test_a_search_is_made_once_on_all_rows(estimator, classes, chosen, seed):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(ROWS, 3))
    labels = features[:, 0] + generator.normal(size=ROWS)
    if classes:
        labels = np.digitize(labels, [-0.3, 0.3][: classes - 1])
    found, _ = adapted(estimator, features, labels, sample_weight=None, what="X")
    parameters, names = trained(found, features, labels, np.ones((1, ROWS)))
    ours = fitted_estimator(found, parameters[0], names)
    theirs = own_fit(estimator, features, labels, None)
    require_near(ours, theirs)
    assert getattr(ours, chosen) == getattr(theirs, chosen)
    assert f"{chosen} = " in str(found)


REFUSED = [
    (linear_model.LogisticRegression(l1_ratio=0.5, solver="saga"), "l1_ratio=0.5.*l2 penalty"),
    (linear_model.LogisticRegression(penalty="l1", solver="saga"), "penalty='l1'.*l2 penalty"),
    (linear_model.LogisticRegression(C=np.inf), "C=inf.*positive number"),
    (LinearSVC(loss="hinge"), "loss='hinge'.*squared_hinge"),
    (LinearSVC(penalty="l1", dual=False), "penalty='l1'"),
    (LinearSVC(multi_class="crammer_singer"), "multi_class='crammer_singer'"),
    (linear_model.Ridge(positive=True), "positive=True.*bounds"),
    (linear_model.Ridge(alpha=0), "alpha=0.*positive number"),
    (linear_model.Ridge(alpha=np.ones(2)), "alpha=.*positive number"),
    (SVC(kernel="linear"), "hinge loss.*LinearSVC"),
]


@pytest.mark.parametrize(("estimator", "reason"), REFUSED)
def test_estimators_with_settings_that_no_family_has_are_black_boxes(estimator, reason):
    features, labels = np.eye(4), np.array([0, 1, 0, 1])
    with pytest.raises(NoFamily, match=reason):
        mapped(estimator, features, labels)
    found, _ = adapted(estimator, features, labels, sample_weight=None, what="X")
    assert isinstance(found.target, Boxed)


def test_settings_of_several_classes_that_no_family_has_are_told(caplog):
    features, labels = np.eye(6), np.array([0, 1, 2, 0, 1, 2])
    for estimator, reason in (
        (linear_model.LogisticRegression(solver="liblinear"), "solver='liblinear'.*two classes"),
        (LinearSVC(class_weight="balanced"), "class_weight='balanced'.*pass sample_weight"),
    ):
        caplog.clear()
        found, _ = adapted(estimator, features, labels, sample_weight=None, what="X")
        assert isinstance(found.target, Boxed)
        assert re.search(reason, caplog.text)


def test_a_subclass_is_not_taken_for_its_parent():
    class Other(linear_model.Ridge):
        pass

    found, _ = adapted(Other(), np.eye(3), np.arange(3.0), sample_weight=None, what="X")
    assert isinstance(found.target, Boxed)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.array([1, -1, 1.0]), np.ones(2), ["a"] * 3])
def test_sample_weights_are_checked(wrong):
    with pytest.raises(InvalidInput, match="sample_weight"):
        adapted(linear_model.Ridge(), np.eye(3), np.arange(3.0), sample_weight=wrong, what="X")


def test_softmax_scores_without_an_intercept_stay_without():
    features = np.random.default_rng(0).normal(size=(ROWS, 2)) + 1
    labels = np.arange(ROWS) % 3
    found, _ = adapted(
        linear_model.LogisticRegression(fit_intercept=False),
        features,
        labels,
        sample_weight=None,
        what="X",
    )
    parameters, classes = trained(found, features, labels, np.ones((1, ROWS)))
    assert not torch.from_numpy(parameters).unflatten(1, (3, -1))[..., -1].any()
    assert not fitted_estimator(found, parameters[0], classes).intercept_.any()
