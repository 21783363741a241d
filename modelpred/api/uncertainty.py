"""How sure is the model really, and which rows does it know only by heart? For a fitted ModelPred.

The estimators are those of the studies (studies/bootstrap.py, studies/feldman.py), asked with a
caller's own tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.labels import Labels
from modelpred.numbers import MOST_DRAWS, Number, checked_section, seed_number, whole_number
from modelpred.studies import calibration
from modelpred.studies.bootstrap import (
    Predictive,
    predicted_numbers,
    predictive,
    resampled_models,
    summary,
)
from modelpred.studies.feldman import Memorization
from modelpred.studies.memorization import (
    MemorizationConfig,
    estimated,
    influence_table,
    row_table,
)
from modelpred.studies.parameter_attribution import parameter_names
from modelpred.studies.utility import SCORE_BYTES, StudyContext, finished, refitted
from modelpred.targets import Points, TargetModel

SHOWN = 5  # rows that a printed result lists


@dataclass(frozen=True, repr=False)
class PredictiveDistribution:
    """What the models of bootstrap resamples say of some rows; `print` it to read it.

    Arrays are [rows, classes] of probabilities, classes in the order of `classes`; where numbers
    are predicted, [rows] of predictions.

    Attributes:
        classes: as the labels named them; none for numbers.
        mean: averages over the models.
        spread: their standard deviations; nan of one model.
        low: 5% quantiles: where the 90% interval begins.
        high: 95% quantiles: where it ends.
        models: parameters of each resample's model, [resamples, parameters], for scaled features.
        parameters: a row each: parameter, class, feature, and mean, spread, low, high.
    """

    classes: NDArray[Any]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    models: NDArray[np.float64]
    parameters: pl.DataFrame
    family: TargetModel = field(repr=False)
    points: Points = field(repr=False)

    def blocks(self) -> Iterator[NDArray[np.float64]]:
        """What each model says, [models, rows, classes] or [models, rows], some models at once.

        A block holds few enough models that its scores fit a few megabytes, whatever their number.
        """
        models = torch.from_numpy(self.models)
        for scores in self.family.score_blocks(models, self.points, limit=SCORE_BYTES):
            if self.family.regression:
                yield scores[..., 0].numpy()
            else:
                yield self.family.probabilities(scores).numpy()

    @property
    def predictions(self) -> pl.DataFrame:
        """A row each: row, predicted, and for the predicted class mean, spread, low, high."""
        columns = {name: getattr(self, name) for name in ("mean", "spread", "low", "high")}
        predicted = self.mean
        if not self.family.regression:
            best = self.mean.argmax(axis=1)
            predicted = self.classes[best]
            rows = np.arange(len(best))
            columns = {name: values[rows, best] for name, values in columns.items()}
        table = pl.DataFrame({"row": np.arange(len(predicted)), "predicted": predicted, **columns})
        return table.with_columns(pl.col("spread").fill_nan(None))

    def __str__(self) -> str:
        """A few lines for a person: the rows that the models agree on least."""
        table = self.predictions.sort("spread", descending=True, nulls_last=True).head(SHOWN)
        what = "prediction" if self.family.regression else "probability"
        title = (
            f"{len(self.mean)} rows by the models of {len(self.models)} bootstrap resamples; "
            f"the rows whose {what} is least certain:"
        )
        lines = [
            f"  row {row['row']}: {row['predicted']}, {what} {row['mean']:.4g}, "
            f"90% interval {row['low']:.4g} to {row['high']:.4g}"
            for row in table.iter_rows(named=True)
        ]
        return "\n".join([title, *lines])

    __repr__ = __str__


def predictive_distribution(
    context: StudyContext, features: Tensor, labels: Labels, *, resamples: Number, seed: Number
) -> PredictiveDistribution:
    """Return what the models of bootstrap resamples say of rows of features.

    Raises:
        InvalidInput: no resample, or a family that has neither probabilities nor numbers.
    """
    resamples = whole_number(resamples, "resamples", least=1, most=MOST_DRAWS)
    model, points = context.model, context.points
    asked = Points(features, torch.zeros(len(features), dtype=torch.int64), points.classes)
    if not model.regression:  # says so at once for a family without probabilities
        model.probabilities(features.new_zeros(1, 1, max(1, points.classes)))
    models = resampled_models(
        lambda weights: _models(context, weights),
        resamples=resamples,
        points=context.pool,
        generator=context.generator(seed=seed_number(seed), study=calibration.STUDY, block=0),
    )
    if model.regression:
        found = predicted_numbers(model, models, features)
    else:
        found = predictive(model, models, asked)
    return PredictiveDistribution(
        labels.names,
        found.mean,
        found.spread,
        found.low,
        found.high,
        models.numpy(),
        _parameter_table(context, summary(models)),
        model,
        asked,
    )


def _models(context: StudyContext, weights: Tensor) -> Tensor:
    """The subject's models; those that failed are left out."""
    parameters = refitted(context.refits[context.subject], weights, context)
    return parameters[finished(parameters)]


