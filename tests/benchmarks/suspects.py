"""Planted wrong labels of adult, found by `suspects` and by cleanlab's scores.

20,000 rows of adult (`../shared/data/adult.parquet`, or the path in ADULT), one-hot encoded and standardised,
logistic regression with C = 1. Flipped labels are drawn for each seed: 5% or 10% of all rows, or rows of both
classes at such rates that each label is wrong equally often. cleanlab's scores are computed from the formulas of
Northcutt, Jiang and Chuang (2021), out of probabilities of the same logistic regression by 5-fold cross-validation
with scikit-learn. Times are processor seconds of the same run, from features to scores.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from modelpred.api.frames import usable_columns
from modelpred.api.inputs import frame_of
from modelpred.api.labels import Labels
from modelpred.api.reading import encoded_cells, encoding_of
from modelpred.api.suspects import suspicious_rows
from modelpred.dataset.scaling import fit_scaling
from modelpred.metrics import auroc
from modelpred.refits import Retraining
from modelpred.studies.context import StudyContext
from modelpred.targets import Points, points_of, target_model
from tests.benchmarks.figures import Benchmark, Figure
from tests.projects import ROOT

ADULT = Path(os.environ.get("ADULT", ROOT.parent / "shared" / "data" / "adult.parquet"))
ROWS, SEEDS = 20_000, 3
Scores = np.ndarray
Found = TypeVar("Found")


def adult(rows: int) -> tuple[torch.Tensor, np.ndarray]:
    table = pl.read_parquet(ADULT).drop("split").sample(rows, seed=0)
    labels = (table["income"] == ">50K").to_numpy().astype(np.int64)
    frame, _ = frame_of(table.drop("income"), what="X")
    frame = usable_columns(frame, what="X")
    cells = encoded_cells(encoding_of(frame, what="X"), frame, what="X")
    return fit_scaling("standardise", cells)(cells), labels


def planted(labels: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Whether each row's label is flipped."""
    draws, wrong = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    if kind == "none":
        return wrong
    share = float(kind.split("%", maxsplit=1)[0]) / 100
    if kind.endswith("of all"):
        wrong[draws.choice(len(labels), round(share * len(labels)), replace=False)] = True
        return wrong
    count = round(share * (labels == 1).sum())  # as many rows of each class
    for label in (0, 1):
        wrong[draws.choice(np.flatnonzero(labels == label), count, replace=False)] = True
    return wrong


def cleanlab_scores(points: Points) -> dict[str, Scores]:
    """Scores of label quality, the lowest first."""
    labels = points.labels.numpy()
    model = LogisticRegression(C=1.0, max_iter=1000)
    p = cross_val_predict(model, points.features.numpy(), labels, cv=5, method="predict_proba")
    own = p[np.arange(len(labels)), labels]
    entropy = -(p * np.log(p.clip(min=1e-300))).sum(1) / np.log(p.shape[1])
    others = p.copy()
    others[np.arange(len(labels)), labels] = -1
    return {
        "self_confidence": own,
        "normalized_margin": (own - others.max(1) + 1) / 2,
        "confidence_weighted_entropy": -entropy / own.clip(min=1e-300),
    }


def context_of(points: Points) -> StudyContext:
    model = target_model("logistic" if points.classes == 2 else "softmax")
    truth = Retraining(model, points)
    ids = tuple(map(str, range(len(points.labels))))
    return StudyContext(truth, points, {truth.name: truth}, ids)


def ours(points: Points, *, forest: bool) -> tuple[Scores, float, float, float]:
    """Minus the order of the suspects, and the estimated number with its interval."""
    labels = Labels("integer", ("0", "1"))
    found = suspicious_rows(context_of(points), labels, seed=0, forest=forest)
    scores = np.empty(len(points.labels))
    scores[found.rows["position"].to_numpy()] = np.arange(len(scores))
    return scores, found.count or 0.0, found.low or 0.0, found.high or 0.0


def timed(compute: Callable[[], Found]) -> tuple[Found, float]:
    began = time.process_time()
    found = compute()
    return found, time.process_time() - began


def metrics(scores: Scores, wrong: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    first = np.argsort(scores, kind="stable")[: wrong.sum()]
    within = {
        f"AUROC among labels {label}": auroc(-scores[labels == label], wrong[labels == label])
        for label in (0, 1)
    }
    return {"AUROC": auroc(-scores, wrong), "precision": float(wrong[first].mean()), **within}


def measure(quick: bool) -> Iterable[Figure]:
    """Means over seeds, lowest to highest."""
    features, clean = adult(1500 if quick else ROWS)
    for kind in ("none", "5% of all", "10% of all", "10% of each label"):
        found: dict[str, list[float]] = {}
        for seed in range(1 if quick else SEEDS):
            for name, value in one_run(features, clean, kind, seed):
                found.setdefault(f"{kind}: {name}", []).append(value)
        for name, values in found.items():
            unit = (
                "s of processor"
                if name.endswith("time")
                else "labels"
                if "number" in name
                else "share"
            )
            mean = float(np.clip(np.mean(values), min(values), max(values)))  # of equal numbers
            yield Figure(name, mean, unit, len(values), min(values), max(values))


def one_run(
    features: torch.Tensor, clean: np.ndarray, kind: str, seed: int
) -> Iterator[tuple[str, float]]:
    wrong = planted(clean, kind, seed)
    labels = np.where(wrong, 1 - clean, clean)
    points = points_of(features, labels, 2)
    theirs, seconds = timed(lambda: cleanlab_scores(points))
    if wrong.any():
        judged = [metrics(scores, wrong, labels) for scores in theirs.values()]
        for name in judged[0]:  # the best of the three by each metric
            yield f"cleanlab's best score, {name}", max(each[name] for each in judged)
        yield "cleanlab's scores, time", seconds
    for way, forest in (("suspects", False), ("suspects with a forest", True)):
        (scores, count, low, high), seconds = timed(
            lambda forest=forest: ours(points, forest=forest)
        )
        if wrong.any():
            for name, value in metrics(scores, wrong, labels).items():
                yield f"{way}, {name}", value
            yield f"{way}, time", seconds
        for name, value in (("", count), (", low", low), (", high", high)):
            yield f"{way}, estimated number{name} ({wrong.sum():,} planted)", value


BENCHMARK = Benchmark("planted wrong labels of adult, beside cleanlab's scores", 1, measure)
