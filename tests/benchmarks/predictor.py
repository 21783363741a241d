"""The predictor beside its rivals: error against time, and what each regulariser changes.

    python tests/benchmarks/predictor.py                 every table, into RESULTS.md's section
    python tests/benchmarks/predictor.py spam logistic   one pool and family, printed only

Default settings for every pool; scalers and everything else fitted on training rows. Errors are
mean relative parameter errors with 95% intervals over held-out subsets that no fit saw; times are
per subset, the best of three batched answers, all methods in one process with two threads.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modelpred.dataset import DatasetConfig, prepare
from modelpred.metrics import mean_interval, relative_errors
from modelpred.predictor import PredictorConfig, fidelity, fit_predictor
from modelpred.predictor.fitting import Predictor
from modelpred.refits import Retraining, rivals
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import Points, points_of, target_model, train_targets

RESULTS = Path(__file__).with_name("RESULTS.md")
SECTION = "## Predictor"
POOLS = (
    ("iris", "logistic", "largest_row_norm", 8000),
    ("iris", "logistic", "standardise", 8000),
    ("spam", "logistic", "largest_row_norm", 8000),
    ("spam", "logistic", "standardise", 8000),
    ("breast_cancer", "logistic", "standardise", 8000),
    ("spam", "svm", "standardise", 8000),
)
REFINEMENTS = (0.25, 0.5, 1, 2)
ABLATION = ((0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.1, 1.0))


class Bank:
    """Subsets of one role with their trained parameters."""

    def __init__(self, drawn: Any, trained: Any, role: str) -> None:
        rows = torch.tensor([name == role for name in drawn.roles])
        self.designs = tuple(np.array(drawn.designs)[rows.numpy()])
        self.weights = drawn.weights[rows].to(torch.float64)
        self.parameters = trained.parameters[rows]
        self.converged, self.degenerate = trained.converged[rows], trained.degenerate[rows]

    def usable(
        self, count: int | None = None, *, design: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and parameters of the rows that are a truth, the first `count` of them."""
        kept = self.converged & ~self.degenerate
        if design:
            kept &= torch.tensor([name == design for name in self.designs])
        return self.weights[kept][:count], self.parameters[kept][:count]


class Refined:
    """The predictor with a fixed refinement, as a refit."""

    def __init__(self, predictor: Predictor, steps: float) -> None:
        self.predictor, self.steps, self.name = predictor, steps, f"refine {steps}"

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        """Parameters [subsets, parameters]."""
        return self.predictor.predict(weights, refine=self.steps)


def banks(source: str, family: str, scaling: str, subsets: int) -> tuple[Any, Points, Points, dict]:
    data = prepare(DatasetConfig(source=source, scaling=scaling))
    points = points_of(data.features, data.labels, len(data.classes))
    test = points_of(data.test_features, data.test_labels, len(data.classes))
    model = target_model(family)
    drawn = draw_subsets(
        SubsetsConfig(
            fit={"uniform": subsets},
            validation={"uniform": 200},
            test={"uniform": 500, "deletion": 500},
        ),
        points=len(data.labels),
    )
    began = time.perf_counter()
    trained = train_targets(
        model, points.features, points.labels, drawn.weights.to(torch.float64),
        classes=points.classes,
    )  # fmt: skip
    print(f"  trained {len(drawn.weights)} in {time.perf_counter() - began:.1f} s", flush=True)
    return model, points, test, {r: Bank(drawn, trained, r) for r in ("fit", "validation", "test")}


