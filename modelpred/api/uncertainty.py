"""Predictive distributions and memorization for a fitted ModelPred.

The estimators are those of the studies (studies/bootstrap.py, studies/feldman.py).
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
from modelpred.api.plots import Axes, plot_memorization
from modelpred.engine import EngineChoice
from modelpred.errors import InvalidInput
from modelpred.numbers import MOST_DRAWS, Number, checked_section, seed_number, whole_number
from modelpred.studies import calibration
from modelpred.studies.bootstrap import (
    predicted_numbers,
    predictive,
    resampled_models,
    summary,
)
from modelpred.studies.context import StudyContext, finished, refitted, require_models
from modelpred.studies.feldman import Memorization
from modelpred.studies.memorization import (
    MemorizationConfig,
    estimated,
    influence_table,
    row_table,
)
from modelpred.studies.parameter_attribution import parameter_names
from modelpred.studies.penalties import penalty_draws
from modelpred.targets import Points, TargetModel
from modelpred.targets.scoring import SCORE_BYTES, score_blocks
from modelpred.wording import Printed

SHOWN = 5  # rows that a printed result lists
MODEL, TRUTH = "model", "truth"
KINDS = {
    MODEL: "how far this model's predictions depend on which rows it was trained on, by bootstrap "
    "resamples; what the penalty shrinks is not in the intervals",
    TRUTH: "where the true probabilities are, if they are those of the family, whatever the penalty",
}


@dataclass(frozen=True, repr=False)
class PredictiveDistribution(Printed):
    """Distribution of predictions over models of bootstrap resamples, or of any penalty; `print` shows it.

    Arrays are probabilities [rows, classes], with classes in the order of `classes`; for a regression,
    they are predictions [rows].

    Attributes:
        classes: names of the classes; empty for a regression.
        mean: means over the models.
        spread: standard deviations over the models; nan with one model.
        low: 5% quantiles, the lower ends of 90% intervals.
        high: 95% quantiles, the upper ends.
        models: parameters of each model, [resamples, parameters], for scaled features.
        parameters: a row per parameter: parameter, class, feature, mean, spread, low, high.
        engine: whether the models were retrained or predicted.
        about: `model`, how far this model depends on its rows, or `truth`, where the true
            probabilities are.
    """

    classes: NDArray[Any]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    models: NDArray[np.float64]
    parameters: pl.DataFrame
    engine: EngineChoice
    about: str
    family: TargetModel = field(repr=False)
    points: Points = field(repr=False)

    def blocks(self) -> Iterator[NDArray[np.float64]]:
        """Yield the predictions of blocks of models, [models, rows, classes] or [models, rows].

        The scores of a block take a few megabytes.
        """
        models = torch.from_numpy(self.models)
        for scores in score_blocks(self.family, models, self.points, limit=SCORE_BYTES):
            if self.family.regression:
                yield scores[..., 0].numpy()
            else:
                yield self.family.probabilities(scores).numpy()

    @property
    def predictions(self) -> pl.DataFrame:
        """A row per row: row, predicted, and mean, spread, low, high of the predicted class."""
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
        """The rows with the least certain predictions."""
        table = self.predictions.sort("spread", descending=True, nulls_last=True).head(SHOWN)
        what = "prediction" if self.family.regression else "probability"
        models = "bootstrap resamples" if self.about == MODEL else "draws of parameters and penalty"
        title = (
            f"{len(self.mean)} rows by the models of {len(self.models)} {models}; "
            f"the rows whose {what} is least certain:"
        )
        lines = [
            f"  row {row['row']}: {row['predicted']}, {what} {row['mean']:.4g}, "
            f"90% interval {row['low']:.4g} to {row['high']:.4g}"
            for row in table.iter_rows(named=True)
        ]
        return "\n".join([title, *lines, f"Intervals say {KINDS[self.about]}."])


def predictive_distribution(
    context: StudyContext,
    features: Tensor,
    labels: Labels,
    *,
    resamples: Number,
    seed: Number,
    engine: EngineChoice,
    about: str = MODEL,
) -> PredictiveDistribution:
    """Return the predictive distribution of rows.

    Args:
        context: the fit.
        features: of the rows.
        labels: the label encoding.
        resamples: number of models.
        seed: of the draws.
        engine: gives the models of resamples.
        about: `model`: over models of bootstrap resamples; `truth`: over models of any penalty.

    Raises:
        InvalidInput: there is no resample, an unknown `about`, or the family has no probabilities.
    """
    if about not in KINDS:
        raise InvalidInput(f"about is {about!r}; expected {' or '.join(KINDS)}")
    resamples = whole_number(resamples, "resamples", least=1, most=MOST_DRAWS)
    model, points = context.model, context.points
    rows = Points(features, torch.zeros(len(features), dtype=torch.int64), points.classes)
    if not model.regression:  # raises at once for a family without probabilities
        model.probabilities(features.new_zeros(1, 1, max(1, points.classes)))
    require_models(resamples, context, what="resamples")
    generator = context.generator(seed=seed_number(seed), study=calibration.STUDY, block=0)
    if about == TRUTH:
        tolerance = context.truth.tolerance
        models = penalty_draws(
            model, points, draws=resamples, generator=generator, tolerance=tolerance
        )
    else:
        models = resampled_models(
            lambda weights: _models(context, weights),
            resamples=resamples,
            points=context.pool,
            generator=generator,
        )
    if model.regression:
        distribution = predicted_numbers(model, models, features)
    else:
        distribution = predictive(model, models, rows)
    return PredictiveDistribution(
        labels.names,
        distribution.mean,
        distribution.spread,
        distribution.low,
        distribution.high,
        models.numpy(),
        _parameter_table(context, models),
        engine,
        about,
        model,
        rows,
    )


def _models(context: StudyContext, weights: Tensor) -> Tensor:
    """The subject's models, without failed ones."""
    parameters = refitted(context.refits[context.subject], weights, context)
    return parameters[finished(parameters)]


