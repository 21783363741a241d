"""Edited models: what an edit gives is what weights give, and what it changes is told in words."""

import numpy as np
import polars as pl
import pytest

from modelpred import InvalidInput, ModelPred
from tests.api.conftest import COLUMNS, ROWS, SMALL, TEST, fitted, make_rows

FAMILIES = ["logistic", "softmax", "svm", "ridge"]
CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}


def weights_without(*rows):
    weights = np.ones((1, ROWS))
    weights[0, list(rows)] = 0
    return weights


@pytest.mark.parametrize("family", FAMILIES)
def test_without_rows_is_their_weight_zero(family, request):
    estimator = request.getfixturevalue(family)
    for refine in (0, 1):
        edited = estimator.without([7, 3], engine="predicted", refine=refine)
        expected = estimator.predict_parameters(weights_without(3, 7), refine=refine)[0]
        np.testing.assert_array_equal(edited.parameters, expected)
        bound = estimator.certificate(weights_without(3, 7), refine=refine)
        if bound is None:
            assert edited.certificate is None
        else:
            assert edited.certificate == pytest.approx(bound[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_added_copy_of_a_row_is_its_weight_two(family, request):
    estimator = request.getfixturevalue(family)
    cells, labels = make_rows(CLASSES[family])
    edited = estimator.with_points(cells[5:7], labels[5:7], engine="predicted", refine=1)
    weights = np.ones((1, ROWS))
    weights[0, 5:7] = 2
    # The network is single precision, and sums over another number of rows.
    expected = estimator.predict_parameters(weights, refine=1)[0]
    np.testing.assert_allclose(edited.parameters, expected, rtol=1e-3, atol=1e-4)
    assert edited.row_ids[-2:] == ("new-0", "new-1")
    np.testing.assert_allclose(
        edited.retrained().parameters, estimator.retrain(weights)[0], atol=1e-5
    )


def test_rows_go_by_position_or_by_id():
    cells, labels = make_rows(2)
    ids = [f"patient {number}" for number in range(ROWS)]
    estimator = ModelPred(subsets=20, predictor=SMALL, progress=False)
    estimator.fit(cells, labels, ids=ids)
    by_position = estimator.without(np.array([2, 30]))
    for rows in (["patient 30", "patient 2"], [2, "patient 30"]):
        np.testing.assert_array_equal(estimator.without(rows).parameters, by_position.parameters)
    added = estimator.with_points(cells[:1], labels[:1], ids=["patient 99"])
    assert added.row_ids == (*ids, "patient 99")
    with pytest.raises(InvalidInput, match="'patient 2' is the id of several rows"):
        estimator.with_points(cells[:1], labels[:1], ids=["patient 2"])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "one or more rows"),
        ("7", "one or more rows in a list"),
        ([ROWS], "no row 40; positions run from 0 to 39"),
        ([-1], "no row -1"),
        (["row"], "no row has the id 'row'; ids run from '0' to '39'"),
        ([3, 5, 3], "row 3 .* named more than once"),
        ([3, "3"], "row 3 .* named more than once"),
        ([True, False], "numpy.flatnonzero"),
        (np.array([1.0]), "neither a position"),
    ],
)
def test_rows_that_are_not_there_or_there_twice_are_refused(logistic, rows, told):
    with pytest.raises(InvalidInput, match=told):
        logistic.without(rows)


def test_added_points_must_be_like_the_old_ones(logistic):
    cells, labels = make_rows(2, 4)
    with pytest.raises(InvalidInput, match="X_new has 2 columns but the fit had 3"):
        logistic.with_points(cells[:, :2], labels)
    with pytest.raises(InvalidInput, match="y_new holds '10', expected one of the classes"):
        logistic.with_points(cells, labels + 9)
    with pytest.raises(InvalidInput, match="y_new has 3 labels for 4 rows"):
        logistic.with_points(cells, labels[:3])


def test_columns_go_by_name_where_both_sides_have_names():
    cells, labels = make_rows(2)
    table = pl.DataFrame(cells, schema=["a", "b", "c"])
    estimator = ModelPred(subsets=20, predictor=SMALL, progress=False).fit(table, labels)
    edited = estimator.without([0])
    turned = table.select("c", "b", "a", extra=pl.lit("not used"))
    np.testing.assert_array_equal(edited.predict_proba(turned), edited.predict_proba(cells))
    with pytest.raises(InvalidInput, match="X has no column 'b'"):
        edited.predict(table.drop("b"))


