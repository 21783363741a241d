"""Comparison of the models before and after an edit of the training rows."""

import contextlib
import math
from dataclasses import dataclass

import polars as pl
import torch

from modelpred.api.trained_model import TrainedModel
from modelpred.errors import InvalidInput
from modelpred.targets import Points
from modelpred.wording import Printed


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
            lines.append(certificate_line(self.certificate))
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


def certificate_line(certificate: float) -> str:
    """Return the line of a summary about a certificate."""
    return (
        f"  certificate  exact retraining differs by at most {certificate:.3g} (norm of parameters)"
    )


def _change(before: float, after: float) -> str:
    return f" ({(after - before) / before:+.1%})" if before > 0 else ""


def compare_models(
    before: TrainedModel,
    after: TrainedModel,
    points: Points,
    *,
    ids: tuple[str, ...],
    on: str,
    edit: str,
    certificate: float | None,
) -> Comparison:
    """Return the comparison of two models on points.

    Args:
        before: the model of all rows.
        after: the model after the edit.
        points: the rows to predict.
        ids: their ids.
        on: the kind of rows, in words.
        edit: the edit, in words.
        certificate: of the parameters of the model after the edit.
    """
    regression = after.model.regression
    return Comparison(
        edit=edit,
        on=on,
        rows=len(points.labels),
        predictions=_predictions(before, after, points, ids),
        loss_before=before.loss(points),
        loss_after=after.loss(points),
        accuracy_before=None if regression else before.accuracy(points),
        accuracy_after=None if regression else after.accuracy(points),
        distance=_distance(before, after),
        certificate=certificate,
    )


def _distance(before: TrainedModel, after: TrainedModel) -> float:
    if not after.model.has_parameters:
        return math.nan
    full = before.parameters
    return float(torch.linalg.vector_norm(after.parameters - full) / torch.linalg.vector_norm(full))


def _predictions(
    before: TrainedModel, after: TrainedModel, points: Points, ids: tuple[str, ...]
) -> pl.DataFrame:
    old, new = (model.predicted(points.features) for model in (before, after))
    label = after.labels.decode(points.labels)
    table = pl.DataFrame({"row": ids, "label": label, "before": old, "after": new})
    if after.model.regression:
        return table
    table = table.with_columns(flips=pl.Series(old != new))
    rows = torch.arange(len(ids))
    with contextlib.suppress(InvalidInput):  # a family without probabilities
        sides = [
            model.probabilities(points.features)[rows, points.labels].numpy()
            for model in (before, after)
        ]
        return table.with_columns(
            pl.Series("probability_before", sides[0]), pl.Series("probability_after", sides[1])
        )
    return table
