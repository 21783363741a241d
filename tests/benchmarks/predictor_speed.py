"""How fast the predictor fits and answers, beside the published loop, and how much memory it takes.

The published configuration is trained as its scripts do it: one subset after the other through phi,
padded to no common length, the sum and rho, in batches of 32 by Adam.
"""

import resource
import subprocess
import sys
import time
from functools import partial

import torch
from torch import Tensor

from modelpred.predictor import PredictorConfig, Refined, fit_predictor
from modelpred.predictor.network import PaperNetwork
from modelpred.refits import Refit, rivals
from modelpred.refits.timing import fastest_seconds
from tests.benchmarks.predictor_banks import (
    Problem,
    machine,
    problem,
    table,
    write_part,
)

EPOCHS = PredictorConfig().schedule().epochs
LOOPED = 320  # subsets of the published loop that are timed
MEMORY = (8000, 32000, 100000)
TIMED = (
    ("iris", "logistic"), ("breast_cancer", "logistic"), ("spam", "logistic"), ("spam", "svm"),
    ("wine", "softmax"), ("digits", "softmax"),
)  # fmt: skip
ASKED = 500
REFINEMENTS = (0.25, 0.5, 1)


def published_loop(task: Problem) -> float:
    """Seconds a subset and epoch of the published training, a subset at a time."""
    weights, parameters = (part[:LOOPED].float() for part in task.fit.usable())
    points = task.points.to(dtype=torch.float32)
    inputs = torch.cat([points.features, points.labels[:, None].float()], 1)
    network = PaperNetwork(points.features.shape[1], 1, parameters.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)

    def answer(row: Tensor) -> Tensor:
        return network.rho(network.phi(inputs[row > 0]).sum(0))

    began = time.perf_counter()
    for rows, true in zip(weights.split(32), parameters.split(32), strict=True):
        predicted = torch.stack([answer(row) for row in rows])
        loss = (predicted - true).square().mean()
        flat = torch.cat([weight.flatten() for weight in network.parameters()])
        loss = loss + 0.01 * flat.abs().sum() + 0.01 * flat.norm()
        for row, theta in zip(rows, predicted, strict=True):
            gradient = task.model.gradient(theta[None], row[None], points)
            loss = loss + 0.01 * gradient.norm() / len(rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (time.perf_counter() - began) / LOOPED


def speed(chosen: list[str]) -> None:
    """Fit, published loop and answers of three pools; memory for more targets on spam."""
    rows: list[list[str]] = []
    for source in chosen or ("iris", "breast_cancer", "spam"):
        task = problem(source, "logistic", fit={"uniform": 8000}, test={"uniform": 500})
        loop = published_loop(task)
        seconds: dict[str, float] = {}
        for network in ("paper", "anchored"):
            began = time.perf_counter()
            predictor = fit_predictor(
                PredictorConfig(network=network), task.model, task.points, *task.fit.usable(),
                validation=task.validation.usable(),
            )  # fmt: skip
            seconds[network] = time.perf_counter() - began
        fits = len(task.fit.usable()[0])
        asked = task.fit.weights
        predictor(asked[:2048])
        began = time.perf_counter()
        predictor(asked)
        rate = len(asked) / (time.perf_counter() - began)
        each = {
            "paper": seconds["paper"] / fits / 15,
            "anchored": seconds["anchored"] / fits / EPOCHS,
        }
        rows.append(
            [
                task.name, f"{1e3 * loop:.1f} ms",
                f"{1e6 * each['paper']:.0f} µs, {loop / each['paper']:.0f} times",
                f"{1e6 * each['anchored']:.0f} µs, {loop / each['anchored']:.0f} times",
                f"{seconds['anchored']:.0f} s", f"{rate:.0f}",
            ]
        )  # fmt: skip
        print(" | ".join(rows[-1]), flush=True)
    header = [
        "pool", "published loop, a subset and epoch", "published network, batched", "default",
        "default, whole fit", "answers a second",
    ]  # fmt: skip
    lines = [f"{machine()}; 8,000 targets.", "", *table(header, rows)]
    write_part("Speed", lines)


def times(chosen: list[str]) -> None:
    """Time of a batched answer: it follows from sizes alone, so a short fit will do."""
    rows: list[list[str]] = []
    for source, family in TIMED:
        if chosen and f"{source}/{family}" not in chosen:
            continue
        task = problem(source, family, fit={"uniform": 300}, test={"uniform": ASKED})
        fit = task.fit.usable()
        predictor = fit_predictor(PredictorConfig(epochs=1), task.model, task.points, *fit)
        refits: list[Refit] = [
            rivals(task.model, task.points, *fit)["newton_step"],
            predictor,
            *(Refined(predictor, steps) for steps in REFINEMENTS),
        ]
        for refit in refits:
            refit(task.test.weights)
        seconds = [
            fastest_seconds(partial(refit, task.test.weights), timings=5) for refit in refits
        ]
        rows.append([task.name, *(f"{1e6 * each / ASKED:.0f}" for each in seconds)])
        print(" | ".join(rows[-1]), flush=True)
    header = [
        "pool", "Newton step", "predictor", *(f"refine {steps}" for steps in REFINEMENTS)
    ]  # fmt: skip
    told = f"{machine()}; µs a subset, {ASKED} at once, the fastest of five."
    write_part("Time of an answer", [told, "", *table(header, rows)])


def peak_memory(targets: int) -> None:
    """Print what fitting this many random targets adds to the peak memory of the process, in MiB."""
    task = problem("spam", "logistic", fit={"uniform": 100}, test={"uniform": 1})
    weights = (torch.rand(targets, 300, generator=torch.Generator().manual_seed(0)) < 0.5).to(
        torch.uint8
    )
    parameters = task.fit.parameters[torch.arange(targets) % 100]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit_predictor(PredictorConfig(epochs=1), task.model, task.points, weights, parameters)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def memory(chosen: list[str]) -> None:
    """Peak memory of a fit for each number of targets, each in a process of its own."""
    rows: list[list[str]] = []
    for targets in MEMORY:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.predictor_speed", str(targets)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        added = float(done.stdout)
        rows.append([f"{targets}", f"{added:.0f}", f"{1024 * added / targets:.2f}"])
        print(" | ".join(rows[-1]), flush=True)
    told = (
        "spam, logistic: what a fit adds to the peak memory of its process, bank of targets aside."
    )
    header = ["targets", "MiB", "KiB a target"]
    write_part("Memory", [told, "", *table(header, rows)])


if __name__ == "__main__":
    peak_memory(int(sys.argv[1]))