def by_hand(estimator, parameters, cells):
    scaled = (cells - estimator.scaling.offset) / estimator.scaling.divisor
    return scaled @ parameters[:COLUMNS] + parameters[COLUMNS]


def test_answers_are_a_plain_computation(logistic):
    cells, labels = make_rows(2, 25, seed=9)
    edited = logistic.without(range(5))
    score = by_hand(logistic, edited.parameters, cells)
    chance = 1 / (1 + np.exp(-score))
    np.testing.assert_array_equal(edited.predict(cells), score > 0)
    np.testing.assert_allclose(edited.predict_proba(cells), np.stack([1 - chance, chance], 1))
    loss = -np.log(np.where(labels == 1, chance, 1 - chance)).mean()
    assert edited.loss(cells, labels) == pytest.approx(loss)


def test_a_regression_answers_in_the_labels_units(ridge):
    cells, labels = make_rows(0, 25, seed=9)
    edited = ridge.without([1])
    score = by_hand(ridge, edited.parameters, cells)
    np.testing.assert_allclose(edited.predict(cells), score)
    assert edited.loss(cells, labels) == pytest.approx(((score - labels) ** 2).mean() ** 0.5)
    comparison = edited.compare()
    assert comparison.accuracy_before is None
    assert comparison.flips.height == 0
    assert "predictions  change by" in str(comparison)


@pytest.mark.parametrize("family", ["svm", "ridge"])
def test_families_without_probabilities_say_so(family, request):
    with pytest.raises(InvalidInput, match="probabilities"):
        request.getfixturevalue(family).without([0]).predict_proba(make_rows(2)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_counts_what_both_models_say(family, request):
    estimator = request.getfixturevalue(family)
    cells, labels = make_rows(CLASSES[family], TEST, seed=1)
    edited = estimator.without(range(15))
    comparison = edited.compare()
    assert comparison.rows == TEST
    assert comparison.loss_after == pytest.approx(edited.loss(cells, labels))
    np.testing.assert_array_equal(comparison.predictions["after"], edited.predict(cells))
    moved = np.linalg.norm(edited.parameters - estimator.full_parameters)
    assert comparison.distance == pytest.approx(moved / np.linalg.norm(estimator.full_parameters))
    if family != "ridge":
        right = (edited.predict(cells) == labels).mean()
        assert comparison.accuracy_after == pytest.approx(right)
        table = comparison.predictions
        assert comparison.flips.height == (table["before"] != table["after"]).sum() > 0
    if family in {"logistic", "softmax"}:
        chance = edited.predict_proba(cells)[np.arange(TEST), labels]
        np.testing.assert_allclose(comparison.predictions["probability_after"], chance)
    own = edited.compare(cells, labels)
    assert own.loss_before == comparison.loss_before
    assert (own.on, comparison.on) == ("rows", "test rows")


def test_the_comparison_reads_as_a_text(logistic):
    comparison = logistic.without([3, 4], engine="predicted").compare()
    lines = str(comparison).splitlines()
    assert lines[0] == "Without 2 of 40 training rows:"
    assert f"{comparison.flips.height} of 30 test rows flip" in lines[1]
    assert lines[2].startswith("  accuracy     ")
    assert lines[3].startswith("  mean loss    ")
    assert lines[-1].startswith("  certificate  exact retraining differs by at most ")


def test_nothing_changes_where_nothing_changed(logistic):
    cells, labels = make_rows(2)
    edited = logistic.with_points(cells[:1], labels[:1])
    same = logistic.without([0]).retrained().compare()
    again = logistic.without([0], engine="predicted", refine=20).compare()
    # Twenty Newton steps and training end at the same optimum.
    assert again.loss_after == pytest.approx(same.loss_after, abs=1e-6)
    assert logistic.without([0]).retrained().certificate is None
    assert edited.edit == "With 1 row added to 40 training rows:"


def test_compare_takes_rows_with_their_labels(logistic):
    with pytest.raises(InvalidInput, match="pass X and y"):
        logistic.without([0]).compare(make_rows(2)[0])


def test_the_mlp_is_edited_too():
    estimator = fitted("mlp", subsets=30, hidden=3, steps=20)
    edited = estimator.without([0, 1], engine="predicted")
    assert edited.certificate is None
    assert edited.predict_proba(make_rows(2)[0]).sum(axis=1) == pytest.approx(1)
