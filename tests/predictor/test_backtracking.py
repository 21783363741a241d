"""Points that no fit saw: no step raises the objective, and subsets without them are left alone."""

import dataclasses
import itertools

import pytest
import torch

from modelpred.metrics import relative_errors
from modelpred.predictor.backtracking import unseen
from modelpred.targets import Points, train_targets
from tests.predictor.conftest import POINTS, make_points

ADDED = 6


@pytest.fixture(scope="module")
def longer(case):
    """The case's points and others, each of which moves the model as none of the fit's does."""
    more = make_points(case.model.name, ADDED, seed=3)
    return Points(
        torch.cat([case.points.features, 20 * more.features]),
        torch.cat([case.points.labels, more.labels]),
        case.points.classes,
    )


def _weights(longer):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.rand(60, len(longer.labels), generator=generator) < 0.7
    return drawn.double()


def _stages(predictor, weights):
    with torch.no_grad():
        return list(predictor.network.stages(weights.float(), predictor.bound, None))


def test_no_stage_raises_the_objective(case, longer):
    predictor, weights = case.predictor.for_points(longer), _weights(longer)
    weights[:, -1] = 1
    values = [
        case.model.objective(stage, weights.float(), predictor.bound.points)
        for stage in _stages(predictor, weights)
    ]
    for before, after in itertools.pairwise(values):
        assert bool((after <= before * (1 + 1e-5)).all())


def test_kept_answers_are_nearer_to_training(case, longer):
    if case.predictor.exact:
        pytest.skip("exact answers have no steps to keep")
    weights = _weights(longer)
    trained = train_targets(
        case.model, longer.features, longer.labels, weights, tolerance=1e-8, classes=longer.classes
    )
    kept = trained.converged & ~trained.degenerate
    plain = dataclasses.replace(case.predictor, points=longer)
    errors = [
        relative_errors(predictor(weights[kept]), trained.parameters[kept]).mean()
        for predictor in (case.predictor.for_points(longer), plain)
    ]
    assert errors[0] < errors[1]


def test_subsets_of_seen_points_are_left_alone_to_the_bit(case, longer):
    weights = _weights(longer)
    weights[::2, POINTS:] = 0
    guarded, plain = (
        case.predictor.for_points(longer),
        dataclasses.replace(case.predictor, points=longer),
    )
    for kept, free in zip(_stages(guarded, weights), _stages(plain, weights), strict=True):
        assert torch.equal(kept[::2], free[::2])
    assert torch.equal(guarded(weights[::2]), plain(weights[::2]))


def test_unseen_points_are_found_wherever_they_lie(case):
    order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(0))
    moved = Points(case.points.features[order], case.points.labels[order], case.points.classes)
    assert unseen(moved, case.points) is None
    other = dataclasses.replace(moved, features=moved.features.clone())
    other.features[3, 0] += 1
    found = unseen(other, case.points)
    assert found is not None
    assert found.nonzero().flatten().tolist() == [3]
    # Asked of yet other points, it still knows those of the fit.
    again = case.predictor.for_points(other).for_points(case.points)
    assert again.bound.unseen is None
