"""ModelPred of estimators without a family: studies by exact retraining, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Lasso
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.estimators import subset_fits

ROWS, TEST = 24, 10
GENERATOR = np.random.default_rng(0)
FRAME = pd.DataFrame(
    GENERATOR.normal(size=(ROWS + TEST, 2)), columns=["age", "income"], index=[f"id-{row}" for row in range(ROWS + TEST)]
)  # fmt: skip
NUMBERS = (FRAME["age"] + 0.3 * GENERATOR.normal(size=ROWS + TEST)).to_numpy()
TWO = np.where(NUMBERS > 0, "high", "low")
THREE = np.digitize(NUMBERS, [-0.4, 0.4])
BOXES = {
    "bayes": (GaussianNB(), TWO),
    "bayes-many": (GaussianNB(), THREE),
    "svc": (SVC(kernel="linear"), TWO),
    "neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier(3)), THREE),
    "tree": (DecisionTreeRegressor(max_depth=2), NUMBERS),
    "lasso": (Lasso(alpha=0.1), NUMBERS),
}


@pytest.fixture(scope="module", params=BOXES)
def fitted(request):
    """A ModelPred of a black box, its estimator and labels."""
    estimator, labels = BOXES[request.param]
    model = ModelPred(estimator, progress=False)
    return (
        model.fit(FRAME[:ROWS], labels[:ROWS], test=(FRAME[ROWS:], labels[ROWS:])),
        estimator,
        labels,
    )


def test_models_go_back_as_estimators_that_predict_the_same(fitted):
    model, estimator, labels = fitted
    counts = np.arange(ROWS) % 3
    for edited, rows in (
        (model.full_model(), np.arange(ROWS)),
        (model.without(["id-0", "id-3"]), np.delete(np.arange(ROWS), [0, 3])),
        (model.model_for(counts), np.repeat(np.arange(ROWS), counts)),
        (model.with_points(FRAME[ROWS:], labels[ROWS:]), np.arange(ROWS + TEST)),
        (model.edit(weights={"id-1": 0}), np.delete(np.arange(ROWS), 1)),
    ):
        back = edited.to_sklearn()
        assert type(back) is type(estimator)
        np.testing.assert_array_equal(back.predict(FRAME), edited.predict(FRAME))
        assert edited.compare().rows == TEST
        assert edited.compare(FRAME[:3], labels[:3]).rows == 3
        if "StandardScaler" not in str(model):  # fitted once on all rows
            own = clone(estimator).set_params(**back.get_params())
            theirs = own.fit(FRAME.iloc[rows], labels[rows]).predict(FRAME)
            np.testing.assert_array_equal(edited.predict(FRAME), theirs)


def test_leave_one_out_values_are_those_of_a_loop(fitted):
    model, _, labels = fitted
    test = FRAME[ROWS:], labels[ROWS:]
    found = model.values(*test, method="leave_one_out", utility="squared_error" if model.model.regression else "accuracy")  # fmt: skip
    back = model.to_sklearn()

    def utility(rows):
        steps = clone(back)
        if hasattr(steps, "steps"):  # preprocessing as it is, on all rows
            steps = steps[-1].fit(back[:-1].transform(FRAME.iloc[rows]), labels[rows])
            predicted = steps.predict(back[:-1].transform(test[0]))
        else:
            predicted = steps.fit(FRAME.iloc[rows], labels[rows]).predict(test[0])
        if model.model.regression:
            return -np.mean((predicted - test[1]) ** 2)
        return np.mean(predicted == test[1])

    rows = np.arange(ROWS)
    expected = [utility(rows) - utility(np.delete(rows, row)) for row in rows]
    np.testing.assert_allclose(found["value"], expected, atol=1e-12)
    assert model.engine_used.exact


def test_studies_without_parameters_run(fitted):
    model, _, labels = fitted
    test = FRAME[ROWS:], labels[ROWS:]
    groups = [f"group {row % 3}" for row in range(ROWS)]
    assert model.values(*test, groups=groups).height == 3
    assert model.suspects().rows.height == ROWS
    assert model.select(ROWS - 2, *test, swaps=1).height == ROWS - 2
    assert model.memorization(subsets=20).rows.height == ROWS
    assert model.explain(FRAME.iloc[[0]], largest=0.1).rows.height == ROWS
    if model.model.probabilistic or model.model.regression:
        predicted = model.predictive(FRAME[:3], resamples=5)
        assert predicted.predictions.height == 3
        assert predicted.parameters.height == 0
    else:
        with pytest.raises(InvalidInput, match="SVC has no predict_proba"):
            model.predictive(FRAME[:3], resamples=5)


def test_what_needs_parameters_is_refused_in_one_line(fitted):
    model = fitted[0]
    weights = np.ones((1, ROWS))
    for needs in (
        lambda: model.values(FRAME[:2], fitted[2][:2], engine="predicted"),
        lambda: model.without([0], engine="predicted"),
        lambda: model.attribute(0),
        lambda: model.predict_parameters(weights),
        lambda: model.retrain(weights),
        lambda: model.full_parameters,
        lambda: model.predictor,
        model.fidelity,
        model.full_model().coefficients,
    ):
        with pytest.raises(InvalidInput, match=model.model.title) as error:
            needs()
        assert "\n" not in str(error.value)


def test_forgetting_leaves_no_trace_of_the_rows():
    labels = TWO[:ROWS].copy()
    model = ModelPred(GaussianNB(), progress=False).fit(FRAME[:ROWS], labels)
    model.forget(["id-2"])
    again = ModelPred(GaussianNB(), progress=False).fit(
        FRAME[:ROWS].drop("id-2"), np.delete(labels, 2)
    )
    np.testing.assert_array_equal(model.predict_proba(FRAME), again.predict_proba(FRAME))
    assert len(model.model.trainable.known) == ROWS - 1 + len(FRAME)  # and the rows just predicted


def test_planted_labels_are_suspects():
    generator = np.random.default_rng(3)
    table = generator.normal(size=(60, 2))
    labels = (table[:, 0] > 0).astype(int)
    wrong = np.flatnonzero(np.abs(table[:, 0]) > 0.7)[:4]
    labels[wrong] = 1 - labels[wrong]
    found = ModelPred(GaussianNB(), progress=False).fit(table, labels).suspects().rows
    assert set(wrong) <= set(found["position"][:8])


def test_other_rows_are_judged_but_not_with_a_forest():
    model = ModelPred(GaussianNB(), progress=False).fit(FRAME[:ROWS], TWO[:ROWS])
    turned = np.where(TWO[ROWS:] == "high", "low", "high")
    found = model.suspects((FRAME[ROWS:], turned)).rows
    assert found.height == ROWS + TEST
    assert found["position"].null_count() == TEST
    with pytest.raises(InvalidInput, match="forest needs features"):
        model.suspects(forest=True)


def test_missing_cells_and_categories_go_to_estimators_that_take_them():
    table = FRAME.assign(city=pd.Categorical(np.where(NUMBERS > 1, "Ulm", "Bonn")))
    table.iloc[::5, 0] = np.nan
    own = HistGradientBoostingClassifier(
        max_iter=2, min_samples_leaf=2, categorical_features="from_dtype"
    )
    model = ModelPred(own, progress=False).fit(table, TWO)
    theirs = clone(own).set_params(random_state=0).fit(table, TWO)
    np.testing.assert_allclose(model.predict_proba(table), theirs.predict_proba(table), atol=1e-12)
    assert "3 features" in repr(model)


def test_texts_go_through_a_pipeline():
    texts = ["cheap pills", "meeting at noon", "cheap watches", "lunch at noon"] * 3
    labels = ["spam", "ham"] * 6
    model = ModelPred(make_pipeline(CountVectorizer(), MultinomialNB()), progress=False)
    model.fit(texts, labels)
    assert model.predict(["cheap noon pills", "meeting"]).tolist() == ["spam", "ham"]
    assert model.values(texts[:2], labels[:2], permutations=2).height == 12


class Plain:
    """A class of one's own, with fit and predict alone."""

    def fit(self, table, labels):
        """Remember the most frequent label."""
        assert len(table) == len(labels)
        names, counts = np.unique(labels, return_counts=True)
        self.name = names[counts.argmax()]
        return self

    def predict(self, table):
        """Say it for each row."""
        return np.full(len(table), self.name)


