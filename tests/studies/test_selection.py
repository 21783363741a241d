"""Selection: judged by exact retraining on rows that the choice never saw."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.studies import selection
from modelpred.studies.greedy_selection import backwards, no_quota, with_swaps
from modelpred.studies.results import write_result
from modelpred.studies.selection import SelectionConfig, split_test
from modelpred.studies.utility import game_of
from modelpred.targets.scoring import mean_test_losses

SMALL = SelectionConfig(share=0.4, step=0.2, permutations=10, swaps=3, random=5)


@pytest.fixture(scope="module")
def found(exact):
    return selection.run(SMALL, exact)


def test_the_halves_of_the_test_rows_are_disjoint_and_complete(exact):
    first, second = split_test(exact, seed=0)
    rows = torch.cat([first.test_points.features, second.test_points.features])
    assert len(first.test_points.labels) == len(second.test_points.labels) == 30
    assert {tuple(row) for row in rows.tolist()} == {
        tuple(row) for row in exact.test_points.features.tolist()
    }


def test_every_loss_is_that_of_a_model_retrained_on_the_rows_that_are_told(found, exact):
    _, judging = split_test(exact, seed=0)
    chosen, methods = found.tables["chosen"], found.tables["methods"]
    assert chosen["row_id"].to_list() == list(exact.row_ids)
    for name in chosen.columns[1:]:
        weights = torch.tensor(chosen[name].to_list()).long()[None]
        assert weights.sum() == 12
        loss = mean_test_losses(exact.model, exact.truth(weights), judging.test_points)
        row = methods.row(by_predicate=pl.col("method") == name, named=True)
        assert row["loss"] == pytest.approx(float(loss[0]), abs=1e-6)
        assert row["low"] < row["loss"] < row["high"]
    whole = methods.row(by_predicate=pl.col("method") == "all_rows", named=True)
    full = exact.truth(torch.ones(1, exact.pool))
    loss = mean_test_losses(exact.model, full, judging.test_points)
    assert whole["loss"] == pytest.approx(float(loss[0]), abs=1e-6)


def test_the_greedy_selection_is_that_of_the_validation_rows(found, exact):
    choosing, _ = split_test(exact, seed=0)
    path = selection.greedy_selections(choosing, sizes=[12], quota=no_quota(exact.pool), seed=0)
    assert found.tables["chosen"]["greedy"].to_list() == path[12].tolist()


def test_a_family_without_an_optimum_is_selected_by_its_utility_and_swaps(exact):
    class WithoutOptimum(type(exact.model)):
        optimum = None

    blind = replace(
        exact, truth=type(exact.truth)(WithoutOptimum(**exact.model.settings), exact.points)
    )
    path = selection.greedy_selections(blind, sizes=[12], quota=no_quota(exact.pool), swaps=3)
    game = game_of(exact.truth, exact)
    greedy = backwards(game, sizes=[12], quota=no_quota(exact.pool))[12]
    assert torch.equal(
        path[12], with_swaps(game, greedy, swaps=3, quota=no_quota(exact.pool), confirm=game)
    )


def test_curves_meet_at_the_whole_pool_and_areas_are_their_means(found, exact):
    curves, areas = found.tables["curves"], found.tables["areas"]
    ends = curves.filter(pl.col("rows") == exact.pool)["loss"]
    assert ends.max() - ends.min() < 1e-6
    assert sorted(curves["rows"].unique()) == [6, 12, 18, 24, 30]
    random = curves.filter(pl.col("method") == "random", pl.col("rows") < 30)["loss"].mean()
    for row in areas.iter_rows(named=True):
        mine = curves.filter(
            pl.col("method") == row["method"],
            pl.col("order") == row["order"],
            pl.col("rows") < 30,
        )
        assert row["area"] == pytest.approx(mine["loss"].mean(), abs=1e-9)
        assert row["gain"] == pytest.approx(random - row["area"], abs=1e-9)
        assert row["low"] <= row["gain"] <= row["high"]


def test_the_lead_is_over_the_best_rival(found):
    methods = found.tables["methods"].filter(~pl.col("ours"), pl.col("method") != "all_rows")
    best = methods.sort("loss").row(0, named=True)
    greedy = found.metrics["methods"]["greedy"]["loss"]
    assert found.metrics["best_rival"] == best["method"]
    assert found.metrics["lead"] == pytest.approx(best["loss"] - greedy, abs=1e-9)
    assert found.metrics["not_converged"] == 0


def test_quotas_by_class_and_by_column(exact, tmp_path):
    labels = exact.points.labels
    by_class = selection.run(SMALL.model_copy(update={"quota": "class"}), exact)
    sources = ["north", "south", "south"] * 10
    context = replace(exact, rows=pl.DataFrame({"source": sources}))
    by_source = selection.run(SMALL.model_copy(update={"quota": "source"}), context)
    for result, groups in ((by_class, labels.numpy()), (by_source, np.array(sources))):
        chosen = result.tables["chosen"]
        for name in chosen.columns[1:]:
            kept = chosen[name].to_numpy()
            for group in np.unique(groups):
                promised = int(12 * (groups == group).mean() + 1e-9)
                assert kept[groups == group].sum() >= promised
        write_result(result, tmp_path)


def test_tables_and_metrics(context, tmp_path):
    result = selection.run(SMALL, context)
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)
    assert result.tables["methods"]["loss"].is_sorted()
    expected = 1 + 1 + (len(result.tables["chosen"].columns) - 2) + 1
    assert result.tables["methods"].height == expected


def test_a_model_that_did_not_converge_is_counted_and_has_no_loss(exact, monkeypatch):
    train = type(exact.truth).train

    # The subject is the truth, too; the study's last call is for the models that are judged.
    calls = []
    monkeypatch.setattr(
        type(exact.truth), "train", lambda self, w, **k: calls.append(len(w)) or train(self, w, **k)
    )
    selection.run(SMALL, exact)
    judged = len(calls)

    def failing(self, weights, **options):
        calls.append(len(weights))
        trained = train(self, weights, **options)
        trained.converged[1:2] = len(calls) < judged
        return trained

    calls.clear()
    monkeypatch.setattr(type(exact.truth), "train", failing)
    result = selection.run(SMALL, exact)
    assert result.metrics["not_converged"] == 1
    losses = result.tables["curves"]["loss"]
    assert losses.null_count() == 1


def test_what_cannot_be_selected(exact, ridge):
    with pytest.raises(InvalidInput, match="a regression has no classes"):
        selection.run(SMALL.model_copy(update={"quota": "class"}), ridge)
    with pytest.raises(InvalidInput, match=r"selection\.quota: the table has no column 'vendor'"):
        selection.run(SMALL.model_copy(update={"quota": "vendor"}), exact)
    for wrong in ({"share": 1.0}, {"step": 0.0}, {"random": 1}, {"stride": 0}, {"swap": 3}):
        with pytest.raises(ValidationError):
            SelectionConfig(**wrong)
