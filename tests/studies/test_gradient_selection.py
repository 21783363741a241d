"""Selections by gradients: quotas, what they minimise, and how they compare with random rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies.gradient_selection import judging_points, selections
from modelpred.studies.greedy_selection import no_quota, own_shares
from modelpred.targets import points_of, target_model
from modelpred.targets.scoring import mean_test_losses
from tests.studies.conftest import CLASSES

FAMILIES = st.sampled_from(sorted(CLASSES))


def drawn_table(family, rows, *, seed, features=4, wrong=0.0):
    """Features, labels with a share of wrong ones among the first half, and which are wrong."""
    draws = np.random.default_rng(seed)
    cells = draws.normal(size=(2 * rows, features))
    signal = 2 * cells @ draws.normal(size=(features, max(CLASSES[family], 1)))
    noisy = signal + draws.normal(size=signal.shape)
    labels = noisy.argmax(axis=1) if CLASSES[family] else noisy[:, 0]
    flipped = draws.random(2 * rows) < wrong
    flipped[rows:] = False
    if CLASSES[family]:
        labels = np.where(flipped, (labels + 1) % CLASSES[family], labels)
    pool, others = (
        points_of(cells[part], labels[part], CLASSES[family])
        for part in (slice(rows), slice(rows, None))
    )
    return pool, others, torch.from_numpy(flipped[:rows])


def judged(pool, validation, family, *, seed=0):
    truth = Retraining(target_model(family), pool, tolerance=1e-8)
    return truth, judging_points(truth, validation, generator=np.random.default_rng(seed))


def objectives(truth, judge, selected):
    """The objective of the judging rows at the trained model of each selection."""
    parameters = truth(selected.to(torch.uint8))
    ones = torch.ones(len(selected), len(judge.labels), dtype=torch.float64)
    return truth.model.objective(parameters, ones, judge)


@settings(max_examples=12, deadline=None)
@given(
    family=FAMILIES,
    rows=st.integers(12, 60),
    sizes=st.sets(st.integers(1, 12), min_size=1, max_size=3),
    groups=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_selections_are_nested_of_the_right_size_and_keep_quotas(family, rows, sizes, groups, seed):
    pool, validation, _ = drawn_table(family, rows, seed=seed)
    truth, judge = judged(pool, validation, family, seed=seed)
    quota = own_shares(torch.arange(rows) % groups)
    path = selections(truth, judge, sizes=[*sizes], quota=quota)
    assert sorted(path) == sorted(sizes)
    larger = torch.ones(rows, dtype=torch.bool)
    for size in sorted(sizes, reverse=True):
        selected = path[size]
        assert int(selected.sum()) == size
        assert not bool((selected & ~larger).any())
        assert bool((quota.members(selected) >= quota.guaranteed(size)).all())
        larger = selected


@settings(max_examples=6, deadline=None)
@given(family=FAMILIES, seed=st.integers(0, 10**6), wrong=st.sampled_from([0.0, 0.2]))
def test_the_objective_of_the_judging_rows_is_lower_than_that_of_random_selections(
    family, seed, wrong
):
    pool, validation, _ = drawn_table(family, 120, seed=seed, wrong=wrong)
    truth, judge = judged(pool, validation, family)
    selected = selections(truth, judge, sizes=[40], quota=no_quota(120))[40]
    draws = np.random.default_rng(seed)
    random = torch.zeros(20, 120, dtype=torch.bool)
    for row in random:
        row[draws.permutation(120)[:40]] = True
    found = objectives(truth, judge, torch.cat([selected[None], random]))
    assert float(found[0]) < float(found[1:].min())


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_one_removal_is_that_of_the_least_objective_or_nearly(seed):
    """Of a quadratic objective the predicted changes lack only the removed row's own curvature."""
    pool, validation, _ = drawn_table("ridge", 40, seed=seed)
    truth, judge = judged(pool, validation, "ridge")
    left = selections(truth, judge, sizes=[39], quota=no_quota(40))[39]
    each = objectives(truth, judge, ~torch.eye(40, dtype=torch.bool))
    mine = float(objectives(truth, judge, left[None])[0])
    assert int((each < mine - 1e-9).sum()) <= 2


@pytest.mark.parametrize("wrong", [0.0, 0.2])
@pytest.mark.parametrize("rows", [600, 3000])
def test_selections_of_a_fifth_have_a_lower_test_loss_than_random_ones(rows, wrong):
    draws = np.random.default_rng(rows)
    cells = draws.normal(size=(rows + 3000, 40))
    odds = cells @ draws.normal(size=40) * 2 / np.sqrt(40)
    labels = (draws.random(len(cells)) < expit(odds)).astype(np.int64)
    labels[:rows] ^= draws.random(rows) < wrong
    pool, validation, test = (
        points_of(cells[part], labels[part], 2)
        for part in (slice(rows), slice(rows, rows + 1000), slice(rows + 1000, None))
    )
    truth, judge = judged(pool, validation, "logistic")
    kept = rows // 5
    chosen = torch.zeros(11, rows, dtype=torch.uint8)
    chosen[0] = selections(truth, judge, sizes=[kept], quota=no_quota(rows))[kept]
    for row in chosen[1:]:
        row[draws.permutation(rows)[:kept]] = 1
    losses = mean_test_losses(truth.model, truth(chosen), test)
    assert float(losses[0]) < float(losses[1:].min())


def test_a_pool_of_wrong_labels_has_less_weight_than_a_clean_one():
    weights = []
    for wrong in (0.0, 0.3):
        pool, validation, _ = drawn_table("logistic", 400, seed=5, wrong=wrong)
        _, judge = judged(pool, validation, "logistic")
        weights.append(float(judge.factors[0]))
        assert judge.factors[400:].tolist() == [1.0] * 400
    assert weights[1] < weights[0]


def test_wrong_labels_are_removed_first():
    pool, validation, wrong = drawn_table("logistic", 400, seed=6, wrong=0.2)
    truth, judge = judged(pool, validation, "logistic")
    selected = selections(truth, judge, sizes=[200], quota=no_quota(400))[200]
    assert int((wrong & selected).sum()) < 0.5 * int((wrong & ~selected).sum())


def test_one_validation_row_is_enough():
    pool, validation, _ = drawn_table("logistic", 30, seed=1)
    truth, judge = judged(pool, validation.take(torch.tensor([0])), "logistic")
    assert int(selections(truth, judge, sizes=[5], quota=no_quota(30))[5].sum()) == 5


def test_sizes_are_those_of_the_pool():
    pool, validation, _ = drawn_table("logistic", 30, seed=1)
    truth, judge = judged(pool, validation, "logistic")
    with pytest.raises(InvalidInput, match="cannot select 31 of 30 rows"):
        selections(truth, judge, sizes=[31], quota=no_quota(30))