def test_a_class_of_ones_own_needs_fit_and_predict_alone():
    labels = np.where(np.arange(ROWS) < ROWS - 5, "a", "b")
    model = ModelPred(Plain(), progress=False).fit(FRAME[:ROWS], labels)
    assert set(model.predict(FRAME)) == {"a"}
    assert set(model.without(list(range(ROWS - 7))).predict(FRAME)) == {"b"}


def test_estimators_that_cannot_be_used_are_refused():
    with pytest.raises(InvalidInput, match=r"KNeighborsClassifier\.fit takes no sample_weight"):
        ModelPred(KNeighborsClassifier()).fit(FRAME, TWO, sample_weight=np.ones(len(FRAME)))
    with pytest.raises(InvalidInput, match="StandardScaler has no fit or no predict"):
        ModelPred(StandardScaler()).fit(FRAME, TWO)
    broken = FRAME.copy()
    broken.iloc[0, 0] = np.nan
    with pytest.raises(
        InvalidInput, match=r"GaussianNB model of all rows did not converge: ValueError.*NaN"
    ):
        ModelPred(GaussianNB()).fit(broken, TWO)


def test_an_interrupted_study_goes_on_where_it_was(monkeypatch):
    model = ModelPred(GaussianNB(), progress=False).fit(FRAME, TWO)
    trained, train = [], subset_fits.trained_block

    def interrupted(job, weights):
        trained.append(len(weights))
        if len(trained) == 300:
            raise KeyboardInterrupt
        return train(job, weights)

    monkeypatch.setattr(subset_fits, "trained_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.suspects()
    model.suspects()
    assert len(trained) < 1100  # of a thousand subsets
