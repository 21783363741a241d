"""Small fits of ModelPred, made once for the session."""

import numpy as np

from modelpred import ModelPred
from modelpred.predictor import PredictorConfig
from tests.fixtures import made_once

ROWS, TEST, COLUMNS = 40, 30, 3
SMALL = PredictorConfig(epochs=3, width=16, step_width=8, steps=2)


def make_rows(classes, count=ROWS, seed=0):
    """Overlapping classes 0, 1, ..., or numbers for no classes; columns of different sizes."""
    draws = np.random.default_rng(seed)
    cells = draws.normal(size=(count, COLUMNS)) * [1, 10, 100] + [5, 0, -5]
    plane = cells @ [1, 0.1, 0.01] - 5 + draws.normal(size=count)
    return cells, np.digitize(plane, [-0.5, 0.5][: classes - 1]) if classes else plane


def fitted(target="auto", *, classes=2, subsets=150, rows=None, **options):
    """A fit on made rows, or on those given, with test rows."""
    estimator = ModelPred(target, subsets=subsets, predictor=SMALL, progress=False, **options)
    return estimator.fit(*(rows or make_rows(classes)), test=make_rows(classes, TEST, seed=1))


logistic = made_once(fitted)
softmax = made_once(fitted, classes=3)
svm = made_once(fitted, "svm")
ridge = made_once(fitted, classes=0)
