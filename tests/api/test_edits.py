"""Edits of the training set against training on the rows that the edit leaves, written out by hand."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.targets import train_targets
from tests.api.conftest import COLUMNS, ROWS, make_rows

CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}


@pytest.fixture(scope="session", params=CLASSES)
def case(request):
    return request.getfixturevalue(request.param), CLASSES[request.param]


def by_hand(mp, classes, *, weights, labels, added):
    """Parameters of training on a table in which a row that counts k times is written k times."""
    cells, targets = make_rows(classes)
    targets = targets.copy()
    for row, label in labels.items():
        targets[row] = label
    cells = np.concatenate([cells, added[0]])
    targets = np.concatenate([targets, added[1]])
    times = np.ones(len(cells), dtype=int)
    for row, count in weights.items():
        times[row] = count
    rows = np.repeat(np.arange(len(cells)), times)
    trained = train_targets(
        mp.model,
        mp.scaling(torch.from_numpy(cells[rows])),
        torch.from_numpy(targets[rows]),
        torch.ones(1, len(rows), dtype=torch.float64),
        tolerance=1e-9,
        classes=classes,
    )
    return trained.parameters[0].numpy()


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_an_edit_is_the_model_of_the_rows_that_it_leaves(case, data):
    mp, classes = case
    extra = data.draw(st.integers(0, 3), label="added rows")
    label = st.integers(0, classes - 1) if classes else st.floats(-9, 9)
    position = st.integers(0, ROWS - 1)
    weights = data.draw(
        st.dictionaries(st.integers(0, ROWS + extra - 1), st.integers(0, 3), max_size=12)
    )
    labels = data.draw(st.dictionaries(position, label, max_size=6))
    cells = make_rows(classes, 3, seed=9)[0][:extra].reshape(extra, COLUMNS)
    added = cells, np.array(data.draw(st.lists(label, min_size=extra, max_size=extra)), dtype=None)
    model = mp.edit(weights=weights, labels=labels, added=added if extra else None, engine="exact")
    kept = added if extra else (cells, np.zeros(0, dtype=int if classes else float))
    expected = by_hand(mp, classes, weights=weights, labels=labels, added=kept)
    # Both are within the tolerance of 1e-6 of the optimum.
    assert np.linalg.norm(model.parameters - expected) <= 1e-5 * np.linalg.norm(expected)
    predicted = mp.edit(
        weights=weights, labels=labels, added=added if extra else None, engine="predicted", refine=3
    )
    if predicted.certificate is not None:
        distance = np.linalg.norm(predicted.parameters - expected)
        assert distance <= predicted.certificate + 1e-5 * np.linalg.norm(expected)
    later = mp.edit(
        weights=weights,
        labels=labels,
        added=added if extra else None,
        engine="predicted",
        refine=3,
        bounded=False,
    )
    assert later.certificate is None
    assert later.with_certificate().certificate == predicted.certificate


def test_positions_and_ids_name_the_same_rows(logistic):
    by_id = logistic.edit(weights={"3": 0, "4": 2}, labels={"5": 1})
    by_position = logistic.edit(weights={3: 0, 4: 2}, labels={5: 1})
    assert np.array_equal(by_id.parameters, by_position.parameters)
    assert (
        str(by_id.edit)
        == "Training set of 40 rows, without 1, with 1 reweighted, with 1 relabelled:"
    )


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"weights": {"x": 0}}, "no row has the id 'x'"),
        ({"weights": {3: -1}}, "a weight is -1"),
        ({"weights": {3: float("nan")}}, "a weight is nan"),
        ({"weights": {3: 1e9}}, "a weight is 1000000000.0"),
        ({"labels": {3: 7}}, "expected one of the classes of the fit"),
        ({"labels": {99: 0}}, "there is no row 99"),
        ({"added": (np.zeros((1, 2)), [0])}, "has 2 columns but the fit had 3"),
        ({"added": (np.zeros((1, 3)), [0]), "ids": ["3"]}, "'3' is the id of several rows"),
    ],
)
def test_edits_that_cannot_be_made_are_refused(logistic, edit, told):
    with pytest.raises(InvalidInput, match=told):
        logistic.edit(**edit)


def test_a_class_that_an_edit_removes_is_noted(logistic):
    _, labels = make_rows(2)
    gone = logistic.edit(
        weights={int(row): 0 for row in np.flatnonzero(labels == 1)}, engine="exact"
    )
    assert gone.notes == ["no row of class 1 is left to learn from"]
    assert not logistic.edit(weights={3: 0}).notes


@pytest.mark.parametrize("family", ["logistic", "softmax", "svm", "ridge"])
def test_coefficients_in_the_tables_units_give_the_models_scores(request, family):
    mp = request.getfixturevalue(family)
    model = mp.edit(weights={3: 0, 5: 2}, engine="exact")
    table = model.coefficients()
    cells = make_rows(CLASSES[family], 20, seed=5)[0]
    scores = model.decision_function(cells).reshape(20, -1)
    own = table["after"].to_numpy().reshape(scores.shape[1], COLUMNS + 1)
    # Two orders of the same sums in float64.
    assert np.allclose(cells @ own[:, :-1].T + own[:, -1], scores, rtol=1e-9, atol=1e-9)
    assert table["column"].to_list()[: COLUMNS + 1] == ["x0", "x1", "x2", "intercept"]
    before = mp.full_model().coefficients()
    assert before["after"].equals(table["before"].alias("after"))


def test_a_network_has_no_coefficients():
    from tests.api.conftest import fitted  # noqa: PLC0415

    mp = fitted("mlp", hidden=2, subsets=30)
    with pytest.raises(InvalidInput, match="mlp has no coefficients"):
        mp.full_model().coefficients()
    assert isinstance(mp.edit(weights={3: 0}).compare().predictions, pl.DataFrame)