def _parameter_table(context: StudyContext, models: Tensor) -> pl.DataFrame:
    named = parameter_names(context)
    distribution = summary(models[:, : len(named)])
    table = pl.DataFrame(
        {
            "parameter": np.arange(len(named)),
            "class": [name.class_name for name in named],
            "feature": [name.feature for name in named],
            "mean": distribution.mean,
            "spread": distribution.spread,
            "low": distribution.low,
            "high": distribution.high,
        }
    )
    return table.with_columns(pl.col("spread").fill_nan(None))


@dataclass(frozen=True, repr=False)
class MemorizedRows(Printed):
    """Memorization of training rows and their influence on test rows; `print` shows a summary.

    Attributes:
        form: the measure of the soft form: the `probability` of the label, or minus the `loss`.
        rows: a row per training row, the most memorized first: row_id, label, memorization (by right
            and wrong; null for a regression) and soft, each with its 95% interval (_low, _high),
            inside (number of subsets with the row), rank.
        influence: soft influence of each training row on each test row, [training rows, test rows];
            nan if the row is in no subset or in all of them.
        strongest: the strongest influences: row_id, test_row, influence, low, high.
        subsets: number of random subsets.
        engine: whether the models were retrained or predicted.
    """

    form: str
    rows: pl.DataFrame
    influence: NDArray[np.float64]
    strongest: pl.DataFrame
    subsets: int
    engine: EngineChoice

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the soft memorization of the rows with 95% intervals.

        Args:
            ax: matplotlib axes; None creates a figure.
        """
        return plot_memorization(self.rows, ax)

    def __str__(self) -> str:
        """The most memorized rows."""
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


def memorized_rows(
    context: StudyContext, labels: Labels, *, settings: dict[str, Any], engine: EngineChoice
) -> MemorizedRows:
    """Return memorization of every training row and its influence on the context's test rows.

    Args:
        context: the fit; its subject gives the models.
        labels: the label encoding.
        settings: of `MemorizationConfig`.
        engine: of the models.

    Raises:
        InvalidInput: a setting is out of range, or the share leaves no row in or out of the subsets.
    """
    whole_number(settings["subsets"], "subsets", most=MOST_DRAWS)
    config = checked_section(
        MemorizationConfig, {**settings, "seed": seed_number(settings["seed"])}
    )
    estimate: Memorization = estimated(config, context)
    named = labels.decode(context.points.labels)
    rows = row_table(context, estimate).insert_column(1, pl.Series("label", named)).sort("rank")
    return MemorizedRows(
        estimate.soft_name,
        rows,
        estimate.influence.mean,
        influence_table(context, estimate, strongest=config.strongest),
        estimate.subsets,
        engine,
    )
