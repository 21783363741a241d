"""Predictive distributions and memorization in a caller's terms: plain loops, the studies, edges."""

import zlib

import numpy as np
import polars as pl
import pytest
import torch

from modelpred import InvalidInput, ModelPred
from modelpred.api.contexts import context_of
from modelpred.engine import EngineChoice
from modelpred.studies import bootstrap, memorization
from modelpred.studies.bootstrap import resampled
from modelpred.subsets import SubsetsConfig
from tests.api.conftest import ROWS, SMALL, TEST, fitted, make_rows


def resamples_of_seed_0(count):
    """As the study `calibration` draws them."""
    generator = np.random.default_rng([0, 0, zlib.crc32(b"calibration"), 0])
    return resampled(resamples=count, points=ROWS, generator=generator).double()


@pytest.mark.parametrize("family", ["logistic", "softmax", "ridge"])
def test_predictive_is_a_plain_loop_over_its_models(family, request):
    estimator = request.getfixturevalue(family)
    found = estimator.predictive(make_rows(2, 7, seed=5)[0], resamples=30)
    looped = np.concatenate(list(found.blocks()))
    assert len(looped) == 30
    assert found.mean == pytest.approx(looped.mean(axis=0), abs=1e-12)
    assert found.spread == pytest.approx(looped.std(axis=0, ddof=1), abs=1e-12)
    assert found.low == pytest.approx(np.quantile(looped, 0.05, axis=0), abs=1e-12)
    assert found.high == pytest.approx(np.quantile(looped, 0.95, axis=0), abs=1e-12)
    columns = found.parameters.select("mean", "low", "high").to_numpy().T
    expected = [found.models.mean(axis=0), *np.quantile(found.models, (0.05, 0.95), axis=0)]
    assert columns == pytest.approx(np.array(expected), abs=1e-12)
    if family != "ridge":
        assert found.mean.sum(axis=1) == pytest.approx(1, abs=1e-12)
        assert found.classes.tolist() == estimator.classes.tolist()


def test_models_of_the_resamples_are_predicted_refined_or_retrained(logistic):
    cells, _ = make_rows(2, 3, seed=5)
    weights = resamples_of_seed_0(20)
    exact = logistic.predictive(cells, resamples=20, engine="exact")
    assert exact.models == pytest.approx(logistic.retrain(weights), abs=1e-6)
    refined = logistic.predictive(cells, resamples=20, engine="predicted", refine=4)
    assert refined.models == pytest.approx(exact.models, abs=1e-4)
    plain = logistic.predictive(cells, resamples=20, engine="predicted", refine=0)
    assert plain.models == pytest.approx(logistic.predict_parameters(weights), abs=1e-6)


def test_intervals_for_the_truth_are_those_of_drawn_models(logistic, softmax):
    for estimator in (logistic, softmax):
        cells, _ = make_rows(2, 6, seed=5)
        found = estimator.predictive(cells, about="truth", resamples=400)
        own = estimator.predictive(cells, resamples=400, engine="exact")
        looped = np.concatenate(list(found.blocks()))
        assert found.low == pytest.approx(np.quantile(looped, 0.05, axis=0), abs=1e-12)
        assert (found.about, own.about) == ("truth", "model")
        assert "true probabilities" in str(found)
        assert "not in the intervals" in str(own)
        assert not np.allclose(found.mean, own.mean, atol=1e-6)
        again = estimator.predictive(cells, about="truth", resamples=400)
        assert np.array_equal(again.models, found.models)


def test_what_intervals_are_about_is_checked(logistic, ridge):
    cells, _ = make_rows(2, 6, seed=5)
    with pytest.raises(InvalidInput, match="about is 'rows'; expected model or truth"):
        logistic.predictive(cells, about="rows")
    with pytest.raises(InvalidInput, match="ridge is no penalised likelihood"):
        ridge.predictive(cells, about="truth")


def test_probabilities_come_in_blocks_however_many_models(logistic, monkeypatch):
    cells, _ = make_rows(2, 5, seed=5)
    whole = next(logistic.predictive(cells, resamples=9, engine="predicted").blocks())
    monkeypatch.setattr("modelpred.api.uncertainty.SCORE_BYTES", 1)
    monkeypatch.setattr(bootstrap, "BLOCK", 4)
    blocks = list(logistic.predictive(cells, resamples=9, engine="predicted").blocks())
    assert [block.shape for block in blocks] == [(1, 5, 2)] * 9
    # The predictor is single precision: blocks of other sizes round otherwise.
    assert np.concatenate(blocks) == pytest.approx(whole, abs=1e-4)


def test_predictions_name_the_likeliest_class_and_its_interval(softmax):
    found = softmax.predictive(make_rows(3, 6, seed=5)[0], resamples=20)
    table = found.predictions
    best = found.mean.argmax(axis=1)
    assert table["predicted"].to_list() == softmax.classes[best].tolist()
    assert table["low"].to_numpy() == pytest.approx(found.low[np.arange(6), best])
    assert "20 bootstrap resamples" in str(found)
    least = table.sort("spread", descending=True)["row"][0]
    assert str(found).splitlines()[1].startswith(f"  row {least}:")


