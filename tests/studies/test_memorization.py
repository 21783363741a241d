"""Memorization: a plain loop, laws, planted duplicates, flipped labels and outliers."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies import feldman, memorization
from modelpred.studies.context import StudyContext
from modelpred.studies.feldman import Estimator, draw_share, measures
from modelpred.studies.memorization import MemorizationConfig
from modelpred.studies.results import write_result
from modelpred.targets import points_of, target_model

SMALL = MemorizationConfig(subsets=120, strongest=7)


def drawn(subsets, points, *, share=0.7, seed=0):
    generator = np.random.default_rng(seed)
    return draw_share(subsets=subsets, points=points, share=share, generator=generator)


def estimated(context, weights):
    estimator = Estimator(context)
    estimator.add(weights, context.truth(weights))
    return estimator.estimate()


def test_every_subset_has_the_share_and_every_point_the_same_chance():
    weights = drawn(4000, 10).double()
    assert (weights.sum(dim=1) == 7).all()
    # Standard error sqrt(0.21 / 4000) = 0.007; four of them.
    assert weights.mean(dim=0).numpy() == pytest.approx(0.7, abs=0.029)


@pytest.mark.parametrize(("share", "points"), [(0.7, 1), (0.1, 3), (0.9, 4)])
def test_a_share_that_leaves_nothing_in_or_out_is_refused(share, points):
    with pytest.raises(InvalidInput, match="one outside"):
        drawn(3, points, share=share)


def test_estimates_are_the_plain_loop(context):
    """Conditional means by the definition, one training row and one test row at a time."""
    weights = drawn(40, context.pool)
    parameters = context.truth(weights)
    found = estimated(context, weights)
    model, test = context.model, context.test_points
    for name, measure in measures(model, classes=context.points.classes).items():
        own = measure(model.scores(parameters, context.points.features), context.points.labels)
        seen = measure(model.scores(parameters, test.features), test.labels)
        hard = name == "correct"
        mine = found.hard if hard else found.soft
        influence = found.hard_influence if hard else found.influence
        for i in (0, 7, 29):
            inside = weights[:, i].bool()
            expected = float(own[inside, i].mean() - own[~inside, i].mean())
            assert mine.mean[i] == pytest.approx(expected, abs=1e-10)
            for z in (0, 11):
                expected = float(seen[inside, z].mean() - seen[~inside, z].mean())
                assert influence.mean[i, z] == pytest.approx(expected, abs=1e-10)
    assert (found.inside == weights.sum(dim=0).numpy()).all()


def test_blocks_of_test_rows_and_what_is_left_out_change_no_number(context, monkeypatch):
    weights = drawn(40, context.pool)
    parameters = context.truth(weights)
    whole = estimated(context, weights)
    monkeypatch.setattr(feldman, "DIFFERENCE_BYTES", 8 * context.pool * 7)  # seven rows at once
    soft = Estimator(context, hard_influence=False)
    soft.add(weights, parameters)
    for found in (estimated(context, weights), soft.estimate()):
        for one, other in zip(
            vars(found.influence).values(), vars(whole.influence).values(), strict=True
        ):
            assert np.array_equal(one, other, equal_nan=True)
        assert np.array_equal(found.soft.mean, whole.soft.mean, equal_nan=True)
    assert soft.estimate().hard_influence is None


def test_forms_of_the_families(context):
    expected = {
        "logistic": ["probability", "correct"],
        "softmax": ["probability", "correct"],
        "svm": ["loss", "correct"],
        "ridge": ["loss"],
    }
    found = measures(context.model, classes=context.points.classes)
    assert list(found) == expected[context.model.name]


def test_blocks_change_nothing(logistic):
    weights = drawn(60, logistic.pool)
    parameters = logistic.truth(weights)
    whole, blocked = Estimator(logistic), Estimator(logistic)
    whole.add(weights, parameters)
    for rows in torch.arange(60).split(7):
        blocked.add(weights[rows], parameters[rows])
    for one, other in (
        (whole.estimate().soft, blocked.estimate().soft),
        (whole.estimate().influence, blocked.estimate().influence),
    ):
        assert one.mean == pytest.approx(other.mean, abs=1e-12)
        assert one.low == pytest.approx(other.low, abs=1e-10)


def test_intervals_cover_the_value_of_very_many_subsets(logistic):
    value = estimated(logistic, drawn(20_000, logistic.pool, seed=1)).soft.mean
    covered = []
    for seed in range(2, 42):
        found = estimated(logistic, drawn(100, logistic.pool, seed=seed)).soft
        covered.append((found.low <= value) & (value <= found.high))
    # 1,200 intervals; rows share their subsets, so the band is wide on purpose.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def planted(extra_features, extra_labels, *, family="logistic"):
    """A clear table of two features, a third that is always zero, and planted rows at its end."""
    draws = np.random.default_rng(5)
    features = np.zeros((60, 3))
    features[:, :2] = draws.normal(size=(60, 2))
    labels = (features[:, 0] + 0.5 * draws.normal(size=60) > 0).astype(int)
    features = np.concatenate([features, extra_features])
    labels = np.concatenate([labels, extra_labels])
    model = target_model(family)
    points = points_of(features, labels, 2)
    truth = Retraining(model, points, tolerance=1e-9)
    ids = tuple(map(str, range(len(labels))))
    return StudyContext(truth, points, {"predictor": truth}, ids)


def test_a_row_with_duplicates_is_not_memorized():
    """The model knows it from its copies: it scores a small part of what it scores alone."""
    row, label = [[-1.5, 0.0, 2.0]], [1]
    alone = planted(row, label)
    copied = planted(row * 6, label * 6)
    lone = estimated(alone, drawn(600, 61)).soft.mean
    shared = estimated(copied, drawn(600, 66)).soft.mean
    assert lone[-1] == lone.max()
    assert shared[-6:].max() < 0.2 * lone[-1]


@pytest.mark.parametrize("family", ["logistic", "svm"])
def test_flipped_labels_are_memorized(family):
    flipped = planted(
        [[2.0, 0.0, 0.0], [-2.0, 0.5, 0.0], [2.0, -0.5, 0.0]], [0, 1, 0], family=family
    )
    found = estimated(flipped, drawn(600, 63)).soft
    assert found.mean[-3:].min() > np.quantile(found.mean[:-3], 0.9)
    assert (found.low[-3:] > 0).all()


@pytest.mark.parametrize("family", ["logistic", "svm"])
def test_an_outlier_is_the_most_memorized_row(family):
    """Alone in its direction, on the side of the other class: right with it, wrong without."""
    found = estimated(planted([[-1.5, 0.0, 6.0]], [1], family=family), drawn(600, 61))
    assert found.soft.mean.argmax() == 60
    assert found.hard.mean[60] > 0.95


def test_exact_retraining_as_subject_agrees_with_itself(exact):
    result = memorization.run(SMALL, exact)
    table = result.tables["methods"]
    assert table["form"].to_list() == ["probability", "correct"]
    for row in table.iter_rows(named=True):
        assert (row["same"], row["top_same"]) == pytest.approx((1, 1), abs=1e-9)
        assert row["influence_same"] == pytest.approx(1, abs=1e-9)
        # What agrees perfectly with one truth agrees with the other as that one does.
        assert row["different"] == pytest.approx(row["ceiling"], abs=1e-9)
        assert row["of_ceiling"] == pytest.approx(1, abs=1e-9)
    rows = result.tables["rows"]
    assert rows["soft"].to_numpy() == pytest.approx(rows["true_soft"].to_numpy(), abs=1e-9)


def test_more_subsets_raise_the_ceiling(exact):
    few, many = (
        memorization.run(MemorizationConfig(subsets=count), exact).metrics["ceiling"]
        for count in (20, 500)
    )
    assert few < many
    assert many > 0.9


def test_tables_and_metrics(context, tmp_path):
    result = memorization.run(SMALL, context)
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)
    rows = result.tables["rows"]
    assert rows["row_id"].to_list() == list(context.row_ids)
    assert sorted(rows["rank"].to_list()) == list(range(1, context.pool + 1))
    assert rows.sort("rank")["soft"].is_sorted(descending=True)
    assert rows["memorization"].null_count() == (context.pool if context.model.regression else 0)
    strongest = result.tables["influences"]["influence"].abs()
    assert len(strongest) == 7
    assert strongest.is_sorted(descending=True)
    forms = 1 if context.model.regression else 2
    assert result.tables["methods"].group_by("method").len()["len"].to_list() == [forms] * len(
        context.refits
    )


def test_better_refits_agree_better(logistic):
    table = memorization.run(SMALL, logistic).tables["methods"]
    soft = table.filter(pl.col("form") == "probability")
    same = dict(zip(soft["method"], soft["same"], strict=True))
    assert same["full_model"] is None  # it knows of no subset: nothing varies
    assert 0.9 < same["newton_step"] <= 1


def test_two_subsets_and_one_test_row_are_defined(logistic):
    one = points_of(logistic.test_points.features[:1], logistic.test_points.labels[:1], 2)
    small = StudyContext(logistic.truth, one, logistic.refits, logistic.row_ids)
    result = memorization.run(MemorizationConfig(subsets=2), small)
    json.dumps(result.metrics, allow_nan=False)
    # A row in both or in neither has no difference; one in each has no spread.
    assert result.tables["rows"]["soft"].null_count() == logistic.pool


@pytest.mark.parametrize("wrong", [{"subsets": 1}, {"share": 1.0}, {"share": 0.0}, {"subset": 5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        MemorizationConfig(**wrong)
