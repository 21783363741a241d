"""Known scikit-learn estimators as families of target models, with the same optimum.

A family minimises 1/2 ||c||^2 + C sum_i s_i loss_i over coefficients c and an intercept b, with a
sample weight s_i for each row. With scikit-learn's objectives:

| estimator                    | family           | C                 | intercept                   |
|------------------------------|------------------|-------------------|-----------------------------|
| LogisticRegression           | logistic, softmax| C                 | free                        |
| same with solver="liblinear" | logistic         | C scaling^2       | penalised                   |
| LinearSVC (squared hinge)    | svm              | C scaling^2       | penalised                   |
| Ridge                        | ridge            | 1 / alpha         | free                        |
| RidgeClassifier              | ridge_classifier | 1 / alpha         | free                        |

liblinear appends a column of `intercept_scaling` to the features and penalises its coefficient, so
1/2 ||c||^2 + 1/2 (b / scaling)^2 + C sum. With features divided by the scaling and coefficients
multiplied by it this is 1 / scaling^2 of the family's objective with C scaling^2.

`fit_intercept=False` is the family without an intercept. Class weights become sample weights, and
"balanced" is computed once, on all rows: subsets do not change it. Estimators that choose C by
cross-validation choose it once, on all rows. The settings `tol`, `max_iter`, `solver`, `dual`,
`warm_start`, `random_state`, `n_jobs` and `verbose` have no effect: target models are trained to the
optimum, within ModelPred's own tolerance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput

Estimator: TypeAlias = Any  # of scikit-learn, which has no common type with stubs
Table: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Mapped:
    """An estimator as a family of target models.

    Attributes:
        estimator: unfitted, as it was given.
        family: name of the family.
        settings: of the family: C, and the kind of intercept.
        regression: whether it predicts a number.
        divisor: what features are divided by.
        sample_weight: factor of each row's loss; None is 1 for all.
        chosen: what a search by cross-validation chose, by name of the fitted attribute.
    """

    estimator: Estimator
    family: str
    settings: dict[str, float | str]
    regression: bool
    divisor: float = 1.0
    sample_weight: NDArray[np.float64] | None = None
    chosen: dict[str, Any] | None = None

    @property
    def notes(self) -> str:
        """What was chosen once for all subsets, for a person; empty if nothing was."""
        parts = [f"{name} = {value} chosen once" for name, value in (self.chosen or {}).items()]
        if getattr(self.estimator, "class_weight", None) == "balanced":
            parts.append("class weights balanced once")
        return ", ".join(parts)


class NoFamily(InvalidInput):
    """No family of target models has the estimator's optimum."""


def has_family(estimator: Estimator) -> bool:
    """Whether some settings of the estimator's class have a family."""
    return _class_name(estimator) in _RULES


