"""Derivatives through trainings, against differences of trainings."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelpred.refits.training_effects import Residuals, Run, training_effects
from modelpred.targets import TorchTarget, points_of, train_targets

FEATURES, ROWS = 3, 12


def net():
    return nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3))


def line():
    return nn.Linear(FEATURES, 1)


def pool(rows, *, seed, classes, weighted=False):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, FEATURES))
    labels = generator.integers(0, classes, rows) if classes else generator.normal(size=rows)
    factors = generator.uniform(0.5, 2, rows) if weighted else None
    return points_of(features, labels, classes, sample_weight=factors)


def margins(target, points, tested, weights):
    """Margins of test rows under the model of each row of weights, [subsets, test rows]."""
    own = points.weighted(weights)
    parameters = target.solver(points)(own, start=None, tolerance=1e-6).parameters
    return target.margins(target.scores(parameters, tested.features), tested.labels)


def differences(target, points, tested, weights, *, step=1e-5):
    """Derivatives of margins by weights, from pairs of trainings, [test rows, rows]."""
    moved = torch.cat([weights + sign * step * torch.eye(len(weights)) for sign in (1, -1)])
    up, down = margins(target, points, tested, moved.double()).chunk(2)
    return ((up - down) / (2 * step)).T


TESTED = pool(6, seed=2, classes=0)


@settings(max_examples=6, deadline=None)
@given(
    optimizer=st.sampled_from(["sgd", "momentum", "adam", "adamw"]),
    classes=st.sampled_from([0, 3]),
    seed=st.integers(0, 99),
    weights=st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS).filter(any),
)
def test_derivatives_are_those_of_differences(optimizer, classes, seed, weights):
    target = TorchTarget(
        build=net if classes else line,
        loss="cross_entropy" if classes else "mse",
        optimizer="sgd" if optimizer == "momentum" else optimizer,
        momentum=0.9 if optimizer == "momentum" else 0.0,
        learning_rate=0.02,
        schedule="cosine",
        weight_decay=0.01,
        batch_size=5,
        epochs=3,
        seed=seed,
        precision="float64",
    )
    points = pool(ROWS, seed=seed, classes=classes, weighted=seed % 2 == 0)
    tested = pool(4, seed=seed, classes=classes)
    own = torch.tensor(weights, dtype=torch.float64)
    run = Run(target, points, own)
    path = run.path()
    found = run.effects(path, run.margin_slopes(path, tested), torch.ones(3, ROWS).double())
    trained = train_targets(
        target,
        points.features,
        points.labels,
        own[None],
        classes=classes,
        sample_weight=points.sample_weight,
    ).parameters
    torch.testing.assert_close(
        target.module.join({n: p[None] for n, p in path.end.items()}), trained
    )
    torch.testing.assert_close(
        found, differences(target, points, tested, own), rtol=1e-4, atol=1e-7
    )


def effects(runs, changed):
    """Effects on margins with factors that a function changes, [test rows, rows]."""
    with pytest.MonkeyPatch.context() as patch:
        factors = Residuals.factors
        patch.setattr(
            Residuals, "factors", lambda *args, **kwargs: changed(factors(*args, **kwargs))
        )
        return training_effects(
            runs, lambda run, path: run.margin_slopes(path, TESTED), followed=len(runs)
        ).mean


def test_effects_of_least_squares_are_what_rows_add():
    """A derivative alone is far off for rows with much leverage, as three of twelve have here."""
    target = TorchTarget(
        build=line, loss="mse", batch_size=ROWS, epochs=25, learning_rate=0.2, precision="float64"
    )
    points = pool(ROWS, seed=1, classes=0)
    subsets = torch.tensor(list(itertools.combinations(range(ROWS), 6))[::132])
    subsets = torch.zeros(len(subsets), ROWS, dtype=torch.float64).scatter(1, subsets, 1.0)
    runs = [Run(target, points, weights) for weights in subsets]
    found = effects(runs, lambda own: own)
    plain = effects(runs, torch.ones_like)
    truth = torch.zeros_like(found)
    for row in range(ROWS):
        for sign, weight in ((1, 1.0), (-1, 0.0)):
            changed = subsets.clone()
            changed[:, row] = weight
            truth[:, row] += sign * margins(target, points, TESTED, changed).mean(0)
    error, of_derivatives = (float((each - truth).norm() / truth.norm()) for each in (found, plain))
    assert error < 0.5 * of_derivatives, (error, of_derivatives)


def test_rows_that_all_runs_have_take_the_ratio_of_the_others():
    residuals = torch.tensor([[[0.1, 0.4, 0.2]], [[0.3, 0.1, 0.2]]])
    weights = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    found = Residuals.of(residuals, weights)
    torch.testing.assert_close(found.inside, torch.tensor([[0.1, 0.1, 0.2]]))
    torch.testing.assert_close(found.outside, torch.tensor([[0.3, 0.4, 0.2 * 0.7 / 0.2]]))


@pytest.mark.parametrize("regression", [True, False])
def test_factors_are_one_where_a_row_makes_no_difference(regression):
    own = torch.full((2, 4), 0.3)
    weights = torch.tensor([1.0, 0, 2, 0])
    found = Residuals(own, own).factors(own, weights, regression=regression)
    torch.testing.assert_close(found, torch.ones(2, 4))
