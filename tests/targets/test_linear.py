"""Linear families against closed forms and scikit-learn at its tightest tolerance."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.svm import LinearSVC

from modelpred.targets import points_of, target_model, train_targets

pytestmark = pytest.mark.usefixtures("trained_by")

ROOT = Path(__file__).parents[2]
SPAM = ROOT / "modelpred" / "dataset" / "builtin" / "spam.parquet"
HIGGS = ROOT.parent / "shared" / "data" / "higgs_atlas.parquet"
PHI_COLUMNS = [15, 18, 20, 25, 28]


def standardised(features):
    spread = features.std(0)
    return (features - features.mean(0)) / np.where(spread > 0, spread, 1)


def read_iris():
    features, labels = load_iris(return_X_y=True)
    chosen = np.random.default_rng(33).permutation(np.flatnonzero(labels < 2))[:67]
    features = features[chosen]
    return features / np.linalg.norm(features, axis=1).max(), labels[chosen]


def read_breast_cancer():
    features, labels = load_breast_cancer(return_X_y=True)
    return standardised(features[:300]), labels[:300]


def read_digits():
    features, labels = load_digits(return_X_y=True)
    return standardised(features[:500]), labels[:500]


def read_spam():
    table = pl.read_parquet(SPAM)
    chosen = np.random.default_rng(0).permutation(len(table))[:300]
    features = table.drop("is_spam").to_numpy()[chosen]
    return standardised(features), table["is_spam"].to_numpy().astype(int)[chosen]


def read_higgs():
    if not HIGGS.exists():
        pytest.skip(f"needs {HIGGS.name}, which the project may not ship")
    table = pl.read_parquet(HIGGS)[:1100]
    names = [name for name in table.columns if name[:3] in ("DER", "PRI")]
    features = table.select(names).to_numpy().copy()
    for column in features.T:
        values, times = np.unique(column[column != -999], return_counts=True)
        column[column == -999] = values[times.argmax()]
    features = np.delete(features, PHI_COLUMNS, axis=1)
    labels = (table["Label"] == "s").to_numpy().astype(int)
    chosen = np.random.RandomState(32).permutation(1100)[:300]
    return standardised(features[chosen]), labels[chosen]


POOLS = {
    "iris": read_iris,
    "breast_cancer": read_breast_cancer,
    "spam": read_spam,
    "higgs": read_higgs,
    "digits": read_digits,
}


def draw(labels, subsets, seed=0):
    """Sizes uniform in [N/10, N]; every second row a resample with counts; all classes present."""
    generator = np.random.default_rng(seed)
    points, classes = len(labels), len(np.unique(labels))
    rows = []
    while len(rows) < subsets:
        weights = np.zeros(points, dtype=np.int64)
        size = int(generator.integers(points // 10, points + 1))
        if len(rows) % 2:
            np.add.at(weights, generator.integers(0, points, size), 1)
        else:
            weights[generator.permutation(points)[:size]] = 1
        if len(np.unique(labels[weights > 0])) == classes:
            rows.append(weights)
    return np.stack(rows)


def reference(name, features, labels, weights):
    """scikit-learn's parameters: per class [coefficients, intercept]."""
    used = weights > 0
    if name == "svm":
        # Its dual wants no weights below one and takes counts as costs: C w_i.
        model = LinearSVC(dual=True, tol=1e-9, max_iter=2_000_000, random_state=0)
    elif name == "ridge":
        model = SklearnRidge(alpha=1.0, solver="cholesky")
    else:
        model = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(features[used], labels[used], sample_weight=weights[used])
    coefficients = np.atleast_2d(model.coef_)
    intercepts = np.reshape(model.intercept_, (-1, 1))
    if len(coefficients) > 1 and name == "softmax":
        intercepts = intercepts - intercepts.mean()
    return np.concatenate([coefficients, intercepts], 1).ravel()


