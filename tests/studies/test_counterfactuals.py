"""Flips: exhaustive search on small pools, the laws of what is found, and a plain loop."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpred.refits import Influence
from modelpred.studies import counterfactuals
from modelpred.studies.counterfactuals import (
    ExplainedPrediction,
    Flip,
    leave_one_out,
    smallest_flip,
    without,
)

POOL = 30


def question_of(context, test_row, refit=None):
    """A prediction about a test row, with the class that all rows predict and each row's effect."""
    refit = refit or context.truth
    features = context.test_points.features[test_row]
    full = context.truth(torch.ones(1, context.pool))
    classes = context.points.classes
    scores = context.model.scores(full, features.expand(classes, -1))
    label = int(context.model.correct(scores, torch.arange(classes))[0].int().argmax())
    prediction = ExplainedPrediction(refit, context, features, label=label)
    single = prediction.margins(leave_one_out(refit, context))[0]
    return prediction, single - prediction.margins(full)[0]


def test_rows_are_removed_once_however_often_they_are_named():
    weights = without(torch.tensor([[0, 2], [1, 1]]), points=4)
    assert weights.tolist() == [[0, 1, 0, 1], [1, 0, 1, 1]]


def test_leave_one_out_is_a_plain_loop(context, monkeypatch):
    monkeypatch.setattr(counterfactuals, "BLOCK", 7)
    found = leave_one_out(context.truth, context)
    for row in (0, 6, 7, 29):
        weights = torch.ones(1, context.pool)
        weights[0, row] = 0
        assert found[row].tolist() == pytest.approx(context.truth(weights)[0].tolist(), abs=1e-7)


def smallest_by_enumeration(prediction, *, largest):
    for size in range(1, largest + 1):
        rows = torch.tensor(list(itertools.combinations(range(POOL), size)))
        if not prediction.removed(rows)[1].all():
            return size
    return None


def test_no_set_of_fewer_rows_flips_where_all_were_tried(logistic):
    """All sets of one or two rows, for the rows nearest to the boundary."""
    full = logistic.truth(torch.ones(1, POOL))
    margins = logistic.model.scores(full, logistic.test_points.features)[0, :, 0].abs()
    compared = 0
    for test_row in margins.argsort()[:6].tolist():
        prediction, effects = question_of(logistic, test_row)
        smallest = smallest_by_enumeration(prediction, largest=2)
        found = smallest_flip(prediction, effects, largest=15)
        if smallest is not None:
            assert len(found.removed) == smallest
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("test_row", [0, 11])
def test_what_is_found_flips_and_needs_every_row(context, test_row):
    if context.model.regression:
        return
    prediction, effects = question_of(context, test_row)
    found = smallest_flip(prediction, effects, largest=20)
    if not found.removed:
        return
    # The exact refit predicts what retraining confirms.
    assert found.confirmed
    assert found.margin == pytest.approx(found.retrained_margin, abs=1e-6)
    rows = torch.tensor([found.removed])
    assert not prediction.removed(rows)[1].any()
    if len(found.removed) > 1:
        one_back = torch.tensor(list(itertools.combinations(found.removed, rows.shape[1] - 1)))
        assert prediction.removed(one_back)[1].all()


def test_nothing_is_found_where_too_few_may_go(logistic):
    full = logistic.truth(torch.ones(1, POOL))
    surest = logistic.model.scores(full, logistic.test_points.features)[0, :, 0].abs().argmax()
    prediction, effects = question_of(logistic, int(surest))
    found = smallest_flip(prediction, effects, largest=1)
    assert (found.removed, found.confirmed) == ((), False)
    assert np.isnan([found.margin, found.retrained_margin]).all()


def test_a_rival_that_errs_is_not_confirmed(logistic):
    """The influence function is asked; retraining answers whether its sets flip."""
    influence = Influence(logistic.model, logistic.points, logistic.truth(torch.ones(1, POOL))[0])
    for test_row in range(8):
        prediction, effects = question_of(logistic, test_row, influence)
        found = smallest_flip(prediction, effects, largest=15)
        if found.removed:
            rows = torch.tensor([found.removed])
            holds = ExplainedPrediction(
                logistic.truth,
                logistic,
                prediction.row.features[0],
                label=int(prediction.row.labels),
            ).removed(rows)[1]
            assert found.confirmed == (not holds[0])


def test_a_training_that_does_not_converge_confirms_nothing(logistic, monkeypatch):
    prediction, effects = question_of(logistic, 0)
    assert smallest_flip(prediction, effects, largest=20).confirmed
    train = type(logistic.truth).train

    def unfinished(self, weights, **extra):
        trained = train(self, weights, **extra)
        return replace(trained, converged=torch.zeros_like(trained.converged))

    monkeypatch.setattr(type(logistic.truth), "train", unfinished)
    assert isinstance(found := smallest_flip(prediction, effects, largest=20), Flip)
    assert found.removed
    assert not found.confirmed
