"""A pool that grows: every refit keeps its old answers, and its law holds for the added points."""

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.refits import (
    FullModel,
    Influence,
    LinearDatamodel,
    NewtonStep,
    RescaledInfluence,
    Retraining,
)
from modelpred.targets import Points

OLD = 25
EXPANSIONS = [Influence, RescaledInfluence, NewtonStep]


def first(points, count=OLD):
    return Points(points.features[:count], points.labels[:count], points.classes)


@pytest.fixture
def old(case):
    """Truth and full-data parameters on the first points only."""
    truth = Retraining(case.model, first(case.points), tolerance=1e-10)
    return truth, truth(torch.ones(1, OLD))[0]


def padded(weights, points):
    return torch.cat([weights, weights.new_zeros(len(weights), points - weights.shape[1])], 1)


@pytest.mark.parametrize("kind", [*EXPANSIONS, FullModel])
def test_old_points_alone_get_their_old_answers(case, old, kind):
    refit = kind(case.model, first(case.points), old[1])
    grown = refit.for_points(case.points)
    weights = case.weights(8)[:, :OLD]
    # A Newton step solves its systems to a thousandth, along other iterates.
    tolerance = 1e-2 if kind is NewtonStep else 1e-10
    torch.testing.assert_close(
        grown(padded(weights, len(case.points.labels))), refit(weights),
        rtol=tolerance, atol=tolerance,
    )  # fmt: skip


def test_influence_of_an_added_point_is_the_derivative_of_retraining(case, old):
    grown = Influence(case.model, first(case.points), old[1]).for_points(case.points)
    step = 1e-3
    base = padded(torch.ones(1, OLD, dtype=torch.float64), len(case.points.labels))
    added = torch.eye(len(case.points.labels), dtype=torch.float64)[OLD : OLD + 5] * step
    near, far = case.truth(base + added), case.truth(base + 2 * added)
    # Weights are never negative, so the difference is one-sided, to the step's second order.
    slope = (4 * near - far - 3 * old[1]) / (2 * step)
    torch.testing.assert_close(
        grown.derivatives[OLD : OLD + 5], slope, rtol=1e-3, atol=1e-3 * float(slope.abs().max())
    )


def test_one_newton_step_adds_points_exactly_for_ridge(ridge):
    truth = Retraining(ridge.model, first(ridge.points), tolerance=1e-10)
    full = truth(torch.ones(1, OLD))[0]
    newton = NewtonStep(ridge.model, first(ridge.points), full, tolerance=1e-13)
    grown, weights = newton.for_points(ridge.points), ridge.weights(10)
    torch.testing.assert_close(grown(weights), ridge.truth(weights), rtol=1e-8, atol=1e-8)


def test_a_datamodel_knows_nothing_of_added_points(ridge):
    weights = ridge.weights(60)[:, :OLD]
    truth = Retraining(ridge.model, first(ridge.points))
    datamodel = LinearDatamodel.fit(weights, truth(weights))
    grown = datamodel.for_points(ridge.points)
    asked = ridge.weights(4)
    torch.testing.assert_close(grown(asked), datamodel(asked[:, :OLD]))
    with pytest.raises(InvalidInput, match="20 points, fewer than the 25 of the fit"):
        datamodel.for_points(first(ridge.points, 20))


@pytest.mark.parametrize("kind", EXPANSIONS)
def test_a_pool_that_begins_with_other_points_is_refused(logistic, kind):
    refit = kind(logistic.model, first(logistic.points), logistic.full)
    turned = Points(logistic.points.features.flip(0), logistic.points.labels.flip(0), 2)
    with pytest.raises(InvalidInput, match="does not begin with the 25 points"):
        refit.for_points(turned)
