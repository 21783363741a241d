"""The predictor of a network that is trained by fixed steps: parameters explained, margins ranked.

    python -m tests.benchmarks.predictor_mlp            (about 3 min; --targets for fewer)

Digits, 500 points, standardised; 16 hidden units, 150 steps. R² is over all parameters together: one
minus the squared error over the squared deviation from the mean target. LDS is over subsets of half
of the points and 1,000 test rows, from predicted models (the direct form). Default settings. The
time is the processor's, since one thread is used.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from modelpred.metrics import lds, relative_errors
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.refits import LinearDatamodel, Retraining
from modelpred.targets import train_targets
from modelpred.targets.scoring import score_blocks
from tests.benchmarks.predictor_banks import Problem, machine, problem, table, write_part

HALVES = 300
REFINEMENTS = (0, 0.5, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=4000)
    targets = parser.parse_args().targets
    torch.set_num_threads(1)
    task = problem(
        "digits", "mlp", fit={"uniform": targets}, test={"uniform": 300, "deletion": 300}
    )
    print("trained", flush=True)
    fit = task.fit.usable()
    began = time.process_time()
    predictor = fit_predictor(
        PredictorConfig(), task.model, task.points, *fit, validation=task.validation.usable()
    )
    seconds = time.process_time() - began
    halves = _halves(len(task.points.labels))
    points = task.points
    truth = train_targets(
        task.model, points.features, points.labels, halves, classes=points.classes
    ).parameters
    methods: dict[str, Callable[[Tensor], Tensor]] = {"linear datamodel": LinearDatamodel.fit(*fit)}
    for refine in REFINEMENTS:
        methods[f"predictor, refine={refine}"] = lambda weights, refine=refine: predictor.predict(
            weights, refine=refine
        )
    methods["retraining"] = Retraining(task.model, points)
    rows = [_row(name, method, task, halves, truth) for name, method in methods.items()]
    about = (
        f"`python -m tests.benchmarks.predictor_mlp --targets {targets}`, {machine()}; digits, 500 points, "
        f"standardised, 16 hidden units, 150 steps; {targets} targets, 300 held-out subsets a design, "
        f"{HALVES} halves for the LDS (95% interval over 1,000 test rows); fitted in {seconds:.0f} s of "
        "processor time."
    )
    header = ["method", "R² uniform", "R² deletion", "relative error", "LDS", "ms a subset"]
    write_part("Network of fixed steps", [about, "", *table(header, rows)])


def _row(
    name: str, method: Callable[[Tensor], Tensor], task: Problem, halves: Tensor, truth: Tensor
) -> list[str]:
    cells, errors = [name], []
    for design in ("uniform", "deletion"):
        weights, true = task.test.usable(design=design)
        predicted = method(weights)
        cells.append(f"{_explained(predicted, true):.3f}")
        errors.append(f"{relative_errors(predicted, true).mean():.4f}")
    began = time.process_time()
    predicted = method(halves)
    milliseconds = 1e3 * (time.process_time() - began) / len(halves)
    score = lds(_margins(task, predicted), _margins(task, truth))
    found = f"{score.mean:.3f} ({score.low:.3f} to {score.high:.3f})"
    cells += [" / ".join(errors), found, f"{milliseconds:.2f}"]
    print(" | ".join(cells), flush=True)
    return cells


def _halves(points: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    order = torch.rand(HALVES, points, generator=generator).argsort(1)
    return (order < points // 2).to(torch.float64)


def _explained(predicted: Tensor, true: Tensor) -> float:
    left = (predicted - true).square().sum()
    return float(1 - left / (true - true.mean(0)).square().sum())


def _margins(task: Problem, parameters: Tensor) -> Tensor:
    test = task.test_points
    return torch.cat(
        [
            task.model.margins(scores, test.labels)
            for scores in score_blocks(task.model, parameters, test, limit=64 * 2**20)
        ]
    )


if __name__ == "__main__":
    main()
