"""A small real study: a noisy pool, its test rows, exact retraining and the rivals."""

import numpy as np
import pytest
import torch

from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.refits import Retraining, rivals
from modelpred.studies.context import StudyContext
from modelpred.targets import points_of, target_model
from tests.fixtures import made_once

CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}
POINTS, TEST, FEATURES = 30, 60, 3


def make_context(family, *, refits=None, progress=None):
    draws = np.random.default_rng(3)
    features = draws.normal(size=(POINTS + TEST, FEATURES))
    signal = features @ draws.normal(size=(FEATURES, max(CLASSES[family], 1)))
    noisy = signal + draws.normal(size=signal.shape)
    labels = noisy.argmax(axis=1) if CLASSES[family] else noisy[:, 0]
    model = target_model(family)
    points = points_of(features[:POINTS], labels[:POINTS], CLASSES[family])
    test_points = points_of(features[POINTS:], labels[POINTS:], CLASSES[family])
    truth = Retraining(model, points, tolerance=1e-9)
    if refits is None:
        weights = torch.tensor(draws.integers(0, 3, size=(150, POINTS)))
        refits = rivals(model, points, weights, truth(weights))
    row_ids = tuple(f"row-{number}" for number in range(POINTS))
    extra = {} if progress is None else {"progress": progress}
    return StudyContext(truth, test_points, refits, row_ids, **extra)


@pytest.fixture(scope="session", params=sorted(CLASSES))
def context(request):
    return make_context(request.param)


ridge = made_once(make_context, "ridge")
logistic = made_once(make_context, "logistic")


@pytest.fixture(scope="session")
def exact():
    """The study's subject is the truth itself."""
    context = make_context("logistic", refits={})
    return make_context("logistic", refits={"predictor": context.truth})


def fitted_context(family):
    """A small predictor beside its rivals."""
    context = make_context(family)
    draws = np.random.default_rng(4)
    uniform = draws.random((300, POINTS)) < draws.uniform(0.3, 1, size=(300, 1))
    resamples = draws.multinomial(POINTS, np.full(POINTS, 1 / POINTS), size=50)
    weights = torch.tensor(np.concatenate([uniform.astype(int), resamples])).double()
    trained = context.truth.train(weights)
    usable = trained.converged & ~trained.degenerate
    config = PredictorConfig(epochs=5, width=16, step_width=8, steps=2)
    predictor = fit_predictor(
        config, context.model, context.points, weights[usable], trained.parameters[usable]
    )
    return make_context(family, refits={"predictor": predictor, **context.refits})


fitted = made_once(fitted_context, "logistic")
fitted_svm = made_once(fitted_context, "svm")
