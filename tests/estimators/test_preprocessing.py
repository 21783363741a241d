"""Pipelines: preprocessing fitted once, columns by name, and coefficients in original units."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from modelpred.errors import InvalidInput
from modelpred.estimators import adapted, adapted_coefficients, coefficient_table, fitted_estimator
from tests.sklearn_settings import FOLDS

ROWS = 50


def table(seed=0):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": generator.normal(40, 10, ROWS),
            "income": generator.lognormal(10, 1, ROWS),
            "city": generator.choice(["Ulm", "Bonn", "Kiel"], ROWS),
        }
    )
    return frame, frame["age"] / 10 + np.log(frame["income"]) + generator.normal(size=ROWS)


SCALERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler((-1, 3)),
    RobustScaler(),
    RobustScaler(with_centering=False),
    MaxAbsScaler(),
    SimpleImputer(),
    "passthrough",
]
chains = st.lists(st.sampled_from(SCALERS), min_size=1, max_size=3).map(
    lambda steps: make_pipeline(*steps)
)


@settings(max_examples=40, deadline=None)
@given(first=chains, second=chains, after=chains, seed=st.integers(0, 10**6))
def test_coefficients_in_original_units_predict_like_the_pipeline(first, second, after, seed):
    frame, labels = table(seed)
    parts = ColumnTransformer(
        [("age", first, ["age"]), ("income", second, [1]), ("city", OneHotEncoder(), ["city"])],
        sparse_threshold=0,
    )
    pipeline = make_pipeline(parts, after, Ridge())
    found, features = adapted(pipeline, frame, labels, sample_weight=None, what="X")
    parameters = np.random.default_rng(seed).normal(size=features.shape[1] + 1)
    own = fitted_estimator(found, parameters, np.array([])).predict(frame)
    told = coefficient_table({"model": adapted_coefficients(found, parameters)}, np.array([]))
    by_name = dict(told.iter_rows())
    assert {"age", "income", "intercept"} <= set(by_name)
    levels = {name: own for name, own in by_name.items() if "city" in name}
    assert [name[-1] for name in sorted(levels)] == ["l", "m", "n"] or len(levels) == 3
    ours = frame["age"] * by_name["age"] + frame["income"] * by_name["income"]
    ours += by_name["intercept"]
    for name, coefficient in levels.items():
        ours += coefficient * (frame["city"] == name.split("_")[-1])
    np.testing.assert_allclose(ours, own, rtol=1e-9, atol=1e-9 * np.abs(own).max())


def test_columns_go_by_name_and_unfamiliar_ones_are_refused():
    frame, labels = table()
    pipeline = make_pipeline(
        make_column_transformer((StandardScaler(), ["age"]), ("passthrough", ["income"])), Ridge()
    )
    found, features = adapted(pipeline, frame, labels, sample_weight=None, what="X")
    turned = found.preprocessing(frame[["city", "income", "age"]], what="X")
    np.testing.assert_array_equal(turned, features)
    with pytest.raises(InvalidInput, match="X has no column 'income'"):
        found.preprocessing(frame[["city", "age"]], what="X")


TABLES = {
    "pandas": lambda values: pd.DataFrame(values, columns=["age", "income"]),
    "polars": lambda values: pl.DataFrame(values, schema=["age", "income"]),
    "pyarrow": lambda values: pa.table({"age": values[:, 0], "income": values[:, 1]}),
    "numpy": np.array,
    "scipy": scipy.sparse.csr_matrix,
}


@pytest.mark.parametrize("library", TABLES)
def test_tables_of_all_libraries_give_the_same_features(library):
    frame, labels = table()
    values = frame[["age", "income"]].to_numpy()
    given_table = TABLES[library](values)
    pipeline = make_pipeline(MaxAbsScaler(), Ridge())
    found, features = adapted(pipeline, given_table, labels, sample_weight=None, what="X")
    np.testing.assert_allclose(features, values / np.abs(values).max(0), rtol=1e-15)
    np.testing.assert_array_equal(found.preprocessing(given_table, what="X"), features)


@pytest.mark.parametrize("library", TABLES)
def test_labels_of_another_number_than_the_rows_are_refused(library):
    frame, labels = table()
    given_table = TABLES[library](frame[["age", "income"]].to_numpy())
    with pytest.raises(InvalidInput, match="y has 49 labels for 50 rows"):
        adapted(Ridge(), given_table, labels[1:], sample_weight=None, what="X")


def test_features_of_the_training_rows_are_those_that_the_pipeline_fits():
    frame, labels = table()
    classes = (labels > labels.median()).astype(int)
    pipeline = make_pipeline(TargetEncoder(**FOLDS), LogisticRegression())
    found, features = adapted(pipeline, frame[["city"]], classes, sample_weight=None, what="X")
    own = TargetEncoder(**FOLDS).fit_transform(frame[["city"]], classes)
    np.testing.assert_array_equal(features, own)  # cross-fitted, not what transform gives
    assert not np.array_equal(found.preprocessing(frame[["city"]], what="X"), own)


def test_the_fitted_pipeline_is_a_copy():
    frame, labels = table()
    pipeline = make_pipeline(MaxAbsScaler(), Ridge())
    found, _ = adapted(pipeline, frame[["age"]], labels, sample_weight=None, what="X")
    one = fitted_estimator(found, np.ones(2), np.array([]))
    one[0].scale_[:] = 0
    other = fitted_estimator(found, np.ones(2), np.array([]))
    assert other[0].scale_[0] == frame["age"].abs().max()
    assert not hasattr(pipeline[0], "scale_")


def test_pipelines_may_end_in_pipelines_and_make_columns():
    frame, labels = table()
    inner = Pipeline([("scale", PolynomialFeatures(2, include_bias=False)), ("ridge", Ridge())])
    pipeline = Pipeline([("scale", StandardScaler()), ("inner", inner)])
    found, features = adapted(pipeline, frame[["age"]], labels, sample_weight=None, what="X")
    assert features.shape == (ROWS, 2)
    told = coefficient_table({"model": adapted_coefficients(found, np.arange(3.0))}, np.array([]))
    assert told["column"].to_list() == ["scaled age", "scaled age^2", "intercept"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame[["city"]], "other things than numbers.*OneHotEncoder"),
        (
            lambda frame: frame[["age"]].replace(frame["age"][3], np.nan),
            "row 3, column age.*SimpleImputer",
        ),
        (lambda frame: frame["age"], r"shape \[50\], expected \[rows, columns\]"),
        (lambda frame: frame[[]], "shape"),
    ],
)
def test_tables_that_the_estimator_cannot_take_are_refused(change, reason):
    frame, labels = table()
    with pytest.raises(InvalidInput, match=reason):
        adapted(Ridge(), change(frame), labels, sample_weight=None, what="X")


def test_a_step_that_fails_is_told_in_one_line():
    frame, labels = table()
    with pytest.raises(InvalidInput, match="a step before the last one fails") as error:
        adapted(
            make_pipeline(StandardScaler(), Ridge()), frame, labels, sample_weight=None, what="X"
        )
    assert "\n" not in str(error.value)


def test_features_without_names_are_counted():
    frame, labels = table()
    pipeline = make_pipeline(FunctionTransformer(np.log), Ridge())
    found, _ = adapted(pipeline, frame[["age"]].to_numpy(), labels, sample_weight=None, what="X")
    assert found.preprocessing.names == ("x0",)
