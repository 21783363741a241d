"""pyDVL's values of one pool, for valuation.py; runs in an environment of pyDVL's own.

    python tests/benchmarks/valuation_pydvl.py shapley pool.npz values.npz --permutations 400 --seconds 100
    python tests/benchmarks/valuation_pydvl.py knn pool.npz values.npz

pool.npz holds features, labels, test_features, test_labels. Written are values [snapshots, points]
and, for shapley, permutations and seconds of every snapshot.

Shapley: pyDVL's PermutationSampler without truncation, in as many processes as there are cores,
timed by the clock once they have started.
The utility is minus the mean test log loss of scikit-learn's LogisticRegression by its fastest
solver here, scored by plain NumPy rather than the slower scikit-learn scorer, and the smoothed
prior where a subset lacks a class, as everywhere here.
"""

import argparse
import os
import time
import warnings

import numpy as np
from joblib import parallel_config
from pydvl.utils.status import Status
from pydvl.valuation import (
    Dataset,
    KNNShapleyValuation,
    ModelUtility,
    PermutationSampler,
    ShapleyValuation,
)
from pydvl.valuation.stopping import StoppingCriterion
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

NEIGHBOURS = 5


class Logistic(ClassifierMixin, BaseEstimator):
    """Logistic regression, and the smoothed prior where there is one class alone."""

    def fit(self, features, labels):
        """Train by the fastest of scikit-learn's solvers on these pools."""
        self.prior_ = None
        if len(np.unique(labels)) < 2:
            ones, rows = labels.sum(), len(labels)
            self.prior_ = np.log((ones + 0.5) / (rows - ones + 0.5))
            return self
        self.trained_ = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-6)
        self.trained_.fit(features, labels)
        return self

    def decision_function(self, features):
        """Log odds."""
        if self.prior_ is not None:
            return np.full(len(features), self.prior_)
        return self.trained_.decision_function(features)

    def predict(self, features):
        """The likelier class."""
        return (self.decision_function(features) > 0).astype(int)


class NegativeLogLoss:
    """Minus the mean log loss on the test rows."""

    default = -float(np.log(2))
    range = np.array([-np.inf, np.inf])
    name = "negative log loss"

    def __init__(self, test):
        self.features, self.signs = test[0], 2 * test[1] - 1

    def __call__(self, model):
        """Score of a fitted model."""
        return -float(np.logaddexp(0, -self.signs * model.decision_function(self.features)).mean())


class Snapshots(StoppingCriterion):
    """Keeps the values at every count of permutations, and ends by count or by the clock."""

    def __init__(self, points, permutations, seconds):
        super().__init__(modify_result=False)
        self.points, self.permutations, self.limit = points, permutations, seconds
        self.began = time.perf_counter()
        self.kept = []

    def _check(self, result):
        done = int(result.counts.min())
        now = time.perf_counter() - self.began
        if done > (self.kept[-1][0] if self.kept else 0):
            self.kept.append((done, now, np.array(result.values)))
        ended = done >= self.permutations or now > self.limit
        return Status.Converged if ended else Status.Pending

    def completion(self):
        """Share of the permutations."""
        return len(self.kept) / self.permutations

    def __str__(self):
        return "snapshots"


def shapley(pool, permutations, seconds):
    """Snapshots of permutation Shapley: permutations, seconds, values."""
    train = Dataset(pool["features"], pool["labels"])
    scorer = NegativeLogLoss((pool["test_features"], pool["test_labels"]))
    utility = ModelUtility(Logistic(), scorer, catch_errors=False, show_warnings=False)
    kept = Snapshots(len(train), permutations, seconds)
    with parallel_config(n_jobs=os.cpu_count()):
        ShapleyValuation(utility, PermutationSampler(seed=1), kept, show_warnings=False).fit(train)
    counts, times, values = (np.array(part) for part in zip(*kept.kept, strict=True))
    return {"permutations": counts, "seconds": times, "values": values}


def knn(pool):
    """kNN-Shapley."""
    train = Dataset(pool["features"], pool["labels"])
    test = Dataset(pool["test_features"], pool["test_labels"])
    model = KNeighborsClassifier(n_neighbors=NEIGHBOURS)
    valuation = KNNShapleyValuation(model, test, progress=False)
    began = time.process_time()
    valuation.fit(train)
    values = np.array(valuation.result.values)
    return {"seconds": [time.process_time() - began], "values": values[None]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["shapley", "knn"])
    parser.add_argument("pool")
    parser.add_argument("out")
    parser.add_argument("--permutations", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=100.0)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    pool = dict(np.load(given.pool))
    found = knn(pool) if given.what == "knn" else shapley(pool, given.permutations, given.seconds)
    np.savez(given.out, **found)


if __name__ == "__main__":
    main()
