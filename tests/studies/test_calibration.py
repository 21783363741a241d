"""Bootstrap calibration: exact answers agree with themselves, and the plain loop with the blocks."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.metrics import brier, expected_calibration_error, negative_log_likelihood
from modelpred.refits import Retraining
from modelpred.studies import calibration, penalties
from modelpred.studies.bootstrap import predictive, resampled
from modelpred.studies.calibration import CalibrationConfig
from modelpred.studies.results import write_result

SMALL = CalibrationConfig(resamples=25, tables=2)


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
    # Without a predictor the first refit is shown.
    names = ["full_model", "full_model_bootstrap", "refit_bootstrap"]
    names += ["temperature_scaling", "laplace"]
    assert summary["method"].to_list() == names
    counts = bins.group_by("method", maintain_order=True).agg(pl.col("count").sum())
    assert counts.rows() == [(name, len(context.test_points.labels)) for name in names]
    assert result.tables["refits"]["method"].to_list() == [*context.refits, "laplace"]
    assert result.metrics["truth_not_converged"] == 0
    coverage = result.tables["coverage"]
    drawn = ["any_penalty"] if context.model.name in {"logistic", "softmax"} else []
    assert coverage["method"].to_list() == ["retraining", *drawn]
    assert coverage["about"].to_list() == ["model", *["truth"] * len(drawn)]
    assert result.tables["parameters"]["feature"][0] == "feature 0"


def test_empty_tables_have_the_columns_of_full_ones(logistic, ridge):
    full = calibration.run(SMALL, logistic).tables
    empty = calibration.run(SMALL, ridge).tables
    assert {name: table.schema for name, table in empty.items()} == {
        name: table.schema for name, table in full.items()
    }


def test_a_single_resample_has_no_spread(exact):
    result = calibration.run(CalibrationConfig(resamples=1, tables=1), exact)
    assert result.metrics["std_ratio"] is None
    assert result.metrics["endpoint_error"] == pytest.approx(0, abs=1e-8)


def test_predictions_and_parameters_are_those_of_the_resampled_models(logistic):
    tables = calibration.run(SMALL, logistic).tables
    weights = resampled(
        resamples=25,
        points=logistic.pool,
        generator=logistic.generator(seed=0, study="calibration", block=0),
    )
    models = logistic.truth(weights)
    test = logistic.test_points
    scores = logistic.model.scores(models, test.features)
    probabilities = logistic.model.probabilities(scores).numpy()
    rows = np.arange(len(test.labels))
    own = probabilities[:, rows, test.labels.numpy()]
    for table, values in ((tables["predictions"], own), (tables["parameters"], models.numpy())):
        expected = {
            "true_mean": values.mean(axis=0),
            "true_spread": values.std(axis=0, ddof=1),
            "true_low": np.quantile(values, 0.05, axis=0),
            "true_high": np.quantile(values, 0.95, axis=0),
        }
        for name, column in expected.items():
            assert table[name].to_numpy() == pytest.approx(column, abs=1e-9)
    full = logistic.truth(torch.ones(1, logistic.pool))
    assert tables["parameters"]["before"].to_list() == full[0].tolist()


def test_no_row_is_tempered_by_its_own_label(logistic):
    """Only labels of the other half move a row's tempered probabilities."""
    test = logistic.test_points
    other = replace(logistic, test_points=type(test)(test.features, 1 - test.labels, test.classes))
    config = CalibrationConfig(resamples=2, tables=0)
    plain, flipped = (calibration.run(config, each).metrics for each in (logistic, other))
    # With every label wrong, the models are sure of the wrong thing: as flat as it may be.
    assert max(plain["temperatures"]) < 5 < min(flipped["temperatures"])
    assert plain["temperature_scaling"]["nll"] != plain["full_model"]["nll"]


def test_refining_a_predictor_brings_its_bootstrap_to_the_retrained_one(fitted):
    plain, refined = (
        calibration.run(CalibrationConfig(resamples=60, refine=refine, tables=0), fitted).metrics
        for refine in (0.0, 3.0)
    )
    assert abs(refined["std_ratio"] - 1) < 1e-3
    assert refined["endpoint_error"] < 1e-3 < plain["endpoint_error"]
    assert abs(refined["nll_gap"]) < 1e-3


def test_only_a_predictor_is_refined(logistic):
    plain, refined = (
        calibration.run(CalibrationConfig(resamples=9, refine=refine, tables=0), logistic)
        for refine in (0.0, 1.0)
    )
    assert refined.tables["summary"].equals(plain.tables["summary"])
    assert "newton_step_refined" not in refined.tables["refits"]["method"]


def test_coverage_of_a_predictor_stands_beside_that_of_retraining(fitted):
    """Asked for tables that it was not fitted to, and refined until it is exact."""
    config = CalibrationConfig(resamples=5, refine=4.0, tables=3)
    table = calibration.run(config, fitted).tables["coverage"]
    assert table["method"].to_list() == ["retraining", "predictor_refined", "any_penalty"]
    exact, ours = (table.drop("method", "about").row(row) for row in (0, 1))
    assert ours == pytest.approx(exact, abs=0.02)
    assert table["tables"].to_list() == [3, 3, 3]


def test_a_pool_whose_resamples_miss_a_class_is_defined(logistic, monkeypatch):
    """One row of the rarer class: a third of the resamples has none of it."""
    # The weakest penalties of separable tables take most of the time, and are not what is tested.
    monkeypatch.setattr(penalties, "MOST_STEPS", 4)
    points = logistic.points
    first = int((points.labels == 1).nonzero()[0])
    labels = torch.zeros_like(points.labels)
    labels[first] = 1
    rare = replace(points, labels=labels)
    truth = Retraining(logistic.model, rare, tolerance=1e-9)
    context = replace(logistic, refits={"predictor": truth}, truth=truth)
    weights = resampled(
        resamples=25,
        points=context.pool,
        generator=context.generator(seed=0, study="calibration", block=0),
    )
    assert (weights[:, first] == 0).any()
    result = calibration.run(SMALL, context)
    json.dumps(result.metrics, allow_nan=False)
    assert result.metrics["truth_not_converged"] == 0
    assert result.metrics["std_ratio"] == pytest.approx(1, abs=1e-6)
    assert result.tables["predictions"].null_count().sum_horizontal().item() == 0


def test_a_test_set_of_one_row(logistic):
    one = type(logistic.test_points)(
        logistic.test_points.features[:1], logistic.test_points.labels[:1], 2
    )
    result = calibration.run(
        CalibrationConfig(resamples=1, tables=1), replace(logistic, test_points=one)
    )
    json.dumps(result.metrics, allow_nan=False)
    assert result.metrics["temperatures"] == []
    assert "temperature_scaling" not in result.tables["summary"]["method"]
    assert result.tables["predictions"]["spread"].to_list() == [None]


@pytest.mark.parametrize(
    "wrong", [{"resamples": 0}, {"bins": 0}, {"refine": -1.0}, {"resample": 5}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        CalibrationConfig(**wrong)
