"""Quality of the model of all rows on the test rows, for the first lines of the report."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from modelpred.report.words import number, percent
from modelpred.targets import Points, TargetModel, train_targets
from modelpred.targets.scoring import accuracies, mean_test_losses


@dataclass(frozen=True)
class Baseline:
    """The model of all rows on the test rows.

    Attributes:
        loss: mean loss, or for a regression the root mean squared error in the label's unit.
        accuracy: share of right predictions; None for a regression.
        trivial: accuracy of always predicting the most frequent training class, or for a regression
            the root mean squared error of always predicting the training mean.
        trivial_loss: loss of always giving each class its share of the training rows; None for a
            family without probabilities.
    """

    loss: float
    accuracy: float | None
    trivial: float
    trivial_loss: float | None = None

    @property
    def short(self) -> str:
        """The quality in a few words, for a title."""
        if self.accuracy is None:
            return f"predictions are off by {number(self.loss)} (root mean square)"
        return f"the model is right on {percent(self.accuracy)} of the test rows"

    @property
    def sentence(self) -> str:
        """The quality, compared with a model that ignores the features."""
        if self.accuracy is None:
            return (
                f"Its predictions of the test rows are off by {number(self.loss)} (root mean square); "
                f"always predicting the mean is off by {number(self.trivial)}."
            )
        right = (
            f"It is right on {percent(self.accuracy)} of the test rows; always predicting the most "
            f"frequent class is right on {percent(self.trivial)}."
        )
        if self.trivial_loss is None:
            return right
        return (
            f"{right} Its test loss (log loss: the mean of minus the logarithm of the probability of the "
            f"true class) is {number(self.loss)}; always giving each class its frequency "
            f"has {number(self.trivial_loss)}."
        )


def baseline_of(
    model: TargetModel, points: Points, test_points: Points, *, tolerance: float
) -> Baseline | None:
    """The quality of the model trained on all rows; None if training fails."""
    ones = torch.ones(1, len(points.labels), dtype=torch.float64)
    trained = train_targets(
        model, points.features, points.labels, ones, tolerance=tolerance, classes=points.classes
    )
    if not bool(trained.converged.all()):
        return None
    loss = float(mean_test_losses(model, trained.parameters, test_points)[0])
    if not points.classes:
        mean = points.labels.mean()
        return Baseline(loss, None, float((test_points.labels - mean).square().mean().sqrt()))
    shares = torch.bincount(points.labels, minlength=points.classes).double() / len(points.labels)
    return Baseline(
        loss,
        float(accuracies(model, trained.parameters, test_points)[0]),
        float((test_points.labels == shares.argmax()).double().mean()),
        float(-shares[test_points.labels].log().mean()) if model.probabilistic else None,
    )
