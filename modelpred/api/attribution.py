"""Attribution of parameters and predictions to training rows for a fitted ModelPred.

The estimators are those of the study `attribution` (studies/parameter_attribution.py,
studies/counterfactuals.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.api.labels import Labels
from modelpred.engine import EngineChoice, Mixed
from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.numbers import Number, plain, real_number
from modelpred.predictor import Predictor, Refined
from modelpred.refits import Influence, Refit
from modelpred.studies.context import StudyContext
from modelpred.studies.counterfactuals import ExplainedPrediction, leave_one_out, smallest_flip
from modelpred.studies.parameter_attribution import (
    ParameterName,
    derivatives,
    parameter_names,
    whole,
    with_tolerance,
)
from modelpred.studies.prediction_explanation import effects_of, predicted_class
from modelpred.targets.shapes import ParameterVector
from modelpred.wording import Printed

SHOWN = 5  # rows that a printed result lists


@dataclass(frozen=True, repr=False)
class Attribution(Printed):
    """Effects of training rows on a parameter; `print` shows a summary.

    Attributes:
        parameter: its name.
        position: its position among the parameters.
        value: its value in the model of all rows, trained exactly.
        rows: a row per training row, the largest change first: row_id, label, derivative (of the
            parameter by the row's weight; null for retrained models of a family without an
            optimum), change (of the parameter when the row is removed).
        engine: whether the models without each row were retrained or predicted.
    """

    parameter: str
    position: int
    value: float
    rows: pl.DataFrame
    engine: EngineChoice

    def __str__(self) -> str:
        """The rows with the largest effects."""
        lines = [f"{self.parameter} is {self.value:.4g}; without one row it changes by"]
        lines += [
            f"  {row['change']:+.3g}  {row['row_id']} (label {row['label']})"
            for row in self.rows.head(SHOWN).iter_rows(named=True)
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class FlippingRows:
    """A small set of training rows whose removal changes a prediction.

    Attributes:
        removed: their ids; empty if there is no such set.
        margin: of the predicted model without them; nan if there is no such set.
        retrained_margin: of the retrained model without them; nan if there is no such set.
        becomes: prediction of the retrained model; None if there is no such set, or training did not
            converge.
        confirmed: whether the retrained model predicts another class.
    """

    removed: tuple[str, ...]
    margin: float
    retrained_margin: float
    becomes: Any
    confirmed: bool


@dataclass(frozen=True, repr=False)
class Explanation(Printed):
    """Effects of training rows on a prediction; `print` shows a summary.

    Attributes:
        predicted: prediction of the model of all rows: a class, or a number.
        margin: margin of the predicted class; for a regression, the prediction.
        rows: a row per training row, the largest effect first: row_id, label, effect (change of the
            margin when this single row is removed).
        flip: a small set whose removal changes the class; None for a regression.
        engine: whether the models were retrained or predicted.
    """

    predicted: Any
    margin: float
    rows: pl.DataFrame
    flip: FlippingRows | None
    engine: EngineChoice

    def __str__(self) -> str:
        """The rows with the largest effects, and the flip."""
        lines = [
            f"Predicted {self.predicted}, margin {self.margin:.4g}; without one row it changes by"
        ]
        lines += [
            f"  {row['effect']:+.3g}  {row['row_id']} (label {row['label']})"
            for row in self.rows.head(SHOWN).iter_rows(named=True)
        ]
        if self.flip is not None:
            lines.append(_flip_line(self.flip))
        return "\n".join(lines)


def _flip_line(flip: FlippingRows) -> str:
    if not flip.removed:
        return "No set of rows was found whose removal changes the class."
    count = len(flip.removed)
    rows = ", ".join(flip.removed[: 2 * SHOWN]) + (", ..." if count > 2 * SHOWN else "")
    outcome = f"retraining does not confirm: still {flip.becomes}"
    if flip.confirmed:
        outcome = f"retraining confirms: {flip.becomes}, margin {flip.retrained_margin:.3g}"
    elif flip.becomes is None:
        outcome = "retraining did not converge, so it is not confirmed"
    return f"Without {count} {'row' if count == 1 else 'rows'} ({rows}) it flips; {outcome}"


def attributed(
    context: StudyContext,
    labels: Labels,
    *,
    parameter: Number | str | tuple[Any, str],
    full: ParameterVector,
    engine: EngineChoice,
) -> Attribution:
    """Return the effect of every training row on one parameter.

    Args:
        context: the fit; its subject gives the models without each row.
        labels: the label encoding.
        parameter: its position; or a feature's name, or (class, feature) if there are parameters for
            each class.
        full: parameters of the model of all rows.
        engine: of the models.

    Raises:
        InvalidInput: the model does not have this parameter.
    """
    context = with_tolerance(context)
    named = parameter_names(context)
    position = _position(parameter, named)
    refit = context.refits[context.subject]
    without_each, with_all = leave_one_out(refit, context), whole(refit, context)
    change = (without_each - with_all)[:, position].numpy()
    slope = _slopes(refit, context, position, full=full)
    return Attribution(
        _called(named[position]),
        position,
        float(full[position]),
        _row_table(context, labels, order=change, derivative=slope, change=change).with_columns(
            pl.col("derivative").fill_nan(None)
        ),
        engine,
    )


def _slopes(refit: Refit, context: StudyContext, position: int, *, full: ParameterVector) -> Vector:
    """Derivatives [points] of a parameter by the weight of each row, of the models that refit gives."""
    refit = refit.predicted if isinstance(refit, Mixed) else refit
    if isinstance(refit, (Predictor, Refined)):
        return derivatives(refit, torch.tensor([position]))[0].numpy()
    if context.model.optimum is None:
        return np.full(context.pool, np.nan)
    return Influence(context.model, context.points, full).derivatives[:, position].numpy()


def _called(name: ParameterName) -> str:
    return f"{name.feature} (class {name.class_name})" if name.class_name else name.feature


def _position(parameter: Number | str | tuple[Any, str], named: list[ParameterName]) -> int:
    number = plain(parameter)
    if isinstance(number, int):
        if not 0 <= number < len(named):
            raise InvalidInput(
                f"there is no parameter {number}; positions run from 0 to {len(named) - 1}"
            )
        return number
    if not isinstance(parameter, str) and not (
        isinstance(parameter, tuple) and len(parameter) == 2
    ):
        raise InvalidInput(f"parameter is {parameter!r}; expected a position or a name")
    name = parameter[1] if isinstance(parameter, tuple) else parameter
    of_class = str(parameter[0]) if isinstance(parameter, tuple) else None
    matching = [
        position
        for position, each in enumerate(named)
        if each.feature == name and of_class in (None, each.class_name)
    ]
    if not matching:
        first, last = _called(named[0]), _called(named[-1])
        raise InvalidInput(f"no parameter is called {parameter!r}; they run from {first} to {last}")
    if len(matching) > 1:
        classes = ", ".join(named[position].class_name for position in matching)
        raise InvalidInput(
            f"{name!r} has a parameter for each class ({classes}); pass (class, {name!r})"
        )
    return matching[0]


def _row_table(
    context: StudyContext, labels: Labels, *, order: Vector, **columns: Vector
) -> pl.DataFrame:
    """Every training row with its label and the columns, the largest of `order` first."""
    named = labels.decode(context.points.labels)
    ranked = np.argsort(-np.abs(order), kind="stable")
    ids = pl.Series("row_id", list(context.row_ids), dtype=pl.String)
    return pl.DataFrame({"row_id": ids, "label": named, **columns})[ranked]


def explained(
    context: StudyContext,
    labels: Labels,
    features: Float[Tensor, "rows features"],
    *,
    full: ParameterVector,
    largest: Number,
    engine: EngineChoice,
) -> Explanation:
    """Return the effects of training rows on the prediction for one row.

    Args:
        context: the fit; its subject gives the models.
        labels: the label encoding.
        features: of the row, [1, features].
        full: parameters of the model of all rows.
        largest: largest share of the training rows to remove to flip the prediction.
        engine: of the models.

    Raises:
        InvalidInput: there is more than one row, or the share is not between 0 and 1.
    """
    if len(features) != 1:
        raise InvalidInput(f"x has {len(features)} rows; pass the one whose prediction to explain")
    if not 0 < real_number(largest, "largest") < 1:
        raise InvalidInput(f"largest is {largest}; expected a share above 0 and below 1")
    context = with_tolerance(context)
    refit = context.refits[context.subject]
    label = predicted_class(context, full[None], features[0])
    prediction = ExplainedPrediction(refit, context, features[0], label=label)
    effects = effects_of(prediction, leave_one_out(refit, context), whole(refit, context))
    margin = float(prediction.margins(full[None])[0][0])
    rows = _row_table(context, labels, order=effects, effect=effects)
    if context.model.regression:
        return Explanation(margin, margin, rows, None, engine)
    flip = _flipping(prediction, effects, labels, largest=max(1, int(largest * context.pool)))
    return Explanation(labels.names[label], margin, rows, flip, engine)


def _flipping(
    prediction: ExplainedPrediction, effects: Vector, labels: Labels, *, largest: int
) -> FlippingRows:
    flip = smallest_flip(prediction, effects, largest=largest)
    context = prediction.context
    becomes = None
    if flip.retrained is not None:
        features = prediction.row.features[0]
        becomes = labels.names[predicted_class(context, flip.retrained[None], features)]
    return FlippingRows(
        tuple(context.row_ids[row] for row in flip.removed),
        flip.margin,
        flip.retrained_margin,
        becomes,
        flip.confirmed,
    )
