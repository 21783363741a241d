"""What changes the predictor's error: regularisers, number of targets, width, new points."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from modelpred.metrics import mean_interval, relative_errors
from modelpred.predictor import Predictor, PredictorConfig, Refined, fit_predictor
from modelpred.refits import LinearDatamodel, rivals
from modelpred.refits.retraining import Extendable
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import Points, train_targets
from tests.benchmarks.predictor_banks import (
    Bank,
    Problem,
    machine,
    problem,
    table,
    write_part,
)

FIGURE = Path(__file__).parents[2] / "docs" / "images" / "predictor-learning.svg"
TEST = {"uniform": 500, "deletion": 500}
REGULARISERS = ((0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.1, 1.0))
ABLATED = (
    ("spam", "logistic", "standardise", "anchored"),
    ("breast_cancer", "logistic", "standardise", "anchored"),
    ("spam", "logistic", "largest_row_norm", "paper"),
)
COUNTS = tuple(250 * 2**power for power in range(8))
WIDTHS = (16, 32, 64, 128, 256)
WIDTH_TARGETS = 4000
NEW_POINT_TARGETS = 2000
NEW_POINT_METHODS = (
    "linear_datamodel", "influence", "newton_step", "predictor", "refine 0.5", "refine 2"
)  # fmt: skip


def fitted(task: Problem, count: int | None = None, **settings: Any) -> Predictor:
    """The predictor of these settings, fitted to the first `count` targets."""
    return fit_predictor(
        PredictorConfig(**settings), task.model, task.points, *task.fit.usable(count),
        validation=task.validation.usable(),
    )  # fmt: skip


def cell(errors: np.ndarray) -> str:
    interval = mean_interval(errors)
    return f"{interval.mean:.4f} ± {(interval.high - interval.low) / 2:.4f}"


def regularisers(chosen: list[str]) -> None:
    """None, local, global, both, for few and many targets."""
    for source, family, scaling, network in ABLATED:
        if chosen and f"{source}/{network}" not in chosen:
            continue
        task = problem(source, family, scaling, fit={"uniform": 8000}, test=TEST)
        rows: list[list[str]] = []
        weights, true = task.test.usable(design="uniform")
        for count in (500, 2000, 8000):
            cells = [f"{count}"]
            own = task.fit.usable(count)
            own = own[0][:500], own[1][:500]
            for optimality, utility in REGULARISERS:
                predictor = fitted(
                    task, count, network=network, optimality=optimality, utility=utility
                )
                seen = relative_errors(predictor(own[0]), own[1]).mean()
                cells.append(f"{cell(relative_errors(predictor(weights), true))} ({seen:.4f})")
            rows.append(cells)
            print(" | ".join(cells), flush=True)
        header = ["targets", "none", "local 0.1", "global 1", "local 0.1, global 1"]
        lines = [
            f"{machine()}; error on 500 held-out uniform subsets (on 500 subsets of the fit).",
            "",
            *table(header, rows),
        ]
        write_part(f"Regularisers: {task.name}, {network} network", lines)


def learning(chosen: list[str]) -> None:
    """Error against the number of targets and against width, as a table and a figure."""
    rows: list[list[str]] = []
    curves: dict[str, tuple[list[float], list[float], list[float]]] = {}
    for source in chosen or ("breast_cancer", "spam"):
        task = problem(source, "logistic", fit={"uniform": COUNTS[-1]}, test=TEST)
        weights, true = task.test.usable(design="uniform")
        linear = [
            relative_errors(LinearDatamodel.fit(*task.fit.usable(count))(weights), true).mean()
            for count in COUNTS
        ]
        ours = [learned(task, rows, count, 64) for count in COUNTS]
        widths = [learned(task, rows, WIDTH_TARGETS, width) for width in WIDTHS]
        curves[source] = ([float(error) for error in linear], ours, widths)
    draw(curves)
    told = (
        f"{machine()}; error on 500 held-out uniform subsets; width is that of the pool and of each "
        "step, the first layer is twice as wide. Figure: docs/images/predictor-learning.svg."
    )
    header = ["pool", "targets", "width", "predictor", "seconds to fit"]
    write_part("Learning curve", [told, "", *table(header, rows)])


def draw(curves: dict[str, tuple[list[float], list[float], list[float]]]) -> None:
    """The figure: for each pool the datamodel's and our errors by targets, and ours by width."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    by_count, by_width = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    for colour, (source, (linear, ours, widths)) in zip(("C0", "C1"), curves.items(), strict=True):
        by_count.loglog(COUNTS, linear, "s--", color=colour, label=f"{source}, linear datamodel")
        by_count.loglog(COUNTS, ours, "o-", color=colour, label=f"{source}, predictor")
        by_width.loglog(WIDTHS, widths, "o-", color=colour, label=f"{source}, predictor")
    for axes, label, ticks in (
        (by_count, "targets", COUNTS),
        (by_width, f"width, {WIDTH_TARGETS} targets", WIDTHS),
    ):
        axes.set_xlabel(label)
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
    by_count.set_ylabel("relative parameter error, held-out subsets")
    figure.legend(
        *by_count.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False
    )
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def learned(task: Problem, rows: list[list[str]], count: int, width: int) -> float:
    """Mean held-out error of a fit, which is added to the rows of the table."""
    weights, true = task.test.usable(design="uniform")
    began = time.perf_counter()
    predictor = fitted(task, count, width=2 * width, step_width=width)
    seconds = time.perf_counter() - began
    errors = relative_errors(predictor(weights), true)
    rows.append([task.name, f"{count}", f"{width}", cell(errors), f"{seconds:.0f}"])
    print(" | ".join(rows[-1]), flush=True)
    return float(errors.mean())


