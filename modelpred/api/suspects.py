"""Training rows whose label looks wrong, for a fitted ModelPred.

The estimators are those of the studies (studies/held_out.py, studies/label_noise.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from modelpred.api.labels import Labels
from modelpred.api.plots import Axes, plot_suspects
from modelpred.errors import InvalidInput
from modelpred.numbers import Number, seed_number
from modelpred.studies.context import StudyContext
from modelpred.studies.forest import forest_probabilities
from modelpred.studies.held_out import confidence, held_out_evidence, log_probabilities
from modelpred.studies.label_noise import with_second_family, wrong_labels
from modelpred.targets import Points
from modelpred.wording import WRONG_NUMBER, Printed

SUM_ERROR = 1e-3  # of probabilities that other libraries round
SHOWN = 5  # rows that a printed result lists


@dataclass(frozen=True, repr=False)
class Suspects(Printed):
    """Rows by how wrong their label looks, and how many are wrong; `print` shows a summary.

    Attributes:
        rows: a row per row, the most suspicious first: row_id, position (null outside of the training
            rows), label, suggested (the likeliest class; only of families with probabilities),
            confidence (how sure models without the row are of its label; negative where they would
            rather have another), wrong (probability that the label is wrong) and cutoff (whether the
            row is among the first `count`, which to inspect); the last two are null for a regression.
        count: estimated number of wrong labels; None for a regression.
        low: lower end of its 95% interval.
        high: upper end.
    """

    rows: pl.DataFrame
    count: float | None
    low: float | None
    high: float | None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the confidence in the labels of the 30 most suspicious rows.

        Args:
            ax: matplotlib axes; None creates a figure.
        """
        return plot_suspects(self.rows, ax)

    def __str__(self) -> str:
        """How many labels are wrong, and the most suspicious."""
        lines = [f"The labels of {self.rows.height:,} rows, by models trained without them:"]
        if self.count is not None:
            lines.append(
                f"  about {self.count:,.0f} are wrong (95% interval {self.low:,.0f} to "
                f"{self.high:,.0f}). {WRONG_NUMBER}. The most suspicious:"
            )
        for row in self.rows.head(SHOWN).iter_rows(named=True):
            parts = [f"label {row['label']}"]
            if "suggested" in row:
                parts.append(f"models suggest {row['suggested']}")
            if row["wrong"] is not None:
                parts.append(f"wrong with probability {row['wrong']:.2f}")
            lines.append(f"  {row['row_id']}: {', '.join(parts)}")
        return "\n".join(lines)


def suspicious_rows(
    context: StudyContext,
    labels: Labels,
    *,
    seed: Number,
    forest: bool = False,
    others: Points | None = None,
    other_ids: Sequence[str] = (),
) -> Suspects:
    """Return all rows, and the estimated number of wrong labels.

    Args:
        context: the fit; its subject gives the models.
        labels: the label encoding.
        seed: of the draws.
        forest: whether to average the probabilities with those of a random forest.
        others: rows outside of the training rows whose labels are also scored.
        other_ids: their names.

    Raises:
        InvalidInput: a forest for a family without probabilities.
    """
    number = seed_number(seed)
    generator = context.generator(seed=number, study="suspects", block=0)
    points = context.points
    held_out = held_out_evidence(
        context.refits[context.subject], context, generator=generator, others=others
    )
    own = torch.cat([held_out.own, held_out.others])
    found = _with_forest(own, context, seed=number, others=others) if forest else own
    given = points.labels if others is None else torch.cat([points.labels, others.labels])
    return _judged(own, given, labels, row_ids=context.row_ids, other_ids=other_ids, averaged=found)


def probable_suspects(
    pred_probs: Float64[Tensor, "rows columns"],
    given: Int[Tensor, " points"],
    labels: Labels,
    *,
    row_ids: tuple[str, ...],
) -> Suspects:
    """Return all rows, scored by probabilities of any classifier that did not train on them.

    Args:
        pred_probs: of the classes in the order of the label encoding.
        given: the labels.
        labels: the label encoding.
        row_ids: of the rows.

    Raises:
        InvalidInput: they are no probabilities of each class for each row.
    """
    expected = [len(given), len(labels.classes)]
    if not labels.classes or list(pred_probs.shape) != expected:
        raise InvalidInput(
            f"pred_probs has shape {list(pred_probs.shape)}, expected [rows, classes] = {expected}, "
            "with the classes in the order of ModelPred.classes"
        )
    sums = pred_probs.sum(1)
    if not bool(((pred_probs >= 0).all(1) & ((sums - 1).abs() < SUM_ERROR)).all()):
        raise InvalidInput("pred_probs has rows that are no probabilities; they must sum to 1")
    return _judged(pred_probs, given, labels, row_ids=row_ids, other_ids=())


def _judged(
    own: Tensor,
    given: Tensor,
    labels: Labels,
    *,
    row_ids: tuple[str, ...],
    other_ids: Sequence[str],
    averaged: Tensor | None = None,
) -> Suspects:
    """The rows in the order of the evidence, and the estimated number of wrong labels.

    Args:
        own: the family's evidence, by which the number is estimated.
        given: labels.
        labels: their encoding.
        row_ids: of the training rows.
        other_ids: of the rows after them.
        averaged: its average with that of a second family, by which rows are ordered; default: own.
    """
    found = own if averaged is None else averaged
    table = _table(found, given, labels, row_ids=row_ids, other_ids=other_ids)
    if not labels.classes:
        unknown = {"wrong": pl.lit(None, pl.Float64), "cutoff": pl.lit(None, pl.Boolean)}
        ordered = table.with_columns(**unknown).sort("confidence", maintain_order=True)
        return Suspects(ordered, None, None, None)
    estimate = wrong_labels(log_probabilities(own, given).numpy(), given.numpy())
    if found is not own:
        logs = log_probabilities(found, given).numpy()
        estimate = with_second_family(estimate, logs, given.numpy())
    ordered = table.with_columns(
        wrong=pl.Series(estimate.probability), cutoff=pl.Series(estimate.inspected)
    ).sort(pl.Series(-estimate.log_odds), maintain_order=True)
    return Suspects(ordered, estimate.count, estimate.low, estimate.high)


def _with_forest(
    found: Tensor, context: StudyContext, *, seed: int, others: Points | None
) -> Tensor:
    if not context.model.has_parameters:
        raise InvalidInput(
            f"forest needs features, which {context.model.title} as a black box does not have; leave "
            "it out, or use ModelPred(RandomForestClassifier())"
        )
    if context.model.regression or found.shape[1] == 1:
        raise InvalidInput(
            f"{context.model.name} has no probabilities to average with those of a forest; leave "
            "forest out"
        )
    return (found + torch.cat(forest_probabilities(context.points, seed=seed, others=others))) / 2


def _table(
    found: Tensor,
    given: Tensor,
    labels: Labels,
    *,
    row_ids: tuple[str, ...],
    other_ids: Sequence[str],
) -> pl.DataFrame:
    pool, more = len(row_ids), len(other_ids)
    table = pl.DataFrame(
        {
            "row_id": [*row_ids, *other_ids],
            "position": pl.Series([*range(pool), *[None] * more], dtype=pl.Int64),
            "label": labels.decode(given),
        }
    )
    if found.shape[1] > 1:
        table = table.with_columns(suggested=pl.Series(labels.decode(found.argmax(dim=1))))
    return table.with_columns(confidence=pl.Series(confidence(found, given)))
