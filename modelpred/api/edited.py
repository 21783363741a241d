"""The model after an edit of its training rows, as an object, and what the edit changes.

Everything is said in the caller's own terms: labels as they went in, unscaled features, counts of
rows whose prediction flips, loss and accuracy before and after.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.inputs import ArrayLike
from modelpred.api.reading import Reading
from modelpred.errors import InvalidInput
from modelpred.estimators import Adapted, Estimator, coefficient_table, fitted_estimator
from modelpred.numbers import Number
from modelpred.predictor import Predictor
from modelpred.targets import Points, TargetModel, train_targets


@dataclass(frozen=True, repr=False)
class Comparison:
    """What an edit changes, on rows that both models answer; `print` it to read it.

    Attributes:
        edit: what was done to the training rows.
        on: which rows the models answer.
        rows: how many those are.
        predictions: a row each: row, label, before, after, and for classifiers flips, for
            families with probabilities the probability of the label before and after.
        loss_before: mean loss of the full-data model on them; for numbers the root mean squared
            error, in the label's units.
        loss_after: the same of the edited model.
        accuracy_before: share of them that the full-data model gets right; None for numbers.
        accuracy_after: share of them that the edited model gets right; None for numbers.
        distance: norm of the change of the parameters relative to the full-data model's.
        certificate: how far at most the parameters are from retraining; None if unknown.
    """

    edit: str
    on: str
    rows: int
    predictions: pl.DataFrame
    loss_before: float
    loss_after: float
    accuracy_before: float | None
    accuracy_after: float | None
    distance: float
    certificate: float | None

    @property
    def flips(self) -> pl.DataFrame:
        """The rows of `predictions` whose predicted class changes; none for numbers."""
        if "flips" not in self.predictions.columns:
            return self.predictions.head(0)
        return self.predictions.filter("flips")

    def __str__(self) -> str:
        """A few lines for a person."""
        lines = [self.edit, self._predictions_line()]
        if self.accuracy_before is not None and self.accuracy_after is not None:
            gain = 100 * (self.accuracy_after - self.accuracy_before)
            lines.append(
                f"  accuracy     {self.accuracy_before:.1%} -> {self.accuracy_after:.1%} "
                f"({gain:+.1f} points)"
            )
        share = _change(self.loss_before, self.loss_after)
        name = "mean loss" if "flips" in self.predictions.columns else "RMSE"
        lines.append(f"  {name:<12} {self.loss_before:.4g} -> {self.loss_after:.4g}{share}")
        lines.append(f"  parameters   move by {self.distance:.2%} of their size")
        if self.certificate is not None and math.isfinite(self.certificate):
            lines.append(f"  certificate  retraining ends at most {self.certificate:.3g} from here")
        return "\n".join(lines)

    __repr__ = __str__

    def _predictions_line(self) -> str:
        if "flips" in self.predictions.columns:
            count = self.flips.height
            return f"  predictions  {count} of {self.rows} {self.on} flip ({count / self.rows:.1%})"
        moved = (self.predictions["after"] - self.predictions["before"]).abs()
        largest = float(moved.to_numpy().max())
        return (
            f"  predictions  move by {float(moved.to_numpy().mean()):.4g} on average, at most "
            f"{largest:.4g}, over {self.rows} {self.on}"
        )


def _change(before: float, after: float) -> str:
    return f" ({(after - before) / before:+.1%})" if before > 0 else ""


@dataclass(frozen=True)
class Reference:
    """What edited models are read with and compared to.

    Attributes:
        reading: how tables and labels become points.
        full_parameters: of the full-data model, trained exactly, [parameters].
        on: what the compared rows are called.
        points: the rows that both models answer when the caller names none.
        ids: their ids.
        tolerance: of exact training.
    """

    reading: Reading
    full_parameters: Tensor
    on: str
    points: Points
    ids: tuple[str, ...]
    tolerance: float


@final
@dataclass(frozen=True, repr=False)
class EditedModel:
    """The model that an edit of the training rows gives, predicted or retrained.

    Attributes:
        edit: what was done to the training rows, in words.
        parameters: [parameters], for scaled features.
        certificate: upper bound on their distance to retraining's; None where none is known.
        weights: how often each row of the predictor's pool is taken, [points].
        predictor: over the pool with old and new rows.
        reference: what the model is read with and compared to.
        exact: whether the parameters come from retraining.
    """

    edit: str
    parameters: NDArray[np.float64]
    certificate: float | None
    weights: NDArray[np.float64]
    predictor: Predictor
    reference: Reference
    exact: bool = False

    @classmethod
    def predicted(
        cls,
        edit: str,
        weights: Float64[Tensor, " points"],
        *,
        predictor: Predictor,
        reference: Reference,
        refine: Number,
    ) -> "EditedModel":
        """The predictor's answer for one row of weights over its own points."""
        parameters = predictor.predict(weights[None], refine=refine)
        bound = predictor.certificate(weights[None], parameters)
        certificate = None if bound is None else float(bound[0])
        return cls(edit, parameters[0].numpy(), certificate, weights.numpy(), predictor, reference)

    def __str__(self) -> str:
        """What was done, and how exact the parameters are; `compare` says what it changes."""
        how = "retrained" if self.exact else "predicted"
        lines = [
            f"{self.edit} {len(self.parameters)} parameters, {how}; compare() says what changes"
        ]
        if self.certificate is not None and math.isfinite(self.certificate):
            lines.append(f"  certificate  retraining ends at most {self.certificate:.3g} from here")
        return "\n".join(lines)

    __repr__ = __str__

    def retrained(self) -> "EditedModel":
        """The same edit by exact training, to check the prediction with.

        Raises:
            RuntimeError: training did not converge.
        """
        points = self.predictor.points
        trained = train_targets(
            self._model,
            points.features,
            points.labels,
            torch.from_numpy(self.weights)[None],
            tolerance=self.reference.tolerance,
            classes=points.classes,
            sample_weight=points.sample_weight,
        )
        if not bool(trained.converged[0]):
            raise RuntimeError(
                f"training stopped at a gradient of {float(trained.gradient_norm[0]):.1e}, "
                f"expected {self.reference.tolerance:.0e}; scale the features or lower C"
            )
        return replace(self, exact=True, parameters=trained.parameters[0].numpy(), certificate=None)

    def to_sklearn(self) -> Estimator:
        """The model as a fitted estimator of scikit-learn, of the class that `ModelPred` was given.

        Of a pipeline, with its preprocessing, which was fitted once on all rows.

        Raises:
            InvalidInput: the ModelPred was made with the name of a family.
        """
        return fitted_estimator(self._adapted, self.parameters, self.reference.reading.labels.names)

    def coefficients(self) -> pl.DataFrame:
        """Coefficients before and after the edit, in the units of the original columns.

        Columns: class (of classifiers), column, before (the model of all rows), after. The last row
        of a class is the intercept.

        Raises:
            InvalidInput: the ModelPred was made with the name of a family.
        """
        models = {"before": self.reference.full_parameters.numpy(), "after": self.parameters}
        return coefficient_table(self._adapted, models, self.reference.reading.labels.names)

    @property
    def _adapted(self) -> Adapted:
        adapted = self.reference.reading.adapted
        if adapted is None:
            raise InvalidInput(
                f"this ModelPred was made with the name {self._model.name!r}; make it with an "
                "estimator of scikit-learn, such as ModelPred(LogisticRegression())"
            )
        return adapted

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicted labels [rows], of the type that the fit's labels had."""
        return self._named(self._scores(self._theta, self.reference.reading.features(X, what="X")))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities [rows, classes], classes in the order of `ModelPred.classes`.

        Raises:
            InvalidInput: the family has no probabilities (svm, ridge).
        """
        scores = self._scores(self._theta, self.reference.reading.features(X, what="X"))
        return self._model.probabilities(scores)[0].numpy()

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores [rows] of the second of two classes or of numbers, else [rows, classes]."""
        scores = self._scores(self._theta, self.reference.reading.features(X, what="X"))[0]
        return (scores[:, 0] if scores.shape[1] == 1 else scores).numpy()

    def loss(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean loss over the rows (logistic and softmax: in nats; ridge: the RMSE, in label units)."""
        return self._loss(self._theta, self.reference.reading.points(X, y, what=""))

    def compare(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> Comparison:
        """What the edit changes beside the full-data model, which is trained exactly.

        Args:
            X: rows to answer; by default the test rows of the fit, or else the training rows.
            y: their labels.
        """
        if (X is None) != (y is None):
            raise InvalidInput("compare takes rows with their labels, or neither; pass X and y")
        on, points, ids = self.reference.on, self.reference.points, self.reference.ids
        if X is not None and y is not None:
            points = self.reference.reading.points(X, y, what="")
            on, ids = "rows", tuple(str(row) for row in range(len(points.labels)))
        accuracy = (None, None) if self._model.regression else self._both(self._accuracy, points)
        before, after = self._both(self._loss, points)
        moved = torch.linalg.vector_norm(self._theta - self.reference.full_parameters)
        return Comparison(
            edit=self.edit,
            on=on,
            rows=len(points.labels),
            predictions=self._predictions(points, ids),
            loss_before=before,
            loss_after=after,
            accuracy_before=accuracy[0],
            accuracy_after=accuracy[1],
            distance=float(moved / torch.linalg.vector_norm(self.reference.full_parameters)),
            certificate=self.certificate,
        )

    @property
    def _model(self) -> TargetModel:
        return self.predictor.model

    @property
    def _theta(self) -> Tensor:
        return torch.from_numpy(self.parameters)

    def _scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        return self._model.scores(parameters[None], features)

    def _named(self, scores: Tensor) -> NDArray[Any]:
        """What scores [1, rows, outputs] predict, in the caller's labels."""
        if self._model.regression:
            return scores[0, :, 0].numpy()
        one = scores.shape[2] == 1
        index = (scores[0, :, 0] > 0).long() if one else scores[0].argmax(1)
        return self.reference.reading.labels.names[index.numpy()]

    def _both(
        self, measure: Callable[[Tensor, Points], float], points: Points
    ) -> tuple[float, float]:
        return measure(self.reference.full_parameters, points), measure(self._theta, points)

    def _loss(self, parameters: Tensor, points: Points) -> float:
        scores = self._scores(parameters, points.features)
        return float(self._model.test_loss(scores, points.labels))

    def _accuracy(self, parameters: Tensor, points: Points) -> float:
        scores = self._scores(parameters, points.features)
        return float(self._model.correct(scores, points.labels).double().mean())

    def _predictions(self, points: Points, ids: tuple[str, ...]) -> pl.DataFrame:
        sides = [
            self._scores(theta, points.features)
            for theta in (self.reference.full_parameters, self._theta)
        ]
        before, after = (self._named(scores) for scores in sides)
        if self._model.regression:
            return pl.DataFrame(
                {"row": ids, "label": points.labels.numpy(), "before": before, "after": after}
            )
        names = self.reference.reading.labels.names
        table = pl.DataFrame(
            {
                "row": ids,
                "label": names[points.labels.numpy()],
                "before": before,
                "after": after,
                "flips": before != after,
            }
        )
        rows = torch.arange(len(ids))
        with contextlib.suppress(InvalidInput):  # a family without probabilities
            own = [
                self._model.probabilities(scores)[0][rows, points.labels].numpy()
                for scores in sides
            ]
            return table.with_columns(
                pl.Series("probability_before", own[0]), pl.Series("probability_after", own[1])
            )
        return table
