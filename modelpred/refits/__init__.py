"""Refits map subsets to parameters: exact retraining, and faster approximations."""

from typing import Literal

from jaxtyping import Num
from torch import Tensor

from modelpred.refits.datamodel import LinearDatamodel
from modelpred.refits.influence import Expansion, Influence, NewtonStep, RescaledInfluence
from modelpred.refits.ordering import content_order
from modelpred.refits.retraining import (
    Extendable,
    FineTuned,
    FullModel,
    Progress,
    Refit,
    Retraining,
    silent,
)
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.shapes import Parameters, ParameterVector

__all__ = [
    "EXACT",
    "Extendable",
    "FineTuned",
    "FullModel",
    "Influence",
    "LinearDatamodel",
    "NewtonStep",
    "Progress",
    "Refit",
    "RescaledInfluence",
    "Retraining",
    "Rival",
    "content_order",
    "retrainings",
    "rivals",
    "silent",
]

TUNING_STEPS = (10, 30)
EXACT = ("retraining", "warm_retraining")
"""Names of the refits that retrain exactly, from any start."""
Rival = Literal[
    "full_model", "influence", "rescaled_influence", "newton_step", "linear_datamodel",
    "fine_tuned_10", "fine_tuned_30",
]  # fmt: skip
"""Names of the refits that `rivals` returns, of all families together."""


def retrainings(
    model: TargetModel,
    points: Points,
    *,
    tolerance: float = 1e-6,
    start: ParameterVector | None = None,
) -> dict[str, Refit]:
    """Return exact retraining cold and, for a family with an optimum, from a start, by name.

    Where training ends after fixed steps, another start has another end: see `FineTuned`.
    """
    found = [Retraining(model, points, tolerance=tolerance)]
    if start is not None and model.optimum is not None:
        found.append(Retraining(model, points, tolerance=tolerance, start=start))
    return {refit.name: refit for refit in found}


def rivals(
    model: TargetModel,
    points: Points,
    fit_weights: Num[Tensor, "subsets points"],
    fit_parameters: Parameters,
    *,
    tolerance: float = 1e-6,
) -> dict[str, Refit]:
    """Return every cheap refit that is defined for the family, by name, cheapest first.

    The model of all rows is trained here, to the tolerance; the linear datamodel is fitted on the
    bank's fit rows, and left out without any.
    Families without a stationary model of all rows (mlp) have no influence function and no Newton
    step, so that these three are left out there (see `modelpred.refits.influence`); they have the
    model of all rows fine-tuned on the subset instead.

    Raises:
        InvalidInput: the model of all rows did not converge, so that nothing can be expanded there.
    """
    full = Retraining(model, points, tolerance=tolerance).full_parameters()
    found = expansions(model, points, full, tolerance=tolerance)
    if not len(fit_weights):  # a predictor of Newton directions is fitted without any
        return found
    datamodel = LinearDatamodel.fit(fit_weights, fit_parameters)
    return {**found, datamodel.name: datamodel}


def expansions(
    model: TargetModel,
    points: Points,
    full: ParameterVector,
    *,
    tolerance: float = 1e-6,
) -> dict[str, Refit]:
    """Return the full-data model and the refits that start from it, by name, cheapest first.

    Args:
        model: the family.
        points: the pool.
        full: parameters of the full-data model.
        tolerance: of the fine-tuning of families with fixed steps.
    """
    refits: list[Refit] = [FullModel(model, points, full)]
    if model.recipe is not None:
        refits += [
            FineTuned(model, points, full, steps=steps, tolerance=tolerance)
            for steps in TUNING_STEPS
        ]
    if model.optimum is not None:
        # One expansion for all three: its two eigendecompositions take longer than everything else.
        expansion = Expansion.of(model, points, full)
        refits += [
            kind(model, points, full, expansion=expansion)
            for kind in (Influence, RescaledInfluence, NewtonStep)
        ]
    return {refit.name: refit for refit in refits}