def mapped(
    estimator: Estimator,
    features: Table,
    labels: NDArray[Any],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> Mapped:
    """The family of target models that has the estimator's optimum on every subset of the rows.

    Args:
        estimator: of a known class, not a pipeline.
        features: what it would be fitted to, [rows, columns].
        labels: [rows], as the caller has them.
        sample_weight: what its fit would be given, [rows].

    Raises:
        NoFamily: an unknown class, or a setting that no family has.
    """
    rule = _RULES.get(_class_name(estimator))
    if rule is None:
        raise _unknown(estimator)
    classes = None if rule is _ridge else len(np.unique(labels))
    if _class_name(estimator) in _SEARCHES:
        return _searched(estimator, features, labels, sample_weight)
    found = rule(estimator, classes)
    return replace(found, sample_weight=_row_weights(estimator, labels, sample_weight))


def unfitted(estimator: Estimator) -> Estimator:
    """A copy with the same settings, without what fitting left."""
    from sklearn.base import clone  # noqa: PLC0415 - the caller has it

    return clone(estimator)


def _class_name(estimator: Estimator) -> str:
    """The name of a class of scikit-learn; a subclass may do anything and is none of them."""
    own = type(estimator)
    return own.__name__ if own.__module__.split(".")[0] == "sklearn" else ""


def _unknown(estimator: Estimator) -> NoFamily:
    name = type(estimator).__name__
    if name == "SVC":
        why = "SVC minimises the hinge loss, which has no second derivative; LinearSVC has a family"
    else:
        why = f"{name} has no family of target models with its optimum"
    return NoFamily(f"{why}; known: {', '.join(_RULES)}, or a Pipeline that ends in one of them")


def _refused(estimator: Estimator, setting: str, why: str) -> NoFamily:
    value = getattr(estimator, setting)
    return NoFamily(
        f"{type(estimator).__name__}({setting}={value!r}) has no family with its optimum: {why}"
    )


def _logistic(estimator: Estimator, classes: int | None) -> Mapped:
    if getattr(estimator, "penalty", "deprecated") not in ("deprecated", "l2"):
        raise _refused(estimator, "penalty", "families have the l2 penalty; use penalty='l2'")
    if getattr(estimator, "l1_ratio", None):
        raise _refused(estimator, "l1_ratio", "families have the l2 penalty; use l1_ratio=0")
    several = classes is not None and classes > 2
    scheme = getattr(estimator, "multi_class", "deprecated")
    if scheme == ("ovr" if several else "multinomial"):
        raise _refused(estimator, "multi_class", "it is another objective; leave it out")
    if estimator.solver == "liblinear" and several:
        raise _refused(estimator, "solver", "it takes two classes; use solver='lbfgs'")
    factor = _positive(estimator, "C")
    if estimator.solver == "liblinear" and estimator.fit_intercept:
        return _with_scaled_intercept(estimator, "logistic", factor)
    settings = {"C": factor, **_without_intercept(estimator)}
    return Mapped(estimator, "softmax" if several else "logistic", settings, regression=False)


def _svm(estimator: Estimator, classes: int | None) -> Mapped:
    for setting, value in (("penalty", "l2"), ("loss", "squared_hinge"), ("multi_class", "ovr")):
        if getattr(estimator, setting) != value:
            raise _refused(estimator, setting, f"the family svm has {setting}={value!r}")
    if estimator.class_weight is not None and classes is not None and classes > 2:
        raise _refused(
            estimator,
            "class_weight",
            "of several classes, one against the rest, it weights only the rows of the one, so that "
            "it is no weight of a row; pass sample_weight to fit",
        )
    factor = _positive(estimator, "C")
    if estimator.fit_intercept:
        return _with_scaled_intercept(estimator, "svm", factor)
    return Mapped(estimator, "svm", {"C": factor, "intercept": "none"}, regression=False)


def _with_scaled_intercept(estimator: Estimator, family: str, factor: float) -> Mapped:
    scaling = _positive(estimator, "intercept_scaling")
    settings: dict[str, float | str] = {"C": factor * scaling**2, "intercept": "penalised"}
    return Mapped(estimator, family, settings, regression=False, divisor=scaling)


def _ridge(estimator: Estimator, classes: int | None) -> Mapped:
    if getattr(estimator, "positive", False):
        raise _refused(estimator, "positive", "families have no bounds of coefficients")
    family = "ridge" if classes is None else "ridge_classifier"
    settings = {"C": 1 / _positive(estimator, "alpha"), **_without_intercept(estimator)}
    return Mapped(estimator, family, settings, regression=classes is None)


def _ridge_classifier(estimator: Estimator, classes: int | None) -> Mapped:
    return _ridge(estimator, classes)


def _without_intercept(estimator: Estimator) -> dict[str, float | str]:
    return {} if estimator.fit_intercept else {"intercept": "none"}


def _positive(estimator: Estimator, setting: str) -> float:
    value = getattr(estimator, setting)
    number = float(value) if np.ndim(value) == 0 else math.nan
    if not 0 < number < math.inf:
        raise _refused(
            estimator, setting, "expected one positive number, so that there is a penalty"
        )
    return number


def _row_weights(
    estimator: Estimator, labels: NDArray[Any], sample_weight: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """Sample weights times class weights, as the estimator's fit multiplies them."""
    class_weight = getattr(estimator, "class_weight", None)
    if class_weight is None:
        return sample_weight
    from sklearn.utils import compute_sample_weight  # noqa: PLC0415 - the caller has it
    from sklearn.utils.class_weight import compute_class_weight  # noqa: PLC0415

    given = np.ones(len(labels)) if sample_weight is None else sample_weight
    if _class_name(estimator).startswith("RidgeClassifier"):
        return given * compute_sample_weight(class_weight, labels)
    classes, index = np.unique(labels, return_inverse=True)
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    factors = compute_class_weight(class_weight, classes=classes, y=labels, **weighted)
    return given * factors[index]


def _searched(
    estimator: Estimator,
    features: Table,
    labels: NDArray[Any],
    sample_weight: NDArray[np.float64] | None,
) -> Mapped:
    """The estimator without its search, with what the search chooses on all rows."""
    if not getattr(estimator, "refit", True):
        raise _refused(estimator, "refit", "its coefficients are means over folds; use refit=True")
    fitted = unfitted(estimator).fit(features, labels, sample_weight=sample_weight)
    plain, attributes = _SEARCHES[_class_name(estimator)]
    chosen = {name: getattr(fitted, name) for name in attributes if hasattr(fitted, name)}
    shared = plain().get_params().keys() & estimator.get_params().keys() - {"penalty"}
    settings = {name: getattr(estimator, name) for name in shared}
    for name, value in chosen.items():
        if np.ravel(value)[0] is None:  # scikit-learn 1.7: no l1_ratio was searched
            continue
        if len(np.unique(value)) > 1:
            raise InvalidInput(f"{type(estimator).__name__} chose several {name}; expected one")
        settings[name.removesuffix("_")] = float(np.ravel(value)[0])
    found = mapped(plain(**settings), features, labels, sample_weight=sample_weight)
    return replace(found, estimator=estimator, chosen=chosen)


def _plain_logistic(**settings: Any) -> Estimator:  # noqa: ANN401 - those of the class
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - the caller has it

    return LogisticRegression(**settings)


def _plain_ridge(**settings: Any) -> Estimator:  # noqa: ANN401 - those of the class
    from sklearn.linear_model import Ridge  # noqa: PLC0415 - the caller has it

    return Ridge(**settings)


def _plain_ridge_classifier(**settings: Any) -> Estimator:  # noqa: ANN401 - those of the class
    from sklearn.linear_model import RidgeClassifier  # noqa: PLC0415 - the caller has it

    return RidgeClassifier(**settings)


_RULES: dict[str, Callable[[Estimator, int | None], Mapped]] = {
    "LogisticRegression": _logistic,
    "LogisticRegressionCV": _logistic,
    "LinearSVC": _svm,
    "Ridge": _ridge,
    "RidgeCV": _ridge,
    "RidgeClassifier": _ridge_classifier,
    "RidgeClassifierCV": _ridge_classifier,
}
_SEARCHES: dict[str, tuple[Callable[..., Estimator], tuple[str, ...]]] = {
    "LogisticRegressionCV": (_plain_logistic, ("C_", "l1_ratio_")),
    "RidgeCV": (_plain_ridge, ("alpha_",)),
    "RidgeClassifierCV": (_plain_ridge_classifier, ("alpha_",)),
}
