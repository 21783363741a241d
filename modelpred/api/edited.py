"""The model after an edit of the training rows, and its comparison with the model of all rows.

Methods take and return the caller's labels and unscaled features.
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
from torch import Tensor, nn

from modelpred.api.inputs import ArrayLike
from modelpred.api.printing import Printed
from modelpred.api.reading import Reading
from modelpred.engine import EngineChoice
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Adapted,
    AdaptedModule,
    AdaptedTarget,
    BlackBox,
    Coefficients,
    Estimator,
    adapted_coefficients,
    coefficient_table,
    estimator_source,
    fitted_estimator,
    with_preprocessing,
)
from modelpred.metrics import reliability_table
from modelpred.numbers import Number
from modelpred.predictor import Predictor
from modelpred.refits import Retraining
from modelpred.targets import Points, TargetModel
from modelpred.targets.linear import Linear


@dataclass(frozen=True, repr=False)
class Comparison(Printed):
    """Comparison of the models before and after an edit on some rows; `print` shows a summary.

    Attributes:
        edit: the edit, in words.
        on: the kind of rows, in words.
        rows: number of rows.
        predictions: a row per row: row, label, before, after; for classifiers, flips; for families
            with probabilities, the probability of the label before and after.
        loss_before: mean loss of the model of all rows; for a regression, the root mean squared error
            in the label's units.
        loss_after: the same for the edited model.
        accuracy_before: accuracy of the model of all rows; None for a regression.
        accuracy_after: accuracy of the edited model; None for a regression.
        distance: norm of the change of the parameters, relative to the model of all rows; nan if the
            models have none.
        certificate: upper bound on the distance of the parameters to retraining; None if unknown.
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
        """The rows of `predictions` whose predicted class changes; empty for a regression."""
        if "flips" not in self.predictions.columns:
            return self.predictions.head(0)
        return self.predictions.filter("flips")

    def __str__(self) -> str:
        """A summary in a few lines."""
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
        if math.isfinite(self.distance):
            lines.append(f"  parameters   change by {self.distance:.2%} of their norm")
        if self.certificate is not None and math.isfinite(self.certificate):
            lines.append(_certificate_line(self.certificate))
        return "\n".join(lines)

    def _predictions_line(self) -> str:
        if "flips" in self.predictions.columns:
            count = self.flips.height
            return f"  predictions  {count} of {self.rows} {self.on} flip ({count / self.rows:.1%})"
        moved = (self.predictions["after"] - self.predictions["before"]).abs()
        largest = float(moved.to_numpy().max())
        return (
            f"  predictions  change by {float(moved.to_numpy().mean()):.4g} on average, at most "
            f"{largest:.4g}, over {self.rows} {self.on}"
        )


def _certificate_line(certificate: float) -> str:
    return (
        f"  certificate  exact retraining differs by at most {certificate:.3g} (norm of parameters)"
    )


