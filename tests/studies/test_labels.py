"""Finding planted labels: perfect and useless scores, intervals that hold, what a study writes."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.metrics import auroc
from modelpred.studies import labels
from modelpred.studies.labels import LabelsConfig, auroc_interval, recall_at
from modelpred.studies.results import write_result
from modelpred.targets import points_of

SMALL = LabelsConfig(permutations=20)


def planted(context):
    """The context with every sixth label turned, refits retrained."""
    wrong = torch.arange(context.pool) % 6 == 0
    turned = (context.points.labels + wrong.long()) % context.points.classes
    points = points_of(context.points.features, turned, context.points.classes)
    truth = type(context.truth)(context.model, points)
    return replace(context, truth=truth, refits={"predictor": truth}, mislabelled=wrong)


def test_recall_of_perfect_and_reversed_scores():
    wrong = np.array([True] * 3 + [False] * 7)
    values = np.arange(10.0)
    assert recall_at(values, wrong, share=0.3) == 1
    assert recall_at(values, wrong, share=0.1) == pytest.approx(1 / 3)
    assert recall_at(-values, wrong, share=0.5) == 0
    assert recall_at(-values, wrong, share=1.0) == 1


def test_auroc_intervals_hold_what_they_state():
    """Scores of two normal distributions a distance apart have a known area."""
    draws = np.random.default_rng(0)
    expected = 0.7602499389065233  # Φ(1 / √2)
    positive = np.array([True] * 30 + [False] * 120)
    held = 0
    for _ in range(400):
        score = draws.normal(size=150) + positive
        found = auroc_interval(score, positive)
        assert found.mean == pytest.approx(auroc(score, positive), abs=1e-12)
        held += found.low <= expected <= found.high
    # 400 times 95%: a standard error of 1.1%, four of them, and DeLong's own few-sample error.
    assert 0.90 < held / 400 < 0.99


def test_delong_is_the_spread_of_all_comparisons():
    draws = np.random.default_rng(1)
    above, below = draws.integers(0, 6, size=8), draws.integers(0, 5, size=11)  # with ties
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / 8 + wins.mean(axis=0).var(ddof=1) / 11)
    found = auroc_interval(
        np.concatenate([above, below]).astype(float), np.array([True] * 8 + [False] * 11)
    )
    assert found.mean == pytest.approx(wins.mean(), abs=1e-12)
    assert found.low == pytest.approx(max(0, wins.mean() - 1.959964 * error), abs=1e-6)


def test_the_study_finds_planted_labels_and_writes_tables(exact, tmp_path):
    context = planted(exact)
    result = labels.run(SMALL, context)
    detection = result.tables["detection"]
    assert detection["auroc"].is_sorted(descending=True)
    assert result.metrics["planted"] == 5
    best = detection.filter(pl.col("method") == result.metrics["best_of_ours"])["auroc"][0]
    assert best > 0.8
    random = detection.row(by_predicate=pl.col("method") == "random", named=True)
    assert random["auroc"] == 0.5
    assert random["recall"] == pytest.approx(5 / 30)
    recall = result.tables["recall"]
    assert (recall.filter(pl.col("inspected") == 1)["recall"] == 1).all()
    suspects = result.tables["suspects"]
    assert suspects["mislabelled"].sum() == 5
    assert suspects[result.metrics["best_of_ours"]].is_sorted()
    assert suspects["cutoff"].sum() == round(result.metrics["wrong"])
    assert suspects["wrong"].sum() == pytest.approx(result.metrics["wrong"])
    assert result.metrics["wrong_low"] <= result.metrics["wrong"] <= result.metrics["wrong_high"]
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)


def test_the_auroc_within_a_class_is_that_of_its_rows_alone(exact):
    context = planted(exact)
    result = labels.run(SMALL, context)
    scores = result.tables["suspects"].sort("row_id")
    ids = np.argsort(np.array(context.row_ids))
    given, wrong = context.points.labels.numpy()[ids], context.mislabelled.numpy()[ids]
    for row in result.tables["classes"].iter_rows(named=True):
        inside = given == int(row["class"])
        score = -scores[row["method"]].to_numpy()[inside]
        assert row["auroc"] == pytest.approx(auroc(score, wrong[inside]))
        assert (row["rows"], row["planted"]) == (inside.sum(), wrong[inside].sum())
    assert result.tables["classes"]["class"].n_unique() == 2


def test_methods_do_not_see_what_was_planted(exact):
    """Another answer key changes the grades and no value."""
    context = planted(exact)
    other = replace(context, mislabelled=~context.mislabelled)
    first, second = (
        labels.run(SMALL, key).tables["suspects"].drop("mislabelled").sort("row_id")
        for key in (context, other)
    )
    assert first.equals(second)


def test_nothing_planted_nothing_judged(exact, tmp_path):
    result = labels.run(SMALL, exact)
    assert "dataset.flip is 0" in result.metrics["unjudged"]
    suspects = result.tables["suspects"]
    assert suspects["mislabelled"].null_count() == exact.pool
    assert suspects["held_out_confidence"].is_sorted()
    full = labels.run(SMALL, planted(exact)).tables
    for name, table in full.items():
        assert result.tables[name].schema == table.schema
    write_result(result, tmp_path)


@pytest.mark.parametrize("wrong", [{"permutations": 3}, {"seed": -1}, {"flip": 0.1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        LabelsConfig(**wrong)
