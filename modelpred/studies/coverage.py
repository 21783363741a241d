"""Coverage of bootstrap intervals on simulated tables.

Labels are drawn from a known model, so the true probability of every row and the true parameters are
known. Every table is bootstrapped, and the share of 90% intervals that contain the true value is
counted. Percentile intervals of a penalised model are centred on penalised parameters: with few rows
and a strong penalty their coverage is below 90% even with exact retraining. Compare the predictor's
coverage with that of retraining on the same tables and resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.metrics import Interval, Vector, mean_interval
from modelpred.refits.retraining import Refit, Retraining
from modelpred.studies.bootstrap import Predictive, predictive, resampled, summary
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points

RefitOf = Callable[[TargetModel, Points], Refit]
"""(family, points of a table) -> the refit of that table"""


class Coverage(NamedTuple):
    """Shares of 90% intervals that contain the true value: means over tables with 95% intervals."""

    probabilities: Interval
    parameters: Interval


@dataclass(frozen=True)
class KnownModel:
    """A model to simulate tables from.

    Attributes:
        model: a family with probabilities.
        parameters: the true parameters.
        features: of the points of every table.
        test_features: of the rows whose probabilities are predicted.
        classes: number of classes.
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
        cumulative = self.probabilities(self.features).cumsum(1)
        uniform = torch.from_numpy(generator.random((len(self.features), 1)))
        return Points(self.features, (uniform > cumulative[:, :-1]).sum(1), self.classes)


def simulated_coverage(
    known: KnownModel,
    *,
    tables: int,
    resamples: int,
    generator: np.random.Generator,
    refits_of: Mapping[str, RefitOf] | None = None,
) -> dict[str, Coverage]:
    """Return the coverage of the bootstrap intervals of each refit.

    The intervals are 90% intervals of the test rows' probabilities and of the parameters. All refits
    use the same tables and resamples. Rows of one table share their models, so a table contributes
    one value of each share.

    Args:
        known: the true model.
        tables: number of simulated tables.
        resamples: bootstrap resamples of each table.
        generator: draws labels and resamples.
        refits_of: refits by name; default: retraining.
    """
    makers: Mapping[str, RefitOf] = refits_of or {"retraining": Retraining}
    truth = known.probabilities(known.test_features).numpy()
    no_labels = torch.zeros(len(known.test_features), dtype=torch.int64)
    test_points = Points(known.test_features, no_labels, known.classes)
    covered: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for _ in range(tables):
        table = known.draw(generator)
        weights = resampled(resamples=resamples, points=len(table.labels), generator=generator)
        for name, refit_of in makers.items():
            models = refit_of(known.model, table)(weights)
            models = known.model.with_prior(models, weights.double(), table)
            models = models[models.isfinite().all(dim=1)]
            rows = predictive(known.model, models, test_points)
            parameters = _covered(known.parameters.numpy(), summary(models))
            covered[name].append((_covered(truth, rows), parameters))
    return {
        name: Coverage(*(mean_interval(np.array(side)) for side in zip(*shares, strict=True)))
        for name, shares in covered.items()
    }


def _covered(truth: Vector, intervals: Predictive) -> float:
    return float(((intervals.low <= truth) & (truth <= intervals.high)).mean())
