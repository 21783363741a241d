"""Attribution and explanations in a caller's terms: leave-one-out by hand, names, edges."""

import numpy as np
import polars as pl
import pytest
import torch

from modelpred import InvalidInput, ModelPred
from tests.api.conftest import COLUMNS, ROWS, SMALL, make_rows

FAMILIES = ["logistic", "softmax", "svm", "ridge"]


def leave_one_out(estimator):
    """What each parameter changes by without each row, by hand, [rows, parameters]."""
    weights = np.ones((ROWS, ROWS)) - np.eye(ROWS)
    return estimator.retrain(weights) - estimator.retrain(np.ones((1, ROWS)))


def in_order(table, column):
    return table.sort(pl.col("row_id").cast(pl.Int64))[column].to_numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_changes_are_leaving_each_row_out(family, request):
    estimator = request.getfixturevalue(family)
    true = leave_one_out(estimator)[:, 1]
    exact, refined = (
        estimator.attribute(1, engine="exact"),
        estimator.attribute(1, engine="predicted", refine=4),
    )
    # Retrained at tolerance 1e-6, by hand; the attribution trains to 1e-9.
    assert in_order(exact.rows, "change") == pytest.approx(true, abs=1e-5)
    assert in_order(refined.rows, "change") == pytest.approx(true, abs=1e-4)
    assert exact.rows["change"].abs().is_sorted(descending=True)
    assert exact.value == estimator.full_parameters[1]


@pytest.mark.parametrize("refine", [0, 3])
def test_derivatives_are_those_of_the_predictor(logistic, refine):
    """By central differences of the predicted parameter, in the predictor's single precision."""
    found = logistic.attribute(2, engine="predicted", refine=refine)
    for row in (0, 17):
        pair = np.ones((2, ROWS))
        pair[:, row] += [0.02, -0.02]
        high, low = logistic.predict_parameters(pair, refine=refine)[:, 2]
        slope = in_order(found.rows, "derivative")[row]
        assert slope == pytest.approx((high - low) / 0.04, abs=2e-3)


def test_parameters_go_by_position_or_by_name(softmax):
    cells, labels = make_rows(2)
    table = pl.DataFrame(cells, schema=["age", "weight", "height"])
    estimator = ModelPred(subsets=20, predictor=SMALL, progress=False).fit(table, labels)
    by_name = estimator.attribute("weight")
    assert (by_name.position, by_name.parameter) == (1, "weight")
    assert by_name.rows.equals(estimator.attribute(1).rows)
    assert estimator.attribute("intercept").position == COLUMNS
    assert "weight is" in str(by_name)
    by_column = estimator.explain(table[:1].select("height", "age", "weight"))
    assert by_column.rows.equals(estimator.explain(cells[0]).rows)
    assert softmax.attribute((2, "x1")).position == 2 * (COLUMNS + 1) + 1
    assert softmax.attribute((2, "x1")).parameter == "x1 (class 2)"


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        (12, "no parameter 12; positions run from 0 to 11"),
        (-1, "no parameter -1"),
        ("x9", "no parameter is called 'x9'; they run from x0 .class 0. to intercept .class 2."),
        ((7, "x1"), "no parameter is called"),
        ("x1", "for each class .0, 1, 2.; pass .class, 'x1'."),
    ],
)
def test_parameters_that_are_not_there_are_refused(softmax, parameter, told):
    with pytest.raises(InvalidInput, match=told):
        softmax.attribute(parameter)


def margins(estimator, parameters, features, label):
    """How far models are on the side of a class, in the family's scores."""
    scores = features @ parameters[:, :-1].T + parameters[:, -1]
    return scores if label else -scores


@pytest.mark.parametrize("engine", ["exact", "predicted"])
def test_effects_are_changes_of_the_score_without_each_row(logistic, engine):
    row = make_rows(2, 1, seed=9)[0][0]
    found = logistic.explain(row, engine=engine, refine=4)
    features = logistic.scaling(torch.from_numpy(row[None]))[0].numpy()
    alone = logistic.retrain(np.ones((ROWS, ROWS)) - np.eye(ROWS))
    full = logistic.full_parameters[None]
    expected = margins(logistic, alone, features, found.predicted) - margins(
        logistic, full, features, found.predicted
    )
    assert in_order(found.rows, "effect") == pytest.approx(expected, abs=1e-3)
    assert found.rows["effect"].abs().is_sorted(descending=True)
    assert found.margin == pytest.approx(margins(logistic, full, features, found.predicted)[0])
    assert found.margin > 0


@pytest.mark.parametrize("family", ["logistic", "softmax", "svm"])
def test_a_confirmed_flip_is_one_when_it_is_done_by_hand(family, request):
    estimator = request.getfixturevalue(family)
    confirmed = 0
    for row in make_rows(2, 6, seed=9)[0]:
        flip = estimator.explain(row).flip
        if not flip.removed:
            assert (flip.confirmed, flip.becomes) == (False, None)
            assert np.isnan(flip.margin)
            continue
        edited = estimator.without(list(flip.removed)).retrained()
        assert edited.predict(row[None])[0] == flip.becomes
        before = estimator.explain(row).predicted
        assert flip.confirmed == (flip.becomes != before)
        confirmed += flip.confirmed
    assert confirmed


def test_numbers_have_effects_and_nothing_to_flip(ridge):
    row = make_rows(0, 1, seed=9)[0]
    found = ridge.explain(row, engine="exact")
    assert found.flip is None
    first = found.rows.row(0, named=True)
    without = ridge.without([first["row_id"]]).retrained().predict(row)[0]
    assert without - found.predicted == pytest.approx(first["effect"], abs=1e-5)


def test_an_explanation_is_told_in_lines(logistic):
    found = logistic.explain(make_rows(2, 1, seed=9)[0])
    lines = str(found).splitlines()
    assert lines[0].startswith(f"Predicted {found.predicted}, margin")
    assert found.rows["row_id"][0] in lines[1]
    assert "retraining" in lines[-1] or "No set of rows" in lines[-1]


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        (2, {}, "x has 2 rows; pass the one"),
        (1, {"largest": 1.0}, "largest is 1.0; expected a share"),
    ],
)
def test_what_cannot_be_explained_is_refused(logistic, rows, options, told):
    with pytest.raises(InvalidInput, match=told):
        logistic.explain(make_rows(2, rows)[0], **options)