def compare(source: str, family: str, scaling: str, subsets: int) -> pl.DataFrame:
    """Every rival, the paper's network, and the predictor with refinements."""
    print(f"{source} {family} {scaling}", flush=True)
    model, points, test, roles = banks(source, family, scaling, subsets)
    fit = roles["fit"].usable()
    refits: dict[str, Any] = rivals(model, points, *fit)
    for network in ("paper", "anchored"):
        began = time.perf_counter()
        predictor = fit_predictor(
            PredictorConfig(network=network), model, points, *fit,
            validation=roles["validation"].usable(),
        )  # fmt: skip
        print(f"  fitted {network} in {time.perf_counter() - began:.1f} s", flush=True)
        refits[f"predictor ({network})" if network == "paper" else "predictor"] = predictor
    for steps in REFINEMENTS:
        refits[f"refine {steps}"] = Refined(refits["predictor"], steps)
    refits["retraining"] = Retraining(model, points)
    table = fidelity(refits, roles["test"], model=model, points=points, test_points=test)
    bound = refits["predictor"].certificate(roles["test"].usable()[0])
    if bound is not None:
        weights, true = roles["test"].usable()
        distance = (refits["predictor"](weights) - true).norm(dim=1)
        print(
            f"  certificate holds on {float((bound >= distance).double().mean()):.4f} of "
            f"{len(true)}, median bound / distance {float((bound / distance).median()):.1f}"
        )
    return table.with_columns(
        pl.lit(source).alias("pool"),
        pl.lit(family).alias("family"),
        pl.lit(scaling).alias("scaling"),
    )


def ablation(source: str, family: str) -> list[str]:
    """Held-out error with each regulariser, for few and many targets."""
    model, points, _, roles = banks(source, family, "standardise", 8000)
    lines = [
        f"\n{source}, {family}, standardised: error on held-out uniform subsets (on its own fit).\n",
        "| targets | " + " | ".join(f"optimality {o}, utility {u}" for o, u in ABLATION) + " |",
        "|---" * (1 + len(ABLATION)) + "|",
    ]
    weights, true = roles["test"].usable(design="uniform")
    for count in (500, 2000, 8000):
        cells: list[str] = []
        fit = roles["fit"].usable(count)
        for optimality, utility in ABLATION:
            predictor = fit_predictor(
                PredictorConfig(optimality=optimality, utility=utility), model, points, *fit,
                validation=roles["validation"].usable(),
            )  # fmt: skip
            error = mean_interval(relative_errors(predictor(weights), true))
            own = relative_errors(predictor(fit[0][:500]), fit[1][:500]).mean()
            half = (error.high - error.low) / 2
            cells.append(f"{error.mean:.4f} ± {half:.4f} ({own:.4f})")
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def markdown(table: pl.DataFrame) -> list[str]:
    lines: list[str] = []
    for (pool, family, scaling), rows in table.group_by(
        "pool", "family", "scaling", maintain_order=True
    ):
        lines += [
            f"\n### {pool}, {family}, {scaling}\n",
            "| method | uniform | µs | Spearman | deletion | µs | Spearman |",
            "|---|---|---|---|---|---|---|",
        ]
        for method in rows["method"].unique(maintain_order=True):
            cells = [str(method)]
            for design in ("uniform", "deletion"):
                row = rows.filter(method=method, design=design).row(0, named=True)
                half = (row["parameter_error_high"] - row["parameter_error_low"]) / 2
                cells += [
                    f"{row['parameter_error']:.4f} ± {half:.4f}",
                    f"{row['microseconds']:.1f}",
                    f"{row['spearman_within_size']:.3f}",
                ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", nargs="?")
    parser.add_argument("family", nargs="?", default="logistic")
    parser.add_argument("--scaling", default="standardise")
    parser.add_argument("--targets", type=int, default=8000)
    given = parser.parse_args()
    if given.pool:
        table = compare(given.pool, given.family, given.scaling, given.targets)
        print("\n".join(markdown(table)))
        return
    lines = [
        SECTION,
        "",
        (
            f"`python tests/benchmarks/predictor.py`, {platform.machine()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}; 500 held-out subsets a "
            "design, mean ± half of the 95% interval, 8,000 uniform targets, default settings."
        ),
    ]
    for pool in POOLS:
        lines += markdown(compare(*pool))
    lines += ["\n### Regularisers", *ablation("spam", "logistic")]
    before = RESULTS.read_text().split(SECTION)[0].rstrip() if RESULTS.exists() else ""
    RESULTS.write_text(f"{before}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
