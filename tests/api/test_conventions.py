"""ModelPred as an estimator of scikit-learn: its own checks, cloning, parameters, scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.predictor import PredictorConfig

LINES = "messages are InvalidInput, a ValueError, in words of their own"
EXCEPTIONS = {
    "check_no_attributes_set_in_init": "`settings` holds the family's own arguments",
    "check_do_not_raise_errors_in_init_or_set_params": "arguments are checked at once",
    "check_estimators_unfitted": LINES,
    "check_n_features_in_after_fitting": LINES,
    "check_dtype_object": LINES,
    "check_estimators_empty_data_messages": LINES,
    "check_classifiers_regression_target": LINES,
    "check_fit2d_predict1d": LINES,
    "check_requires_y_none": LINES,
    "check_supervised_y_2d": "labels are one column",
    "check_sample_weight_equivalence_on_dense_data": "a sample weight of 0 is refused",
    "check_sample_weight_equivalence_on_sparse_data": "a sample weight of 0 is refused",
    "check_complex_data": LINES,
    "check_classifiers_one_label_sample_weights": "a sample weight of 0 is refused",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of tables that the checks make
def test_checks_of_scikit_learn_pass_but_for_listed_exceptions():
    model = ModelPred(LogisticRegression(), subsets=20, progress=False)
    results = check_estimator(model, expected_failed_checks=EXCEPTIONS, on_fail=None, on_skip=None)
    failed = {
        result["check_name"]: result["exception"]
        for result in results
        if result["status"] == "failed"
    }
    assert not failed
    listed = {result["check_name"] for result in results if result["status"] == "xfail"}
    assert listed == set(EXCEPTIONS)  # none that passes is listed


def test_a_clone_has_the_same_arguments():
    config = PredictorConfig(epochs=1)
    for model in (
        ModelPred("logistic", C=0.3, subsets=20, scaling="none", predictor=config, progress=False),
        ModelPred(Ridge(alpha=3), tolerance=1e-8, seed=4),
        ModelPred(),
    ):
        same = clone(model)
        assert repr(same.get_params()) == repr(model.get_params())
        assert same is not model


def test_parameters_are_changed_for_the_next_fit():
    features, labels = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2
    model = ModelPred(LogisticRegression(), subsets=20, progress=False).fit(features, labels)
    before = model.full_parameters
    assert model.set_params(target__C=0.01) is model
    np.testing.assert_array_equal(model.full_parameters, before)
    after = model.fit(features, labels).full_parameters
    assert np.linalg.norm(after[:-1]) < np.linalg.norm(before[:-1])
    named = ModelPred("logistic", subsets=20, progress=False).set_params(C=0.01)
    assert named.get_params()["C"] == 0.01
    for wrong in ({"target__depth": 3}, {"depth": 3}, {"seed": -1}):
        with pytest.raises(InvalidInput):
            model.set_params(**wrong)
    assert model.seed == 0


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_fitted_attributes_and_scores_are_those_of_the_estimator(kind):
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(generator.normal(size=(40, 2)), columns=["a", "b"])
    numbers = frame["a"] + generator.normal(size=40)
    own = LogisticRegression(tol=1e-10) if kind == "classes" else Ridge()
    labels = (numbers > 0).astype(int) if kind == "classes" else numbers
    model = ModelPred(own, subsets=20, progress=False)
    assert (is_classifier(model), is_regressor(model)) == (kind == "classes", kind == "numbers")
    assert not hasattr(model, "n_features_in_")
    model.fit(frame, labels)
    theirs = own.fit(frame, labels)
    assert model.n_features_in_ == 2
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert model.score(frame, labels) == pytest.approx(theirs.score(frame, labels), abs=1e-6)
    if kind == "classes":
        assert model.classes_.tolist() == [0, 1]
        np.testing.assert_allclose(
            model.predict_proba(frame), theirs.predict_proba(frame), atol=1e-6
        )
    scores = cross_val_score(model, frame, labels, cv=3)
    np.testing.assert_allclose(scores, cross_val_score(own, frame, labels, cv=3), atol=1e-6)
    assert not hasattr(
        model.fit(StandardScaler().fit_transform(frame), labels), "feature_names_in_"
    )
