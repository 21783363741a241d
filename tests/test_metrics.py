"""Metrics against scikit-learn, scipy and closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.linear_model
import sklearn.metrics
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from modelpred import metrics

ROUNDING = 1e-12  # sums of a few hundred float64 values of order one


def generator(seed=0):
    return np.random.default_rng(seed)


def simulated(rows, classes, seed=0, sharpen=1.0):
    """Labels drawn from known probabilities; reported probabilities sharpened by a power."""
    draws = generator(seed)
    true = draws.dirichlet(np.full(classes, 0.7), size=rows)
    labels = np.array([draws.choice(classes, p=row) for row in true])
    reported = true**sharpen
    return reported / reported.sum(axis=1, keepdims=True), labels


def test_relative_error_of_a_scaled_row_is_the_scale():
    true = generator().normal(size=(5, 7))
    assert metrics.relative_errors(true * 1.25, true) == pytest.approx(0.25, abs=ROUNDING)
    tensors = metrics.relative_errors(torch.tensor(true * 1.25), torch.tensor(true))
    assert tensors == pytest.approx(0.25, abs=ROUNDING)


def test_relative_error_is_defined_where_the_truth_is_zero_or_the_prediction_failed():
    predicted = np.array([[0.0, 0.0], [1.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
    true = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert metrics.relative_errors(predicted, true).tolist() == [0, np.inf, np.inf, np.inf]


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(2, 2\)"):
        metrics.relative_errors(np.zeros((2, 3)), np.zeros((2, 2)))


def test_mean_interval_is_scipys_t_interval():
    values = generator().normal(3, 2, size=23)
    interval = metrics.mean_interval(values)
    low, high = scipy.stats.t.interval(
        0.95, df=22, loc=values.mean(), scale=scipy.stats.sem(values)
    )
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (values.mean(), low, high), abs=ROUNDING
    )
    assert interval.n == 23


def test_mean_interval_covers_the_mean_19_times_of_20():
    draws = generator().normal(size=(4000, 5))
    covered = [interval.low <= 0 <= interval.high for interval in map(metrics.mean_interval, draws)]
    # Binomial standard error 0.0034; four of them.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.014)


def test_one_value_has_an_endless_interval():
    assert metrics.mean_interval(np.array([2.0])) == metrics.Interval(2.0, -np.inf, np.inf, 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
def test_spearman_is_scipys_with_any_ties(pairs):
    first, second = np.array(pairs, dtype=float).T
    ours = metrics.spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-9)


def test_ranks_are_scipys():
    values = generator().integers(0, 6, size=(40, 3))
    assert np.array_equal(metrics.ranks(values), scipy.stats.rankdata(values, axis=0))


def test_spearman_interval_covers_the_correlation_of_a_normal_pair():
    draws = generator()
    correlation = 0.8
    truth = 6 / np.pi * np.arcsin(correlation / 2)  # Spearman of the bivariate normal
    covered = []
    for _ in range(1000):
        first = draws.normal(size=60)
        second = correlation * first + np.sqrt(1 - correlation**2) * draws.normal(size=60)
        interval = metrics.spearman_interval(first, second)
        covered.append(interval.low <= truth <= interval.high)
    # An approximation: 95% within two points, plus four binomial standard errors of 0.7 points.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.048)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=30))
def test_spearman_interval_is_fishers_transform_with_the_variance_of_bonett_and_wright(pairs):
    first, second = np.array(pairs, dtype=float).T
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    r = scipy.stats.spearmanr(first, second).statistic
    assume(abs(r) < 1 - 1e-9)
    error = math.sqrt((1 + r**2 / 2) / (len(pairs) - 3))
    ends = np.tanh(scipy.stats.norm(np.arctanh(r), error).interval(0.95))
    found = metrics.spearman_interval(first, second)
    assert (found.mean, found.low, found.high) == pytest.approx((r, *ends), abs=1e-9)
    assert found.n == len(pairs)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_of_a_perfect_correlation_is_short_and_not_empty(sign):
    found = metrics.spearman_interval(np.arange(4.0), sign * np.arange(4.0))
    low, high = sorted((sign * found.low, sign * found.high))
    assert found.mean == pytest.approx(sign)
    assert 1 - 1e-9 < low < high < 1


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 3.0, 2.0], [4.0] * 10])
def test_few_or_constant_values_leave_the_whole_range_of_a_correlation(values):
    found = metrics.spearman_interval(np.array(values), np.arange(float(len(values))))
    assert (found.low, found.high, found.n) == (-1, 1, len(values))
    assert np.isnan(found.mean) == (len(set(values)) == 1)


def test_spearman_within_ignores_what_separates_the_groups():
    draws = generator()
    groups = np.repeat([1.0, 2.0, 3.0], 20)
    true = draws.normal(size=60)
    predicted = draws.normal(size=60)
    shifted = metrics.spearman_within(predicted + 100 * groups, true + 100 * groups, groups)
    assert shifted == pytest.approx(metrics.spearman_within(predicted, true, groups), abs=ROUNDING)
    assert metrics.spearman(predicted + 100 * groups, true + 100 * groups) > 0.85 > shifted


def test_spearman_within_is_the_weighted_mean_of_the_groups():
    draws = generator()
    sizes = (4, 9, 17, 1)
    groups = np.repeat(np.arange(4), sizes)
    true, predicted = draws.normal(size=(2, groups.size))
    each = [metrics.spearman(predicted[groups == g], true[groups == g]) for g in range(3)]
    expected = np.average(each, weights=[3, 8, 16])
    assert metrics.spearman_within(predicted, true, groups) == pytest.approx(expected, abs=1e-9)


def test_spearman_within_of_a_constant_side():
    groups = np.array([0, 0, 1, 1])
    varying = np.array([1.0, 2.0, 4.0, 3.0])
    assert metrics.spearman_within(np.ones(4), varying, groups) == 0
    assert np.isnan(metrics.spearman_within(varying, np.ones(4), groups))


def test_lds_is_the_mean_of_scipys_spearman_over_rows():
    draws = generator()
    true = draws.normal(size=(30, 8))
    predicted = true + draws.normal(size=(30, 8))
    true[:, 3] = 1.0  # nothing to rank: left out
    predicted[:, 5] = 1.0  # ranks nothing: counts 0
    rows = [0, 1, 2, 4, 6, 7]
    each = [scipy.stats.spearmanr(predicted[:, row], true[:, row]).statistic for row in rows]
    interval = metrics.lds(predicted, true)
    assert interval.mean == pytest.approx(np.mean([*each, 0]), abs=1e-9)
    assert interval.n == 7


def test_split_half_reliability_predicts_the_correlation_of_two_long_estimates():
    draws = generator()
    signal = draws.normal(size=20_000)
    halves = [signal + draws.normal(size=signal.size) for _ in range(4)]
    expected = metrics.spearman(halves[0] + halves[1], halves[2] + halves[3])
    # Spearman-Brown is exact for Pearson; ranks of normals differ from it by less than 0.015.
    assert metrics.split_half_reliability(halves[0], halves[1]) == pytest.approx(
        expected, abs=0.025
    )


@pytest.mark.parametrize(
    ("second", "expected"),
    [([1, 2, 3], 1), ([2, 1, 3], 2 / 3), ([2, 3, 1], -0.5), ([3, 2, 1], -1)],
)
def test_split_half_reliability_is_spearman_browns_formula(second, expected):
    # The correlations of the halves are 1, 1/2, -1/2 and -1; negative ones are not corrected.
    found = metrics.split_half_reliability(np.arange(3.0), np.array(second, dtype=float))
    assert found == pytest.approx(expected)


def test_auroc_is_scikit_learns_with_ties():
    draws = generator()
    score = draws.integers(0, 10, size=200).astype(float)
    positive = draws.random(200) < 0.3
    expected = sklearn.metrics.roc_auc_score(positive, score)
    assert metrics.auroc(score, positive) == pytest.approx(expected, abs=ROUNDING)
    for truth, told in ((1, "200 positive and 0 negative"), (0, "0 positive and 200 negative")):
        with pytest.raises(ValueError, match=told):
            metrics.auroc(score, np.full(200, truth))
    assert metrics.auroc(np.array([1.0, 2.0]), np.array([0, 1])) == 1
    assert np.isnan(metrics.auroc(np.array([1.0, np.nan]), np.array([0, 1])))


@pytest.mark.parametrize("classes", [2, 5])
def test_likelihood_and_brier_are_scikit_learns(classes):
    probabilities, labels = simulated(300, classes)
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities), abs=ROUNDING
    )
    expected = sklearn.metrics.brier_score_loss(
        labels, probabilities, labels=np.arange(classes), scale_by_half=False
    )
    assert metrics.brier(probabilities, labels) == pytest.approx(expected, abs=ROUNDING)


def test_an_impossible_event_costs_infinitely_much():
    assert metrics.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == np.inf


@pytest.mark.parametrize(("scheme", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_reliability_table_is_scikit_learns_calibration_curve(scheme, strategy):
    probabilities, labels = simulated(400, 3)
    table = metrics.reliability_table(probabilities, labels, bins=10, scheme=scheme)
    accuracy, confidence = sklearn.calibration.calibration_curve(
        probabilities.argmax(axis=1) == labels,
        probabilities.max(axis=1),
        n_bins=10,
        strategy=strategy,
    )
    assert table["accuracy"].to_numpy() == pytest.approx(accuracy, abs=ROUNDING)
    assert table["confidence"].to_numpy() == pytest.approx(confidence, abs=ROUNDING)
    assert table["count"].sum() == 400


def test_wilson_interval_of_the_reliability_table_is_scipys():
    probabilities, labels = simulated(200, 2)
    table = metrics.reliability_table(probabilities, labels, bins=4)
    for row in table.iter_rows(named=True):
        hits = round(row["accuracy"] * row["count"])
        expected = scipy.stats.binomtest(hits, row["count"]).proportion_ci(method="wilson")
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(
            (expected.low, expected.high), abs=1e-9
        )


def test_equal_width_bins_close_on_the_right():
    probabilities = np.array([[0.5, 0.5], [0.4, 0.6], [0.0, 1.0]])
    table = metrics.reliability_table(probabilities, np.array([0, 1, 1]), bins=2)
    assert table["count"].to_list() == [1, 2]


def test_edges_of_bins_enclose_their_confidences():
    probabilities, labels = simulated(200, 3)
    equal = metrics.reliability_table(probabilities, labels, bins=7)
    assert (7 * equal["low"]).to_list() == pytest.approx(equal["bin"].to_list())
    assert (7 * equal["high"]).to_list() == pytest.approx((equal["bin"] + 1).to_list())
    by_mass = metrics.reliability_table(probabilities, labels, bins=7, scheme="mass")
    confidence = probabilities.max(axis=1)
    assert by_mass["low"][0] == confidence.min()
    assert by_mass["high"][-1] == confidence.max()
    assert by_mass["low"][1:].to_list() == by_mass["high"][:-1].to_list()
    for table in (equal, by_mass):
        inside = (table["low"] <= table["confidence"]) & (table["confidence"] <= table["high"])
        assert inside.all()


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_bins_are_fifteen_unless_told_and_one_at_least(scheme):
    case = simulated(100, 2)
    calls = (
        metrics.reliability_table,
        metrics.expected_calibration_error,
        metrics.calibration_noise,
    )
    for call in calls:
        found, *others = (
            np.array(call(*case, **bins, scheme=scheme))
            for bins in ({}, {"bins": 15}, {"bins": 14}, {"bins": 16})
        )
        assert [np.array_equal(found, other) for other in others] == [True, False, False]
        with pytest.raises(ValueError, match="one bin or more, got 0"):
            call(*case, bins=0, scheme=scheme)
    [row] = metrics.reliability_table(*case, bins=1, scheme=scheme).iter_rows(named=True)
    assert row["count"] == 100


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_calibration_error_of_one_confidence_is_its_gap(scheme):
    probabilities = np.tile([0.2, 0.8], (10, 1))
    labels = np.array([1] * 5 + [0] * 5)
    error = metrics.expected_calibration_error(probabilities, labels, scheme=scheme)
    assert error == pytest.approx(0.3, abs=ROUNDING)


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_order_of_the_rows_does_not_matter(scheme):
    probabilities, labels = simulated(100, 3)
    probabilities = probabilities.round(1)  # many ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    order = generator(1).permutation(100)
    errors = [
        metrics.expected_calibration_error(probabilities[rows], labels[rows], scheme=scheme)
        for rows in (np.arange(100), order)
    ]
    assert errors[0] == pytest.approx(errors[1], abs=ROUNDING)


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_calibrated_simulation_shows_the_noise_and_no_more(scheme):
    calibrated, over_confident = [], []
    for seed in range(40):
        probabilities, labels = simulated(300, 3, seed=seed)
        error = metrics.expected_calibration_error(probabilities, labels, scheme=scheme)
        calibrated.append(error - metrics.calibration_noise(probabilities, labels, scheme=scheme))
        probabilities, labels = simulated(300, 3, seed=seed, sharpen=3.0)
        error = metrics.expected_calibration_error(probabilities, labels, scheme=scheme)
        noise = metrics.calibration_noise(probabilities, labels, scheme=scheme)
        over_confident.append(error - noise)
    interval = metrics.mean_interval(np.array(calibrated))
    # The normal approximation of the noise is rough in bins of few rows: a tenth of its size.
    assert interval.low - 0.005 <= 0 <= interval.high + 0.005
    assert metrics.mean_interval(np.array(over_confident)).low > 0.05


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(ValueError, match=r"each in 0\.\.1"):
        metrics.brier(np.full((2, 2), 0.5), np.array([0, 2]))
    for probabilities in (np.full(2, 0.5), np.full((3, 2), 0.5)):
        with pytest.raises(
            ValueError, match=r"expected probabilities \[rows, classes\] and labels"
        ):
            metrics.brier(probabilities, np.array([0, 1]))


@pytest.mark.parametrize("sizes", [(9, 30), (2, 2), (2, 5), (5, 2)])
def test_mean_differences_are_scipys_welch_intervals(sizes):
    draws = generator()
    first, second = draws.normal(1, 2, size=(sizes[0], 5)), draws.normal(size=(sizes[1], 5))
    found = metrics.mean_differences(
        (first.mean(axis=0), second.mean(axis=0)),
        (first.var(axis=0, ddof=1), second.var(axis=0, ddof=1)),
        tuple(np.full(5, size) for size in sizes),
    )
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low, abs=ROUNDING)
    assert found.high == pytest.approx(expected.high, abs=ROUNDING)
    assert found.mean == pytest.approx(first.mean(axis=0) - second.mean(axis=0))


def test_a_sample_of_one_or_none_has_no_difference():
    one = metrics.mean_differences(
        (np.ones(3), np.zeros(3)),
        (np.ones(3), np.ones(3)),
        (np.array([1, 5, 5]), np.array([5, 0, 1])),
    )
    assert np.isnan([one.mean, one.low, one.high]).all()
    none = metrics.proportion_differences(
        (np.full(1, np.nan), np.ones(1)), (np.zeros(1), np.full(1, 3))
    )
    assert np.isnan([none.mean, none.low, none.high]).all()


def test_samples_that_do_not_vary_differ_for_certain_by_their_means_only():
    found = metrics.mean_differences(
        (np.ones(1), np.zeros(1)), (np.zeros(1), np.zeros(1)), (np.full(1, 3), np.full(1, 4))
    )
    assert (found.mean, found.low, found.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("successes", "counts", "published"),
    [
        ((56, 48), (70, 80), (0.0524, 0.3339)),
        ((9, 3), (10, 10), (0.1705, 0.8090)),
        ((6, 2), (7, 7), (0.0582, 0.8062)),
        ((5, 0), (56, 29), (-0.0381, 0.1926)),
        ((10, 0), (10, 10), (0.6075, 1.0)),
    ],
)
def test_proportion_differences_are_newcombes_published_intervals(successes, counts, published):
    """Table II of Newcombe (1998), method 10."""
    shares = tuple(np.array([s / n]) for s, n in zip(successes, counts, strict=True))
    found = metrics.proportion_differences(shares, tuple(np.array([n]) for n in counts))
    assert (found.low[0], found.high[0]) == pytest.approx(published, abs=6e-5)


def test_pearson_is_scipys():
    first, second = generator().normal(size=(2, 40))
    second += first
    expected = scipy.stats.pearsonr(first, second).statistic
    assert metrics.pearson(first, second) == pytest.approx(expected, abs=ROUNDING)
    assert metrics.pearson(torch.tensor(first), second) == pytest.approx(expected, abs=ROUNDING)
    assert np.isnan(metrics.pearson(first, np.ones(40)))


def test_top_overlap_counts_the_shared_highest():
    first = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    second = np.array([5.0, 0.0, 4.0, 3.0, 2.0, 1.0])
    assert metrics.top_overlap(first, second, share=1 / 3) == 0.5
    assert metrics.top_overlap(first, second, share=0.01) == 1  # the highest at least
    assert metrics.top_overlap(first, second) == 1  # a tenth
    assert metrics.top_overlap(np.arange(20.0), np.arange(20.0)[::-1]) == 0
    # A tenth of 20 are the two highest: the same two, in another order, and no other is shared.
    first, second = np.arange(20.0), np.r_[np.arange(18.0)[::-1], 19.0, 18.0]
    assert metrics.top_overlap(first, second) == 1


@pytest.mark.parametrize("power", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_power(power):
    probabilities, labels = simulated(20_000, 4, sharpen=power)
    # Its standard error on so many rows is about 1%.
    assert metrics.best_temperature(probabilities, labels) == pytest.approx(power, rel=0.05)


def test_temperature_is_scikit_learns_slope_of_the_log_odds():
    probabilities, labels = simulated(500, 2, sharpen=2.0)
    odds = np.log(probabilities[:, 1:] / probabilities[:, :1])
    fitted = sklearn.linear_model.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    slope = fitted.fit(odds, labels).coef_[0, 0]
    assert metrics.best_temperature(probabilities, labels) == pytest.approx(1 / slope, rel=1e-4)


def test_tempered_probabilities():
    table = np.array([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    assert metrics.tempered(table, 1.0) == pytest.approx(table, abs=ROUNDING)
    assert metrics.tempered(table, 0.5)[0] == pytest.approx([0.81 / 0.82, 0.01 / 0.82])
    right = np.tile([0.6, 0.4], (3, 1))
    assert metrics.best_temperature(right, np.zeros(3)) < 0.05  # with_tolerance still is better


def test_a_temperature_is_at_most_a_hundred():
    wrong = np.tile([0.6, 0.4], (3, 1))
    assert metrics.best_temperature(wrong, np.ones(3)) == pytest.approx(100, rel=1e-4)
