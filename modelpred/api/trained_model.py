"""One trained model, which predicts a caller's labels."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.labels import Labels
from modelpred.targets import Points, TargetModel


@dataclass(frozen=True)
class TrainedModel:
    """The parameters of one model, with its family and how its labels are written.

    Attributes:
        model: the family.
        parameters: [parameters].
        labels: how a caller writes labels.
    """

    model: TargetModel
    parameters: Tensor
    labels: Labels

    def scores(self, features: Tensor) -> Tensor:
        """Scores [1, rows, outputs]."""
        return self.model.scores(self.parameters[None], features)

    def predicted(self, features: Tensor) -> NDArray[Any]:
        """Predicted labels [rows], as a caller writes them."""
        scores = self.scores(features)
        if self.model.regression:
            return scores[0, :, 0].numpy()
        one = scores.shape[2] == 1
        return self.labels.decode((scores[0, :, 0] > 0).long() if one else scores[0].argmax(1))

    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities [rows, classes].

        Raises:
            InvalidInput: the family has none (svm, ridge).
        """
        return self.model.probabilities(self.scores(features))[0]

    def loss(self, points: Points) -> float:
        """Mean loss; of a regression the root mean squared error."""
        return float(self.model.test_loss(self.scores(points.features), points.labels))

    def accuracy(self, points: Points) -> float:
        """Share of the points whose class is predicted right."""
        correct = self.model.correct(self.scores(points.features), points.labels)
        return float(correct.double().mean())
