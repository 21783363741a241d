"""Which labels look wrong? Every way to value rows, judged by wrong labels that were planted.

`dataset.flip` plants a known share of wrong labels. A method scores all rows without knowing which;
a person would inspect the lowest first. Judged by

    AUROC             chance that a planted row is below a clean one, ties counting one half
    recall            share of the planted rows among the lowest q of all rows
    recall at share   the same with q the planted share: 1 for a method without fault

The 95% interval of an AUROC A takes rows as drawn at random (DeLong, DeLong and Clarke-Pearson
1988): with f_i the share of clean rows above planted row i, and g_j that of planted rows below
clean row j, its variance is var(f) / planted + var(g) / clean. Random order is exact, not drawn:
A = 1/2 with the variance (planted + clean + 1) / (12 planted clean), recall q.

Methods see the test rows, which are clean, where their score asks for a utility.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtri

from modelpred.metrics import CONFIDENCE, Interval, Vector, auroc, ranks
from modelpred.studies.utility import StudyContext, StudyResult, written_number
from modelpred.studies.valuation_methods import OURS, Worth, all_worths

STUDY = "labels"
INSPECTED = tuple(step / 20 for step in range(1, 21))
UNJUDGED_BY = "held_out_confidence"  # needs no test rows and no clean ones
NOT_PLANTED = "no wrong labels were planted (dataset.flip is 0), so nothing can be judged by them"


class LabelsConfig(BaseModel):
    """Section `labels` of params.yaml.

    Attributes:
        permutations: budget of the Shapley and of the Banzhaf values, in random orders of the rows.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    permutations: int = Field(default=50, ge=2, multiple_of=2)
    seed: int = Field(default=0, ge=0)


def run(config: LabelsConfig, context: StudyContext) -> StudyResult:
    """Return how well every method finds the planted labels, and what each said of each row.

    Tables: `detection` with a row per method, best first (method, ours, auroc, auroc_low,
    auroc_high, recall, seconds), `recall` (method, inspected, recall) and `suspects`: a row per
    point (row_id, mislabelled, a column per method), the lowest by the best of our methods first.
    Without planted labels there is nothing to judge by: the suspects are those of held-out
    confidence, the other tables are empty, and the metrics say so.
    """
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    worths = all_worths(context, permutations=config.permutations, generator=generator)
    if context.mislabelled is None:
        return _unjudged(worths, context)
    wrong = context.mislabelled.numpy()
    detection = detection_table(worths, wrong)
    recall = pl.DataFrame(
        [
            {"method": name, "inspected": share, "recall": _recall(name, worth, wrong, share)}
            for name, worth in worths.items()
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
    }
    suspects = _suspects(worths, context, by=best, wrong=pl.Series(wrong))
    return StudyResult(metrics, {"detection": detection, "recall": recall, "suspects": suspects})


def _unjudged(worths: Mapping[str, Worth], context: StudyContext) -> StudyResult:
    unknown = pl.Series([None] * context.pool, dtype=pl.Boolean)
    tables = {name: pl.DataFrame(schema=schema) for name, schema in _SCHEMAS.items()}
    tables["suspects"] = _suspects(worths, context, by=UNJUDGED_BY, wrong=unknown)
    metrics = {"planted": 0, "unjudged": NOT_PLANTED, "best_of_ours": UNJUDGED_BY}
    return StudyResult(metrics, tables)


def _suspects(
    worths: Mapping[str, Worth], context: StudyContext, *, by: str, wrong: pl.Series
) -> pl.DataFrame:
    """What every method says of every row, the most suspicious by one of them first."""
    values = pl.DataFrame({name: worth.values for name, worth in worths.items()})
    rows = pl.DataFrame({"row_id": list(context.row_ids)}).with_columns(wrong.alias("mislabelled"))
    return rows.hstack(values).sort(by, maintain_order=True)


_SCHEMAS: dict[str, dict[str, Any]] = {
    "detection": {
        "method": pl.String,
        "ours": pl.Boolean,
        **dict.fromkeys(("auroc", "auroc_low", "auroc_high", "recall", "seconds"), pl.Float64),
    },
    "recall": {"method": pl.String, "inspected": pl.Float64, "recall": pl.Float64},
}


def detection_table(worths: Mapping[str, Worth], wrong: np.ndarray) -> pl.DataFrame:
    """Return how well each method finds the wrong labels, best first: the table `detection`."""
    rows = [_detected(name, worth, wrong) for name, worth in worths.items()]
    table = pl.DataFrame(rows, schema=_SCHEMAS["detection"])
    return table.sort("auroc", descending=True, maintain_order=True)


def _detected(name: str, worth: Worth, wrong: np.ndarray) -> dict[str, Any]:
    found = auroc_interval(-worth.values, wrong)
    if name == "random":
        planted, clean = int(wrong.sum()), int((~wrong).sum())
        half = _two_sided(float(np.sqrt((planted + clean + 1) / (12 * planted * clean))))
        found = Interval(0.5, 0.5 - half, 0.5 + half, len(wrong))
    return {
        "method": name,
        "ours": name in OURS,
        "auroc": found.mean,
        "auroc_low": written_number(found.low),
        "auroc_high": written_number(found.high),
        "recall": _recall(name, worth, wrong, float(wrong.mean())),
        "seconds": worth.seconds,
    }


def _recall(name: str, worth: Worth, wrong: np.ndarray, share: float) -> float:
    return share if name == "random" else recall_at(worth.values, wrong, share=share)


def recall_at(values: Vector, wrong: np.ndarray, *, share: float) -> float:
    """Return the share of the wrong rows among the lowest `share` of all, rounded to whole rows."""
    inspected = np.argsort(values, kind="stable")[: round(share * len(values))]
    return float(wrong[inspected].sum() / wrong.sum())


def auroc_interval(score: Vector, positive: np.ndarray) -> Interval:
    """Return the AUROC with DeLong's 95% interval, cut at 0 and 1."""
    marked = positive.astype(bool)
    above, below = score[marked], score[~marked]
    area = auroc(score, marked)
    everywhere = ranks(score)
    # Ranks among all less ranks among one's own: how many of the others are lower.
    of_positives = (everywhere[marked] - ranks(above)) / len(below)
    of_negatives = 1 - (everywhere[~marked] - ranks(below)) / len(above)
    if min(len(above), len(below)) < 2:
        return Interval(area, 0.0, 1.0, len(score))
    variance = of_positives.var(ddof=1) / len(above) + of_negatives.var(ddof=1) / len(below)
    half = _two_sided(float(np.sqrt(variance)))
    return Interval(area, max(0.0, area - half), min(1.0, area + half), len(score))


def _two_sided(error: float) -> float:
    return float(ndtri((1 + CONFIDENCE) / 2)) * error
