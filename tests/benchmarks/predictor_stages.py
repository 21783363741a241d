"""Error and time of an answer after each stage of the predictor, beside a Newton step.

Times are processor time, which other work on the machine disturbs less than the clock.
"""

import time
from collections.abc import Callable
from functools import partial

from modelpred.metrics import relative_errors
from modelpred.predictor import early_answers
from modelpred.refits import rivals
from tests.benchmarks.predictor_banks import machine, problem, table, write_part
from tests.benchmarks.predictor_fits import fitted

POOLS = (
    ("iris", "logistic", 4000), ("breast_cancer", "logistic", 4000), ("higgs", "logistic", 4000),
    ("spam", "logistic", 4000), ("spam", "svm", 4000), ("wine", "softmax", 2000),
    ("digits", "softmax", 500),
)  # fmt: skip
DESIGNS = ("uniform", "deletion")
ASKED = 500
SHOWN = 6  # stages after the anchor that a pool may have before its last


def processor_seconds(call: Callable[[], object], *, timings: int = 5) -> float:
    """The least processor time of several calls."""
    call()
    took: list[float] = []
    for _ in range(timings):
        began = time.process_time()
        call()
        took.append(time.process_time() - began)
    return min(took)


def stages(chosen: list[str]) -> None:
    """A row a pool: uniform / deletion error and microseconds, of a Newton step and of each stage."""
    rows: list[list[str]] = []
    for source, family, targets in POOLS:
        if chosen and f"{source}/{family}" not in chosen:
            continue
        task = problem(source, family, fit={"uniform": targets}, test=dict.fromkeys(DESIGNS, ASKED))
        banks = {design: task.test.usable(design=design) for design in DESIGNS}
        predictor = fitted(task)
        early = early_answers(predictor, stages=range(predictor.stages))
        newton = rivals(task.model, task.points, *task.fit.usable())["newton_step"]
        cells = [task.name, f"{targets}"]
        answers = [newton, *early.values(), predictor]
        for refit in answers:
            weights = banks[DESIGNS[0]][0]
            seconds = processor_seconds(partial(refit, weights))
            errors = [relative_errors(refit(rows), true).mean() for rows, true in banks.values()]
            told = " / ".join(f"{error:.4f}" for error in errors)
            cells.append(f"{told}, {1e6 * seconds / len(weights):.1f}")
        blank = [""] * (SHOWN + 2 - len(early) - 1)
        rows.append([*cells[:-1], *blank, cells[-1]])
        print(" | ".join(rows[-1]), flush=True)
    header = [
        "pool", "targets", "Newton step", *(f"stage {count}" for count in range(SHOWN + 1)), "all"
    ]  # fmt: skip
    told = (
        f"{machine()}; mean relative error on uniform / deletion subsets, µs of processor time a "
        f"subset, {ASKED} at once, the least of five."
    )
    write_part("RequestHandler after each stage", [told, "", *table(header, rows)])
