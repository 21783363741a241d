"""Scores against a loop over subsets, degenerate subsets, and results on disk."""

import json

import numpy as np
import polars as pl
import polars.testing
import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.studies import results
from modelpred.studies.context import refitted
from modelpred.studies.results import StudyResult
from modelpred.targets.points import class_counts
from modelpred.targets.scoring import accuracies, mean_test_losses


def some_parameters(context, subsets=7):
    size = context.model.parameter_count(context.points.features.shape[1], context.points.classes)
    return torch.tensor(np.random.default_rng(0).normal(size=(subsets, size)))


def test_scores_of_a_batch_are_those_of_a_loop(context):
    parameters = some_parameters(context)
    test = context.test_points
    looped = []
    for row in parameters:
        scores = context.model.scores(row[None], test.features)
        if context.model.regression:  # in label units
            looped.append((scores[0, :, 0] - test.labels).square().mean().sqrt())
        else:
            looped.append(context.model.losses(scores, test.labels).mean())
    for size in (1, 2**30):  # one subset a block, and all in one
        losses = mean_test_losses(context.model, parameters, test, limit=size)
        assert losses.tolist() == pytest.approx([float(loss) for loss in looped], abs=1e-12)


def test_accuracy_counts_the_rows_that_are_right(context):
    parameters = some_parameters(context)
    test = context.test_points
    if context.model.regression:
        with pytest.raises(InvalidInput, match="no classes to get right"):
            accuracies(context.model, parameters, test)
        return
    scores = context.model.scores(parameters, test.features)
    guess = scores.argmax(dim=2) if scores.shape[2] > 1 else (scores[..., 0] > 0).long()
    expected = (guess == test.labels).double().mean(dim=1)
    assert accuracies(context.model, parameters, test).tolist() == expected.tolist()


def test_no_subsets_have_no_scores(logistic):
    assert mean_test_losses(logistic.model, torch.zeros(0, 4), logistic.test_points).shape == (0,)


def test_every_refit_gives_a_degenerate_subset_its_defined_model(context):
    one_class = torch.ones(1, context.pool)
    if context.points.classes:
        one_class = (context.points.labels == 0).double()[None]
    weights = torch.cat([torch.zeros(1, context.pool), one_class, torch.ones(1, context.pool)])
    truth = context.truth.train(weights)
    defined = context.model.without_optimum(class_counts(weights.double(), context.points))
    for refit in context.refits.values():
        parameters = refitted(refit, weights, context)
        assert torch.equal(parameters[defined], truth.parameters[defined])
        assert torch.equal(parameters[~defined], refit(weights)[~defined])


def test_the_empty_subset_has_the_loss_of_a_model_that_knows_nothing(context):
    """Scores of zero: log K, a margin violated by one, or the root mean squared label."""
    expected = {
        "logistic": np.log(2),
        "softmax": np.log(3),
        "svm": 1.0,
        "ridge": float((context.test_points.labels**2).double().mean() ** 0.5),
    }
    refit = next(iter(context.refits.values()))
    parameters = refitted(refit, torch.zeros(1, context.pool), context)
    loss = mean_test_losses(context.model, parameters, context.test_points)
    assert float(loss[0]) == pytest.approx(expected[context.model.name], abs=1e-12)


def test_draws_differ_by_seed_study_and_block_and_by_nothing_else(logistic):
    def draw(**keys):
        return logistic.generator(**({"seed": 0, "study": "edits", "block": 0} | keys)).random()

    assert draw() == draw()
    assert len({draw(), draw(seed=1), draw(block=1), draw(study="valuation")}) == 4


def test_a_result_comes_back_as_it_was_written(tmp_path):
    table = pl.DataFrame({"method": ["influence"], "error": [0.1], "unknown": [None]})
    result = StudyResult({"error": 0.1, "nested": {"none": None}}, {"edits": table})
    results.write_result(result, tmp_path / "new")
    again = results.read_result(tmp_path / "new")
    assert again.metrics == result.metrics
    polars.testing.assert_frame_equal(again.tables["edits"], table)
    assert (tmp_path / "new" / "edits.csv").read_text() == "method,error,unknown\ninfluence,0.1,\n"


def test_metrics_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        results.write_result(StudyResult({"error": float("nan")}, {}), tmp_path)
    assert results.written_number(float("nan")) is None
    assert json.dumps(results.written_number(np.float64(0.5))) == "0.5"
