"""The predictor stopped early or refined, as refits: points of one curve of error against time.

It starts at the anchor, goes on with the stages of the network (`Stopped`) to the prediction, and
from there with Newton steps towards retraining (`Refined`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from jaxtyping import Num
from torch import Tensor

from modelpred.predictor.predictor import Predictor
from modelpred.refits import Refit
from modelpred.targets import Points
from modelpred.targets.shapes import Parameters

CURVE = (0.5, 1.0, 2.0, 4.0)
"""Newton steps of the curve from pure prediction, which has none, towards retraining."""
EARLY = (0, 1, 2, 3)
"""Stages after which the curve has answers that come before the prediction's."""


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

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return the refined predictions."""
        return self.predictor.predict(weights, refine=self.refine)

    def for_points(self, points: Points) -> "Refined":
        """The same over another pool, whose points fitting need not have seen."""
        return Refined(self.predictor.for_points(points), self.refine)


@final
@dataclass(frozen=True)
class Stopped:
    """A predictor that stops after some of its stages, as a refit.

    Attributes:
        predictor: whose predictions.
        stages: how many; see `Predictor.predict`.
    """

    predictor: Predictor
    stages: int

    name = "predictor_stopped"

    def __call__(self, weights: Num[Tensor, "subsets points"]) -> Parameters:
        """Return the predictions of that stage."""
        return self.predictor.predict(weights, stages=self.stages)

    def for_points(self, points: Points) -> "Stopped":
        """The same over another pool, whose points fitting need not have seen."""
        return Stopped(self.predictor.for_points(points), self.stages)


def early_answers(predictor: Predictor, *, stages: Sequence[int] = EARLY) -> dict[str, Refit]:
    """The predictor stopped after each stage before its last, by names as `predictor_stage_1`."""
    before = [count for count in stages if count < predictor.stages]
    return {f"{predictor.name}_stage_{count}": Stopped(predictor, count) for count in before}


def answer_curve(predictor: Predictor) -> dict[str, Refit]:
    """Every point of the curve by its name: the prediction, then those before and after it."""
    return {
        predictor.name: predictor, **early_answers(predictor), **refinement_curve(predictor)
    }  # fmt: skip


def refinement_curve(
    predictor: Predictor, *, steps: Sequence[float | int] = CURVE
) -> dict[str, Refit]:
    """The predictor refined by each number of steps, by names such as `predictor_refine_0.5`."""
    return {f"{predictor.name}_refine_{refine:g}": Refined(predictor, refine) for refine in steps}
