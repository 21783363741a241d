"""The model after an edit of the training rows, and its comparison with the model of all rows.

Methods take and return the caller's labels and unscaled features.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor, nn

from modelpred.api.comparison import Comparison, certificate_line, compare_models
from modelpred.api.exports import adapted_of, original_coefficients, python_source, torch_module
from modelpred.api.inputs import ArrayLike
from modelpred.api.reading import Reading
from modelpred.api.trained_model import TrainedModel
from modelpred.engine import EngineChoice
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    BlackBox,
    Estimator,
    coefficient_table,
    fitted_estimator,
    with_preprocessing,
)
from modelpred.metrics import reliability_table
from modelpred.numbers import Number
from modelpred.predictor import Predictor
from modelpred.refits import Retraining
from modelpred.targets import Points, TargetModel
from modelpred.wording import Printed


@dataclass(frozen=True)
class Reference:
    """The model of all rows, and the default rows for comparisons.

    Attributes:
        reading: encoding of tables and labels.
        model: the family.
        full_parameters: of the model of all rows, trained exactly, [parameters].
        on: the kind of the default rows, in words.
        points: the default rows for comparisons.
        ids: their ids.
        tolerance: of exact training.
    """

    reading: Reading
    model: TargetModel
    full_parameters: Tensor
    on: str
    points: Points
    ids: tuple[str, ...]
    tolerance: float


@final
@dataclass(frozen=True, repr=False)
class EditedModel(Printed):
    """The model after an edit of the training rows, predicted or retrained.

    Attributes:
        edit: the edit, in words.
        parameters: [parameters], for scaled features.
        certificate: upper bound on their distance to retraining; None if unknown.
        weights: count of each point, [points].
        points: the training rows and any added rows.
        row_ids: their ids.
        reference: the model of all rows, and the default rows for comparisons.
        engine: whether the parameters come from retraining or prediction, and what the other
            would have cost.
        predictor: bound to the points; None if the model was retrained.
    """

    edit: str
    parameters: NDArray[np.float64]
    certificate: float | None
    weights: NDArray[np.float64]
    points: Points
    row_ids: tuple[str, ...]
    reference: Reference
    engine: EngineChoice
    predictor: Predictor | None = None

    @classmethod
    def predicted(
        cls,
        edit: str,
        weights: Float64[Tensor, " points"],
        *,
        predictor: Predictor,
        reference: Reference,
        engine: EngineChoice,
        refine: Number,
        bounded: bool = True,
    ) -> "EditedModel":
        """Predict the edited model from the weights of the predictor's points.

        Without `bounded` its certificate is None; `with_certificate` computes it later.
        """
        parameters = predictor.predict(weights[None], refine=refine)
        model = cls(
            edit, parameters[0].numpy(), None, weights.numpy(), predictor.points,
            predictor.row_ids, reference, engine, predictor,
        )  # fmt: skip
        return model.with_certificate() if bounded else model

    @classmethod
    def trained(
        cls,
        edit: str,
        weights: Float64[Tensor, " points"],
        *,
        points: Points,
        row_ids: tuple[str, ...],
        reference: Reference,
        engine: EngineChoice,
    ) -> "EditedModel":
        """Train the edited model.

        Raises:
            RuntimeError: training did not converge.
        """
        retraining = Retraining(reference.model, points, tolerance=reference.tolerance)
        trained = retraining.train(weights[None])
        if not bool(trained.converged[0]):
            raise RuntimeError(
                "training did not converge: "
                + reference.model.advice(float(trained.gradient_norm[0]))
            )
        parameters = trained.parameters[0].to(torch.float64).numpy()
        return cls(edit, parameters, None, weights.numpy(), points, row_ids, reference, engine)

    def __str__(self) -> str:
        """The edit and the certificate; `compare` shows the changes."""
        how = "retrained" if self.engine.exact else "predicted"
        what = f"{len(self.parameters)} parameters, " if self._model.has_parameters else ""
        lines = [f"{self.edit} {what}{how}; compare() shows the changes"]
        if self.certificate is not None and math.isfinite(self.certificate):
            lines.append(certificate_line(self.certificate))
        return "\n".join(lines)

    @property
    def notes(self) -> list[str]:
        """What the edited training set lacks, a line each; empty if it has rows of every class."""
        held = self.weights > 0
        if not held.any():
            return ["no row is left: the model of no rows gives every class the same score"]
        left = set(self.points.labels.numpy()[held].tolist())
        classes = self.reference.reading.labels.classes
        gone = [name for index, name in enumerate(classes) if index not in left]
        what = "class" if len(gone) == 1 else "classes"
        return [f"no row of {what} {', '.join(gone)} is left to learn from"] if gone else []

    def with_certificate(self) -> "EditedModel":
        """Return the model with the bound on its distance to retraining, if there is one."""
        if self.predictor is None:
            return self
        weights = torch.from_numpy(self.weights)[None]
        bound = self.predictor.certificate(weights, torch.from_numpy(self.parameters)[None])
        return replace(self, certificate=None if bound is None else float(bound[0]))

    def retrained(self) -> "EditedModel":
        """Return the model of the same edit by exact retraining.

        Raises:
            RuntimeError: training did not converge.
        """
        return EditedModel.trained(
            self.edit,
            torch.from_numpy(self.weights),
            points=self.points,
            row_ids=self.row_ids,
            reference=self.reference,
            engine=replace(self.engine, engine="exact"),
        )

    def to_sklearn(self) -> Estimator:
        """The model as a fitted estimator of scikit-learn, of the class that `ModelPred` was given.

        Of a pipeline, with its preprocessing, which was fitted once on all rows.

        Raises:
            InvalidInput: the ModelPred was not made with an estimator.
        """
        reading, model = self.reference.reading, self._model
        adapted = adapted_of(reading, model)
        if isinstance(model, BlackBox):
            return with_preprocessing(adapted, model.model_of(self.weights))
        return fitted_estimator(adapted, self.parameters, reading.labels.names)

    def coefficients(self) -> pl.DataFrame:
        """Coefficients before and after the edit, in the units of the original columns.

        Columns: class (of classifiers), column, before (the model of all rows), after. The last row
        of a class is the intercept.

        Raises:
            InvalidInput: the model is not linear in its columns.
        """
        reading, model = self.reference.reading, self._model
        sides = {"before": self.reference.full_parameters.numpy(), "after": self.parameters}
        models = {
            side: original_coefficients(reading, model, parameters)
            for side, parameters in sides.items()
        }
        return coefficient_table(models, reading.labels.names)

    def to_python(self) -> str:
        """Python that builds the model as a fitted estimator of scikit-learn, with its numbers in.

        Its columns are those of `coefficients`: numbers of the table as they are, and a column of
        0 and 1 for each level of a category.

        Raises:
            InvalidInput: scikit-learn has no such estimator.
        """
        return python_source(self.reference.reading, self._model, self.parameters, edit=self.edit)

    def to_torch(self) -> nn.Module:
        """Return this model as a module of torch.

        With `ModelPred.from_torch`, it is a copy of the module with this model in its last layer;
        with a TorchTarget, a new module from its `build`. Outputs are in the order of
        `ModelPred.classes`.

        Raises:
            InvalidInput: the ModelPred was made with neither.
        """
        return torch_module(self.reference.reading, torch.from_numpy(self.parameters))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicted labels [rows], in the type of the fit's labels."""
        return self._after.predicted(self.reference.reading.features(X, what="X"))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities [rows, classes], classes in the order of `ModelPred.classes`.

        Raises:
            InvalidInput: the family has no probabilities (svm, ridge).
        """
        return self._after.probabilities(self.reference.reading.features(X, what="X")).numpy()

    def probabilities_of(self, points: Points) -> NDArray[np.float64]:
        """Class probabilities [rows, classes] of points."""
        return self._after.probabilities(points.features).numpy()

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores [rows] of the second of two classes or of numbers, else [rows, classes]."""
        scores = self._after.scores(self.reference.reading.features(X, what="X"))[0]
        return (scores[:, 0] if scores.shape[1] == 1 else scores).numpy()

    def loss(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean loss over the rows (logistic and softmax: in nats; ridge: the RMSE, in label units)."""
        return self._after.loss(self.reference.reading.points(X, y, what=""))

    def compare(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> Comparison:
        """Compare with the model of all rows, which is trained exactly.

        Args:
            X: rows to predict; by default the test rows of the fit, or the training rows.
            y: their labels.
        """
        if (X is None) != (y is None):
            raise InvalidInput("compare takes rows with their labels, or neither; pass X and y")
        on, points, ids = self.reference.on, self.reference.points, self.reference.ids
        if X is not None and y is not None:
            points = self.reference.reading.points(X, y, what="")
            on, ids = "rows", tuple(str(row) for row in range(len(points.labels)))
        return compare_models(
            self._before,
            self._after,
            points,
            ids=ids,
            on=on,
            edit=self.edit,
            certificate=self.certificate,
        )

    def reliability(self, *, bins: int = 10) -> pl.DataFrame:
        """Confidence and accuracy on the default rows, before and after the edit, by bins.

        Columns: model (before, after) and those of `modelpred.metrics.reliability_table`.

        Raises:
            InvalidInput: the family has no probabilities (svm, ridge).
        """
        points = self.reference.points
        models = {"before": self._before, "after": self._after}
        tables = [
            reliability_table(
                model.probabilities(points.features), points.labels, bins=bins
            ).insert_column(0, pl.lit(side).alias("model"))
            for side, model in models.items()
        ]
        return pl.concat(tables)

    @property
    def _model(self) -> TargetModel:
        return self.reference.model.for_rows(self.points)

    @property
    def _before(self) -> TrainedModel:
        """The model of all rows."""
        reference = self.reference
        return TrainedModel(reference.model, reference.full_parameters, reference.reading.labels)

    @property
    def _after(self) -> TrainedModel:
        """This model."""
        parameters = torch.from_numpy(self.parameters)
        return TrainedModel(self._model, parameters, self.reference.reading.labels)
