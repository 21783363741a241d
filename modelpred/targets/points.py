"""The points that weights refer to, checked: features, labels and sample weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.shapes import Features, Labels, PerPoint, Weights

if TYPE_CHECKING:
    from modelpred.dataset import Dataset

Array = Tensor | NDArray[Any]


@dataclass(frozen=True)
class Points:
    """The pool: one row of features and one label a point; `classes` is 0 for regression.

    Attributes:
        features: of each point.
        labels: of each point.
        classes: how many there are.
        sample_weight: factor of each point's loss in every subset; None is 1 for all.
    """

    features: Features
    labels: Labels
    classes: int
    sample_weight: Float[Tensor, " points"] | None = None

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "Points":
        """The same points with features (and regression labels) of another precision or device."""
        labels = self.labels.to(device=device)
        return Points(
            features=self.features.to(dtype=dtype, device=device),
            labels=labels.to(dtype=dtype) if labels.is_floating_point() else labels,
            classes=self.classes,
            sample_weight=None
            if self.sample_weight is None
            else self.sample_weight.to(dtype=dtype, device=device),
        )

    def take(self, rows: Int[Tensor, " rows"]) -> "Points":
        """Only some points, by their positions."""
        factors = None if self.sample_weight is None else self.sample_weight[rows]
        return Points(self.features[rows], self.labels[rows], self.classes, factors)

    def joined(self, other: "Points") -> "Points":
        """These points, then the others; a point without a sample weight has 1."""
        factors = None
        if self.sample_weight is not None or other.sample_weight is not None:
            factors = torch.cat([each.factors for each in (self, other)])
        return Points(
            torch.cat([self.features, other.features]),
            torch.cat([self.labels, other.labels]),
            self.classes,
            factors,
        )

    @property
    def factors(self) -> Float[Tensor, " points"]:
        """The sample weights, 1 where there are none."""
        ones = self.features.new_ones(len(self.features))
        return ones if self.sample_weight is None else self.sample_weight

    def weighted(self, weights: Weights) -> PerPoint:
        """The factor of each loss: how often a subset takes the point, times its sample weight."""
        return weights if self.sample_weight is None else weights * self.sample_weight


def dataset_points(dataset: "Dataset") -> Points:
    """The training rows of a data set."""
    return points_of(dataset.features, dataset.labels, len(dataset.classes))


def dataset_test_points(dataset: "Dataset") -> Points:
    """The test rows of a data set."""
    return points_of(dataset.test_features, dataset.test_labels, len(dataset.classes))


def tensor_of(values: Any) -> Tensor:  # noqa: ANN401 - an array, a tensor, or lists of numbers
    """Return the values as a tensor, without a copy where torch can read their memory.

    Torch cannot read arrays with negative strides or another byte order, and it ignores masks.

    Raises:
        TypeError, ValueError, RuntimeError: torch has no such type.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = _unmasked(values)
    if isinstance(values, np.ndarray) and (
        min(values.strides, default=0) < 0 or not values.dtype.isnative
    ):
        values = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return torch.as_tensor(values)


def _unmasked(values: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    """Return the array, with nan for masked numbers."""
    if not np.ma.is_masked(values):
        return values.data
    return np.where(np.ma.getmaskarray(values), np.nan, values.data)


def points_of(
    features: Array,
    labels: Array,
    classes: int | None = None,
    *,
    sample_weight: Array | None = None,
) -> Points:
    """Checked points in float64 from arrays.

    Args:
        features: [points, features], finite.
        labels: [points]; class indices 0..classes-1, or real numbers for regression.
        classes: number of classes, 0 for regression. Default: 0 for floating labels, else the
            highest label + 1 (at least 2).
        sample_weight: [points], finite and above zero.

    Raises:
        InvalidInput: a wrong shape, a value that is not finite, a label outside the classes, or a
            sample weight that is not above zero.
    """
    features = tensor_of(features)
    labels = tensor_of(labels).to(features.device)
    if features.ndim != 2 or labels.ndim != 1 or features.shape[0] != labels.shape[0]:
        raise InvalidInput(
            "expected features [points, features] and labels [points], got "
            f"{list(features.shape)} and {list(labels.shape)}; pass one row and one label a point"
        )
    if features.shape[0] == 0 or features.shape[1] == 0:
        raise InvalidInput(
            f"expected at least one point and one feature, got {list(features.shape)}"
        )
    features = features.to(torch.float64)
    if not bool(torch.isfinite(features).all()):
        row, column = (~torch.isfinite(features)).nonzero()[0].tolist()
        raise InvalidInput(
            f"feature {column} of point {row} is {float(features[row, column])}; expected finite "
            "numbers, so fill or drop missing cells first"
        )
    if classes is None:
        classes = 0 if labels.is_floating_point() else max(2, int(labels.max()) + 1)
    factors = None if sample_weight is None else _checked_sample_weight(sample_weight, features)
    return Points(features, _checked_labels(labels, classes), classes, factors)


def _checked_sample_weight(sample_weight: Array, features: Tensor) -> Tensor:
    factors = tensor_of(sample_weight).to(features)
    if factors.shape != features.shape[:1]:
        raise InvalidInput(
            f"sample_weight has shape {list(factors.shape)}, expected one number for each of "
            f"{len(features)} points"
        )
    if not bool(((factors > 0) & torch.isfinite(factors)).all()):
        raise InvalidInput(
            "sample_weight has values that are not finite and above zero; leave out rows of weight 0"
        )
    return factors


def _checked_labels(labels: Tensor, classes: int) -> Tensor:
    if classes == 0:
        real = labels.to(torch.float64)
        if not bool(torch.isfinite(real).all()):
            raise InvalidInput("labels have values that are not finite; drop those points first")
        return real
    if classes < 2:
        raise InvalidInput(f"expected two or more classes (or 0 for regression), got {classes}")
    whole = labels.to(torch.int64)
    if bool((whole != labels).any()):
        raise InvalidInput("labels are not whole numbers; expected class indices 0..classes-1")
    if int(whole.min()) < 0 or int(whole.max()) >= classes:
        raise InvalidInput(
            f"labels run from {int(whole.min())} to {int(whole.max())} but there are {classes} "
            f"classes; expected indices 0 to {classes - 1}"
        )
    return whole


def class_counts(weights: Weights, points: Points) -> Float[Tensor, "subsets groups"]:
    """Total weight of each class in each subset; for regression one group holds all points."""
    weights = points.weighted(weights)
    if points.classes == 0:
        return weights.sum(1, keepdim=True)
    rows = torch.nn.functional.one_hot(points.labels, points.classes).to(weights.dtype).T
    return (rows.contiguous() @ weights.T).T  # four times faster than with few columns