def _parameter_table(context: StudyContext, found: Predictive) -> pl.DataFrame:
    named = parameter_names(context)
    table = pl.DataFrame(
        {
            "parameter": np.arange(len(named)),
            "class": [place.class_name for place in named],
            "feature": [place.feature for place in named],
            "mean": found.mean,
            "spread": found.spread,
            "low": found.low,
            "high": found.high,
        }
    )
    return table.with_columns(pl.col("spread").fill_nan(None))


@dataclass(frozen=True, repr=False)
class MemorizedRows:
    """What models only know because they have seen it; `print` it to read it.

    Attributes:
        form: what the soft form measures: the `probability` of the label, or minus the `loss`.
        rows: a row each, the most memorized first: row_id, label, memorization (by right and wrong;
            null for numbers) and soft, each with its 95% interval (_low, _high), inside (subsets
            that held the row), rank.
        influence: soft influence of each training row on each test row, [training rows, test
            rows]; nan where no subset, or every one, held the row.
        strongest: the strongest of them, either way: row_id, test_row, influence, low, high.
        subsets: random subsets that this rests on.
    """

    form: str
    rows: pl.DataFrame
    influence: NDArray[np.float64]
    strongest: pl.DataFrame
    subsets: int

    def __str__(self) -> str:
        """A few lines for a person: the rows that are memorized most."""
        how = {"probability": "the probability of its label", "loss": "minus its loss"}[self.form]
        title = (
            f"By how much {how} is higher with the row than without, over {self.subsets} random "
            "subsets:"
        )
        lines: list[str] = []
        for row in self.rows.drop_nulls("soft").head(SHOWN).iter_rows(named=True):
            interval = (
                ""
                if row["soft_low"] is None
                else f" ({row['soft_low']:.3f}, {row['soft_high']:.3f})"
            )
            lines.append(f"  {row['row_id']} (label {row['label']}): {row['soft']:.3f}{interval}")
        return "\n".join([title, *lines])

    __repr__ = __str__


def memorized_rows(
    context: StudyContext, labels: Labels, *, settings: dict[str, Any]
) -> MemorizedRows:
    """Return memorization of every training row and its influence on the context's test rows.

    Args:
        context: with the refit to ask as its subject.
        labels: how labels are written.
        settings: of `MemorizationConfig`.

    Raises:
        InvalidInput: settings out of range, or a share that leaves no row in or out.
    """
    whole_number(settings["subsets"], "subsets", most=MOST_DRAWS)
    config = checked_section(
        MemorizationConfig, {**settings, "seed": seed_number(settings["seed"])}
    )
    found: Memorization = estimated(config, context)
    numbers = context.points.labels.numpy()
    named = numbers if context.model.regression else labels.names[numbers]
    rows = row_table(context, found).insert_column(1, pl.Series("label", named)).sort("rank")
    return MemorizedRows(
        found.soft_name,
        rows,
        found.influence.mean,
        influence_table(context, found, strongest=config.strongest),
        found.subsets,
    )
