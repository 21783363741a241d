"""Small pools of points for the target models."""

import numpy as np
import pytest
import torch

from modelpred.targets import Points, TargetModel, points_of, target_model
from modelpred.targets.compiled import kernels

FAMILIES = {
    "logistic": (2, {"C": 0.7}),
    "softmax": (4, {"C": 0.7}),
    "svm": (2, {"C": 0.7}),
    "svm-many": (4, {"C": 0.7}),
    "ridge": (0, {"C": 0.7}),
    "ridge_classifier": (2, {"C": 0.7}),
    "ridge_classifier-many": (4, {"C": 0.7}),
    "logistic-penalised": (2, {"C": 0.7, "intercept": "penalised"}),
    "softmax-none": (4, {"C": 0.7, "intercept": "none"}),
    "svm-none": (4, {"C": 0.7, "intercept": "none"}),
    "ridge-none": (0, {"C": 0.7, "intercept": "none"}),
    "mlp": (3, {"hidden": 5, "weight_decay": 0.01, "steps": 60, "learning_rate": 0.3}),
}


def pool(classes: int, *, points: int = 40, features: int = 6, seed: int = 0) -> Points:
    """Normal features; labels from a noisy linear rule, every class present."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(points, features))
    scores = table @ generator.normal(size=(features, max(classes, 1)))
    scores = scores + generator.normal(size=scores.shape)
    if classes == 0:
        return points_of(table, scores[:, 0] + 3, 0)
    labels = scores.argmax(1) if classes > 2 else (scores[:, 0] > 0).astype(int)
    labels[:classes] = np.arange(classes)
    return points_of(table, labels, classes)


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[TargetModel, Points]:
    """Each family with a pool that suits it."""
    classes, settings = FAMILIES[request.param]
    return target_model(request.param.split("-")[0], **settings), pool(classes)


@pytest.fixture
def make_pool():
    return pool


@pytest.fixture
def counts():
    """A drawer of weights 0..3 that keep every class."""

    def draw(points: Points, subsets: int, seed: int = 1) -> torch.Tensor:
        generator = np.random.default_rng(seed)
        weights = generator.integers(0, 4, size=(subsets, len(points.features)))
        weights[:, : max(points.classes, 1)] = 1
        return torch.tensor(weights, dtype=torch.float64)

    return draw


@pytest.fixture(scope="module", params=["compiled", "torch"])
def trained_by(request: pytest.FixtureRequest):
    """Both ways to train: by the kernels, and by torch as where none could be compiled."""
    if request.param == "compiled" and kernels.library() is None:
        pytest.skip("no kernels were compiled at installation")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(kernels, "library", lambda: None)
        yield request.param
