"""A fit that starts from a predictor begins where that one ended, and learns on."""

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import Points, train_targets
from tests.predictor.conftest import make_points

CONFIG = PredictorConfig(epochs=8, width=32, step_width=16, steps=3, start="v1")


def test_it_begins_with_the_answers_of_the_predictor_it_starts_from(logistic):
    still = CONFIG.model_copy(update={"epochs": 1, "learning_rate": 1e-12})
    again = fit_predictor(
        still, logistic.model, logistic.points, *logistic.fit, start=logistic.predictor
    )
    weights, _ = logistic.held_out
    expected = logistic.predictor(weights)
    # A step of 1e-12 for each of the batches, in float32.
    torch.testing.assert_close(again(weights), expected, rtol=1e-4, atol=1e-5)


def test_of_a_larger_pool_it_is_nearer_after_one_epoch_than_a_fresh_fit(logistic):
    old, new = logistic.points, make_points("logistic", 10, seed=1)
    grown = Points(
        torch.cat([old.features, new.features]), torch.cat([old.labels, new.labels]), old.classes
    )
    config = SubsetsConfig(fit={"uniform": 200}, validation={"uniform": 5}, test={"uniform": 100})
    drawn = draw_subsets(config, points=len(grown.labels))
    sets = {}
    for role in ("fit", "test"):
        weights = drawn.select(role=role).weights.double()
        trained = train_targets(
            logistic.model, grown.features, grown.labels, weights, tolerance=1e-9, classes=2
        )
        usable = ~trained.degenerate
        sets[role] = (weights[usable], trained.parameters[usable])
    once = CONFIG.model_copy(update={"epochs": 1})
    errors = [
        relative_errors(
            fit_predictor(once, logistic.model, grown, *sets["fit"], start=start)(sets["test"][0]),
            sets["test"][1],
        ).mean()
        for start in (logistic.predictor, None)
    ]
    assert errors[0] < errors[1]


def test_a_quarter_of_the_epochs_is_usual():
    assert PredictorConfig(start="v1").schedule().epochs == PredictorConfig().schedule().epochs / 4


def test_another_network_is_refused(logistic):
    wider = CONFIG.model_copy(update={"width": 64})
    with pytest.raises(InvalidInput, match="has another network or other features"):
        fit_predictor(
            wider, logistic.model, logistic.points, *logistic.fit, start=logistic.predictor
        )
