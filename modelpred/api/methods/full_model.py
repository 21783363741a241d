"""The model of all rows: its predictions, its attributes by scikit-learn's names, and its export."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from modelpred.api.conventions import score
from modelpred.api.edited import EditedModel
from modelpred.api.evaluation import (
    Reliability,
    reliability_of,
)
from modelpred.api.given_rows import given_rows, given_test_rows
from modelpred.api.inputs import (
    ArrayLike,
    array_of,
)
from modelpred.api.methods.state import FitState
from modelpred.api.reading import Reading
from modelpred.dataset.scaling import Scaling
from modelpred.engine import EngineChoice
from modelpred.estimators import Estimator
from modelpred.numbers import Number


class FullModelMethods(FitState):
    """Methods of ModelPred about the model of all rows."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels [rows] that the model of all rows predicts."""
        return self.full_model().predict(X)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities [rows, classes] of the model of all rows; InvalidInput without any."""
        return self.full_model().predict_proba(X)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores of the model of all rows, as `EditedModel.decision_function`."""
        return self.full_model().decision_function(X)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: NDArray[Any] | None = None) -> float:
        """Accuracy of the model of all rows, or for numbers R^2."""
        predicted = self.predict(X)
        classes = bool(len(self.classes))
        return score(predicted, array_of(y), classes=classes, weights=sample_weight)

    def reliability(
        self, X: ArrayLike | None = None, y: ArrayLike | None = None, *, bins: Number = 10
    ) -> Reliability:
        """Confidence of the model of all rows compared with its accuracy, and the calibration error.

        Args:
            X: rows that were not used for training; by default the test rows of the fit.
            y: their labels.
            bins: number of bins of the confidence, of equal width.

        Raises:
            InvalidInput: no test rows, or a family without probabilities.
        """
        points = self._labelled(X, y, what="", fallback=self._ready.test_points)
        probabilities = self.full_model().probabilities_of(points)
        return reliability_of(probabilities, points.labels.numpy(), bins=bins)

    def full_model(self) -> EditedModel:
        """The model of all rows, trained exactly."""
        ready = self._ready
        return EditedModel(
            f"Of all {len(self.row_ids)} training rows:",
            ready.problem.full_parameters.numpy().copy(),
            None,
            np.ones(len(self.row_ids)),
            ready.problem.points,
            ready.problem.row_ids,
            ready.reference,
            EngineChoice("exact", models=1),
        )

    def to_torch(self) -> nn.Module:
        """A copy of the module with the model of all rows, as `EditedModel.to_torch`."""
        return self.full_model().to_torch()

    def to_sklearn(self) -> Estimator:
        """The model of all rows as a fitted estimator, as `EditedModel.to_sklearn`."""
        return self.full_model().to_sklearn()

    @property
    def full_parameters(self) -> NDArray[np.float64]:
        """Parameters of the model of all rows, trained exactly."""
        self._require_parameters("full_parameters")
        return self._ready.problem.full_parameters.numpy().copy()

    @property
    def classes(self) -> NDArray[Any]:
        """The classes as the labels named them, in the order of their index; none for numbers."""
        return self._ready.reading.labels.names

    @property
    def classes_(self) -> NDArray[Any]:
        """As `classes`, by scikit-learn's name."""
        return self._reading.labels.names

    @property
    def n_features_in_(self) -> int:
        """Number of feature columns in the table of the fit."""
        reading = self._reading
        own = reading.adapted
        return len(reading.encoding.column_names) if own is None else own.preprocessing.count

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Names of these columns.

        Raises:
            AttributeError: the table of the fit did not name its columns.
        """
        reading = self._reading
        names = reading.encoding.column_names if reading.named else None
        if reading.adapted is not None:
            names = reading.adapted.preprocessing.columns
        if names is None:
            raise AttributeError("the table of the fit did not name its columns")
        return np.array(names, dtype=object)

    @property
    def _reading(self) -> Reading:
        """That of the fit, for attributes that an unfitted estimator does not have."""
        if self._fitted is None:
            raise AttributeError("this ModelPred is not fitted; call fit(X, y) first")
        return self._fitted.reading

    @property
    def scaling(self) -> Scaling:
        """How columns become features: (x - offset) / divisor."""
        return self._ready.reading.scaling

    @property
    def rows(self) -> pl.DataFrame:
        """The original training rows: row_id, their cells, and the label last."""
        return given_rows(self._ready.dataset, self._given)

    @property
    def test_rows(self) -> pl.DataFrame:
        """The test rows in the same form; none if the fit had none."""
        return given_test_rows(self._ready.dataset, self._given)
