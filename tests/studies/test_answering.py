"""The engine of a study: which models it evaluates, and what its results say of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred.params import Params
from modelpred.studies import STUDIES, answering
from modelpred.studies.answering import AnsweringConfig, with_engine
from modelpred.studies.context import StudyContext
from modelpred.studies.results import read_result, write_result
from modelpred.studies.running import run_study
from tests.studies.conftest import fitted_context
from tests.studies.small import SMALL

CHOOSE = [
    study
    for study in STUDIES
    if issubclass(Params.model_fields[study].annotation or object, AnsweringConfig)
]
SECONDS = st.floats(1e-9, 1e3)
FITTED = fitted_context("logistic")


def small(study, **settings):
    return Params.model_fields[study].annotation(**SMALL.get(study, {}), **settings)


def by_truth(context):
    """A context whose predictor is retraining itself."""
    return replace(context, refits={**context.refits, "predictor": context.truth})


def test_the_studies_of_the_data_have_an_engine():
    assert CHOOSE == ["valuation", "labels", "selection", "memorization"]


@pytest.mark.parametrize("study", CHOOSE)
def test_a_study_with_exact_models_is_that_of_retraining(study):
    context = replace(FITTED, refits={"predictor": FITTED.refits["predictor"]})
    found = run_study(study, small(study, engine="exact"), context)
    expected = run_study(study, small(study), by_truth(context))
    table = {"valuation": "values", "labels": "suspects", "selection": "chosen"}.get(study, "rows")
    assert found.tables[table].equals(expected.tables[table])
    assert found.metrics["engine"]["used"] == "exact"
    assert found.metrics["engine"]["summary"].startswith("The models were retrained, in ")
    assert "engine" not in expected.metrics  # its only models are retrained


@pytest.mark.parametrize("study", CHOOSE)
def test_the_predictor_answers_by_default(study, tmp_path):
    found = run_study(study, small(study), FITTED)
    write_result(found, tmp_path / study)
    assert read_result(tmp_path / study).metrics == found.metrics
    told = found.metrics["engine"]
    assert (told["asked"], told["used"]) == ("predicted", "predicted")
    assert told["exact_seconds"] > 0
    assert told["predicted_seconds"] > 0


@pytest.mark.parametrize(
    ("engine", "used"), [("exact", "exact"), ("auto", "exact"), ("predicted", "predicted")]
)
def test_a_predictor_of_unknown_error_answers_only_where_it_is_named(engine, used):
    context = replace(FITTED, refits={"predictor": FITTED.refits["full_model"]})
    context, answered = with_engine(AnsweringConfig(engine=engine), context)
    assert answered is not None
    assert answered.used == used
    assert answered.metrics["error"] is None
    assert context.subject == ("predictor" if used == "predicted" else "retraining")


@given(
    st.sampled_from(["auto", "exact", "predicted"]),
    SECONDS,
    SECONDS,
    st.floats(0, 1) | st.just(float("nan")),
    st.floats(1e-6, 1),
)
def test_auto_predicts_where_it_costs_less_and_is_accurate(engine, exact, predicted, error, most):
    timed = iter([exact, predicted])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "seconds_a_model", lambda *_, **__: next(timed))
        patch.setattr(answering, "fit_error", lambda _: error)
        config = AnsweringConfig(engine=engine, accuracy=most)
        context, answered = with_engine(config, FITTED)
    assert isinstance(context, StudyContext)
    expected = engine
    if engine == "auto":
        expected = "predicted" if predicted < exact and error <= most else "exact"
    assert answered is not None
    assert answered.used == expected
    assert context.subject == ("predictor" if expected == "predicted" else "retraining")
    assert set(context.refits) >= set(FITTED.refits)
