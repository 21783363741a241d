"""Coverage of 90% intervals for true probabilities on simulated tables, by five ways to make them.

Labels of each table are drawn from known parameters, and a way covers the share of 100 test rows whose true
probability is in its interval. `bootstrap` retrains on 200 resamples, `scikit-learn` does the same with
LogisticRegression (on the first tables only), `Laplace` and `sandwich` are normal around the model, with the
inverse Hessian and with the robust covariance, and `any penalty` is `mp.predictive(X, about="truth")`. The table of
spam has the parameters of a fit with C = 1 as the truth.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from modelpred.dataset import DatasetConfig, prepare
from modelpred.metrics import mean_interval
from modelpred.refits import Retraining
from modelpred.studies.bootstrap import ENDS, laplace, resampled
from modelpred.studies.coverage import KnownModel
from modelpred.studies.penalties import penalty_draws
from modelpred.targets import Points, TargetModel, dataset_points, target_model
from tests.benchmarks.figures import Benchmark, Figure

TABLES, SKLEARN_TABLES, RESAMPLES, DRAWS = 200, 40, 200, 1000


@dataclass(frozen=True)
class Regime:
    """A known model, and what it stands for."""

    name: str
    known: KnownModel


def regimes() -> Iterator[Regime]:
    """Weak and strong penalties, a real table, and a rare class."""
    draws = np.random.default_rng(0)
    parameters = np.array([1, -1, 0.5, 0, 0, 0.3])
    for name, strength in (
        ("weak penalty, 200 x 5, C = 10", 10.0),
        ("strong penalty, 200 x 5, C = 0.02", 0.02),
    ):
        yield regime(name, strength, parameters, draws.normal(size=(300, 5)), 200)
    mix = draws.normal(size=(20, 20)) * 0.4 + np.eye(20)
    rare = np.where(np.arange(21) % 4 == 0, 0.8, 0) * draws.choice([-1, 1], 21)
    rare[-1] = -2
    yield regime(
        "rare class, strong penalty, 1000 x 20, C = 0.01",
        0.01,
        rare,
        draws.normal(size=(1100, 20)) @ mix,
        1000,
    )
    data = prepare(DatasetConfig(source="spam", max_points=300))
    points = dataset_points(data)
    truth = Retraining(target_model("logistic"), points)(torch.ones(1, len(points.labels)))[0]
    for strength in (1.0, 0.01):
        known = KnownModel(
            target_model("logistic", C=strength),
            truth,
            points.features,
            data.test_features[:100],
            2,
        )
        yield Regime(f"spam, 300 x 57, C = {strength:g}", known)


def regime(
    name: str, strength: float, parameters: np.ndarray, cells: np.ndarray, rows: int
) -> Regime:
    model = target_model("logistic", C=strength)
    features = torch.tensor(cells)
    return Regime(
        name, KnownModel(model, torch.tensor(parameters), features[:rows], features[rows:], 2)
    )


def scores(parameters: Tensor, features: Tensor) -> np.ndarray:
    return (parameters[:, :-1] @ features.T + parameters[:, -1:]).numpy()


def sandwich(
    model: TargetModel, points: Points, full: Tensor, draws: int, generator: np.random.Generator
) -> Tensor:
    """Draws with the covariance H^-1 (sum of squared gradients) H^-1."""
    ones = torch.ones(len(points.labels), dtype=torch.float64)
    inverse = torch.linalg.inv(model.hessian(full, ones, points))
    design = torch.cat([points.features, ones[:, None]], dim=1)
    gradients = (
        design
        * (float(model.settings["C"]) * (torch.sigmoid(design @ full) - points.labels))[:, None]
    )
    values, vectors = torch.linalg.eigh(inverse @ (gradients.T @ gradients) @ inverse)
    normal = torch.from_numpy(generator.normal(size=(draws, len(full))))
    return full + (normal * values.clamp(min=0).sqrt()) @ vectors.T


def sklearn_bootstrap(points: Points, weights: Tensor, strength: float) -> Tensor:
    cells, labels = points.features.numpy(), points.labels.numpy()
    found: list[np.ndarray] = []
    for row in weights.numpy():
        model = LogisticRegression(C=strength, max_iter=1000).fit(cells, labels, sample_weight=row)
        found.append(np.append(model.coef_[0], model.intercept_))
    return torch.tensor(np.array(found))


def covered(known: KnownModel, table: int, *, resamples: int, beside: bool) -> dict[str, float]:
    """The coverage of each way on one table."""
    generator = np.random.default_rng([7, table])
    model, points = known.model, known.draw(generator)
    weights = resampled(resamples=resamples, points=len(points.labels), generator=generator)
    full = Retraining(model, points)(torch.ones(1, len(points.labels)))[0]
    ways = {
        "bootstrap": Retraining(model, points)(weights),
        "Laplace": laplace(model, points, full, draws=DRAWS, generator=generator),
        "sandwich": sandwich(model, points, full, DRAWS, generator),
        "any penalty": penalty_draws(model, points, draws=DRAWS, generator=generator),
    }
    if beside:
        ways["scikit-learn"] = sklearn_bootstrap(points, weights, float(model.settings["C"]))
    truth = expit(scores(known.parameters[None], known.test_features)[0])
    found: dict[str, float] = {}
    for way, parameters in ways.items():
        low, high = np.quantile(expit(scores(parameters, known.test_features)), ENDS, axis=0)
        found[way] = float(((low <= truth) & (truth <= high)).mean())
    return found


def measure(quick: bool) -> Iterable[Figure]:
    """The mean over tables, with its 95% interval."""
    tables, resamples = (2, 20) if quick else (TABLES, RESAMPLES)
    for each in regimes():
        shares: dict[str, list[float]] = {}
        for table in range(tables):
            beside = table < (1 if quick else SKLEARN_TABLES)
            found = covered(each.known, table, resamples=resamples, beside=beside)
            for way, share in found.items():
                shares.setdefault(way, []).append(share)
        for way, values in shares.items():
            mean = mean_interval(np.array(values))
            ends = (mean.low, mean.high) if len(values) > 1 else (mean.mean, mean.mean)
            yield Figure(f"{each.name}: {way}", mean.mean, "coverage, of 0.9", len(values), *ends)


BENCHMARK = Benchmark("coverage of 90% intervals for true probabilities", 5, measure)
