"""How often intervals hold the truth, where the truth is known.

Labels of given features are drawn from a known model, so that the true probability of every row and
the true parameters are known. Every table is bootstrapped, and the share of 90% intervals that hold
their truth is counted. Percentile intervals of a penalised model are centred on penalised models:
with few rows and a strong penalty they cover less than they say, whoever computes them; so a
predictor is judged by the coverage that retraining has on the same tables and resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.metrics import Interval, Vector, mean_interval
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.bootstrap import Predictive, predictive, resampled, summary
from modelpred.targets.model import Points, TargetModel

RefitOf = Callable[[TargetModel, Points], Refit]
"""makes the refit of a table, from the family and the points"""


@dataclass(frozen=True)
class Coverage:
    """Shares of 90% intervals that hold the truth: means over tables with their 95% bands."""

    probabilities: Interval
    parameters: Interval


@dataclass(frozen=True)
class KnownModel:
    """A model that tables are drawn from.

    Attributes:
        model: a family with probabilities.
        parameters: the truth.
        features: of the points of every table.
        test_features: of the rows whose probabilities are asked for.
        classes: of the labels.
    """

    model: TargetModel
    parameters: Float[Tensor, " parameters"]
    features: Float[Tensor, "points features"]
    test_features: Float[Tensor, "rows features"]
    classes: int

    def probabilities(
        self, features: Float[Tensor, "rows features"]
    ) -> Float[Tensor, "rows classes"]:
        """Return the true probabilities of rows."""
        scores = self.model.scores(self.parameters[None], features)
        return self.model.probabilities(scores)[0]

    def draw(self, generator: np.random.Generator) -> Points:
        """Return a table: the features, with labels drawn from the model."""
        chances = self.probabilities(self.features).cumsum(1)
        uniform = torch.from_numpy(generator.random((len(self.features), 1)))
        return Points(self.features, (uniform > chances[:, :-1]).sum(1), self.classes)


def simulated_coverage(
    known: KnownModel,
    *,
    tables: int,
    resamples: int,
    generator: np.random.Generator,
    refits_of: Mapping[str, RefitOf] | None = None,
) -> dict[str, Coverage]:
    """Return how often the bootstrap intervals of each refit hold the truth.

    Every table is resampled and the refits are asked for 90% intervals of the test rows'
    probabilities and of the parameters, all on the same tables and resamples. Rows of one table
    share their models, so a table gives one value of each share.

    Args:
        known: the truth.
        tables: how many are drawn.
        resamples: of each table.
        generator: draws labels and resamples.
        refits_of: what is asked, by name; default: retraining.
    """
    makers: Mapping[str, RefitOf] = refits_of or {"retraining": Retraining}
    truth = known.probabilities(known.test_features).numpy()
    none = torch.zeros(len(known.test_features), dtype=torch.int64)
    asked = Points(known.test_features, none, known.classes)
    held: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for _ in range(tables):
        table = known.draw(generator)
        weights = resampled(resamples=resamples, points=len(table.labels), generator=generator)
        for name, refit_of in makers.items():
            models = refit_of(known.model, table)(weights)
            models = known.model.with_prior(models, weights.double(), table)
            models = models[models.isfinite().all(dim=1)]
            rows = predictive(known.model, models, asked)
            own = _inside(known.parameters.numpy(), summary(models))
            held[name].append((_inside(truth, rows), own))
    return {
        name: Coverage(*(mean_interval(np.array(side)) for side in zip(*shares, strict=True)))
        for name, shares in held.items()
    }


def _inside(truth: Vector, found: Predictive) -> float:
    return float(((found.low <= truth) & (truth <= found.high)).mean())