def test_one_resample_and_one_row(logistic):
    found = logistic.predictive(make_rows(2, 1, seed=5)[0], resamples=1)
    assert found.mean.shape == (1, 2)
    # 1 - (1 - p) is p but for its last bit.
    assert found.low == pytest.approx(found.mean, abs=1e-15)
    assert found.high == pytest.approx(found.mean, abs=1e-15)
    assert np.isnan(found.spread).all()
    assert found.predictions["spread"].to_list() == [None]
    assert "row 0" in str(found)


def test_resamples_that_miss_a_class_have_their_defined_model():
    """One row of the class: about a third of the resamples has none of it."""
    cells, _ = make_rows(2)
    labels = np.zeros(ROWS, dtype=int)
    labels[3] = 1
    estimator = fitted(rows=(cells, labels))
    weights = resamples_of_seed_0(30)
    without = (weights[:, 3] == 0).numpy()
    assert 0 < without.sum() < 30
    found = estimator.predictive(cells[:2], resamples=30, engine="predicted")
    looped = np.concatenate(list(found.blocks()))
    # The prior-only model of 40 rows of one class, smoothed by half a row each.
    assert looped[without][:, :, 1] == pytest.approx(0.5 / (ROWS + 1), abs=1e-9)
    exact = estimator.predictive(cells[:2], resamples=30, engine="exact")
    assert np.concatenate(list(exact.blocks()))[without] == pytest.approx(looped[without], abs=1e-9)


def test_a_fit_that_saw_no_resample_says_so(logistic, caplog):
    cells, labels = make_rows(2)
    logistic.predictive(cells[:1], resamples=2, engine="predicted")
    assert not caplog.messages
    subsets = SubsetsConfig(fit={"uniform": 30}, validation={"uniform": 5}, test={"uniform": 5})
    estimator = ModelPred(subsets=subsets, predictor=SMALL, progress=False).fit(cells, labels)
    estimator.predictive(cells[:1], resamples=2, engine="predicted")
    assert "no bootstrap resample" in caplog.text


def test_weights_of_zero_give_the_model_of_no_rows(logistic, softmax):
    for estimator, classes in ((logistic, 2), (softmax, 3)):
        for found in (
            estimator.predict_parameters(np.zeros((1, ROWS)), refine=1),
            estimator.retrain(np.zeros((1, ROWS))),
        ):
            scores = estimator.model.scores(torch.from_numpy(found), torch.ones(1, 3).double())
            chances = estimator.model.probabilities(scores).numpy()
            assert chances == pytest.approx(1 / classes, abs=1e-12)


@pytest.mark.parametrize(
    ("family", "options", "told"),
    [
        ("svm", {}, "svm has no probabilities"),
        ("logistic", {"resamples": 0}, "resamples is 0; expected 1 or more"),
    ],
)
def test_what_has_no_distribution_is_refused(family, options, told, request):
    with pytest.raises(InvalidInput, match=told):
        request.getfixturevalue(family).predictive(make_rows(2, 3)[0], **options)


@pytest.mark.parametrize("family", ["logistic", "softmax", "svm", "ridge"])
def test_memorization_is_the_studys_estimate(family, request):
    estimator = request.getfixturevalue(family)
    found = estimator.memorization(subsets=60, strongest=4, engine="predicted")
    with context_of(
        estimator._ready,
        estimator._ready.scored_points,
        choice=EngineChoice("predicted", models=1),
        scored=(estimator._ready.scored_points,),
    ) as context:
        expected = memorization.estimated(memorization.MemorizationConfig(subsets=60), context)
    rows = found.rows.sort(pl.col("row_id").cast(pl.Int64))
    assert rows["soft"].to_numpy() == pytest.approx(expected.soft.mean, nan_ok=True)
    assert found.influence == pytest.approx(expected.influence.mean, nan_ok=True)
    assert found.influence.shape == (ROWS, TEST)
    assert found.rows["soft"].is_sorted(descending=True)
    assert found.strongest.height == 4
    assert rows["label"].to_list() == make_rows(CLASSES[family])[1].tolist()
    assert found.rows["row_id"][0] in str(found)


CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}


def test_memorization_by_retraining_and_on_one_row_of_ones_own(logistic):
    cells, labels = make_rows(2, 1, seed=5)
    exact = logistic.memorization((cells, labels), subsets=60, engine="exact")
    refined = logistic.memorization((cells, labels), subsets=60, engine="predicted", refine=3)
    assert exact.influence.shape == (ROWS, 1)
    assert refined.influence == pytest.approx(exact.influence, abs=1e-3)
    ours, true = (each.rows.sort("row_id")["soft"].to_numpy() for each in (refined, exact))
    assert ours == pytest.approx(true, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"subsets": 1}, "subsets is 1: Input should be greater than or equal to 2"),
        ({"share": 1.0}, "share is 1.0: Input should be less than 1"),
        ({"share": 0.001}, "one outside"),
    ],
)
def test_settings_that_cannot_be_are_refused(logistic, settings, told):
    with pytest.raises(InvalidInput, match=told):
        logistic.memorization(**settings)
