"""The engine: which way costs less, when the predictor is fitted, and what results say of it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred import InvalidInput, ModelPred
from modelpred.api.edits import fit_of
from modelpred.engine import EngineChoice
from modelpred.engine.choice import WORTH, Costs
from tests.api.conftest import ROWS, SMALL, make_rows

seconds = st.floats(0, 1e4)
CELLS, LABELS = make_rows(2)


def fit(**options):
    options = {"subsets": 40, "predictor": SMALL, "progress": False, **options}
    return ModelPred(**options).fit(CELLS, LABELS)


PREPARED = fit()
PREPARED.fitted.engine.prepared()


@given(seconds, seconds, seconds, st.integers(0, 10**6))
def test_the_engine_of_auto_costs_least_but_for_what_is_not_worth_it(exact, predicted, prep, n):
    costs = Costs(exact, predicted, prep)
    by_hand = {"exact": n * exact, "predicted": prep + n * predicted}
    chosen = costs.cheaper(n)
    assert by_hand[chosen] <= min(by_hand.values()) + WORTH
    if by_hand["exact"] <= by_hand["predicted"]:
        assert chosen == "exact"


@given(seconds, seconds, seconds, st.integers(0, 10**6))
def test_more_models_never_turn_a_prediction_into_retraining(exact, predicted, prep, n):
    costs = Costs(exact, predicted, prep)
    if costs.cheaper(n) == "predicted":
        assert costs.cheaper(2 * n + 1) == "predicted"


@given(st.sampled_from(["exact", "predicted"]), seconds, seconds, seconds, st.integers(1, 10**6))
def test_a_choice_is_printed_in_one_line(engine, exact, predicted, prep, n):
    text = str(EngineChoice(engine, n, costs=Costs(exact, predicted, prep)))
    assert len(text.splitlines()) == 1
    assert f"{n:,} model" in text
    assert ("retrained" in text) == (engine == "exact")


QUESTIONS = {
    "values": lambda mp, **how: mp.values(CELLS, LABELS, permutations=2, **how),
    "suspects": lambda mp, **how: mp.suspects(**how).rows,
    "select": lambda mp, **how: mp.select(30, CELLS, LABELS, swaps=1, **how),
    "predictive": lambda mp, **how: mp.predictive(CELLS, resamples=5, **how),
    "memorization": lambda mp, **how: mp.memorization(subsets=20, **how),
    "attribute": lambda mp, **how: mp.attribute(0, **how),
    "explain": lambda mp, **how: mp.explain(CELLS[0], **how),
    "without": lambda mp, **how: mp.without([1], **how),
    "model_for": lambda mp, **how: mp.model_for(np.ones(ROWS), **how),
    "with_points": lambda mp, **how: mp.with_points(CELLS[:2], LABELS[:2], **how),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_retraining_fits_no_predictor_and_prediction_fits_it_once(name):
    mp = fit()
    answers = {engine: QUESTIONS[name](mp, engine=engine) for engine in ("exact",)}
    assert not mp._fitted.engine.is_prepared
    assert mp.engine_used.exact
    answers["predicted"] = QUESTIONS[name](mp, engine="predicted")
    assert not mp.engine_used.exact
    predictor = mp.predictor
    QUESTIONS[name](mp, engine="predicted")
    assert mp.predictor is predictor
    for engine, answer in answers.items():
        if hasattr(answer, "engine"):
            assert answer.engine.engine == engine
    with pytest.raises(InvalidInput, match="engine is 'fast'; expected one of auto, exact"):
        QUESTIONS[name](mp, engine="fast")


@pytest.mark.parametrize("name", QUESTIONS)
def test_few_models_of_a_small_pool_are_retrained_by_default(name):
    mp = fit(subsets=2000)
    QUESTIONS[name](mp)
    assert mp.engine_used.exact
    assert not mp._fitted.engine.is_prepared
    assert "prediction would take about" in str(mp.engine_used)


def test_nothing_was_used_before_the_first_question():
    assert fit().engine_used is None


def test_an_explicit_engine_gives_the_same_numbers_whatever_was_asked_before():
    first, second = fit(), fit()
    second.suspects(engine="exact")
    assert first.suspects(engine="predicted").rows.equals(second.suspects(engine="predicted").rows)
    weights = np.random.default_rng(0).integers(0, 3, size=(4, ROWS))
    np.testing.assert_array_equal(
        first.predict_parameters(weights), second.predict_parameters(weights)
    )


@pytest.mark.parametrize("saved", [False, True])
def test_the_engine_of_an_edited_pool_knows_the_error_of_the_predictor(tmp_path, saved):
    mp = fit()
    assert mp.predictor.row_ids == mp.row_ids
    if saved:
        mp.save(tmp_path)
        mp = ModelPred.load(tmp_path)
    for edit in ({"labels": {3: 0, 4: 1}}, {"weights": {1: 0}}):
        engine = fit_of(mp.fitted, mp.edit(**edit)).engine
        assert engine.error == mp.fitted.engine.error
        assert engine.predictor.row_ids == engine.problem.row_ids


@given(st.floats(0, 1), st.floats(0, 1) | st.just(float("nan")), st.booleans())
def test_auto_predicts_only_within_the_accuracy_asked_for(accuracy, error, cheap):
    engine = PREPARED.fitted.engine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "plan", replace(engine.plan, accuracy=accuracy))
        patch.setattr(engine, "_error", error)
        patch.setattr(engine, "costs", lambda **_: Costs(1.0, 0.5 if cheap else 2.0, 0.0))
        choice = engine.choose("auto", models=10)
    assert choice.exact == (not (cheap and error <= accuracy))


def test_the_accuracy_is_an_argument_that_is_saved(tmp_path):
    mp = fit(accuracy=0.25)
    mp.save(tmp_path)
    assert ModelPred.load(tmp_path).get_params()["accuracy"] == 0.25
    assert ModelPred.load(tmp_path).fitted.engine.plan.accuracy == 0.25
    assert ModelPred().set_params(accuracy=0.1).get_params()["accuracy"] == 0.1
    for wrong in (-0.1, "5%", float("nan")):
        with pytest.raises(InvalidInput, match=r"accuracy is .*; expected"):
            ModelPred(accuracy=wrong)
