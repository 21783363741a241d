"""Deletion and addition: what is drawn, exact answers, and every number against a plain loop."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from pydantic import ValidationError

from modelpred.metrics import mean_interval, relative_errors
from modelpred.studies import edits
from modelpred.studies.context import Preparation
from modelpred.studies.edits import EditsConfig, additions, deletions, with_candidates
from modelpred.studies.results import write_result
from modelpred.targets.scoring import mean_test_losses

SMALL = EditsConfig(step=6, repeats=5, timings=1)


def test_deletions_keep_half_to_all_in_steps():
    weights = deletions(EditsConfig(repeats=3), points=32, generator=np.random.default_rng(0))
    assert weights.sum(dim=1).tolist() == [size for size in (17, 22, 27, 32) for _ in range(3)]
    assert set(weights.unique().tolist()) == {0, 1}


def test_deletions_are_uniform_over_points():
    config = EditsConfig(smallest=0.5, step=5, repeats=4000)
    weights = deletions(config, points=10, generator=np.random.default_rng(0))
    share = weights[:4000].double().mean(dim=0)
    # Half of the points are kept: a binomial standard error of 0.008, four of them.
    assert share.numpy() == pytest.approx(0.5, abs=0.032)


def test_additions_add_up_to_all_candidates_in_steps():
    config = EditsConfig(repeats=3)
    weights = additions(config, points=32, candidates=17, generator=np.random.default_rng(0))
    assert weights[:, :32].min() == 1
    assert weights[:, 32:].sum(dim=1).tolist() == [size for size in (5, 10, 15) for _ in range(3)]
    assert set(weights[:, 32:].unique().tolist()) == {0, 1}


def test_added_rows_are_test_rows_that_no_model_is_scored_on(context):
    longer = with_candidates(EditsConfig(added=12), context)
    assert longer.pool == context.pool + 12
    assert torch.equal(longer.points.features[: context.pool], context.points.features)
    assert torch.equal(longer.points.features[context.pool :], context.test_points.features[:12])
    assert torch.equal(longer.test_points.labels, context.test_points.labels[12:])
    assert len(longer.row_ids) == longer.pool
    # However many are asked for, half of the test rows stay.
    assert with_candidates(EditsConfig(), context).pool == context.pool + 30


def test_added_rows_keep_their_ids_unless_these_name_rows_of_the_pool(context):
    count = len(context.test_points.labels)
    named = tuple(f"house {row}" for row in range(count))
    longer = with_candidates(EditsConfig(added=12), replace(context, test_row_ids=named))
    assert longer.row_ids == (*context.row_ids, *named[:12])
    assert longer.test_row_ids == named[12:]
    taken = (context.row_ids[0], *named[1:])
    longer = with_candidates(EditsConfig(added=12), replace(context, test_row_ids=taken))
    assert longer.row_ids[-12:] == tuple(f"test row {row}" for row in range(12))


@pytest.mark.parametrize("config", [EditsConfig(added=0), EditsConfig(step=40)])
def test_without_candidates_nothing_is_added(logistic, config):
    assert with_candidates(config, logistic) is None
    result = edits.run(config.model_copy(update={"repeats": 2, "timings": 1}), logistic)
    assert result.tables["additions"].height == 0
    assert result.tables["additions"].columns == result.tables["edits"].columns
    assert "addition" not in result.metrics


def test_every_row_of_additions_is_a_plain_computation(context):
    result = edits.run(SMALL, context)
    longer = with_candidates(SMALL, context)
    weights = additions(
        SMALL,
        points=context.pool,
        candidates=30,
        generator=context.generator(seed=0, study="edits", block=1),
    )
    subsets = weights[weights.sum(dim=1) == context.pool + 12]
    true = longer.truth(subsets)
    base = context.truth(torch.ones(1, context.pool))[0]
    for name, refit in longer.refits.items():
        error = mean_interval(relative_errors(refit(subsets), true))
        row = result.tables["additions"].row(
            by_predicate=(pl.col("method") == name) & (pl.col("size") == context.pool + 12),
            named=True,
        )
        assert (row["parameter_error"], row["low"]) == pytest.approx(
            (error.mean, error.low), abs=1e-7
        )
        # What is known before anything is added is the model of the pool alone.
        if name == "full_model":
            known = relative_errors(base.expand_as(true), true).mean()
            assert error.mean == pytest.approx(known, abs=1e-7)
            assert row["accuracy_change"] in (0, None)


def test_the_break_even_is_a_table(logistic):
    preparation = Preparation(targets=100, fit_seconds=2.0)
    table = edits.run(SMALL, replace(logistic, preparation=preparation))
    rows = table.tables["break_even"]
    assert rows.height == 3
    assert rows["preparation_seconds"].min() > 2


def test_exact_retraining_as_subject_has_no_error(exact):
    result = edits.run(SMALL, exact)
    table = result.tables["edits"]
    # Both were solved to gradients of 1e-9 in blocks of their own.
    assert table["parameter_error"].max() < 1e-8
    assert table["test_loss_error"].max() < 1e-8
    assert table["spearman"].drop_nulls().to_list() == [1.0] * 2
    assert table["accuracy_error"].max() == 0
    assert result.metrics["predictor"]["spearman_within_size"] == 1


def test_every_row_of_the_table_is_a_plain_computation(context):
    result = edits.run(SMALL, context)
    weights = deletions(
        SMALL,
        points=context.pool,
        generator=context.generator(seed=0, study="edits", block=0),
    )
    for name, refit in context.refits.items():
        subsets = weights[weights.sum(dim=1) == 18]
        predicted, true = refit(subsets), context.truth(subsets)
        losses = [
            mean_test_losses(context.model, side, context.test_points).numpy()
            for side in (predicted, true)
        ]
        error = mean_interval(relative_errors(predicted, true))
        row = result.tables["edits"].row(
            by_predicate=(pl.col("method") == name) & (pl.col("size") == 18), named=True
        )
        assert row["subsets"] == 5
        # Retraining in other blocks moves parameters by its tolerance.
        close = {"abs": 1e-7}
        assert (row["parameter_error"], row["low"], row["high"]) == pytest.approx(
            (error.mean, error.low, error.high), **close
        )
        gap = np.abs(losses[0] - losses[1]).mean()
        assert row["test_loss_error"] == pytest.approx(gap, **close)
        if name == "full_model":
            assert row["spearman"] is None
        else:
            expected = scipy.stats.spearmanr(*losses).statistic
            assert row["spearman"] == pytest.approx(expected, **close)


def test_all_refits_and_the_truth_are_in_the_summary(context, tmp_path):
    result = edits.run(SMALL, context)
    assert list(result.metrics) == [*context.refits, "retraining", "addition"]
    assert list(result.metrics["addition"]) == [*context.refits, "retraining"]
    assert result.metrics["retraining"]["subsets"] == 15
    assert result.metrics["retraining"]["not_converged"] == 0
    summary = result.metrics["newton_step"]
    errors = result.tables["edits"].filter(pl.col("method") == "newton_step")["parameter_error"]
    assert summary["parameter_error"] == pytest.approx(errors.mean(), abs=1e-12)
    assert summary["parameter_error_low"] < summary["parameter_error"]
    assert summary["parameter_error"] < summary["parameter_error_high"]
    assert (summary["accuracy_error"] is None) == context.model.regression
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)


def test_the_scatter_shows_the_subject_alone(logistic):
    scatter = edits.run(SMALL, logistic).tables["predicted_against_true"]
    assert scatter["method"].unique().to_list() == ["full_model"]  # no predictor: the first
    assert scatter.columns == ["method", "size", "true_loss", "predicted_loss", "parameter_error"]
    assert scatter.height == 15


def test_targets_that_did_not_converge_are_counted_and_left_out(logistic, monkeypatch):
    train = type(logistic.truth).train

    def failing(self, weights, **options):
        trained = train(self, weights, **options)
        if len(weights) > 1:  # the full-data model is asked for alone and stays whole
            trained.converged[1] = False
            trained.parameters[1] = torch.nan
        return trained

    monkeypatch.setattr(type(logistic.truth), "train", failing)
    result = edits.run(SMALL, logistic)
    assert result.metrics["retraining"]["not_converged"] == 1
    assert result.tables["predicted_against_true"].height == 14
    assert result.tables["edits"]["parameter_error"].is_finite().all()


def test_the_same_seed_gives_the_same_tables(logistic):
    first, second = (edits.run(SMALL, logistic).tables["edits"] for _ in range(2))
    assert first.equals(second)
    other = edits.run(SMALL.model_copy(update={"seed": 1}), logistic).tables["edits"]
    assert not first.equals(other)


@pytest.mark.parametrize("wrong", [{"steps": 5}, {"repeats": 1}, {"smallest": 0.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        EditsConfig(**wrong)