def largest_difference(name, pool, subsets, record=None):
    features, labels = POOLS[pool]()
    weights = draw(labels, subsets)
    if name == "ridge":
        labels = labels.astype(float)
    model = target_model(name)
    trained = train_targets(model, features, labels, weights, tolerance=1e-9)
    assert trained.converged.all()
    expected = np.stack([reference(name, features, labels, row) for row in weights])
    points = points_of(features, labels, 0 if name == "ridge" else int(labels.max()) + 1)
    slopes = model.gradient(torch.tensor(expected), torch.tensor(weights).double(), points)
    theirs = slopes.abs().amax(1).numpy()
    size = np.linalg.norm(expected, axis=1)
    difference = np.linalg.norm(trained.parameters - expected, axis=1) / size
    assert (trained.gradient_norm <= 1e-9).all()
    # Where the reference stopped early its own error is at most its gradient norm (the objective
    # is 1-strongly convex in the coefficients); intercepts with little curvature get a factor.
    loose = difference > 1e-5
    assert (theirs[loose] > 1e3 * trained.gradient_norm[loose]).all()
    assert (difference[loose] <= 100 * theirs[loose]).all()
    if record is not None:
        record("largest relative difference", f"{difference.max():.1e}")
        record("looser reference rows", f"{int(loose.sum())} of {len(loose)}")
        record("their largest gradient", f"{theirs.max():.1e}")
    return difference[~loose].max()


QUICK = [
    ("logistic", "iris", 20),
    ("logistic", "breast_cancer", 20),
    ("logistic", "spam", 20),
    ("logistic", "higgs", 20),
    ("softmax", "digits", 2),
    ("svm", "iris", 20),
    ("svm", "breast_cancer", 3),
    ("ridge", "spam", 20),
    ("ridge", "digits", 20),
]
FULL = [
    *(
        (name, pool, 200)
        for pool in POOLS
        if pool != "digits"
        for name in ("logistic", "svm", "ridge")
    ),
    ("softmax", "digits", 200),
    ("svm", "digits", 200),
    ("ridge", "digits", 200),
]


@pytest.mark.parametrize(("name", "pool", "subsets"), QUICK)
def test_parameters_are_those_of_scikit_learn(name, pool, subsets):
    assert largest_difference(name, pool, subsets) <= 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # judged by gradient
@pytest.mark.parametrize(("name", "pool", "subsets"), FULL)
def test_parameters_are_those_of_scikit_learn_on_the_full_grid(
    name, pool, subsets, record_property
):
    assert largest_difference(name, pool, subsets, record_property) <= 1e-5


def test_ridge_is_the_closed_form(make_pool, counts):
    points = make_pool(0)
    weights = counts(points, 5)
    design = torch.cat([points.features, torch.ones(40, 1, dtype=torch.float64)], 1)
    penalty = torch.eye(7, dtype=torch.float64)
    penalty[6, 6] = 0
    model = target_model("ridge", C=2.0)
    trained = train_targets(model, points.features, points.labels, weights)
    for row, own in enumerate(weights):
        normal = 2.0 * design.T @ (own[:, None] * design) + penalty
        expected = torch.linalg.solve(normal, 2.0 * design.T @ (own * points.labels))
        torch.testing.assert_close(trained.parameters[row], expected, rtol=1e-9, atol=1e-9)


def test_softmax_of_two_classes_is_logistic_of_half_the_penalty(make_pool, counts):
    # With coefficients +c/2 and -c/2 the softmax penalty is |c|^2 / 4: logistic with C doubled.
    points = make_pool(2)
    weights = counts(points, 4)
    softmax = train_targets(target_model("softmax"), points.features, points.labels, weights)
    logistic = train_targets(
        target_model("logistic", C=2.0), points.features, points.labels, weights
    )
    classes = softmax.parameters.reshape(4, 2, 7)
    torch.testing.assert_close(
        classes[:, 1] - classes[:, 0], logistic.parameters, rtol=1e-8, atol=1e-8
    )


def test_softmax_intercepts_have_zero_mean(make_pool, counts):
    points = make_pool(4)
    trained = train_targets(
        target_model("softmax"), points.features, points.labels, counts(points, 3)
    )
    intercepts = trained.parameters.reshape(3, 4, 7)[..., -1]
    torch.testing.assert_close(intercepts.sum(1), torch.zeros(3, dtype=torch.float64))


def test_one_against_the_rest_is_one_problem_a_class(make_pool, counts):
    points = make_pool(4)
    weights = counts(points, 3)
    many = train_targets(target_model("svm"), points.features, points.labels, weights)
    for own in range(4):
        one = train_targets(
            target_model("svm"), points.features, (points.labels == own).long(), weights
        )
        torch.testing.assert_close(
            many.parameters.reshape(3, 4, 7)[:, own], one.parameters, rtol=1e-9, atol=1e-9
        )


def test_logistic_prior_is_the_smoothed_log_odds():
    prior = target_model("logistic").prior(torch.tensor([[3.0, 0.0]], dtype=torch.float64), 2)
    assert prior[0].tolist() == pytest.approx([0, 0, np.log(0.5 / 3.5)])
