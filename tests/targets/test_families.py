"""A family that the package does not know: one class and one entry in the table are all it takes."""

# ruff: noqa: ARG002, D102 - signatures are the seam's, and so are their docstrings

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
import torch
from pydantic import Field, ValidationError
from scipy.optimize import minimize

from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.refits import Influence, NewtonStep, Retraining, rivals
from modelpred.targets import target_model, train_targets
from modelpred.targets.families import FAMILIES, targets_section
from modelpred.targets.linear import Linear


@dataclass(frozen=True)
class SmoothAbsolute(Linear):
    """Robust regression: width sqrt(width^2 + (y - m)^2), nearly |y - m| beyond the width."""

    width: Annotated[float, Field(gt=0)] = 1.0

    name = "smooth_absolute"
    regression = True

    def outputs(self, classes):
        return 1

    def _length(self, scores, labels):
        return (self.width**2 + (scores - labels).square()).sqrt()

    def score_losses(self, scores, labels):
        return self.width * self._length(scores[0], labels)

    def score_slopes(self, scores, labels, out=None):  # `out` may be left unused: it saves memory
        return self.width * (scores - labels) / self._length(scores, labels)

    def score_curvature(self, scores, labels, scale):
        return (scale * (self.width / self._length(scores, labels)) ** 3,)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(FAMILIES, "smooth_absolute", SmoothAbsolute)
    return target_model("smooth_absolute", C=0.8, width=0.5)


def test_a_new_family_trains_to_its_optimum(model, make_pool, counts):
    points = make_pool(0)
    weights = counts(points, 5)
    trained = train_targets(model, points.features, points.labels, weights, tolerance=1e-9)
    assert bool(trained.converged.all())
    for row in range(5):

        def objective(theta, row=row):
            parameters = torch.tensor(theta)[None]
            value = model.objective(parameters, weights[row : row + 1], points)
            gradient = model.gradient(parameters, weights[row : row + 1], points)
            return float(value), gradient[0].numpy()

        found = minimize(objective, np.zeros(7), jac=True, method="BFGS", options={"gtol": 1e-8})
        assert np.abs(found.x - trained.parameters[row].numpy()).max() <= 1e-6


def test_a_new_family_is_expanded_predicted_and_refined(model, make_pool, counts):
    points = make_pool(0)
    truth = Retraining(model, points, tolerance=1e-10)
    full = truth(torch.ones(1, 40))[0]
    weights = torch.ones(20, 40)
    weights[torch.arange(20), torch.arange(20)] = 0
    exact = truth(weights)
    moved = (exact - full).norm(dim=1)
    # One row of forty is a small change: first order is most of it, a Newton step nearly all.
    for kind, share in ((Influence, 0.3), (NewtonStep, 0.1)):
        error = (kind(model, points, full)(weights) - exact).norm(dim=1)
        assert float((error / moved).median()) <= share
    assert len(rivals(model, points, counts(points, 50), truth(counts(points, 50)))) == 5
    predictor = fit_predictor(
        PredictorConfig(epochs=2), model, points, counts(points, 60), truth(counts(points, 60))
    )
    predicted = predictor(weights)
    refined = predictor.predict(weights, refine=2)
    assert float((refined - exact).norm()) < 0.1 * float((predicted - exact).norm())


def test_a_new_family_brings_its_settings_to_params(model):
    section = targets_section(FAMILIES)
    assert section(model="smooth_absolute", C=0.8, width=0.5).build(classes=0) == model
    with pytest.raises(ValidationError, match="greater than 0"):
        section(model="smooth_absolute", width=0.0)
    with pytest.raises(ValidationError, match="'logistic'"):
        section(model="smooth_relative")
