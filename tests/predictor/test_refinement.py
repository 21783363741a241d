"""Refinement ends where retraining ends; the certificate is never below the true distance."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.targets.compiled import kernels


def test_refinement_reaches_retraining(case):
    weights, true = case.held_out
    errors = relative_errors(case.predictor.predict(weights, refine=12), true)
    # Targets were trained to a gradient of 1e-9 and single-precision directions shrink the error
    # about a thousandfold a step, so that a dozen steps leave rounding only.
    assert errors.max() < 1e-6


def test_each_step_helps_on_average(case):
    weights, true = case.held_out
    errors = [
        relative_errors(case.predictor.predict(weights, refine=steps), true).mean()
        for steps in (0, 0.5, 1, 2, 4)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("refine", [0.25, 1])
def test_refinement_retrains_where_a_kernel_does_and_takes_newton_steps_elsewhere(
    case, refine, monkeypatch
):
    weights, true = case.held_out
    linear = case.predictor.model.name in {"logistic", "softmax", "svm"}
    assert case.predictor.retrains == (linear and kernels.library() is not None)
    if case.predictor.retrains:
        answers = case.predictor.predict(weights, refine=refine)
        assert relative_errors(answers, true).max() < 1e-5
    monkeypatch.setattr(kernels, "library", lambda: None)
    by_torch = replace(case.predictor)  # which has not asked for kernels before
    assert not by_torch.retrains
    before = relative_errors(by_torch.predict(weights), true).mean()
    assert relative_errors(by_torch.predict(weights, refine=refine), true).mean() <= before


@pytest.mark.parametrize("refine", [0, 0.5, 2])
@pytest.mark.parametrize("steps", [0, 1])
def test_certificate_holds_on_every_subset(case, refine, steps):
    weights, true = case.held_out
    predicted = case.predictor.predict(weights, refine=refine)
    bound = case.predictor.certificate(weights, predicted, steps=steps)
    assert bool((bound >= (predicted - true).norm(dim=1)).all())


def test_certificate_holds_far_from_the_optimum(case):
    weights, true = case.held_out
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-3, 1, 30):
        wrong = true + scale * torch.randn(true.shape, generator=generator, dtype=torch.float64)
        bound = case.predictor.certificate(weights, wrong)
        assert bool((bound >= (wrong - true).norm(dim=1)).all())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 3), steps=st.integers(0, 1))
def test_margins_of_any_row_change_by_no_more_than_their_bound(case, seed, scale, steps):
    weights, true = (each[:8] for each in case.held_out)
    generator = torch.Generator().manual_seed(seed)
    features = case.predictor.points.features
    rows = scale * torch.randn(6, features.shape[1], generator=generator, dtype=torch.float64)
    wrong = true + scale * torch.randn(true.shape, generator=generator, dtype=torch.float64)
    for answers in (case.predictor.predict(weights), wrong):
        bound = case.predictor.certificate(weights, answers, steps=steps, of="margins", rows=rows)
        model, classes = case.predictor.model, case.predictor.points.classes
        scores = model.scores(answers, rows), model.scores(true, rows)
        for label in range(max(1, classes)):
            labels = torch.full((6,), label)
            change = model.margins(scores[0], labels) - model.margins(scores[1], labels)
            assert bool((bound >= change.abs() - 1e-9).all())


def test_the_bound_of_margins_is_tight_after_a_step(logistic):
    weights, true = logistic.held_out
    answers, rows = logistic.predictor.predict(weights), logistic.predictor.points.features[:20]
    model = logistic.predictor.model
    margins = [model.margins(model.scores(each, rows), torch.zeros(20)) for each in (answers, true)]
    bound = logistic.predictor.certificate(weights, answers, steps=2, of="margins", rows=rows)
    assert bound is not None
    assert float((bound / (margins[0] - margins[1]).abs()).median()) < 1.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "scores"}, "expected 'parameters' or 'margins'"),
        ({"of": "margins"}, "go together"),
        ({"rows": torch.zeros(2, 3)}, "go together"),
        ({"of": "margins", "rows": torch.zeros(2, 99)}, "rows have shape"),
    ],
)
def test_a_certificate_of_margins_needs_rows_like_the_pools(logistic, options, message):
    with pytest.raises(InvalidInput, match=message):
        logistic.predictor.certificate(logistic.held_out[0], **options)


def test_certificate_vanishes_at_the_optimum(case):
    weights, true = case.held_out
    assert float(case.predictor.certificate(weights, true).max()) < 1e-6


def test_steps_make_the_certificate_tight(learned):
    weights, true = learned.held_out
    predicted = learned.predictor(weights)
    distance = (predicted - true).norm(dim=1)
    bounds = [learned.predictor.certificate(weights, predicted, steps=k) for k in (0, 1, 3)]
    assert bool((bounds[0] >= bounds[1]).all())
    assert bool((bounds[1] >= bounds[2]).all())
    # Three Newton steps leave a thousandth of the error or less, the bound of which is small
    # beside it.
    assert float((bounds[2] / distance).median()) < 1.1


def test_a_subset_without_an_optimum_has_no_bound(logistic):
    weights = logistic.points.labels.to(torch.float64)[None]  # one class only
    bound = logistic.predictor.certificate(weights)
    assert bound is not None
    assert math.isinf(float(bound[0]))


@pytest.mark.parametrize("refine", [-1.0, math.nan, math.inf])
def test_refine_is_a_number_of_steps(logistic, refine):
    with pytest.raises(InvalidInput, match="refine is"):
        logistic.predictor.predict(logistic.held_out[0], refine=refine)
