"""The model of all rows on the test rows, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error

from modelpred.report import baseline_of
from modelpred.targets import points_of, target_model


def test_a_classifier_is_compared_with_the_class_frequencies():
    rng = np.random.default_rng(0)
    x, held_out = rng.normal(size=(60, 3)), rng.normal(size=(40, 3))
    y, y_test = (
        (row @ [1, -1, 0.5] + rng.normal(size=len(row)) > 0.3).astype(int) for row in (x, held_out)
    )
    points, tests = (
        points_of(torch.tensor(a), torch.tensor(b), 2) for a, b in ((x, y), (held_out, y_test))
    )
    found = baseline_of(target_model("logistic", C=2.0), points, tests, tolerance=1e-9)
    model = LogisticRegression(C=2.0, tol=1e-10).fit(x, y)
    prior = DummyClassifier().fit(x, y)
    assert found.accuracy == model.score(held_out, y_test)
    assert found.loss == pytest.approx(log_loss(y_test, model.predict_proba(held_out)), rel=1e-5)
    assert found.trivial == prior.score(held_out, y_test)
    assert found.trivial_loss == pytest.approx(log_loss(y_test, prior.predict_proba(held_out)))


def test_a_regression_is_compared_with_the_mean():
    rng = np.random.default_rng(1)
    x, held_out = rng.normal(size=(60, 3)), rng.normal(size=(40, 3))
    y, y_test = (row @ [1, -1, 0.5] + rng.normal(size=len(row)) for row in (x, held_out))
    points, tests = (
        points_of(torch.tensor(a), torch.tensor(b), 0) for a, b in ((x, y), (held_out, y_test))
    )
    found = baseline_of(target_model("ridge", C=2.0), points, tests, tolerance=1e-9)
    model = Ridge(alpha=1 / 2.0).fit(x, y)
    assert found.loss == pytest.approx(
        root_mean_squared_error(y_test, model.predict(held_out)), rel=1e-4
    )
    assert found.trivial == pytest.approx(root_mean_squared_error(y_test, np.full(40, y.mean())))
    assert found.accuracy is None
