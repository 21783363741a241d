"""Small pools, one per family, and what their subsets truly give."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from modelpred.refits import Retraining
from modelpred.targets import Points, TargetModel, points_of, target_model
from tests.fixtures import made_once

POINTS, FEATURES = 40, 4
CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}


@dataclass(frozen=True)
class Case:
    """A family with its pool and full-data parameters."""

    model: TargetModel
    points: Points
    truth: Retraining
    full: torch.Tensor

    def weights(self, count, *, high=3, seed=1):
        """Integer weights below `high`, [count, points]."""
        draws = np.random.default_rng(seed)
        return torch.tensor(draws.integers(0, high, size=(count, len(self.points.labels))))


def make_case(family):
    draws = np.random.default_rng(0)
    features = draws.normal(size=(POINTS, FEATURES))
    signal = features @ draws.normal(size=(FEATURES, max(CLASSES[family], 1)))
    noisy = signal + draws.normal(size=signal.shape)
    labels = noisy.argmax(axis=1) if CLASSES[family] else noisy[:, 0] + 2
    model = target_model(family)
    points = points_of(features, labels)
    truth = Retraining(model, points, tolerance=1e-10)
    return Case(model, points, truth, truth(torch.ones(1, POINTS))[0])


@pytest.fixture(scope="session", params=sorted(CLASSES))
def case(request):
    return make_case(request.param)


ridge = made_once(make_case, "ridge")
softmax = made_once(make_case, "softmax")
logistic = made_once(make_case, "logistic")
