"""Predictions within the sizes that the predictor was fitted to, exact retraining of smaller subsets.

No subset of the fit is of a few rows, and predictions of such subsets are far off. They are also the
cheapest to retrain. So a mixed refit predicts subsets of at least `least` rows and trains the others.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.predictor import Predictor, Refined
from modelpred.refits import Retraining
from modelpred.targets import Points


@final
@dataclass(frozen=True)
class Mixed:
    """A predictor for subsets of the sizes that it was fitted to, retraining for smaller ones.

    Attributes:
        predicted: the predictor, perhaps refined.
        truth: exact retraining.
        least: smallest total weight of a subset that is predicted.
    """

    predicted: Predictor | Refined
    truth: Retraining
    least: float

    name = "predictor_mixed"

    def __call__(
        self, weights: Num[Tensor, "subsets points"]
    ) -> Float[Tensor, "subsets parameters"]:
        """Return parameters, those of small subsets by exact retraining."""
        small = weights.sum(1, dtype=torch.float64) < self.least
        if not bool(small.any()):
            return self.predicted(weights)
        if bool(small.all()):
            return self.truth(weights)
        trained, predicted = self.truth(weights[small]), self.predicted(weights[~small])
        found = predicted.new_empty(len(weights), predicted.shape[1])
        found[small], found[~small] = trained.to(found), predicted
        return found

    def for_points(self, points: Points) -> "Mixed":
        """The same over another pool."""
        return Mixed(self.predicted.for_points(points), self.truth.for_points(points), self.least)
