"""What many models of one pool say together: resamples, predictive distributions, coverage.

A resample of N draws with replacement is a row of counts. For a test row the models of B resamples
give B probabilities of each class; their mean, standard deviation and 5% and 95% quantiles (a
percentile interval, Efron 1979) are kept, in blocks of rows, so that memory does not grow with the
number of test rows.

Laplace approximation (MacKay 1992). With C times the losses and 1/2 ‖theta‖² as penalty, F/C is
minus the log posterior under a normal prior of variance C, so that around the full-data optimum

    theta ~ N(theta_full, C H^-1),    H the Hessian of F with all weights 1.

Directions without curvature (the common shift of softmax intercepts) change no probability and are
left where they are.

Coverage. Where a table is drawn from a known model, the share of 90% intervals that hold the true
probability can be counted. Percentile intervals of a penalised model are centred on penalised
models: with few rows and a strong penalty they cover less than they say, whoever computes them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import Interval, Vector, mean_interval
from modelpred.refits.retraining import Refit, Retraining
from modelpred.targets.model import Points, TargetModel

ENDS = (0.05, 0.95)  # of a 90% interval
# Probabilities [resamples, rows, classes] held at once.
PROBABILITY_BYTES = 32 * 2**20
# Curvatures below this share of the largest are none.
FLAT = 1e-12


def resampled(
    *, resamples: int, points: int, generator: np.random.Generator
) -> Num[Tensor, "resamples points"]:
    """Return how often each point was drawn in each resample of N draws with replacement."""
    counts = generator.multinomial(points, np.full(points, 1 / points), size=resamples)
    return torch.from_numpy(counts)


@dataclass(frozen=True)
class Predictive:
    """What many models say of the test rows; or, [parameters], of their own parameters.

    Attributes:
        mean: [rows, classes], averaged probabilities.
        spread: [rows, classes], their standard deviation over models; nan of one model.
        low: [rows, classes], 5% quantile.
        high: [rows, classes], 95% quantile.
    """

    mean: Vector
    spread: Vector
    low: Vector
    high: Vector


def predictive(
    model: TargetModel, parameters: Float[Tensor, "resamples parameters"], points: Points
) -> Predictive:
    """Return the predictive distribution of every row, in blocks of rows.

    Raises:
        InvalidInput: the family has no probabilities, or there is no model.
    """
    row_bytes = 8 * max(1, len(parameters)) * max(2, points.classes)
    blocks: list[Predictive] = []
    for features in points.features.split(max(1, PROBABILITY_BYTES // row_bytes)):
        table = model.probabilities(model.scores(parameters, features))
        if table.shape[2] > 2:
            blocks.append(summary(table))
            continue
        # Of two classes the other's probability mirrors the one's.
        one = summary(table[..., 1:])
        blocks.append(
            Predictive(
                table.mean(0).numpy(),
                one.spread.repeat(2, axis=1),
                np.concatenate([1 - one.high, one.low], axis=1),
                np.concatenate([1 - one.low, one.high], axis=1),
            )
        )
    columns = ("mean", "spread", "low", "high")
    return Predictive(*(np.concatenate([getattr(b, name) for b in blocks]) for name in columns))


def summary(values: Float[Tensor, "models *columns"]) -> Predictive:
    """Return mean, spread and ends of each column over models; InvalidInput without any model."""
    if not len(values):
        raise InvalidInput(
            "no model to average; expected at least one resample whose training converged"
        )
    # Quantiles are found much faster along contiguous memory.
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
    """Return draws from the Laplace approximation at the full-data optimum.

    Raises:
        InvalidInput: a family that is not convex, whose Hessian need not be positive.
    """
    if not model.convex:
        raise InvalidInput(
            f"{model.name} has no Laplace approximation here: its training stops before an optimum"
        )
    hessian = model.hessian(full_parameters, points.features.new_ones(len(points.labels)), points)
    values, vectors = torch.linalg.eigh(hessian)
    curved = values > FLAT * values[-1]
    scale = (float(model.settings["C"]) / values[curved]).sqrt()
    normal = torch.from_numpy(generator.normal(size=(draws, int(curved.sum()))))
    return full_parameters + (normal * scale) @ vectors[:, curved].T


@dataclass(frozen=True)
class Coverage:
    """Shares of 90% intervals that hold the truth: means over tables with their 95% bands."""

    probabilities: Interval
    parameters: Interval


def simulated_coverage(
    model: TargetModel,
    features: Float[Tensor, "points features"],
    parameters: Float[Tensor, " parameters"],
    *,
    test_features: Float[Tensor, "rows features"],
    tables: int,
    resamples: int,
    generator: np.random.Generator,
    refit_of: Callable[[TargetModel, Points], Refit] = Retraining,
) -> Coverage:
    """Return how often bootstrap intervals hold the truth, on tables drawn from a known model.

    Labels of the given features are drawn from the model with the given parameters. Every table is
    resampled and its models are asked for 90% intervals of the test rows' probabilities and of the
    parameters. Rows of one table share their models, so a table gives one value of each share.

    Args:
        model: a family with probabilities.
        features: of the points of every table.
        parameters: the truth.
        test_features: rows whose probabilities are asked for.
        tables: how many are drawn.
        resamples: of each table.
        generator: draws labels and resamples.
        refit_of: makes the refit of a table, from the family and the points.
    """
    truth = model.probabilities(model.scores(parameters[None], test_features))[0]
    chances = model.probabilities(model.scores(parameters[None], features))[0].cumsum(1)
    classes = chances.shape[1]
    asked = Points(test_features, torch.zeros(len(test_features), dtype=torch.int64), classes)
    held: list[tuple[float, float]] = []
    for _ in range(tables):
        uniform = torch.from_numpy(generator.random((len(features), 1)))
        labels = (uniform > chances[:, :-1]).sum(1)
        table = Points(features, labels, classes)
        weights = resampled(resamples=resamples, points=len(features), generator=generator)
        models = refit_of(model, table)(weights)
        rows = predictive(model, models, asked)
        held.append((_inside(truth.numpy(), rows), _inside(parameters.numpy(), summary(models))))
    shares = np.array(held)
    return Coverage(mean_interval(shares[:, 0]), mean_interval(shares[:, 1]))


def _inside(truth: Vector, found: Predictive) -> float:
    return float(((found.low <= truth) & (truth <= found.high)).mean())
