"""The estimated number of wrong labels beside the number planted, on six tables and one with a rare class.

Up to 3,000 rows of spam, higgs_atlas and adult (`../shared/data`), all of digits, a simulated logistic table and
four simulated normal classes; 5% or 10% of the labels are flipped to another class, drawn for each of three seeds.
The number is estimated from the family's own probabilities, and from their mean with those of a random forest
(what `suspects(pred_probs=...)` takes). The rare class has 3.2% of 6,000 rows of a logistic table.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import torch
from scipy.special import expit
from sklearn.datasets import load_digits

from modelpred.api.labels import Labels
from modelpred.api.suspects import Suspects, probable_suspects, suspicious_rows
from modelpred.studies.forest import forest_probabilities
from modelpred.studies.held_out import held_out_evidence
from modelpred.targets import Points, points_of
from tests.benchmarks.figures import Benchmark, Figure
from tests.benchmarks.suspects import ADULT, adult, context_of, planted

ROWS, SEEDS, TOP = 3_000, 3, 200
RARE_ROWS, RARE_SHIFT = 6_000, 7.0
Table = tuple[str, np.ndarray, np.ndarray]


def standardised(cells: np.ndarray) -> np.ndarray:
    cells = cells[:, cells.std(0) > 0]
    return (cells - cells.mean(0)) / cells.std(0)


def tables(rows: int) -> Iterator[Table]:
    draws = np.random.default_rng(5)
    spam = pl.read_parquet(ADULT.with_name("spam.parquet")).sample(rows, seed=0)
    yield "spam", standardised(spam.drop("is_spam").to_numpy()), spam["is_spam"].to_numpy()
    higgs = pl.read_parquet(ADULT.with_name("higgs_atlas.parquet")).sample(rows, seed=0)
    cells = higgs.drop("EventId", "Weight", "Label").to_numpy()
    yield "higgs", standardised(cells), (higgs["Label"] == "s").to_numpy()
    features, labels = adult(rows)
    yield "adult", features.numpy(), labels
    digits = load_digits()
    yield "digits", standardised(digits.data[:rows]), digits.target[:rows]
    cells = draws.normal(size=(rows, 20))
    plane = cells @ draws.normal(size=20) + draws.logistic(size=rows)
    yield "simulated, logistic", cells, plane > 0
    centres, labels = 1.2 * draws.normal(size=(4, 10)), draws.integers(0, 4, rows)
    yield (
        "simulated, 4 classes",
        standardised(centres[labels] + draws.normal(size=(rows, 10))),
        labels,
    )


def judged(points: Points, seed: int, *, forest: bool) -> Suspects:
    context = context_of(points)
    labels = Labels("integer", tuple(map(str, range(points.classes))))
    if not forest:
        return suspicious_rows(context, labels, seed=seed)
    generator = context.generator(seed=seed, study="suspects", block=0)
    own = held_out_evidence(context.refits[context.subject], context, generator=generator).own
    mean = (own + torch.cat(forest_probabilities(points, seed=seed))) / 2
    return probable_suspects(mean, points.labels, labels, row_ids=context.row_ids)


def numbers(table: Table, share: float, *, forest: bool, seeds: int) -> Iterator[Figure]:
    """The mean estimate, its lowest and highest over seeds, and the intervals that hold the number."""
    name, cells, clean = table
    classes, found, held = int(clean.max()) + 1, list[float](), 0
    wrong = round(share * len(clean))
    for seed in range(seeds):
        draws = np.random.default_rng(100 + seed)
        labels = clean.astype(np.int64)
        flipped = draws.choice(len(clean), wrong, replace=False)
        labels[flipped] = (labels[flipped] + draws.integers(1, classes, wrong)) % classes
        one = judged(points_of(torch.from_numpy(cells), labels, classes), seed, forest=forest)
        found.append(one.count or 0.0)
        held += (one.low or 0.0) <= wrong <= (one.high or 0.0)
    what = f"{name}, {share:.0%}{', with a forest' if forest else ''}"
    mean = float(np.clip(np.mean(found), min(found), max(found)))
    yield Figure(
        f"{what}: estimated number ({wrong} planted)", mean, "labels", seeds, min(found), max(found)
    )
    yield Figure(f"{what}: intervals that hold it", held, "of n", seeds, held, held)


def rare(seeds: int) -> Iterator[Figure]:
    """Share of the rare label among the first rows."""
    draws = np.random.default_rng(9)
    cells = draws.normal(size=(RARE_ROWS, 20))
    chance = expit(0.8 * cells @ draws.normal(size=20) - RARE_SHIFT)
    clean = (draws.random(RARE_ROWS) < chance).astype(np.int64)
    yield Figure(
        "rare class: share of rows", float(clean.mean()), "share", 1, clean.mean(), clean.mean()
    )
    for kind in ("none", "5% of all", "10% of each label"):
        found: dict[str, list[float]] = {}
        for seed in range(seeds):
            wrong = planted(clean, kind, seed)
            labels = np.where(wrong, 1 - clean, clean)
            one = judged(points_of(torch.from_numpy(cells), labels, 2), seed, forest=False)
            first = one.rows["position"].to_numpy()[:TOP]
            values = {
                f"rare label among the first {TOP}": labels[first].mean(),
                f"wrong labels among the first {TOP}": wrong[first].mean(),
                f"estimated number ({wrong.sum()} planted)": one.count or 0.0,
            }
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        for name, values in found.items():
            mean = float(np.clip(np.mean(values), min(values), max(values)))
            unit = "labels" if "number" in name else "share"
            yield Figure(f"rare class, {kind}: {name}", mean, unit, seeds, min(values), max(values))


def measure(quick: bool) -> Iterable[Figure]:
    """Means over seeds, lowest to highest."""
    seeds = 1 if quick else SEEDS
    for table in tables(600 if quick else ROWS):
        for share in (0.0, 0.05, 0.1):
            for forest in (False, True):
                yield from numbers(table, share, forest=forest, seeds=seeds)
    yield from rare(seeds)


BENCHMARK = Benchmark("the estimated number of wrong labels on seven tables", 2, measure)
