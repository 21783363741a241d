"""A fitted estimator of scikit-learn as lines of Python with its numbers in them: no pickle."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.export import Coefficients

CLASSES = {
    "logistic": ("linear_model", "LogisticRegression"),
    "softmax": ("linear_model", "LogisticRegression"),
    "svm": ("svm", "LinearSVC"),
    "ridge": ("linear_model", "Ridge"),
    "ridge_classifier": ("linear_model", "RidgeClassifier"),
}


def estimator_source(
    family: str, model: Coefficients, classes: NDArray[Any], *, about: list[str]
) -> str:
    """Return Python that builds the fitted estimator, called `model`.

    Args:
        family: name of the family of target models.
        model: its coefficients, in the units of the original columns.
        classes: the classes; empty for a regression.
        about: lines for a comment at the top.

    Raises:
        InvalidInput: scikit-learn has no estimator for the family.
    """
    if family not in CLASSES:
        raise InvalidInput(
            f"scikit-learn has no estimator for {family}; families that have one: {', '.join(CLASSES)}"
        )
    module, name = CLASSES[family]
    weights, intercepts = model.coefficients, model.intercepts
    if len(weights) == len(classes) == 2:  # of two scores only the difference counts
        weights, intercepts = weights[1:] - weights[:1], intercepts[1:] - intercepts[:1]
    lines = [
        *(f"# {' '.join(line.split())}" for line in about),
        "import numpy as np",
        f"from sklearn.{module} import {name}",
        *(
            ["from sklearn.preprocessing import LabelBinarizer"]
            if name == "RidgeClassifier"
            else []
        ),
        "",
        f"columns = {_listed(list(model.columns))}",
        f"model = {name}()",
        *_fitted(name, weights, intercepts, classes),
        "model.n_features_in_ = len(columns)",
        "model.feature_names_in_ = np.array(columns, dtype=object)",
        "",
    ]
    return "\n".join(lines)


def _fitted(
    name: str,
    weights: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    classes: NDArray[Any],
) -> list[str]:
    """The lines that set what fitting would set."""
    if name == "Ridge":
        return [
            f"model.coef_ = np.array({_listed(weights[0].tolist())})",
            f"model.intercept_ = {float(intercepts[0])!r}",
        ]
    lines = [
        f"model.coef_ = np.array({_listed([row.tolist() for row in weights])})",
        f"model.intercept_ = np.array({intercepts.tolist()!r})",
        f"classes = np.array({classes.tolist()!r})",
    ]
    if name == "RidgeClassifier":
        lines.append(
            "model._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(classes)"
        )
    # RidgeClassifier of before 1.9 derives its classes.
    return [*lines, 'if not hasattr(type(model), "classes_"):', "    model.classes_ = classes"]


def _listed(values: list[Any]) -> str:
    """A list with one value a line."""
    return "[\n" + "".join(f"    {value!r},\n" for value in values) + "]"
