"""A model in other forms: coefficients in original units, Python source, an estimator, a torch module."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from modelpred.api.reading import Reading
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Adapted,
    AdaptedModule,
    AdaptedTarget,
    Coefficients,
    adapted_coefficients,
    estimator_source,
)
from modelpred.targets import TargetModel
from modelpred.targets.linear import Linear


def original_coefficients(
    reading: Reading, model: TargetModel, parameters: NDArray[np.float64]
) -> Coefficients:
    """Return the coefficients in the units of the original columns.

    Raises:
        InvalidInput: the model is not linear in its columns.
    """
    if isinstance(reading.adapted, Adapted):
        return adapted_coefficients(reading.adapted, parameters)
    if not isinstance(model, Linear):
        raise InvalidInput(f"{model.name} has no coefficients; compare predictions instead")
    scaling, names = reading.scaling, reading.encoding.feature_names
    table = parameters.reshape(-1, len(names) + 1)
    return Coefficients.of_scaled(
        names,
        table[:, :-1],
        np.zeros(len(table)) if model.intercept == "none" else table[:, -1],
        offsets=np.array(scaling.offset),
        divisors=np.array(scaling.divisor),
    )


def python_source(
    reading: Reading, model: TargetModel, parameters: NDArray[np.float64], *, edit: str
) -> str:
    """Return Python that builds the model as a fitted estimator of scikit-learn.

    Raises:
        InvalidInput: scikit-learn has no such estimator.
    """
    filled = [
        f"{column.name}: a missing cell is {column.fill:g}"
        for column in reading.encoding.columns
        if column.kind == "number" and column.missing
    ]
    return estimator_source(
        model.name,
        original_coefficients(reading, model, parameters),
        reading.labels.names,
        about=[edit.removesuffix(":"), *filled],
    )


def adapted_of(reading: Reading, model: TargetModel) -> Adapted:
    """Return the estimator of scikit-learn that the fit was made with.

    Raises:
        InvalidInput: it was made with none.
    """
    if isinstance(reading.adapted, Adapted):
        return reading.adapted
    how = "with a torch module" if reading.adapted else f"with the name {model.name!r}"
    raise InvalidInput(
        f"this ModelPred was made {how}; make it with an estimator of scikit-learn, such as "
        "ModelPred(LogisticRegression())"
    )


def torch_module(reading: Reading, parameters: Tensor) -> nn.Module:
    """Return the model as a torch module.

    Raises:
        InvalidInput: the fit was made with neither a torch module nor a TorchTarget.
    """
    if isinstance(reading.adapted, AdaptedTarget):
        return reading.adapted.given.module_of(parameters)
    if not isinstance(reading.adapted, AdaptedModule):
        raise InvalidInput(
            "this ModelPred was not made with ModelPred.from_torch(module) or a TorchTarget; make "
            "it so"
        )
    return reading.adapted.with_head(parameters.numpy())
