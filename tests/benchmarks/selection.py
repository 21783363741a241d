"""Test loss of a model retrained on a selected fifth of the rows, beside random fifths and all rows.

Three draws of each table, but one of 10,000 rows: the rows to select from, 1,000 validation rows, and the rest (3,000 at
most) for testing. The loss of random rows is a mean over ten choices. adult is read as the
benchmark `suspects` reads it.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from scipy.special import expit

from modelpred.dataset.scaling import fit_scaling
from modelpred.dataset.sources import load_table
from modelpred.refits import Retraining
from modelpred.studies.gradient_selection import judging_points, selections
from modelpred.studies.greedy_selection import no_quota
from modelpred.targets import points_of, target_model
from modelpred.targets.scoring import mean_test_losses
from tests.benchmarks import suspects
from tests.benchmarks.figures import Benchmark, Figure

DRAWS, SHARE, RANDOM, VALIDATION, TEST = 3, 0.2, 10, 1000, 3000
Cells = tuple[np.ndarray, np.ndarray]


def simulated(rows: int, draws: np.random.Generator) -> Cells:
    """Normal features, and labels drawn from a logistic model of them."""
    cells = draws.normal(size=(rows, 40))
    odds = cells @ draws.normal(size=40) * 2 / np.sqrt(40)
    return cells, (draws.random(rows) < expit(odds)).astype(np.int64)


def real(table: str, draws: np.random.Generator) -> Cells:
    """The rows of a table in random order."""
    if table == "adult":
        cells, labels = suspects.adult(6000 + VALIDATION + TEST)
    else:
        source = load_table(table)
        labels = source.rows[source.label].rank("dense").to_numpy().astype(np.int64) - 1
        cells = source.rows.drop("row_id", source.label).to_numpy()
    order = draws.permutation(len(labels))
    return np.asarray(cells, dtype=np.float64)[order], labels[order]


def losses(
    cells: Cells, *, rows: int, wrong: float, family: str, draws: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Test losses of models of all rows, of random fifths (their mean) and of the selected fifth."""
    features, labels = cells[0], cells[1].copy()
    labels[:rows] ^= draws.random(rows) < wrong
    features = fit_scaling("standardise", torch.from_numpy(features[:rows]))(
        torch.from_numpy(features)
    )
    last = rows + VALIDATION + TEST
    parts = (slice(rows), slice(rows, rows + VALIDATION), slice(rows + VALIDATION, last))
    pool, validation, test = (points_of(features[part], labels[part], 2) for part in parts)
    truth = Retraining(target_model(family), pool, tolerance=1e-8)
    judge = judging_points(truth, validation, generator=draws)
    kept = round(SHARE * rows)
    chosen = torch.zeros(2 + RANDOM, rows, dtype=torch.uint8)
    chosen[0] = 1
    chosen[1] = selections(truth, judge, sizes=[kept], quota=no_quota(rows))[kept]
    for row in chosen[2:]:
        row[draws.permutation(rows)[:kept]] = 1
    found = mean_test_losses(truth.model, truth(chosen), test)
    return {"all rows": found[0], "selected 20%": found[1], "random 20%": found[2:].mean()}


def measure(quick: bool) -> Iterator[Figure]:
    """The losses of each table, by draw."""
    tables = [
        ("simulated", 600, 0.0, "logistic"),
        *(
            ("simulated", rows, wrong, "logistic")
            for rows in (3000, 10_000)
            for wrong in (0.0, 0.2)
        ),
        ("adult", 6000, 0.0, "logistic"),
        ("spam", 2000, 0.0, "logistic"),
        ("spam", 2000, 0.0, "svm"),
    ]
    for table, rows, wrong, family in tables[:1] if quick else tables:
        found = []
        for seed in range(1 if quick or rows == 10_000 else DRAWS):
            draws = np.random.default_rng([seed, rows])
            total = rows + VALIDATION + TEST
            cells = simulated(total, draws) if table == "simulated" else real(table, draws)
            found.append(losses(cells, rows=rows, wrong=wrong, family=family, draws=draws))
        name = f"{table}, {rows:,} rows, {family}" + (f", {wrong:.0%} wrong" if wrong else "")
        yield from summary(name, found)


def summary(name: str, found: list[dict[str, torch.Tensor]]) -> Iterable[Figure]:
    """The means over draws, with the lowest and the highest."""
    for choice in found[0]:
        values = [float(each[choice]) for each in found]
        mean = float(np.mean(values))
        yield Figure(f"{name}: {choice}", mean, "loss", len(values), min(values), max(values))


BENCHMARK = Benchmark("test loss of selected, random and all rows on eight tables", 3, measure)
