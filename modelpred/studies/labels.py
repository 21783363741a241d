"""Finds labels that look wrong, and evaluates methods on wrong labels that were planted.

`dataset.flip` plants a known share of wrong labels. A method scores all rows without this
information; rows with the lowest scores are the most suspicious. Metrics:

    AUROC             probability that a planted row scores below a clean one; ties count one half
    recall            share of the planted rows among the lowest q of all rows
    recall at share   the same with q the planted share; a perfect method has 1

The 95% interval of an AUROC A treats rows as a random sample (DeLong, DeLong and Clarke-Pearson
1988): with f_i the share of clean rows above planted row i, and g_j that of planted rows below
clean row j, its variance is var(f) / planted + var(g) / clean. The numbers of the random order are
exact: A = 1/2 with the variance (planted + clean + 1) / (12 planted clean), recall q.

Methods whose score is a utility use the test rows, which are clean.

The AUROC among the rows of one class is not affected by how suspicious its rows are as a whole: in a
table with few rows of a class, a method can reach a high AUROC by naming that class's rows first.

How many labels are wrong is estimated without what was planted (label_noise.py).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field
from scipy.special import ndtri, softmax

from modelpred.metrics import CONFIDENCE, Interval, Vector, auroc, ranks
from modelpred.numbers import Seed
from modelpred.studies.answering import AnsweringConfig
from modelpred.studies.context import StudyContext
from modelpred.studies.held_out import held_out_evidence, log_probabilities
from modelpred.studies.label_noise import WrongLabels, wrong_labels
from modelpred.studies.results import StudyResult, written_number
from modelpred.studies.valuation_methods import OURS, MethodValues, values_by_method

STUDY = "labels"
INSPECTED = tuple(step / 20 for step in range(1, 21))
DEFAULT_METHOD = "held_out_confidence"  # needs no test rows and no clean ones
FEW_METHODS = (DEFAULT_METHOD, "self_confidence", "random")
NOT_PLANTED = "no wrong labels were planted (dataset.flip is 0), so the methods are not evaluated"


class LabelsConfig(AnsweringConfig):
    """Section `labels` of params.yaml.

    Attributes:
        permutations: budget of the Shapley and Banzhaf values, in random orders of the rows.
        rivals: whether to use every method; otherwise only held-out confidence, which the
            suspects are sorted by, the confidence of the model of all rows, and a random order.
        seed: of the draws.
    """

    permutations: int = Field(default=50, ge=2, multiple_of=2)
    rivals: bool = True
    seed: Seed = 0


def run(config: LabelsConfig, context: StudyContext) -> StudyResult:
    """Return how well every method finds the planted labels, and the scores of all rows.

    Tables: `detection` with a row per method, best first (method, ours, auroc, auroc_low,
    auroc_high, recall, seconds), `classes` with a row per method and class with planted labels
    (method, class, rows, planted, auroc, auroc_low, auroc_high), `recall` (method, inspected, recall)
    and `suspects`: a row per point (row_id, mislabelled, a column per method, wrong, the probability
    that its label is wrong, cutoff, whether it is among the rows to inspect by this probability,
    suggested, the position of the class that models without the row find most likely, and probability,
    what they give its label; null for a regression), the lowest score of the best method with predicted
    models first. Without planted labels, the suspects are those of held-out confidence, and the other tables are empty. The
    metrics `wrong`, `wrong_low` and `wrong_high` estimate the number of wrong labels.
    """
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    methods = values_by_method(
        context,
        permutations=config.permutations,
        generator=generator,
        only=None if config.rivals else FEW_METHODS,
    )
    judged = _judged(config, context)
    if context.mislabelled is None:
        return _without_planted_labels(methods, context, judged)
    wrong = context.mislabelled.numpy()
    detection = detection_table(methods, wrong)
    recall = pl.DataFrame(
        [
            {"method": name, "inspected": share, "recall": _recall(name, scores, wrong, share)}
            for name, scores in methods.items()
            for share in INSPECTED
        ],
        schema=_SCHEMAS["recall"],
    )
    best = detection.filter("ours")["method"][0]
    metrics: dict[str, Any] = {
        "planted": int(wrong.sum()),
        "share": float(wrong.mean()),
        "best_of_ours": best,
        "best_auroc": float(detection.filter("ours")["auroc"][0]),
        "methods": {row.pop("method"): row for row in detection.to_dicts()},
        **_numbers(judged),
    }
    suspects = _suspects(methods, context, judged, by=best, wrong=pl.Series(wrong))
    tables = {
        "detection": detection,
        "classes": class_table(methods, wrong, context),
        "recall": recall,
        "suspects": suspects,
    }
    return StudyResult(metrics, tables)


class Judged(NamedTuple):
    """What models trained without each row say of the labels.

    Attributes:
        wrong: the estimated wrong labels.
        logs: log probabilities of the classes [points, classes], up to a constant for each point.
    """

    wrong: WrongLabels
    logs: np.ndarray


def _judged(config: LabelsConfig, context: StudyContext) -> Judged | None:
    """The labels as models trained without each row see them; None for a regression."""
    if context.model.regression:
        return None
    generator = context.generator(seed=config.seed, study=STUDY, block=1)
    labels = context.points.labels
    held_out = held_out_evidence(context.refits[context.subject], context, generator=generator)
    logs = log_probabilities(held_out.own, labels).numpy()
    return Judged(wrong_labels(logs, labels.numpy()), logs)


def _numbers(judged: Judged | None) -> dict[str, float | None]:
    """The metrics of the estimate."""
    ends = {"wrong": "count", "wrong_low": "low", "wrong_high": "high"}
    return {
        name: None if judged is None else getattr(judged.wrong, of) for name, of in ends.items()
    }


def _without_planted_labels(
    methods: Mapping[str, MethodValues], context: StudyContext, judged: Judged | None
) -> StudyResult:
    unknown = pl.Series([None] * context.pool, dtype=pl.Boolean)
    tables = {name: pl.DataFrame(schema=schema) for name, schema in _SCHEMAS.items()}
    tables["suspects"] = _suspects(methods, context, judged, by=DEFAULT_METHOD, wrong=unknown)
    metrics: dict[str, Any] = {
        "planted": 0,
        "unjudged": NOT_PLANTED,
        "best_of_ours": DEFAULT_METHOD,
        **_numbers(judged),
    }
    return StudyResult(metrics, tables)


def _suspects(
    methods: Mapping[str, MethodValues],
    context: StudyContext,
    judged: Judged | None,
    *,
    by: str,
    wrong: pl.Series,
) -> pl.DataFrame:
    """The scores of every row by every method, sorted by one of them."""
    values = pl.DataFrame({name: scores.values for name, scores in methods.items()})
    rows = pl.DataFrame({"row_id": list(context.row_ids)}).with_columns(wrong.alias("mislabelled"))
    probability = pl.Series("wrong", [None] * context.pool, dtype=pl.Float64)
    cutoff = pl.Series("cutoff", [None] * context.pool, dtype=pl.Boolean)
    suggested = pl.Series("suggested", [None] * context.pool, dtype=pl.Int64)
    given = pl.Series("probability", [None] * context.pool, dtype=pl.Float64)
    if judged is not None:
        probability = pl.Series("wrong", judged.wrong.probability)
        cutoff = pl.Series("cutoff", judged.wrong.inspected)
        suggested = pl.Series("suggested", judged.logs.argmax(axis=1))
        if context.model.probabilistic:
            shares = softmax(judged.logs, axis=1)
            labels = context.points.labels.numpy()
            given = pl.Series("probability", shares[np.arange(len(labels)), labels])
    table = rows.hstack(values).with_columns(probability, cutoff, suggested, given)
    return table.sort(by, maintain_order=True)


_AREA = dict.fromkeys(("auroc", "auroc_low", "auroc_high"), pl.Float64)
_SCHEMAS: dict[str, dict[str, Any]] = {
    "detection": {
        "method": pl.String,
        "ours": pl.Boolean,
        **_AREA,
        **dict.fromkeys(("recall", "seconds"), pl.Float64),
    },
    "classes": {
        **dict.fromkeys(("method", "class"), pl.String),
        **dict.fromkeys(("rows", "planted"), pl.Int64),
        **_AREA,
    },
    "recall": {"method": pl.String, "inspected": pl.Float64, "recall": pl.Float64},
}


def detection_table(methods: Mapping[str, MethodValues], wrong: np.ndarray) -> pl.DataFrame:
    """Return the table `detection`: metrics of each method, the best first."""
    rows = [_detection_row(name, scores, wrong) for name, scores in methods.items()]
    table = pl.DataFrame(rows, schema=_SCHEMAS["detection"])
    return table.sort("auroc", descending=True, maintain_order=True)


def _detection_row(name: str, scores: MethodValues, wrong: np.ndarray) -> dict[str, Any]:
    area = auroc_interval(-scores.values, wrong)
    if name == "random":
        planted, clean = int(wrong.sum()), int((~wrong).sum())
        half = _two_sided(float(np.sqrt((planted + clean + 1) / (12 * planted * clean))))
        area = Interval(0.5, 0.5 - half, 0.5 + half, len(wrong))
    return {
        "method": name,
        "ours": name in OURS,
        "auroc": area.mean,
        "auroc_low": written_number(area.low),
        "auroc_high": written_number(area.high),
        "recall": _recall(name, scores, wrong, float(wrong.mean())),
        "seconds": scores.seconds,
    }


def class_table(
    methods: Mapping[str, MethodValues], wrong: np.ndarray, context: StudyContext
) -> pl.DataFrame:
    """Return the table `classes`: the AUROC of each method among the rows labelled as each class."""
    labels = context.points.labels.numpy()
    rows: list[dict[str, Any]] = []
    for position in range(context.points.classes):
        inside = labels == position
        planted = int(wrong[inside].sum())
        if not 0 < planted < int(inside.sum()):
            continue
        names = context.class_names
        row = {
            "class": names[position] if names else str(position),
            "rows": int(inside.sum()),
            "planted": planted,
        }
        for method, scores in methods.items():
            area = auroc_interval(-scores.values[inside], wrong[inside])
            ends = {"auroc": area.mean, "auroc_low": area.low, "auroc_high": area.high}
            rows.append({"method": method, **row, **ends})
    return pl.DataFrame(rows, schema=_SCHEMAS["classes"])


def _recall(name: str, scores: MethodValues, wrong: np.ndarray, share: float) -> float:
    return share if name == "random" else recall_at(scores.values, wrong, share=share)


def recall_at(values: Vector, wrong: np.ndarray, *, share: float) -> float:
    """Return the share of the wrong rows among the lowest `share` of all, rounded to whole rows."""
    inspected = np.argsort(values, kind="stable")[: round(share * len(values))]
    return float(wrong[inspected].sum() / wrong.sum())


def auroc_interval(score: Vector, positive: np.ndarray) -> Interval:
    """Return the AUROC with DeLong's 95% interval, clipped to 0 and 1."""
    marked = positive.astype(bool)
    above, below = score[marked], score[~marked]
    area = auroc(score, marked)
    all_ranks = ranks(score)
    # The rank among all rows minus the rank in the own group is the number of lower rows in the other.
    of_positives = (all_ranks[marked] - ranks(above)) / len(below)
    of_negatives = 1 - (all_ranks[~marked] - ranks(below)) / len(above)
    if min(len(above), len(below)) < 2:
        return Interval(area, 0.0, 1.0, len(score))
    variance = of_positives.var(ddof=1) / len(above) + of_negatives.var(ddof=1) / len(below)
    half = _two_sided(float(np.sqrt(variance)))
    return Interval(area, max(0.0, area - half), min(1.0, area + half), len(score))


def _two_sided(error: float) -> float:
    return float(ndtri((1 + CONFIDENCE) / 2)) * error
