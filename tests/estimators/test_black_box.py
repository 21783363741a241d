"""Any estimator as a target model: its answers are those of fitting it to the rows of each subset."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modelpred.errors import InvalidInput
from modelpred.estimators import subset_fits
from modelpred.estimators.black_box import Trainable, black_box
from modelpred.estimators.known_rows import KnownRows, take_rows
from modelpred.refits import Retraining
from modelpred.targets import points_of

ROWS, TEST = 18, 7
GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.normal(size=(ROWS + TEST, 3))
CLASSES = np.array(["a", "b", "c"])


class PredictsOnly(BaseEstimator):
    """A nearest mean with `predict` alone, which takes no sample weight."""

    def fit(self, rows, labels):
        """Learn the mean of each class."""
        self.names = np.unique(labels)
        self.means = np.stack([rows[labels == name].mean(axis=0) for name in self.names])
        return self

    def predict(self, rows):
        """Name the class of the nearest mean."""
        return self.names[((rows[:, None] - self.means) ** 2).sum(axis=2).argmin(axis=1)]


ESTIMATORS = {
    "tree": (DecisionTreeClassifier(random_state=0), "probabilities"),
    "bayes": (GaussianNB(), "probabilities"),
    "neighbours": (KNeighborsClassifier(1), "probabilities"),
    "svc": (SVC(kernel="linear"), "scores"),
    "sgd": (SGDClassifier(random_state=0), "scores"),
    "own": (PredictsOnly(), "classes"),
    "tree-numbers": (DecisionTreeRegressor(random_state=0), "numbers"),
    "boosting": (HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=2), "numbers"),
}


def boxed(estimator, kind, labels, *, classes, table=TABLE, sample_weight=None):
    """The family, its training points and its test points."""
    known = KnownRows(table)
    names = CLASSES[:classes] if classes else np.zeros(0)
    points, test = (
        points_of(np.arange(len(table))[part, None].astype(float), labels[part], classes, sample_weight=factors)
        for part, factors in ((slice(ROWS), sample_weight), (slice(ROWS, None), None))
    )  # fmt: skip
    return black_box(Trainable(estimator, kind, known, names), points, test), points, test


def expected(estimator, kind, subset, table):
    """What the estimator fitted to (rows, labels, sample weights) says: its classes, [rows, columns]."""
    rows, labels, factors = subset
    told = {} if factors is None else {"sample_weight": factors}
    fitted = clone(estimator).fit(rows, labels, **told)
    if kind == "probabilities":
        return fitted.classes_, fitted.predict_proba(table)
    if kind == "scores":
        return fitted.classes_, fitted.decision_function(table)
    return None, fitted.predict(table)


def best(scores):
    """Position of the predicted class, by one score or the highest of several."""
    scores = scores.reshape(len(scores), -1)
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)


@given(
    name=st.sampled_from(sorted(ESTIMATORS)),
    classes=st.sampled_from([2, 3]),
    seed=st.integers(0, 10**6),
    weighted=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_fitting_the_estimator_to_the_subset(name, classes, seed, weighted):
    """The oracle repeats each row as often as the subset takes it and calls scikit-learn itself."""
    estimator, kind = ESTIMATORS[name]
    generator = np.random.default_rng(seed)
    classes = 0 if kind == "numbers" else classes
    labels = (
        generator.integers(0, classes, ROWS + TEST)
        if classes
        else generator.normal(size=ROWS + TEST)
    )
    weighted = weighted and name in ("tree", "bayes", "sgd", "svc", "tree-numbers", "boosting")
    factors = generator.uniform(0.5, 2, ROWS) if weighted else None
    box, points, test = boxed(estimator, kind, labels, classes=classes, sample_weight=factors)
    counts = generator.integers(0, 3, (3, ROWS))
    parameters = Retraining(box, points)(torch.from_numpy(counts))
    scores = box.scores(parameters, test.features)
    for own, found in zip(counts, scores.numpy(), strict=True):
        rows = np.repeat(np.arange(ROWS), own)
        named = CLASSES[labels[rows]] if classes else labels[rows]
        if classes and len(np.unique(named)) < 2:
            continue
        subset = TABLE[rows], named, None if factors is None else factors[rows]
        of, table = expected(estimator, kind, subset, TABLE[ROWS:])
        if kind == "probabilities":
            places = np.searchsorted(CLASSES, of)
            ours = box.probabilities(torch.from_numpy(found)[None])[0].numpy()
            np.testing.assert_allclose(ours[:, places], table, atol=1e-12)
            np.testing.assert_allclose(ours.sum(1), 1, atol=1e-12)
        elif kind == "numbers":
            np.testing.assert_array_equal(found[:, 0], table)
        else:
            whole = table if kind == "classes" else of[best(table)]
            np.testing.assert_array_equal(CLASSES[best(found)], whole)


@pytest.mark.parametrize("name", ["tree", "svc", "own", "tree-numbers"])
def test_rows_that_were_not_asked_about_are_answered_by_training_again(name):
    estimator, kind = ESTIMATORS[name]
    labels = np.arange(ROWS + TEST) % 2 if kind != "numbers" else TABLE[:, 0]
    box, points, test = boxed(estimator, kind, labels, classes=0 if kind == "numbers" else 2)
    weights = torch.from_numpy(GENERATOR.integers(0, 2, (4, ROWS)))
    full = Retraining(box, points)(weights)
    narrow = box.for_rows(points, points)
    fewer = Retraining(narrow, points)(weights)
    assert fewer.shape[1] < full.shape[1]
    for rows in (slice(None), slice(1)):  # several subsets, and one
        again = narrow.scores(fewer[rows], test.features)
        assert torch.equal(again, box.scores(full[rows], test.features))


def test_a_subset_without_two_classes_gives_the_shares_of_the_classes():
    labels = np.arange(ROWS + TEST) % 2
    box, points, test = boxed(*ESTIMATORS["tree"], labels, classes=2)
    weights = torch.zeros(2, ROWS)
    weights[1, ::2] = 1  # nine rows of class 0
    probabilities = box.probabilities(box.scores(Retraining(box, points)(weights), test.features))
    np.testing.assert_allclose(probabilities[0], 0.5)
    np.testing.assert_allclose(probabilities[1, 0], [9.5 / 10, 0.5 / 10], rtol=1e-12)


def test_neighbours_are_at_most_as_many_as_rows():
    box, points, test = boxed(KNeighborsRegressor(5), "numbers", TABLE[:, 0], classes=0)
    weights = torch.zeros(1, ROWS)
    weights[0, :2] = 1
    scores = box.scores(Retraining(box, points)(weights), test.features)
    np.testing.assert_allclose(scores, TABLE[:2, 0].mean(), rtol=1e-12)


class Fussy(GaussianNB):
    """Refuses fewer than ten rows."""

    def fit(self, rows, labels):
        """Fit enough rows."""
        if len(rows) < 10:
            raise ValueError("too few rows")
        return super().fit(rows, labels)


def test_a_failed_training_is_recorded_and_its_reason_kept():
    labels = np.arange(ROWS + TEST) % 2
    box, points, _ = boxed(Fussy(), "probabilities", labels, classes=2)
    weights = torch.ones(2, ROWS, dtype=torch.float64)
    weights[1, 5:] = 0
    trained = Retraining(box, points).train(weights)
    assert trained.converged.tolist() == [True, False]
    assert "too few rows" in box.advice(np.nan)
    with pytest.raises(InvalidInput, match="Fussy cannot be trained: ValueError: too few rows"):
        box.model_of(weights[1].numpy())


def test_other_processes_answer_the_same(monkeypatch):
    labels = np.arange(ROWS + TEST) % 2
    weights = torch.from_numpy(GENERATOR.integers(0, 2, (12, ROWS))).double().numpy()
    box, _, _ = boxed(*ESTIMATORS["tree"], labels, classes=2)
    here = box.fits.answers(weights)
    monkeypatch.setattr(subset_fits, "IN_PROCESS_SECONDS", 0)
    other, _, _ = boxed(*ESTIMATORS["tree"], labels, classes=2)
    other.fits.processes = 2
    assert not other.fits._processes_ready()
    other.fits._started.result()
    np.testing.assert_array_equal(other.fits.answers(weights), here)


def test_answers_are_remembered(monkeypatch):
    labels = np.arange(ROWS + TEST) % 2
    box, points, _ = boxed(*ESTIMATORS["tree"], labels, classes=2)
    weights = torch.from_numpy(GENERATOR.integers(0, 2, (12, ROWS)))
    first = Retraining(box, points)(weights)
    monkeypatch.delattr(subset_fits, "trained_block")  # training again would fail
    assert torch.equal(Retraining(box, points)(weights), first)


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        csr_matrix(TABLE),
        pd.DataFrame(TABLE).assign(level=pd.Categorical(["x", "y"] * 12 + ["x"])),
        pl.DataFrame(TABLE),
        np.array(["a text", "another"] * 12 + ["third"], dtype=object),
    ],
    ids=["array", "sparse", "pandas", "polars", "texts"],
)
def test_rows_are_found_by_position_in_tables_of_any_kind(table):
    def cells(rows):
        rows = rows.toarray() if hasattr(rows, "toarray") else rows
        return np.asarray(rows).tolist()

    known = KnownRows(take_rows(table, np.arange(10)))
    later = known.positions(take_rows(table, np.arange(10, 25)), what="X")
    assert later.tolist() == list(range(10, 25))
    assert known.positions(take_rows(table, np.arange(10, 25)), what="X").tolist() == later.tolist()
    order = np.random.default_rng(0).permutation(25)[:20]
    assert cells(known.take(order)) == cells(take_rows(table, order))