def _change(before: float, after: float) -> str:
    return f" ({(after - before) / before:+.1%})" if before > 0 else ""


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
            lines.append(_certificate_line(self.certificate))
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
        bound = self.predictor.certificate(weights, self._theta[None])
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
        adapted, model = self._adapted, self._model
        if isinstance(model, BlackBox):
            return with_preprocessing(adapted, model.model_of(self.weights))
        return fitted_estimator(adapted, self.parameters, self.reference.reading.labels.names)

    def coefficients(self) -> pl.DataFrame:
        """Coefficients before and after the edit, in the units of the original columns.

        Columns: class (of classifiers), column, before (the model of all rows), after. The last row
        of a class is the intercept.

        Raises:
            InvalidInput: the model is not linear in its columns.
        """
        models = {
            "before": self._coefficients(self.reference.full_parameters.numpy()),
            "after": self._coefficients(self.parameters),
        }
        return coefficient_table(models, self.reference.reading.labels.names)

    def to_python(self) -> str:
        """Python that builds the model as a fitted estimator of scikit-learn, with its numbers in.

        Its columns are those of `coefficients`: numbers of the table as they are, and a column of
        0 and 1 for each level of a category.

        Raises:
            InvalidInput: scikit-learn has no such estimator.
        """
        reading = self.reference.reading
        filled = [
            f"{column.name}: a missing cell is {column.fill:g}"
            for column in reading.encoding.columns
            if column.kind == "number" and column.missing
        ]
        return estimator_source(
            self._model.name,
            self._coefficients(self.parameters),
            reading.labels.names,
            about=[self.edit.removesuffix(":"), *filled],
        )

    def _coefficients(self, parameters: NDArray[np.float64]) -> Coefficients:
        reading, model = self.reference.reading, self._model
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

    @property
    def _adapted(self) -> Adapted:
        adapted = self.reference.reading.adapted
        if isinstance(adapted, Adapted):
            return adapted
        how = "with a torch module" if adapted else f"with the name {self._model.name!r}"
        raise InvalidInput(
            f"this ModelPred was made {how}; make it with an estimator of scikit-learn, such as "
            "ModelPred(LogisticRegression())"
        )

    def to_torch(self) -> nn.Module:
        """Return this model as a module of torch.

        With `ModelPred.from_torch`, it is a copy of the module with this model in its last layer;
        with a TorchTarget, a new module from its `build`. Outputs are in the order of
        `ModelPred.classes`.

        Raises:
            InvalidInput: the ModelPred was made with neither.
        """
        adapted = self.reference.reading.adapted
        if isinstance(adapted, AdaptedTarget):
            return adapted.given.module_of(self._theta)
        if not isinstance(adapted, AdaptedModule):
            raise InvalidInput(
                "this ModelPred was not made with ModelPred.from_torch(module) or a TorchTarget; make "
                "it so"
            )
        return adapted.with_head(self.parameters)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicted labels [rows], in the type of the fit's labels."""
        return self._named(self._scores_of(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities [rows, classes], classes in the order of `ModelPred.classes`.

        Raises:
            InvalidInput: the family has no probabilities (svm, ridge).
        """
        return self._model.probabilities(self._scores_of(X))[0].numpy()

    def probabilities_of(self, points: Points) -> NDArray[np.float64]:
        """Class probabilities [rows, classes] of points."""
        return self._model.probabilities(self._scores(self._theta, points.features))[0].numpy()

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores [rows] of the second of two classes or of numbers, else [rows, classes]."""
        scores = self._scores_of(X)[0]
        return (scores[:, 0] if scores.shape[1] == 1 else scores).numpy()

    def loss(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean loss over the rows (logistic and softmax: in nats; ridge: the RMSE, in label units)."""
        return self._loss(self._theta, self.reference.reading.points(X, y, what=""))

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
        accuracy = (None, None) if self._model.regression else self._both(self._accuracy, points)
        before, after = self._both(self._loss, points)
        return Comparison(
            edit=self.edit,
            on=on,
            rows=len(points.labels),
            predictions=self._predictions(points, ids),
            loss_before=before,
            loss_after=after,
            accuracy_before=accuracy[0],
            accuracy_after=accuracy[1],
            distance=self._distance(),
            certificate=self.certificate,
        )

    def reliability(self, *, bins: int = 10) -> pl.DataFrame:
        """Confidence and accuracy on the default rows, before and after the edit, by bins.

        Columns: model (before, after) and those of `modelpred.metrics.reliability_table`.

        Raises:
            InvalidInput: the family has no probabilities (svm, ridge).
        """
        points = self.reference.points
        models = {"before": self.reference.full_parameters, "after": self._theta}
        tables = [
            reliability_table(
                self._model.probabilities(self._scores(theta, points.features))[0],
                points.labels,
                bins=bins,
            ).insert_column(0, pl.lit(side).alias("model"))
            for side, theta in models.items()
        ]
        return pl.concat(tables)

    def _distance(self) -> float:
        if not self._model.has_parameters:
            return math.nan
        full = self.reference.full_parameters
        return float(torch.linalg.vector_norm(self._theta - full) / torch.linalg.vector_norm(full))

    @property
    def _model(self) -> TargetModel:
        return self.reference.model.for_rows(self.points)

    @property
    def _theta(self) -> Tensor:
        return torch.from_numpy(self.parameters)

    def _scores_of(self, X: ArrayLike) -> Tensor:
        """Scores [1, rows, outputs] of the edited model for a caller's rows."""
        return self._scores(self._theta, self.reference.reading.features(X, what="X"))

    def _scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        before = parameters is self.reference.full_parameters
        model = self.reference.model if before else self._model
        return model.scores(parameters[None], features)

    def _named(self, scores: Tensor) -> NDArray[Any]:
        """The caller's labels that scores [1, rows, outputs] predict."""
        if self._model.regression:
            return scores[0, :, 0].numpy()
        one = scores.shape[2] == 1
        index = (scores[0, :, 0] > 0).long() if one else scores[0].argmax(1)
        return self.reference.reading.labels.decode(index)

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
        label = self.reference.reading.labels.decode(points.labels)
        table = pl.DataFrame({"row": ids, "label": label, "before": before, "after": after})
        if self._model.regression:
            return table
        table = table.with_columns(flips=pl.Series(before != after))
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
