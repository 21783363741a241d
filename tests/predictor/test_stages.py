"""RequestHandler that stop early are the first stages of the whole answer, and depth follows the pool."""

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.predictor import PredictorConfig, early_answers, fit_predictor
from modelpred.predictor.step_count import ERROR_A_STEP, MOST_STEPS, planned_steps
from modelpred.targets import target_model
from tests.predictor.conftest import with_two_again


def test_every_stage_is_the_beginning_of_the_whole_answer(learned):
    weights, predictor = learned.held_out[0], learned.predictor
    features = learned.points.features.shape[1]
    with torch.no_grad():
        stages = list(predictor.network.stages(weights.float(), predictor.bound, None))
    assert len(stages) == predictor.stages + 1
    for count, stage in enumerate(stages):
        expected = learned.model.representative(stage.double(), features)
        assert torch.equal(predictor.predict(weights, stages=count), expected)
    assert torch.equal(predictor.predict(weights, stages=predictor.stages), predictor(weights))


def test_the_anchor_alone_is_the_first_answer(learned):
    weights, predictor = learned.held_out[0], learned.predictor
    anchors = predictor.bound.anchors(weights.float()).double()
    expected = learned.model.representative(anchors, learned.points.features.shape[1])
    assert torch.equal(predictor.predict(weights, stages=0), expected)


def test_early_answers_come_nearer_with_every_stage(learned):
    weights, true = learned.held_out
    answers = early_answers(learned.predictor)
    # Three learned steps make four stages after the anchor, of which the last is the prediction.
    assert list(answers) == [f"predictor_stage_{count}" for count in range(4)]
    errors = [
        relative_errors(answer(weights), true).mean()
        for answer in (*answers.values(), learned.predictor)
    ]
    assert errors == sorted(errors, reverse=True)


def test_an_early_answer_over_more_points_counts_them(logistic):
    longer = with_two_again(logistic.points)
    weights = torch.ones(1, len(longer.labels), dtype=torch.float64)
    stopped = early_answers(logistic.predictor, stages=[1])["predictor_stage_1"]
    expected = logistic.predictor.for_points(longer).predict(weights, stages=1)
    assert torch.equal(stopped.for_points(longer)(weights), expected)


def test_refinement_goes_on_from_an_early_answer(learned):
    weights, true = learned.held_out
    errors = [
        relative_errors(learned.predictor.predict(weights, refine=refine, stages=1), true).mean()
        for refine in (0, 2)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("stages", [-1, 5])
def test_stages_that_are_not_there_are_an_error(logistic, stages):
    with pytest.raises(InvalidInput, match=f"stages is {stages}; this predictor has 0 to 4"):
        logistic.predictor.predict(logistic.held_out[0], stages=stages)


def test_steps_follow_from_what_the_anchors_leave(logistic):
    weights, true = logistic.fit
    anchors = logistic.predictor.anchors
    start = logistic.predictor.predict(weights[:512], stages=0)
    error = relative_errors(start, true[:512]).clip(max=1).mean()
    expected = min(MOST_STEPS, max(1, -int(-error // ERROR_A_STEP)))
    found = planned_steps(anchors, logistic.model, logistic.points, weights, true)
    assert 1 < found == expected
    # Targets where the anchors are leave nothing to do.
    assert planned_steps(anchors, logistic.model, logistic.points, weights[:512], start) == 1
    mlp = target_model("mlp")
    assert planned_steps(anchors, mlp, logistic.points, weights, true) == 0


def test_the_default_network_plans_its_steps(logistic):
    fitted = fit_predictor(
        PredictorConfig(epochs=1), logistic.model, logistic.points, *logistic.fit
    )
    expected = planned_steps(fitted.anchors, logistic.model, logistic.points, *logistic.fit)
    assert fitted.stages == 1 + expected
