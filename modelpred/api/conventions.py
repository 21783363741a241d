"""The conventions of scikit-learn that ModelPred follows: parameters, tags and scores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelpred.api.settings import AUTO
from modelpred.errors import InvalidInput
from modelpred.estimators import Estimator, TorchHead, estimator_kind
from modelpred.targets import TorchTarget
from modelpred.targets.families import FAMILIES


def with_nested(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters, and those of an estimator among them as `target__C`."""
    found = dict(params)
    for name, value in params.items():
        if hasattr(value, "get_params") and not isinstance(value, type):
            found |= {f"{name}__{own}": each for own, each in value.get_params().items()}
    return found


def changed(
    params: dict[str, Any], new: dict[str, Any], *, known: tuple[str, ...]
) -> dict[str, Any]:
    """The parameters with new values; `target__C` is set on the target itself.

    Args:
        params: the present ones.
        new: by name.
        known: names that the constructor has, beside settings of the family.

    Raises:
        InvalidInput: an unknown name.
    """
    found = {**params, **{name: value for name, value in new.items() if "__" not in name}}
    nested = {name: value for name, value in new.items() if "__" in name}
    for name, value in nested.items():
        owner, _, own = name.partition("__")
        if not hasattr(found.get(owner), "set_params"):
            raise InvalidInput(
                f"there is no parameter {name!r}; known: {', '.join((*known, 'target__...'))}"
            )
        try:
            found[owner].set_params(**{own: value})
        except ValueError as error:
            raise InvalidInput(str(error)) from error
    return found


def tags(target: str | Estimator) -> Any:  # noqa: ANN401 - scikit-learn's Tags, without stubs
    """The tags of the estimator, for scikit-learn."""
    from sklearn.utils import (  # noqa: PLC0415 - called only by scikit-learn
        ClassifierTags,
        InputTags,
        RegressorTags,
        Tags,
        TargetTags,
    )

    if isinstance(target, (TorchHead, TorchTarget)) or target == AUTO:
        kind = None
    elif not isinstance(target, str):
        kind = estimator_kind(target)
    else:
        kind = "regressor" if FAMILIES[target].regression else "classifier"
    return Tags(
        estimator_type=kind,
        input_tags=InputTags(sparse=not isinstance(target, str)),
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags() if kind == "classifier" else None,
        regressor_tags=RegressorTags() if kind == "regressor" else None,
    )


def score(
    predicted: NDArray[Any], labels: NDArray[Any], *, classes: bool, weights: NDArray[Any] | None
) -> float:
    """Accuracy of classes, R^2 of numbers: what scikit-learn's `score` gives."""
    from sklearn.metrics import accuracy_score, r2_score  # noqa: PLC0415 - slow to import

    measure = accuracy_score if classes else r2_score
    return float(measure(np.asarray(labels), predicted, sample_weight=weights))
