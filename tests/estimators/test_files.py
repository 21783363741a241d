"""Estimators as JSON: what is read transforms and predicts as what was written, and no code is read."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from modelpred.errors import InvalidInput
from modelpred.estimators.files import estimator_document, read_estimator
from tests.sklearn_settings import SEARCH

ROWS = 30

NUMERIC = st.sampled_from(
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        MinMaxScaler((-1, 2)),
        RobustScaler(quantile_range=(10.0, 90.0)),
        PolynomialFeatures(2),
        QuantileTransformer(n_quantiles=10),
        KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
        PCA(1),
        "passthrough",
        "drop",
    ]
)
WORDS = st.sampled_from(
    [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(drop="first", sparse_output=False, dtype=np.float32),
        OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ]
)
LAST = st.sampled_from(
    [LogisticRegression(C=0.3), LinearSVC(), Ridge(2), RidgeCV((0.1, 1)), LogisticRegressionCV(Cs=[0.1, 1], **SEARCH)]
)  # fmt: skip


def table(seed):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": generator.normal(40, 10, ROWS),
            "income": np.where(np.arange(ROWS) % 7 == 3, np.nan, generator.lognormal(size=ROWS)),
            "city": generator.choice(["Ulm", "Bonn", "Köln"], ROWS),
            "count": generator.integers(0, 5, ROWS),
        }
    )


def through_json(estimator):
    return read_estimator(json.loads(json.dumps(estimator_document(estimator), allow_nan=False)))


@given(
    first=NUMERIC,
    second=NUMERIC.filter(lambda step: step != "drop" and not isinstance(step, KBinsDiscretizer)),
    words=WORDS,
    last=LAST,
    seed=st.integers(0, 10**6),
)
@settings(max_examples=25, deadline=None)
def test_what_is_read_does_what_was_written(first, second, words, last, seed):
    parts = ColumnTransformer(
        [
            ("one", first, ["age"]),
            (
                "two",
                make_pipeline(SimpleImputer(strategy="median", add_indicator=True), second),
                [1],
            ),
            ("words", words, ["city"]),
        ],
        remainder=StandardScaler(),
    )
    steps = make_pipeline(parts, StandardScaler(with_mean=False), last)
    frame = table(seed)
    labels = np.where(frame["age"] > frame["age"].median(), 1, 0)
    steps.fit(frame, labels)
    again = through_json(steps)
    new = table(seed + 1)
    new.loc[0, "city"] = "Kiel" if words.handle_unknown != "error" else "Ulm"
    for rows in (frame, new):
        np.testing.assert_array_equal(again.predict(rows), steps.predict(rows))
        ours, own = again[:-1].transform(rows), steps[:-1].transform(rows)
        ours, own = (each.toarray() if hasattr(each, "toarray") else each for each in (ours, own))
        np.testing.assert_array_equal(ours, own)
    assert list(again[:-1].get_feature_names_out()) == list(steps[:-1].get_feature_names_out())
    assert str(again.get_params()) == str(steps.get_params())
    through_json(again)  # and once more


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (FunctionTransformer(np.log1p), r"FunctionTransformer\(func=\) holds a ufunc"),
        (FunctionTransformer(lambda x: x), r"FunctionTransformer\(func=\) holds a function"),
        (RandomForestClassifier(), "RandomForestClassifier is not saved, because it may hold code"),
        (FeatureUnion([]), "FeatureUnion is not saved"),
        (
            ColumnTransformer([("a", StandardScaler(), make_column_selector())]),
            r"ColumnTransformer\(transformers=\) holds a make_column_selector",
        ),
        (LogisticRegression(random_state=np.random.RandomState(0)), "holds a RandomState"),
        (make_pipeline(type("Ridge", (Ridge,), {})()), "Ridge is not saved"),
    ],
)
def test_what_may_hold_code_is_not_written(estimator, reason):
    with pytest.raises(InvalidInput, match=reason):
        estimator_document(estimator)


def documents():
    own = estimator_document(StandardScaler().fit(np.eye(3)))
    yield {**own, "class": "os.system"}
    yield {**own, "class": "RandomForestClassifier"}
    yield {**own, "more": 1}
    yield {**own, "params": {"unknown": 1}}
    yield {**own, "fitted": {"__class__": 1}}
    yield {**own, "fitted": {"transform": 1}}
    yield {**own, "fitted": {"mean_": {"code": "1"}}}
    yield {**own, "fitted": {"mean_": {"array": {"dtype": "O8", "shape": [2], "values": [1]}}}}
    yield {**own, "fitted": {"mean_": {"type": "object"}}}
    yield {"class": "StandardScaler"}
    yield []


@pytest.mark.parametrize("document", list(documents()))
def test_documents_that_were_not_written_are_refused(document):
    with pytest.raises(InvalidInput):
        read_estimator(document)
