"""Models that the data and any penalty allow: Laplace approximations averaged over penalties.

Bootstrap intervals of a penalised model say how much *this model* depends on the rows. They do not
say where the true probabilities are: a strong penalty shrinks every resample's model in the same way,
and no resample shows it. Here the penalty is unknown, too. With C times the losses and the penalty
1/2 ‖theta‖², C is the variance of a normal prior of each of d penalised parameters. The evidence of C
is the probability of the labels under this prior (MacKay 1992), by Laplace's approximation at the
optimum theta_C of F_C with the Hessian H_C:

    log evidence = -F_C(theta_C) / C - d/2 log C - 1/2 log det(H_C / C) + a constant

The prior of sqrt(C) is half-Cauchy (Gelman 2006) with the scale 2.5 over the features' typical size.
A draw takes a C by its posterior probability, and then parameters from N(theta_C, C H_C^-1). C runs
over powers of two times the model's own C, as far as they matter.

The intervals assume that the family is right: that some parameters give the true probabilities. They
do not depend on the model's own C.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.refits.retraining import Retraining
from modelpred.studies.bootstrap import NormalApproximation
from modelpred.targets.linear import Linear
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points

ANY_PENALTY = "any_penalty"
SCALE = 2.5  # of the half-Cauchy prior, for features of size 1 (Gelman et al. 2008)
NEGLIGIBLE = 10.0  # log probability below the largest at which the ladder of penalties ends
MOST_STEPS = 60
LARGEST = (
    2000  # parameters in the space of the rows; each penalty decomposes a matrix of so many rows
)


@dataclass(frozen=True)
class Approximation:
    """Laplace's approximation for one penalty.

    Attributes:
        C: the model's setting.
        log_probability: of C, up to a constant.
        normal: the distribution of the parameters.
    """

    C: float
    log_probability: float
    normal: NormalApproximation

    @property
    def optimum(self) -> Float[Tensor, " parameters"]:
        """The optimum for all rows."""
        return self.normal.optimum


def penalty_draws(
    model: TargetModel,
    points: Points,
    *,
    draws: int,
    generator: np.random.Generator,
    tolerance: float = 1e-6,
) -> Float[Tensor, "draws parameters"]:
    """Return parameters of models drawn from the posterior over parameters and penalties.

    Args:
        model: logistic or softmax.
        points: the training rows.
        draws: number of models.
        generator: of the draws.
        tolerance: of the training.

    Raises:
        InvalidInput: a family without a penalised likelihood, too many parameters, or training that
            does not converge.
    """
    found = approximations(model, points, tolerance=tolerance)
    logs = np.array([each.log_probability for each in found])
    chances = np.exp(logs - logs.max())
    counts = generator.multinomial(draws, chances / chances.sum())
    blocks = [
        each.normal.draws(int(count), generator=generator)
        for each, count in zip(found, counts, strict=True)
    ]
    return torch.cat(blocks)[torch.from_numpy(generator.permutation(draws))]


@final
@dataclass(frozen=True)
class AnyPenalty:
    """As many draws as there are subsets, whatever is in these: for comparisons of intervals."""

    model: TargetModel
    points: Points
    generator: np.random.Generator
    tolerance: float = 1e-6

    @property
    def name(self) -> str:
        """The name in tables."""
        return ANY_PENALTY

    def __call__(
        self, weights: Num[Tensor, "subsets points"]
    ) -> Float[Tensor, "subsets parameters"]:
        """Return the draws."""
        return penalty_draws(
            self.model,
            self.points,
            draws=len(weights),
            generator=self.generator,
            tolerance=self.tolerance,
        )

    def for_points(self, points: Points) -> "AnyPenalty":
        """Return the same for other points."""
        return replace(self, points=points)


def is_penalised_likelihood(model: TargetModel) -> bool:
    """Return whether the family is logistic or softmax, with a penalty."""
    return isinstance(model, Linear) and model.probabilistic


def require_penalised_likelihood(model: TargetModel, points: Points) -> None:
    """Raise InvalidInput unless the family is a penalised likelihood of a size that is decomposed."""
    if not is_penalised_likelihood(model):
        raise InvalidInput(
            f"{model.name} is no penalised likelihood; intervals for the truth need logistic or softmax"
        )
    rows, features = points.features.shape
    size = model.parameter_count(min(rows, features), points.classes)
    if size > LARGEST:
        raise InvalidInput(
            f"{model.name} has {size:,} parameters here, in the space of the rows; intervals for the truth are "
            f"made for {LARGEST:,} at most"
        )
    require_memory(MOST_STEPS * 8 * size**2, what=f"{MOST_STEPS} matrices of {size:,} parameters")


def approximations(model: TargetModel, points: Points, *, tolerance: float) -> list[Approximation]:
    """Return the approximations of all penalties that are not negligible, in the order of C."""
    require_penalised_likelihood(model, points)
    own = cast("Any", model)
    first = _approximation(own, points, start=None, tolerance=tolerance)
    found = [first]
    for factor in (2.0, 0.5):
        last = first
        for _ in range(MOST_STEPS // 2):
            other = replace(own, C=last.C * factor)
            last = _approximation(other, points, start=last.optimum, tolerance=tolerance)
            found.append(last)
            if last.log_probability < max(each.log_probability for each in found) - NEGLIGIBLE:
                break
    return sorted(found, key=lambda each: each.C)


def _approximation(
    model: Any,  # noqa: ANN401 - a linear family, whose C is a field
    points: Points,
    *,
    start: Tensor | None,
    tolerance: float,
) -> Approximation:
    ones = points.features.new_ones(1, len(points.labels))
    trained = Retraining(model, points, tolerance=tolerance, start=start).train(ones)
    if not bool(trained.converged[0]):
        raise InvalidInput(
            f"the {model.name} model with C = {model.C:.3g} did not converge; scale the features"
        )
    optimum = trained.parameters[0]
    normal = NormalApproximation.around(model, optimum, points, strength=model.C)
    features = points.features.shape[1]
    penalised = model.outputs(points.classes) * (features + int(model.intercept_penalty))
    objective = float(model.objective(optimum[None], ones, points)[0])
    evidence = -objective / model.C - penalised / 2 * math.log(model.C) - normal.log_determinant / 2
    size = float(points.features.square().mean().sqrt()) or 1.0
    deviation = math.sqrt(model.C) * size / SCALE
    prior = math.log(deviation) - math.log1p(deviation**2)
    return Approximation(model.C, evidence + prior, normal)
