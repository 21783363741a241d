"""The predictor beside its rivals: error against time, and what makes it better or worse.

    python -m tests.benchmarks.predictor goals spam/logistic/standardise ...   (all pools by default)
    python -m tests.benchmarks.predictor certificate | regularisers | learning | points
    python -m tests.benchmarks.predictor times | stages | memory

Each part replaces its own table in the section of RESULTS.md. Default settings for every pool;
scalers and everything else fitted on training rows. Errors are mean relative parameter errors over
held-out subsets that no fit saw, with half of their 95% interval; times are per subset.

What an answer may cost is measured in Newton steps: `in one` is the most refined answer that takes
no longer than one Newton step from the full model does, by processor time of 500 subsets at once on
one thread, the least of five; `in two` the same for two.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import polars as pl

from modelpred.predictor import (
    Predictor,
    PredictorConfig,
    Refined,
    early_answers,
    fidelity,
    fit_predictor,
)
from modelpred.refits import Refit, rivals
from modelpred.targets.threads import torch_threads
from tests.benchmarks import (
    predictor_certificate,
    predictor_fits,
    predictor_speed,
    predictor_stages,
)
from tests.benchmarks.predictor_banks import Problem, machine, problem, table, write_part
from tests.benchmarks.predictor_stages import processor_seconds

PUBLISHED = "largest_row_norm"  # the scaling of the published experiments
BINARY = [
    (source, family, scaling, 8000)
    for family, scaling in (
        ("logistic", "standardise"), ("logistic", PUBLISHED), ("svm", "standardise"),
        ("svm", PUBLISHED),
    )
    for source in ("spam", "breast_cancer", "iris", "higgs")
]  # fmt: skip
MANY = [
    (source, "softmax", scaling, 2000)
    for scaling in ("standardise", PUBLISHED)
    for source in ("digits", "mnist")
]
DESIGNS = ("uniform", "deletion")
STEPS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6)
LIMITS = {"in one": 1.0, "in two": 2.0}


def compare(task: Problem, *, published: bool) -> pl.DataFrame:
    """Every rival, the published network if wanted, and the predictor with refinements."""
    fit = task.fit.usable()
    refits: dict[str, Any] = rivals(task.model, task.points, *fit)
    networks = {"paper": "paper"} if published else {}
    for name, network in (networks | {"predictor": "anchored"}).items():
        began = time.perf_counter()
        refits[name] = fit_predictor(
            PredictorConfig(network=network), task.model, task.points, *fit,
            validation=task.validation.usable(),
        )  # fmt: skip
        seconds = time.perf_counter() - began
        print(f"  {task.name}: fitted {name} in {seconds:.1f} s", flush=True)
    refits["refine 1"] = Refined(refits["predictor"], 1)
    refits |= affordable(task, refits["newton_step"], refits["predictor"])
    return fidelity(
        refits, task.test, model=task.model, points=task.points, test_points=task.test_points
    )


def affordable(task: Problem, newton: Refit, predictor: Predictor) -> dict[str, Refit]:
    """The most refined answers in the time of one and of two Newton steps, named with their steps."""
    weights = task.test.usable(design="uniform")[0]
    early = early_answers(predictor, stages=range(predictor.stages))
    answers: list[tuple[str, Refit]] = [*early.items(), ("refine 0", predictor)]
    answers += [(f"refine {steps:g}", Refined(predictor, steps)) for steps in STEPS]
    with torch_threads(1):
        step = processor_seconds(partial(newton, weights))
        found: dict[str, Refit] = {}
        for name, answer in answers:
            took = processor_seconds(partial(answer, weights)) / step
            print(f"  {task.name}: {name} takes {took:.2f} Newton steps", flush=True)
            if took > max(LIMITS.values()):
                break
            for limit in (limit for limit in LIMITS if took <= LIMITS[limit]):
                found = {key: each for key, each in found.items() if not key.startswith(limit)}
                found[f"{limit}: {name}"] = answer
    return found


def told(by: dict[str, Any], limit: str, *, spearman: bool) -> str:
    """Error of the answer within that limit, and which it is."""
    name = next((name for name in by if name.startswith(limit)), None)
    if name is None:
        return "none"
    correlation = f", Spearman {by[name]['spearman_within_size']:.3f}" if spearman else ""
    return f"{by[name]['parameter_error']:.4f} ({name.removeprefix(limit)[2:]}{correlation})"


def goal_rows(task: Problem, targets: int, found: pl.DataFrame) -> list[list[str]]:
    """A row a design: rivals, the published network, ours, and ours after one step more."""
    rows: list[list[str]] = []
    for design in DESIGNS:
        by = {row["method"]: row for row in found.filter(design=design).iter_rows(named=True)}
        errors = {method: row["parameter_error"] for method, row in by.items()}
        ours, paper = by["predictor"], errors.get("paper")
        half = (ours["parameter_error_high"] - ours["parameter_error_low"]) / 2
        rows.append(
            [
                task.name, f"{targets}", design,
                *(f"{errors[name]:.4f}" for name in ("influence", "linear_datamodel")),
                f"{errors['newton_step']:.4f}",
                f"{errors['predictor']:.4f} ± {half:.4f}",
                f"{errors['predictor'] / errors['newton_step']:.2f}",
                f"{errors['refine 1']:.4f}",
                told(by, "in one", spearman=True),
                told(by, "in two", spearman=False),
                f"{ours['spearman_within_size']:.3f}",
                f"{paper:.4f}, {paper / errors['predictor']:.1f} times ours" if paper else "",
            ]
        )  # fmt: skip
    return rows


def goals(chosen: list[str]) -> None:
    """Every pool, or those that are named as source/family/scaling."""
    rows: list[list[str]] = []
    for source, family, scaling, targets in [*BINARY, *MANY]:
        if chosen and f"{source}/{family}/{scaling}" not in chosen:
            continue
        task = problem(
            source, family, scaling,
            fit={"uniform": targets}, test={"uniform": 500, "deletion": 500},
        )  # fmt: skip
        rows += goal_rows(task, targets, compare(task, published=scaling == PUBLISHED))
        for row in rows[-len(DESIGNS) :]:
            print("  " + " | ".join(row), flush=True)
        header = [
            "pool", "targets", "design", "influence", "linear datamodel", "Newton step",
            "predictor", "predictor / Newton step", "refine 1", "in one", "in two",
            "Spearman of test loss within size", "published network",
        ]  # fmt: skip
        words = (
            f"{machine()}; 500 held-out subsets a design; the published network in its setting. In "
            "one, in two: the most refined answer in the time of one and of two Newton steps."
        )
        write_part("Fidelity", [words, "", *table(header, rows)])


def main() -> None:
    parts: dict[str, Callable[[list[str]], None]] = {
        "goals": goals,
        "certificate": predictor_certificate.certificate,
        "regularisers": predictor_fits.regularisers,
        "learning": predictor_fits.learning,
        "points": predictor_fits.new_points,
        "times": predictor_speed.times,
        "stages": predictor_stages.stages,
        "memory": predictor_speed.memory,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=parts)
    parser.add_argument("chosen", nargs="*", help="some of the part's pools")
    given = parser.parse_args()
    parts[given.part](given.chosen)


if __name__ == "__main__":
    sys.exit(main())
