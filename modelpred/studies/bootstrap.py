"""Bootstrap resamples, predictive distributions and the Laplace approximation.

A resample of N draws with replacement is a row of counts. For a test row, the models of B resamples
give B probabilities of each class. Their mean, standard deviation and 5% and 95% quantiles (a
percentile interval, Efron 1979) are computed in blocks of rows, so that memory does not grow with
the number of test rows.

Laplace approximation (MacKay 1992): with C times the losses and the penalty 1/2 ‖theta‖², F/C is
minus the log posterior under a normal prior of variance C. Around the optimum for all rows,

    theta ~ N(theta_full, C H^-1),    H the Hessian of F with all weights 1.

Directions without curvature (the common shift of softmax intercepts) change no probability; the
draws do not vary in them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Vector
from modelpred.targets.linear import row_space_of
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.row_space import RowSpace
from modelpred.targets.threads import threads_for

ENDS = (0.05, 0.95)  # of a 90% interval
BLOCK = 2048  # resamples that are drawn and refitted at once
# Memory of the probabilities [resamples, rows, classes] of a block of rows.
PROBABILITY_BYTES = 32 * 2**20
# Curvatures below this share of the largest count as zero.
FLAT = 1e-12


def resampled(
    *, resamples: int, points: int, generator: np.random.Generator
) -> Num[Tensor, "resamples points"]:
    """Return the count of each point in each resample of N draws with replacement."""
    counts = generator.multinomial(points, np.full(points, 1 / points), size=resamples)
    return torch.from_numpy(counts)


@dataclass(frozen=True)
class Predictive:
    """Distribution over models of the probabilities of test rows, or of parameters ([parameters]).

    Attributes:
        mean: [rows, classes], mean probabilities.
        spread: [rows, classes], standard deviation over models; nan with one model.
        low: [rows, classes], 5% quantile.
        high: [rows, classes], 95% quantile.
    """

    mean: Vector
    spread: Vector
    low: Vector
    high: Vector


def resampled_models(
    refit: Callable[[Tensor], Tensor],
    *,
    resamples: int,
    points: int,
    generator: np.random.Generator,
) -> Float[Tensor, "resamples parameters"]:
    """Return a refit's models of bootstrap resamples, computed in blocks."""
    counts = [min(BLOCK, resamples - done) for done in range(0, resamples, BLOCK)]
    return torch.cat(
        [refit(resampled(resamples=n, points=points, generator=generator)) for n in counts]
    )


def predictive(
    model: TargetModel, parameters: Float[Tensor, "resamples parameters"], points: Points
) -> Predictive:
    """Return the predictive distribution of every row, in blocks of rows.

    Raises:
        InvalidInput: the family has no probabilities, or there is no model.
    """

    def block(features: Tensor) -> Predictive:
        table = model.probabilities(model.scores(parameters, features))
        if table.shape[2] > 2:
            return summary(table)
        # With two classes, the first class's probability is one minus the second's.
        second = summary(table[..., 1:])
        return Predictive(
            table.mean(0).numpy(),
            second.spread.repeat(2, axis=1),
            np.concatenate([1 - second.high, second.low], axis=1),
            np.concatenate([1 - second.low, second.high], axis=1),
        )

    return _in_row_blocks(block, points.features, models=len(parameters), classes=points.classes)


def predicted_numbers(
    model: TargetModel,
    parameters: Float[Tensor, "resamples parameters"],
    features: Float[Tensor, "rows features"],
) -> Predictive:
    """Return the distribution of a regression's predictions, [rows], in blocks of rows."""
    return _in_row_blocks(
        lambda block: summary(model.scores(parameters, block)[..., 0]),
        features,
        models=len(parameters),
        classes=1,
    )