def new_points(chosen: list[str]) -> None:
    """Half of the points unseen in fitting: subsets of all points, and all seen points plus some."""
    rows: list[list[str]] = []
    for source, family in (
        ("breast_cancer", "logistic"), ("spam", "logistic"), ("spam", "svm"), ("higgs", "logistic")
    ):  # fmt: skip
        if chosen and f"{source}/{family}" not in chosen:
            continue
        whole = problem(source, family, fit={"uniform": 1}, test={"uniform": 1})
        seen = len(whole.points.labels) // 2
        half = Points(
            whole.points.features[:seen], whole.points.labels[:seen], whole.points.classes
        )
        task = _on(half, whole, count=NEW_POINT_TARGETS)
        refits: dict[str, Any] = rivals(task.model, half, *task.fit.usable())
        refits["predictor"] = fitted(task)
        extended = {
            name: refit.for_points(whole.points)
            for name, refit in refits.items()
            if isinstance(refit, Extendable)
        }
        extended |= {f"refine {k}": Refined(extended["predictor"], k) for k in (0.5, 2)}
        for design, weights in _new_designs(seen, len(whole.points.labels)).items():
            truth = train_targets(
                task.model, whole.points.features, whole.points.labels, weights,
                classes=whole.points.classes,
            )  # fmt: skip
            kept = truth.converged & ~truth.degenerate
            cells = [f"{source}, {family}", design, f"{int(kept.sum())}"]
            for name in NEW_POINT_METHODS:
                errors = relative_errors(extended[name](weights[kept]), truth.parameters[kept])
                cells.append(cell(errors))
            rows.append(cells)
            print(" | ".join(cells), flush=True)
    header = ["pool, family", "subsets", "count", *NEW_POINT_METHODS]
    lines = [
        f"{machine()}; standardised; fitted to {NEW_POINT_TARGETS} subsets of the first half of the points.",
        "",
        *table(header, rows),
    ]
    write_part("New points", lines)


def _on(points: Points, whole: Problem, *, count: int) -> Problem:
    """The problem on these points alone."""
    drawn = draw_subsets(
        SubsetsConfig(fit={"uniform": count}, validation={"uniform": 200}, test={"uniform": 1}),
        points=len(points.labels),
    )
    trained = train_targets(
        whole.model, points.features, points.labels, drawn.weights.to(torch.float64),
        classes=points.classes,
    )  # fmt: skip
    banks = {role: Bank.of(drawn, trained, role) for role in ("fit", "validation", "test")}
    return Problem(whole.name, whole.model, points, whole.test_points, **banks)


def _new_designs(seen: int, points: int) -> dict[str, torch.Tensor]:
    """500 subsets each: members from all points, no more than were seen; seen points plus others."""
    generator = np.random.default_rng(7)
    mixed = np.zeros((500, points))
    added = np.zeros((500, points))
    added[:, :seen] = 1
    for row in range(500):
        size = generator.integers(seen // 5, seen + 1)
        mixed[row, generator.choice(points, size, replace=False)] = 1
        more = generator.integers(1, points - seen + 1)
        added[row, seen + generator.choice(points - seen, more, replace=False)] = 1
    return {
        "drawn from all points": torch.from_numpy(mixed),
        "all seen points and some new": torch.from_numpy(added),
    }
