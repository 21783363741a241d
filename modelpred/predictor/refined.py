"""The predictor with some Newton steps from each prediction, as a refit: points of one curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Num
from torch import Tensor

from modelpred.predictor.fitted import Predictor
from modelpred.refits import Refit
from modelpred.targets import Points

CURVE = (0.5, 1.0, 2.0)
"""Newton steps of the curve from pure prediction, which has none, towards retraining."""


@final
@dataclass(frozen=True)
class Refined:
    """A predictor that takes some Newton steps from each prediction, as a refit.

    Attributes:
        predictor: whose predictions.
        refine: Newton steps; a fraction is a fraction of a step.
    """

    predictor: Predictor
    refine: float | int

    name = "predictor_refined"

    def __call__(
        self, weights: Num[Tensor, "subsets points"]
    ) -> Float[Tensor, "subsets parameters"]:
        """Return the refined predictions."""
        return self.predictor.predict(weights, refine=self.refine)

    def for_points(self, points: Points) -> "Refined":
        """The same over another pool, whose points fitting need not have seen."""
        return Refined(self.predictor.for_points(points), self.refine)


def refinement_curve(
    predictor: Predictor, *, steps: Sequence[float | int] = CURVE
) -> dict[str, Refit]:
    """The predictor refined by each number of steps, by names such as `predictor_refine_0.5`."""
    return {f"{predictor.name}_refine_{refine:g}": Refined(predictor, refine) for refine in steps}