def _in_row_blocks(
    compute: Callable[[Tensor], Predictive], features: Tensor, *, models: int, classes: int
) -> Predictive:
    row_bytes = 8 * max(1, models) * max(2, classes)
    rows_at_once = max(1, PROBABILITY_BYTES // row_bytes)
    with threads_for(min(len(features), rows_at_once) * row_bytes):
        blocks = [compute(rows) for rows in features.split(rows_at_once)]
    columns = ("mean", "spread", "low", "high")
    return Predictive(*(np.concatenate([getattr(b, name) for b in blocks]) for name in columns))


def summary(values: Float[Tensor, "models *columns"]) -> Predictive:
    """Return mean, spread and quantiles of each column over models; InvalidInput without a model."""
    if not len(values):
        raise InvalidInput(
            "no model to average; expected at least one resample whose training converged"
        )
    # Quantiles are computed much faster along contiguous memory.
    table = np.ascontiguousarray(np.moveaxis(values.numpy(), 0, -1))
    mean = table.mean(axis=-1)
    spread = np.full_like(mean, np.nan) if len(values) == 1 else table.std(axis=-1, ddof=1)
    low, high = np.quantile(table, ENDS, axis=-1)
    return Predictive(mean, spread, low, high)


def laplace(
    model: TargetModel,
    points: Points,
    full_parameters: Float[Tensor, " parameters"],
    *,
    draws: int,
    generator: np.random.Generator,
) -> Float[Tensor, "draws parameters"]:
    """Return draws from the Laplace approximation at the optimum for all rows.

    Raises:
        InvalidInput: the family is not convex, so its Hessian need not be positive definite.
    """
    if model.optimum is None:
        raise InvalidInput(
            f"{model.name} has no Laplace approximation: its training stops before an optimum"
        )
    around = NormalApproximation.around(
        model, full_parameters, points, strength=float(model.settings["C"])
    )
    return around.draws(draws, generator=generator)


@final
@dataclass(frozen=True)
class NormalApproximation:
    """N(optimum, C H^-1), with the Hessian H of all rows at the optimum.

    With more features than rows, H is decomposed in the space of the rows. In every direction outside
    of it H is 1, the penalty's (modelpred/targets/row_space.py).

    Attributes:
        optimum: [parameters].
        directions: [curved, parameters], standard deviations times the directions in which parameters vary, in
            the space of the rows if there is one.
        space: of the rows; None if there are no more features than rows.
        deviation: in the directions outside of the space.
        log_determinant: of H / C, over the directions in which parameters vary.
    """

    optimum: Float[Tensor, " parameters"]
    directions: Float[Tensor, "curved reduced"]
    space: RowSpace | None
    deviation: float
    log_determinant: float

    @classmethod
    def around(
        cls,
        model: TargetModel,
        optimum: Float[Tensor, " parameters"],
        points: Points,
        *,
        strength: float,
    ) -> "NormalApproximation":
        """The approximation around an optimum for all rows; `strength` is the model's C."""
        space = row_space_of(model, points)
        inside, at = (points, optimum) if space is None else (space.points, space.reduced(optimum))
        hessian = model.hessian(at, points.features.new_ones(len(points.labels)), inside)
        values, vectors = torch.linalg.eigh(hessian)
        curved = values > FLAT * values[-1]
        scaled = values[curved] / strength
        varies = space is not None and bool(FLAT * values[-1] < 1)
        outside = len(optimum) - len(at)
        return cls(
            optimum,
            vectors[:, curved].T / scaled.sqrt()[:, None],
            space,
            math.sqrt(strength) if varies else 0.0,
            float(scaled.log().sum()) - (outside * math.log(strength) if varies else 0.0),
        )

    def draws(
        self, count: int, *, generator: np.random.Generator
    ) -> Float[Tensor, "draws parameters"]:
        """So many draws."""
        normal = torch.from_numpy(generator.normal(size=(count, len(self.directions))))
        moves = normal @ self.directions
        if self.space is None:
            return self.optimum + moves
        basis = self.space.basis
        moves = self.space.lifted(moves).unflatten(-1, (-1, len(basis) + 1))
        free = torch.from_numpy(generator.normal(size=(*moves.shape[:2], len(basis))))
        free *= self.deviation
        moves[..., :-1] += free - (free @ basis) @ basis.T
        return self.optimum + moves.flatten(-2)
