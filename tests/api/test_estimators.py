"""ModelPred of scikit-learn's estimators, and its models as fitted estimators."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from tests.sklearn_settings import SEARCH

ROWS = 40
GENERATOR = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": GENERATOR.normal(40, 10, ROWS),
        "income": GENERATOR.normal(3, 1, ROWS),
        "city": GENERATOR.choice(["Ulm", "Bonn"], ROWS),
    }
)
NUMBERS = (FRAME["age"] / 10 + FRAME["income"] + GENERATOR.normal(size=ROWS)).to_numpy()
TWO = np.where(np.median(NUMBERS) < NUMBERS, "high", "low")
THREE = np.digitize(NUMBERS, np.quantile(NUMBERS, [0.3, 0.6]))

MAPPED = {
    "logistic": (LogisticRegression(C=0.3, class_weight="balanced", tol=1e-10), TWO),
    "softmax": (LogisticRegression(C=0.3, tol=1e-10, solver="newton-cg"), THREE),
    "liblinear": (LogisticRegression(solver="liblinear", intercept_scaling=5, tol=1e-10), TWO),
    "no-intercept": (LogisticRegression(fit_intercept=False, tol=1e-10), TWO),
    "logistic-cv": (LogisticRegressionCV(Cs=[0.1, 1], tol=1e-10, **SEARCH), TWO),
    "svm": (LinearSVC(dual=False, tol=1e-10, intercept_scaling=2), TWO),
    "svm-many": (LinearSVC(dual=False, tol=1e-10), THREE),
    "ridge": (Ridge(alpha=2), NUMBERS),
    "ridge-cv": (RidgeCV(), NUMBERS),
    "ridge_classifier": (RidgeClassifier(class_weight={"low": 1, "high": 3}), TWO),
    "ridge_classifier-many": (RidgeClassifier(fit_intercept=False), THREE),
    "ridge_classifier-cv": (RidgeClassifierCV(), THREE),
}


def pipeline(estimator):
    return make_pipeline(
        make_column_transformer((StandardScaler(), ["age", "income"]), (OneHotEncoder(), ["city"])),
        clone(estimator),
    )


@pytest.fixture(scope="module", params=MAPPED)
def fitted(request):
    """A ModelPred of a pipeline with each mapped class, its pipeline and labels."""
    estimator, labels = MAPPED[request.param]
    steps = pipeline(estimator)
    model = ModelPred(steps, subsets=20, progress=False).fit(FRAME, labels)
    return model, steps, labels


def outputs(model, rows):
    """Probabilities of a model that has them, else its scores or numbers."""
    for name in ("predict_proba", "decision_function", "predict"):
        if hasattr(model, name):
            try:
                return getattr(model, name)(rows)
            except InvalidInput:  # a family without probabilities
                continue
    raise AssertionError


def test_the_full_model_predicts_like_the_fitted_pipeline(fitted):
    model, steps, labels = fitted
    ours, theirs = model.to_sklearn(), clone(steps).fit(FRAME, labels)
    assert type(ours[-1]) is type(steps[-1])
    check_is_fitted(ours)
    np.testing.assert_array_equal(ours.predict(FRAME).dtype, theirs.predict(FRAME).dtype)
    expected = outputs(theirs, FRAME)
    np.testing.assert_allclose(outputs(ours, FRAME), expected, atol=1e-5 * np.abs(expected).max())


def test_edited_models_go_back_as_estimators(fitted):
    model, _, labels = fitted
    counts = np.arange(ROWS) % 3
    counts[np.unique(labels, return_index=True)[1][:3]] += 1
    for edited in (
        model.without([0, 3]),
        model.without([0, 3]).retrained(),
        model.model_for(counts),
        model.with_points(FRAME[:2], labels[:2]),
    ):
        theirs = edited.to_sklearn()
        # to 1e-6 of the outputs' size
        expected = outputs(edited, FRAME)
        size = max(1, np.abs(expected).max())
        np.testing.assert_allclose(outputs(theirs, FRAME), expected, atol=1e-6 * size)
        if model.classes.size:
            np.testing.assert_array_equal(theirs.predict(FRAME), edited.predict(FRAME))


def test_coefficients_are_in_original_units(fitted):
    edited = fitted[0].without([0, 3])
    told = edited.coefficients()
    assert told.columns[-3:] == ["column", "before", "after"]
    own = told if "class" not in told.columns else told.filter(pl.col("class") == told["class"][0])
    assert own["column"].to_list() == ["age", "income", "city_Bonn", "city_Ulm", "intercept"]
    table = np.column_stack(
        [
            FRAME["age"],
            FRAME["income"],
            FRAME["city"] == "Bonn",
            FRAME["city"] == "Ulm",
            np.ones(ROWS),
        ]
    )
    scores = table.astype(float) @ told["after"].to_numpy().reshape(-1, 5).T
    expected = edited.decision_function(FRAME)
    np.testing.assert_allclose(np.squeeze(scores), expected, atol=1e-9 * np.abs(expected).max())


def test_what_was_decided_once_is_said():
    estimator, labels = MAPPED["logistic"]
    model = ModelPred(pipeline(estimator), subsets=20, progress=False)
    assert "not fitted" in repr(model)
    said = repr(model.fit(FRAME, labels))
    assert "LogisticRegression as logistic" in said
    assert "ColumnTransformer fitted once on all rows" in said
    assert "class weights balanced once" in said


@pytest.mark.parametrize("named", ["logistic", LogisticRegression(C=1.0)])
def test_sample_weights_count_in_every_answer(named):
    features, weights = FRAME[["age", "income"]].to_numpy(), GENERATOR.uniform(0.5, 3, ROWS)
    scaled = StandardScaler().fit_transform(features)
    model = ModelPred(named, subsets=20, progress=False)
    model.fit(features if isinstance(named, str) else scaled, TWO, sample_weight=weights)
    subset = (np.arange(ROWS) % 4 > 0).astype(int)
    for counts, given in (
        (np.ones(ROWS), model.full_parameters),
        (subset, model.retrain([subset])[0]),
    ):
        held = counts > 0
        theirs = LogisticRegression(tol=1e-10).fit(scaled[held], TWO[held], weights[held])
        np.testing.assert_allclose(given, [*theirs.coef_[0], theirs.intercept_[0]], atol=1e-5)
    near = model.predict_parameters([subset], refine=8)
    np.testing.assert_allclose(near, model.retrain([subset]), atol=1e-5)
    bound = model.certificate([subset])[0]
    away = np.linalg.norm(model.predict_parameters([subset]) - model.retrain([subset]))
    assert away <= bound < np.inf
    model.forget([0])
    theirs = model.retrain(np.ones((1, ROWS - 1)))[0]
    np.testing.assert_allclose(model.full_parameters, theirs, atol=1e-6)


def test_forgetting_fits_the_preprocessing_anew():
    estimator, labels = MAPPED["ridge"]
    weights = GENERATOR.uniform(0.5, 3, ROWS)
    model = ModelPred(pipeline(estimator), subsets=20, progress=False)
    test = (FRAME[:5], labels[:5])
    model.fit(
        FRAME, labels, sample_weight=weights, ids=[f"r{row}" for row in range(ROWS)], test=test
    )
    model.forget(["r2", "test-1"])
    left = np.arange(ROWS) != 2
    assert model.row_ids == tuple(f"r{row}" for row in range(ROWS) if row != 2)
    theirs = pipeline(estimator).fit(FRAME[left], labels[left], ridge__sample_weight=weights[left])
    np.testing.assert_allclose(model.to_sklearn().predict(FRAME), theirs.predict(FRAME), rtol=1e-5)
    assert model.without([0]).compare().rows == 4


def test_studies_take_a_fitted_pipeline():
    estimator, labels = MAPPED["svm"]
    model = ModelPred(pipeline(estimator), subsets=20, progress=False).fit(FRAME, labels)
    assert model.values(FRAME[:10], labels[:10], permutations=4).height == ROWS
    assert model.suspects().rows.height == ROWS
    assert model.fidelity().height


def test_what_cannot_be_done_is_said():
    with pytest.raises(InvalidInput, match=r"C is a setting of the estimator.*Ridge\(C="):
        ModelPred(Ridge(), C=1.0)
    with pytest.raises(InvalidInput, match="put a scaler before it in a Pipeline"):
        ModelPred(Ridge(), scaling="standardise")
    with pytest.raises(InvalidInput, match=r"expected the name of a family or an estimator"):
        ModelPred(Ridge)
    named = ModelPred("ridge", subsets=20, progress=False).fit(FRAME, NUMBERS)
    with pytest.raises(InvalidInput, match="made with the name 'ridge'"):
        named.without([0]).to_sklearn()
    with pytest.raises(InvalidInput, match="mlp takes no sample_weight"):
        ModelPred("mlp", subsets=20).fit(FRAME, TWO, sample_weight=np.ones(ROWS) + 1)
    with pytest.raises(InvalidInput, match="model_for takes those of one subset"):
        named.model_for(np.ones((2, ROWS)))


def test_a_saved_estimator_answers_the_same(fitted, tmp_path):
    model, _, labels = fitted
    model.save(tmp_path)
    loaded = ModelPred.load(tmp_path)
    np.testing.assert_array_equal(outputs(loaded, FRAME), outputs(model, FRAME))
    assert loaded.without([0, 3]).coefficients().equals(model.without([0, 3]).coefficients())
    assert type(loaded.target) is type(model.target)
    assert str(loaded.target.get_params()) == str(model.target.get_params())
    ours, theirs = loaded.without([0]).to_sklearn(), model.without([0]).to_sklearn()
    np.testing.assert_array_equal(ours.predict(FRAME), theirs.predict(FRAME))
    assert loaded.with_points(FRAME[:2], labels[:2]).compare().rows == ROWS
    with pytest.raises(InvalidInput, match="fit a new ModelPred to the rows that remain"):
        loaded.forget([0])


def test_what_may_hold_code_is_not_saved(tmp_path):
    holding = make_pipeline(FunctionTransformer(np.abs), Ridge())
    for target, reason in (
        (holding, r"FunctionTransformer\(func=\) holds a ufunc"),
        (DecisionTreeRegressor(), "DecisionTreeRegressor"),
    ):
        model = ModelPred(target, subsets=20, progress=False).fit(FRAME[["age"]], NUMBERS)
        with pytest.raises(InvalidInput, match=reason):
            model.save(tmp_path)
        assert not list(tmp_path.iterdir())


def test_an_estimator_of_another_version_of_scikit_learn_is_refused(tmp_path, monkeypatch):
    model = ModelPred(Ridge(), subsets=20, progress=False).fit(FRAME[["age"]], NUMBERS)
    model.save(tmp_path)
    monkeypatch.setattr(sklearn, "__version__", "1.2.3")
    with pytest.raises(InvalidInput, match=r"written with scikit-learn .* and this is 1\.2"):
        ModelPred.load(tmp_path)


def test_sample_weights_are_saved(tmp_path):
    features, weights = FRAME[["age", "income"]].to_numpy(), GENERATOR.uniform(0.5, 3, ROWS)
    model = ModelPred("logistic", subsets=20, progress=False)
    model.fit(features, TWO, sample_weight=weights).save(tmp_path)
    loaded, counts = ModelPred.load(tmp_path), np.ones((2, ROWS))
    counts[1, ::3] = 0
    np.testing.assert_array_equal(loaded.full_parameters, model.full_parameters)
    np.testing.assert_array_equal(loaded.retrain(counts), model.retrain(counts))
    np.testing.assert_array_equal(
        loaded.predict_parameters(counts), model.predict_parameters(counts)
    )
