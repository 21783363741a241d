"""Which rows are responsible for a parameter, and for a prediction? For a fitted ModelPred.

The estimators are those of the study `attribution` (studies/parameter_attribution.py,
studies/counterfactuals.py), asked with a caller's own tables.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.labels import Labels
from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.numbers import Number, plain, real_number
from modelpred.predictor import Predictor, Refined
from modelpred.studies.counterfactuals import ExplainedPrediction, leave_one_out, smallest_flip
from modelpred.studies.parameter_attribution import (
    ParameterName,
    derivatives,
    parameter_names,
    whole,
    with_tolerance,
)
from modelpred.studies.prediction_explanation import effects_of, predicted_class
from modelpred.studies.utility import StudyContext

SHOWN = 5  # rows that a printed result lists


@dataclass(frozen=True, repr=False)
class Attribution:
    """Which training rows move a parameter; `print` it to read it.

    Attributes:
        parameter: what it is called.
        position: where it stands among the parameters.
        value: of the full-data model, trained exactly.
        rows: a row each, the largest change first: row_id, label, derivative (of the predicted
            parameter by the row's weight), change (of the parameter when the row is removed).
    """

    parameter: str
    position: int
    value: float
    rows: pl.DataFrame

    def __str__(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.parameter} is {self.value:.4g}; without one row it changes by"]
        lines += [
            f"  {row['change']:+.3g}  {row['row_id']} (label {row['label']})"
            for row in self.rows.head(SHOWN).iter_rows(named=True)
        ]
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class FlippingRows:
    """A small set of training rows whose removal changes a prediction.

    Attributes:
        removed: their ids; none where no set was found.
        margin: that the predicted model has without them; nan if none was found.
        retrained_margin: that the retrained model has without them; nan if none was found.
        becomes: what the retrained model predicts instead; None if none was found, or if training
            did not converge.
        confirmed: whether that is another class, so that the flip is real.
    """

    removed: tuple[str, ...]
    margin: float
    retrained_margin: float
    becomes: Any
    confirmed: bool


@dataclass(frozen=True, repr=False)
class Explanation:
    """The training rows that a prediction rests on; `print` it to read it.

    Attributes:
        predicted: by the full-data model: a class, or a number.
        margin: how far the full-data model is on that side; for numbers the prediction.
        rows: a row each, the largest effect first: row_id, label, effect (change of the margin when
            this row alone is removed).
        flip: a small set whose removal changes the class; None for numbers.
    """

    predicted: Any
    margin: float
    rows: pl.DataFrame
    flip: FlippingRows | None

    def __str__(self) -> str:
        """A few lines for a person."""
        lines = [
            f"Predicted {self.predicted}, margin {self.margin:.4g}; without one row it moves by"
        ]
        lines += [
            f"  {row['effect']:+.3g}  {row['row_id']} (label {row['label']})"
            for row in self.rows.head(SHOWN).iter_rows(named=True)
        ]
        if self.flip is not None:
            lines.append(_flip_line(self.flip))
        return "\n".join(lines)

    __repr__ = __str__


def _flip_line(flip: FlippingRows) -> str:
    if not flip.removed:
        return "No set of rows was found whose removal changes the class."
    count = len(flip.removed)
    rows = ", ".join(flip.removed[: 2 * SHOWN]) + (", ..." if count > 2 * SHOWN else "")
    said = f"retraining does not confirm: still {flip.becomes}"
    if flip.confirmed:
        said = f"retraining confirms: {flip.becomes}, margin {flip.retrained_margin:.3g}"
    elif flip.becomes is None:
        said = "retraining did not converge, so nothing confirms it"
    return f"Without {count} {'row' if count == 1 else 'rows'} ({rows}) it flips; {said}"


def attributed(
    context: StudyContext,
    predictor: Predictor,
    labels: Labels,
    *,
    parameter: Number | str | tuple[Any, str],
    full: Float[Tensor, " parameters"],
) -> Attribution:
    """Return how every training row moves one parameter.

    Args:
        context: with the refit that predicts, or retrains, without each row as its subject.
        predictor: whose derivative is taken, refined as the context's subject is.
        labels: how labels are written.
        parameter: its position; or a feature's name, with its class before it where parameters
            belong to classes.
        full: parameters of the full-data model.

    Raises:
        InvalidInput: a parameter that the model does not have.
    """
    context = with_tolerance(context)
    named = parameter_names(context)
    position = _position(parameter, named)
    refit = context.refits[context.subject]
    alone, everything = leave_one_out(refit, context), whole(refit, context)
    change = (alone - everything)[:, position].numpy()
    differentiated = refit if isinstance(refit, Refined) else predictor
    slope = derivatives(differentiated, torch.tensor([position]))[0].numpy()
    return Attribution(
        _called(named[position]),
        position,
        float(full[position]),
        _row_table(context, labels, order=change, derivative=slope, change=change),
    )


def _called(place: ParameterName) -> str:
    return f"{place.feature} (class {place.class_name})" if place.class_name else place.feature


def _position(parameter: Number | str | tuple[Any, str], named: list[ParameterName]) -> int:
    place = plain(parameter)
    if isinstance(place, int):
        if not 0 <= place < len(named):
            raise InvalidInput(
                f"there is no parameter {place}; positions run from 0 to {len(named) - 1}"
            )
        return place
    if not isinstance(parameter, str) and not (
        isinstance(parameter, tuple) and len(parameter) == 2
    ):
        raise InvalidInput(f"parameter is {parameter!r}; expected a position or a name")
    name = parameter[1] if isinstance(parameter, tuple) else parameter
    of_class = str(parameter[0]) if isinstance(parameter, tuple) else None
    found = [
        position
        for position, place in enumerate(named)
        if place.feature == name and of_class in (None, place.class_name)
    ]
    if not found:
        first, last = _called(named[0]), _called(named[-1])
        raise InvalidInput(f"no parameter is called {parameter!r}; they run from {first} to {last}")
    if len(found) > 1:
        classes = ", ".join(named[position].class_name for position in found)
        raise InvalidInput(
            f"{name!r} has a parameter for each class ({classes}); pass (class, {name!r})"
        )
    return found[0]


def _row_table(
    context: StudyContext, labels: Labels, *, order: Vector, **columns: Vector
) -> pl.DataFrame:
    """Every training row with its label and the columns, the largest of `order` first."""
    numbers = context.points.labels.numpy()
    named: NDArray[Any] = numbers if context.model.regression else labels.names[numbers]
    ranked = np.argsort(-np.abs(order), kind="stable")
    ids = pl.Series("row_id", list(context.row_ids), dtype=pl.String)
    return pl.DataFrame({"row_id": ids, "label": named, **columns})[ranked]


def explained(
    context: StudyContext,
    labels: Labels,
    features: Float[Tensor, "rows features"],
    *,
    full: Float[Tensor, " parameters"],
    largest: Number,
) -> Explanation:
    """Return which training rows the prediction of one row rests on.

    Args:
        context: with the refit that is asked as its subject.
        labels: how labels are written.
        features: of the row, [1, features].
        full: parameters of the full-data model.
        largest: share of the training rows that may be removed to flip the prediction.

    Raises:
        InvalidInput: more than one row, or a share that is none.
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
        return Explanation(margin, margin, rows, None)
    flip = _flipping(prediction, effects, labels, largest=max(1, int(largest * context.pool)))
    return Explanation(labels.names[label], margin, rows, flip)


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
