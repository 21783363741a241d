"""Certificates against the truth: do they hold, and how tight are they?"""

import time

import torch

from modelpred.predictor import PredictorConfig, fit_predictor
from tests.benchmarks.predictor_banks import machine, problem, table, write_part

POOLS = (
    ("spam", "logistic"),
    ("spam", "svm"),
    ("wine", "svm"),
    ("wine", "softmax"),
    ("diabetes", "ridge"),
)
HELD_OUT = {"uniform": 4000, "deletion": 3000, "bootstrap": 3000}
STEPS = (0, 1, 2)
EXACT = 1e-9  # largest gradient entry of the truth; distances below a hundred times it are rounding


def certificate(chosen: list[str]) -> None:
    """10,000 held-out subsets of each family, predictions with and without refinement."""
    rows: list[list[str]] = []
    for source, family in POOLS:
        if chosen and f"{source}/{family}" not in chosen:
            continue
        task = problem(
            source, family, fit={"uniform": 2000, "bootstrap": 500}, test=HELD_OUT, tolerance=EXACT
        )
        predictor = fit_predictor(
            PredictorConfig(), task.model, task.points, *task.fit.usable(),
            validation=task.validation.usable(),
        )  # fmt: skip
        weights, true = task.test.usable()
        for refine in (0, 1):
            predicted = predictor.predict(weights, refine=refine)
            distance = (predicted - true).norm(dim=1)
            told = distance > 100 * EXACT
            for steps in STEPS:
                began = time.perf_counter()
                bound = predictor.certificate(weights, predicted, steps=steps)
                seconds = time.perf_counter() - began
                assert bound is not None
                ratio = (bound / distance)[told]
                low, middle, high = ratio.quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
                rows.append(
                    [
                        f"{source}, {family}", f"{len(true)}", f"{refine}", f"{steps}",
                        f"{float((distance / true.norm(dim=1)).mean()):.4f}",
                        f"{int((bound < distance).sum())}",
                        f"{middle:.2f} ({low:.2f} to {high:.2f})",
                        f"{1e6 * seconds / len(true):.0f}",
                    ]
                )  # fmt: skip
                print(" | ".join(rows[-1]), flush=True)
    header = [
        "pool, family", "subsets", "refine", "Newton steps of the bound", "relative error",
        "violated", "bound / true distance: median (10% to 90%)", "µs a subset",
    ]  # fmt: skip
    told = (
        f"{machine()}; standardised; uniform, deletion and bootstrap subsets that no fit saw, each "
        "retrained to a gradient of 1e-9; the predictor is fitted to 2,500 targets."
    )
    write_part("Certificate", [told, "", *table(header, rows)])
