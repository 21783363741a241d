"""Leave-one-out by direct answers: time, error and bound beside exact retraining, at 3,000 to 50,000 rows.

Labels of normal features are drawn from a linear model with noise; the utility is the loss of 1,000 test rows. Errors
are those of the 50 rows with the largest bounds and of 100 random rows, which are retrained without. Errors and bounds
are divided by the standard deviation of the values over the rows. The time of retraining without every row is that
of these rows, times the number of all.
"""

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from modelpred.refits import Retraining
from modelpred.studies.direct_removals import direct_removals
from modelpred.targets import points_of, target_model
from modelpred.targets.scoring import mean_test_losses
from tests.benchmarks.figures import Benchmark, Figure, number

TEST, LARGEST, RANDOM = 1000, 50, 100
TABLES = (
    ("logistic", 3000, 40, 2),
    ("logistic", 10_000, 40, 2),
    ("logistic", 50_000, 100, 2),
    ("softmax", 10_000, 40, 5),
    ("svm", 10_000, 40, 2),
)


def measure(quick: bool) -> Iterable[Figure]:
    for family, rows, columns, classes in TABLES[:1] if quick else TABLES:
        yield from measured(family, 600 if quick else rows, columns, classes)


def measured(family: str, rows: int, columns: int, classes: int) -> Iterator[Figure]:
    """Figures of one table."""
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(rows + TEST, columns))
    scores = cells @ draws.normal(size=(columns, classes)) / np.sqrt(columns)
    scores += draws.normal(size=scores.shape)
    labels = scores.argmax(axis=1) if classes > 2 else (scores[:, 0] > 0).astype(np.int64)
    pool, test = (
        points_of(cells[part], labels[part], classes) for part in (slice(rows), slice(rows, None))
    )
    truth = Retraining(target_model(family), pool, tolerance=1e-8)
    full = truth(torch.ones(1, rows, dtype=torch.uint8))[0]
    began = time.process_time()
    found = direct_removals(truth, test, full)
    seconds = time.process_time() - began
    checked = torch.from_numpy(draws.choice(rows, RANDOM, replace=False))
    checked = torch.cat([found.bounds.topk(LARGEST)[1], checked])
    weights = torch.ones(len(checked), rows, dtype=torch.uint8)
    weights[torch.arange(len(checked)), checked] = 0
    began = time.process_time()
    exact = mean_test_losses(truth.model, truth(weights), test)
    each = (time.process_time() - began) / len(checked)
    spread = float((found.without - found.whole).std())
    errors = (found.without[checked] - exact).abs() / spread
    bounds = found.bounds / spread
    held = bool((errors <= bounds[checked] + 1e-7 / spread).all())
    name = f"{family}, {rows:,} x {columns}"
    for what, value, unit in (
        ("direct, processor", seconds, "s"),
        ("retraining without each row, extrapolated", rows * each, "s"),
        ("largest error", float(errors.max()), "spreads"),
        ("bound, median", float(bounds.median()), "spreads"),
        ("bound, largest", float(bounds.max()), "spreads"),
        ("rows retrained", found.retrained, "rows"),
        ("bounds hold", float(held), "all"),
    ):
        yield number(f"{name}: {what}", value, unit)


BENCHMARK = Benchmark("leave-one-out by direct answers, beside retraining", 1, measure)
