"""Direct answers for leave-one-out and their bounds: against exact retraining."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies.context import StudyContext
from modelpred.studies.direct_removals import direct_removals
from modelpred.studies.removal_expansion import loss_change_within
from modelpred.studies.semivalues import Semivalue, estimate_values, leave_one_out_values
from modelpred.studies.utility import game_of
from modelpred.targets import points_of, target_model
from modelpred.targets.scoring import mean_test_losses

FAMILIES = {
    "logistic": (2,),
    "softmax": (2, 3, 4),
    "svm": (2, 3),
    "ridge": (0,),
    "ridge_classifier": (2, 3),
}
TOLERANCE = 1e-9


def drawn_problem(
    family, *, classes, rows, features, c, intercept, weighted, seed, test=30, scales=1
):
    draws = np.random.default_rng(seed)
    cells = draws.normal(size=(rows + test, features)) * np.exp(
        scales * draws.normal(size=features)
    )
    outputs = max(classes, 1)
    scores = cells @ draws.normal(size=(features, outputs)) + 2 * draws.normal(
        size=(rows + test, outputs)
    )
    labels = scores[:, 0] if not classes else scores.argmax(axis=1) if classes > 2 else None
    labels = (scores[:, 0] > 0).astype(int) if labels is None else labels
    if classes:  # every class is in the pool
        labels[:classes] = np.arange(classes)
    pool = points_of(cells[:rows], labels[:rows], classes)
    if weighted:
        factors = torch.from_numpy(draws.uniform(0.2, 3, size=rows))
        pool = type(pool)(pool.features, pool.labels, pool.classes, factors)
    model = target_model(family, C=c, intercept=intercept)
    return Retraining(model, pool, tolerance=TOLERANCE), points_of(
        cells[rows:], labels[rows:], classes
    )


def retrained_losses(truth, test):
    """The test loss of all rows and that without each, with the errors of training."""
    rows = len(truth.points.labels)
    weights = torch.cat([torch.ones(1, rows), 1 - torch.eye(rows)]).to(torch.uint8)
    parameters = truth(weights)
    losses = mean_test_losses(truth.model, parameters, test)
    errors = loss_change_within(truth.model, parameters, TOLERANCE * parameters.norm(dim=1), test)
    if truth.model.regression:
        errors = ((losses.square() + 2 * errors).sqrt() - losses) * 2
    return losses, errors


@st.composite
def problems(draw):
    family = draw(st.sampled_from(sorted(FAMILIES)))
    return {
        "family": family,
        "classes": draw(st.sampled_from(FAMILIES[family])),
        "rows": draw(st.integers(6, 40)),
        "features": draw(st.integers(1, 12)),
        "c": draw(st.sampled_from([0.01, 0.1, 1.0, 10.0])),
        "intercept": draw(st.sampled_from(["free", "penalised", "none"])),
        "weighted": draw(st.booleans()),
        "seed": draw(st.integers(0, 9999)),
    }


@given(problems())
@settings(max_examples=40, deadline=None)
def test_the_bounds_hold_against_exact_retraining(problem):
    truth, test = drawn_problem(**problem)
    losses, errors = retrained_losses(truth, test)
    if bool(losses.isnan().any()):  # retraining fails, too
        return
    full = truth(torch.ones(1, len(truth.points.labels), dtype=torch.uint8))[0]
    found = direct_removals(truth, test, full)
    error = ((found.without - found.whole) - (losses[1:] - losses[0])).abs()
    assert bool((error <= found.bounds + errors[1:] + errors[0] + 1e-10).all())
    assert bool(found.bounds.isfinite().all())
    assert found.retrained <= len(truth.points.labels)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_weights_that_add_up_to_one_are_no_single_row(family):
    """A class is missing without its last row, not without a weight of one."""
    problem = {"rows": 16, "features": 3, "c": 1.0, "intercept": "default", "seed": 0}
    truth, test = drawn_problem(family, classes=FAMILIES[family][0], weighted=False, **problem)
    weights = torch.full((16,), 1 / 16, dtype=torch.float64)
    if truth.model.probabilistic:
        for own in (truth.points.labels == label for label in range(truth.points.classes)):
            weights[own] = 1 / own.sum()
    truth = Retraining(
        truth.model, replace(truth.points, sample_weight=weights), tolerance=TOLERANCE
    )
    losses, errors = retrained_losses(truth, test)
    found = direct_removals(truth, test, truth(torch.ones(1, 16, dtype=torch.uint8))[0])
    error = ((found.without - found.whole) - (losses[1:] - losses[0])).abs()
    assert bool((error <= found.bounds + errors[1:] + errors[0] + 1e-10).all())


@given(problems())
@settings(max_examples=10, deadline=None)
def test_rows_of_squared_losses_are_answered_exactly(problem):
    family = "ridge" if problem["classes"] == 0 else "ridge_classifier"
    classes = (
        FAMILIES[family][0] if problem["classes"] not in FAMILIES[family] else problem["classes"]
    )
    truth, test = drawn_problem(**problem | {"family": family, "classes": classes})
    losses, errors = retrained_losses(truth, test)
    full = truth(torch.ones(1, len(truth.points.labels), dtype=torch.uint8))[0]
    found = direct_removals(truth, test, full)
    exact = losses[1:] - losses[0]
    slack = 1e-8 * (1 + losses[0]) + errors.max()
    torch.testing.assert_close(found.without - found.whole, exact, atol=float(slack), rtol=1e-8)


@pytest.mark.parametrize(("family", "classes"), [("logistic", 2), ("softmax", 4), ("svm", 2)])
def test_bounds_of_many_rows_are_below_the_spread_of_the_values(family, classes):
    problem = {"features": 8, "c": 1.0, "intercept": "default", "weighted": False, "scales": 0}
    truth, test = drawn_problem(family, classes=classes, rows=1500, test=300, seed=5, **problem)
    full = truth(torch.ones(1, 1500, dtype=torch.uint8))[0]
    found = direct_removals(truth, test, full)
    assert found.retrained < 30
    assert float(found.bounds.median()) < 0.3 * float((found.without - found.whole).std())


def context_of(rows):
    problem = {"features": 4, "c": 1.0, "intercept": "default", "weighted": False, "seed": 1}
    truth, test = drawn_problem("logistic", classes=2, rows=rows, **problem)
    return StudyContext(truth, test, {truth.name: truth}, tuple(map(str, range(rows))))


def test_direct_values_of_a_game_are_near_those_of_a_model_without_each_row():
    context = context_of(80)
    game = game_of(context.truth, context)
    exact, told = leave_one_out_values(game, points=80), []
    found = estimate_values(
        game, points=80, permutations=2, generator=np.random.default_rng(0),
        semivalue=Semivalue(name="leave_one_out"), sampler="direct",
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert found.evaluations == 1 + game.removals().retrained
    assert told == [(found.evaluations, found.evaluations, "values")]
    assert found.sampler == "direct"
    assert found.bounds is not None
    assert (np.abs(found.values - exact.values) <= found.bounds + 1e-8).all()
    assert np.abs(found.values - exact.values).max() < 0.2 * exact.values.std()
    assert exact.bounds is None


def test_auto_is_direct_for_many_rows_only():
    few, many = context_of(60), context_of(1001)
    assert leave_one_out_values(game_of(few.truth, few), points=60, sampler="auto").sampler is None
    found = leave_one_out_values(game_of(many.truth, many), points=1001, sampler="auto")
    assert found.sampler == "direct"
    assert found.evaluations < 100


def test_direct_answers_need_a_linear_family_and_its_loss():
    context = context_of(20)
    game = game_of(context.truth, context, utility="accuracy")
    with pytest.raises(InvalidInput, match="sampler direct is for single rows and the test loss"):
        leave_one_out_values(game, points=20, sampler="direct")
    with pytest.raises(InvalidInput, match="sampler direct is for leave_one_out"):
        estimate_values(
            game, points=20, permutations=2, generator=np.random.default_rng(0), sampler="direct"
        )
