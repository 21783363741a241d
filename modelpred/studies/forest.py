"""Out-of-bag probabilities of a random forest, for labels that a linear model cannot explain.

A tree is fitted to a fifth of the rows, so that few trees see a wrong label, and leaves have at least
five rows, so that one wrong label does not decide a leaf. A row's probabilities are the mean over the
trees without it (scikit-learn's `oob_score`). Probabilities are weighted sums of labels with sample
weights.
"""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from modelpred.targets.points import Points

TREES = 100
SHARE = 0.2  # of the rows, to which a tree is fitted
FEWEST = 50  # rows of a tree, where there are so many
LEAF = 5


def forest_probabilities(
    points: Points, *, seed: int, others: Points | None = None
) -> tuple[Float[Tensor, "points classes"], Float[Tensor, "rows classes"]]:
    """Return the probabilities of the points by trees without them, and of other rows by all trees.

    Args:
        points: rows with class labels.
        seed: of the forest.
        others: further rows.
    """
    count = len(points.labels)
    forest = RandomForestClassifier(
        TREES,
        min_samples_leaf=LEAF,
        max_samples=min(count, max(FEWEST, round(SHARE * count))),
        bootstrap=True,
        random_state=np.random.RandomState(seed % 2**32),
    )
    features = points.features.numpy()
    factors = None if points.sample_weight is None else points.sample_weight.numpy()
    forest.fit(features, points.labels.numpy(), sample_weight=factors)
    own = _by_trees_without(forest, features, count)
    outside = own[:0]
    if others is not None and len(others.labels):
        outside = np.asarray(forest.predict_proba(others.features.numpy()))
    seen = np.asarray(forest.classes_, dtype=np.int64)
    return _all_classes(own, seen, points.classes), _all_classes(outside, seen, points.classes)


def _by_trees_without(
    forest: RandomForestClassifier, features: np.ndarray, count: int
) -> np.ndarray:
    """The mean probabilities of the trees that were not fitted to each row; all trees' if there is none."""
    total = np.zeros((count, len(forest.classes_)))
    trees = np.zeros(count)
    single = features.astype(np.float32)
    for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        outside = np.ones(count, dtype=bool)
        outside[drawn] = False
        total[outside] += tree.predict_proba(single[outside], check_input=False)
        trees += outside
    none = trees == 0
    if none.any():
        total[none], trees[none] = forest.predict_proba(features[none]), 1
    return total / trees[:, None]


def _all_classes(found: np.ndarray, seen: np.ndarray, classes: int) -> Tensor:
    """The columns of all classes; a class without rows has probability 0."""
    table = np.zeros((len(found), classes))
    table[:, seen] = found
    return torch.from_numpy(table)
