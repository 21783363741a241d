"""Bootstrap calibration: exact answers agree with themselves, and the plain loop with the blocks."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import brier, expected_calibration_error, negative_log_likelihood
from modelpred.studies import calibration
from modelpred.studies.calibration import CalibrationConfig, predictive, resampled
from modelpred.studies.utility import write_result

SMALL = CalibrationConfig(resamples=25)


def test_resamples_are_draws_with_replacement():
    weights = resampled(resamples=4000, points=10, generator=np.random.default_rng(0)).double()
    assert (weights.sum(dim=1) == 10).all()
    # Binomial(10, 1/10): mean 1, variance 0.9; standard errors 0.015 and 0.02, four of them.
    assert weights.mean(dim=0).numpy() == pytest.approx(1, abs=0.06)
    assert weights.var(dim=0).numpy() == pytest.approx(0.9, abs=0.09)


def test_predictive_is_a_plain_loop_over_resamples(context, monkeypatch):
    weights = resampled(resamples=9, points=context.pool, generator=np.random.default_rng(0))
    parameters = context.truth(weights)
    test = context.test_points
    if context.model.name in {"svm", "ridge"}:
        with pytest.raises(InvalidInput, match="no probabilities"):
            predictive(context.model, parameters, test)
        return
    looped = np.stack(
        [
            context.model.probabilities(context.model.scores(row[None], test.features))[0].numpy()
            for row in parameters
        ]
    )
    for size in (1, 2**30):  # one test row a block, and all in one
        monkeypatch.setattr(calibration, "PROBABILITY_BYTES", size)
        found = predictive(context.model, parameters, test)
        assert found.mean == pytest.approx(looped.mean(axis=0), abs=1e-12)
        assert found.spread == pytest.approx(looped.std(axis=0, ddof=1), abs=1e-12)
        assert found.low == pytest.approx(np.quantile(looped, 0.05, axis=0), abs=1e-12)
        assert found.high == pytest.approx(np.quantile(looped, 0.95, axis=0), abs=1e-12)


def test_exact_retraining_as_subject_is_the_refit_bootstrap(exact):
    result = calibration.run(SMALL, exact)
    assert result.metrics["std_ratio"] == pytest.approx(1, abs=1e-6)
    assert result.metrics["endpoint_error"] == pytest.approx(0, abs=1e-8)
    predicted, refit = (
        result.tables["summary"].filter(pl.col("method") == name).drop("method").row(0)
        for name in ("predicted_bootstrap", "refit_bootstrap")
    )
    assert predicted == pytest.approx(refit, abs=1e-8)


def test_the_full_model_never_varies(logistic):
    rows = calibration.run(SMALL, logistic).tables["refits"]
    full = rows.row(by_predicate=pl.col("method") == "full_model", named=True)
    newton = rows.row(by_predicate=pl.col("method") == "newton_step", named=True)
    assert full["std_ratio"] == pytest.approx(0, abs=1e-6)
    assert abs(newton["std_ratio"] - 1) < 0.5
    assert newton["endpoint_error"] < full["endpoint_error"]


def test_summary_holds_the_metrics_of_the_averaged_probabilities(logistic):
    result = calibration.run(SMALL, logistic)
    weights = resampled(
        resamples=25,
        points=logistic.pool,
        generator=logistic.generator(seed=0, study="calibration", block=0),
    )
    test = logistic.test_points
    mean = predictive(logistic.model, logistic.truth(weights), test).mean
    row = result.tables["summary"].row(
        by_predicate=pl.col("method") == "refit_bootstrap", named=True
    )
    expected = {
        "nll": negative_log_likelihood(mean, test.labels),
        "brier": brier(mean, test.labels),
        "ece_width": expected_calibration_error(mean, test.labels),
        "ece_mass": expected_calibration_error(mean, test.labels, scheme="mass"),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-9)


def test_tables_and_metrics(context, tmp_path):
    result = calibration.run(SMALL, context)
    summary, bins = result.tables["summary"], result.tables["reliability"]
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)
    if context.model.name in {"svm", "ridge"}:
        assert list(result.metrics) == ["skipped"]
        assert "no probabilities" in result.metrics["skipped"]
        assert all(table.is_empty() for table in result.tables.values())
        return
    names = ["full_model", "full_model_bootstrap", "refit_bootstrap"]  # no predictor: the first
    assert summary["method"].to_list() == names
    counts = bins.group_by("method", maintain_order=True).agg(pl.col("count").sum())
    assert counts.rows() == [(name, len(context.test_points.labels)) for name in names]
    assert result.tables["refits"]["method"].to_list() == list(context.refits)
    assert result.metrics["truth_not_converged"] == 0


def test_empty_tables_have_the_columns_of_full_ones(logistic, ridge):
    full = calibration.run(SMALL, logistic).tables
    empty = calibration.run(SMALL, ridge).tables
    assert {name: table.schema for name, table in empty.items()} == {
        name: table.schema for name, table in full.items()
    }


def test_a_single_resample_has_no_spread(exact):
    result = calibration.run(CalibrationConfig(resamples=1), exact)
    assert result.metrics["std_ratio"] is None
    assert result.metrics["endpoint_error"] == pytest.approx(0, abs=1e-8)


def test_a_resample_that_misses_a_class_has_its_defined_model(logistic):
    one_class = (logistic.points.labels == 1).double()[None]
    found = predictive(logistic.model, logistic.truth(one_class), logistic.test_points)
    count = float(one_class.sum())
    assert found.mean[:, 1] == pytest.approx((count + 0.5) / (count + 1), abs=1e-12)


def test_one_test_row_is_enough(logistic):
    parameters = logistic.truth(torch.ones(3, logistic.pool))
    row = type(logistic.test_points)(
        logistic.test_points.features[:1], logistic.test_points.labels[:1], 2
    )
    assert predictive(logistic.model, parameters, row).mean.shape == (1, 2)


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"bins": 0}, {"resample": 5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        CalibrationConfig(**wrong)
