"""Memorization, calibration and attribution by predicted models, beside retraining and the rivals.

    python -m tests.benchmarks.uncertainty spam digits mnist speed coverage

Every part replaces its own part of RESULTS.md's section. Default settings of predictor and studies,
on standardised features; four fifths of the subsets to fit are uniform, the rest bootstrap resamples.
The truth is exact retraining; n studies with other seeds give mean and standard deviation (±).
"""

import argparse
import os
import platform
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modelpred.dataset import DatasetConfig, prepare
from modelpred.predictor import Predictor, PredictorConfig, Refined, fit_predictor
from modelpred.refits import Influence, LinearDatamodel, NewtonStep, Retraining
from modelpred.studies import attribution, calibration, memorization
from modelpred.studies.bootstrap import predictive, resampled_models
from modelpred.studies.calibration_tables import coverage_table
from modelpred.studies.context import StudyContext
from modelpred.studies.coverage import KnownModel, simulated_coverage
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import (
    Points,
    TargetModel,
    dataset_points,
    dataset_test_points,
    target_model,
    train_targets,
)
from tests.benchmarks.results import write_part

SECTION = "## Uncertainty"


@dataclass(frozen=True)
class Pool:
    """A table, its family, and how much is asked about it."""

    family: str
    fit: int
    seeds: int
    subsets: int
    resamples: int
    explained: int
    tables: int
    newton: bool


POOLS = {
    "spam": Pool("logistic", 5000, 3, 1000, 1000, explained=60, tables=20, newton=True),
    "digits": Pool("softmax", 2500, 2, 500, 200, explained=10, tables=5, newton=False),
    "mnist": Pool("softmax", 1500, 1, 250, 100, explained=0, tables=0, newton=False),
}


def subsets_of(count: int) -> SubsetsConfig:
    """So many subsets to fit, in the pipeline's proportions."""
    return SubsetsConfig(
        fit={"uniform": count - count // 5, "bootstrap": count // 5},
        validation={"uniform": 80, "bootstrap": 20},
        test={"uniform": 5},
    )


def fitted(model: TargetModel, points: Points, config: SubsetsConfig) -> tuple[Predictor, Any]:
    """A predictor of default settings, and the weights and parameters that it was fitted to."""
    drawn = draw_subsets(config, points=len(points.labels))
    weights = drawn.weights.to(torch.float64)
    trained = train_targets(
        model, points.features, points.labels, weights, classes=points.classes
    )  # fmt: skip
    usable = trained.converged & ~trained.degenerate
    roles = np.array(drawn.roles)
    banks = {
        role: (weights[chosen], trained.parameters[chosen])
        for role in ("fit", "validation")
        for chosen in [usable & torch.from_numpy(roles == role)]
    }
    predictor = fit_predictor(
        PredictorConfig(), model, points, *banks["fit"], validation=banks["validation"]
    )
    return predictor, banks["fit"]


def context_of(source: str) -> StudyContext:
    """A study of a pool: the predictor, and the rivals that its family makes cheap."""
    pool = POOLS[source]
    began = time.perf_counter()
    data = prepare(DatasetConfig(source=source))
    model = target_model(pool.family)
    points = dataset_points(data)
    predictor, bank = fitted(model, points, subsets_of(pool.fit))
    truth = Retraining(model, points)
    full = truth(torch.ones(1, len(points.labels)))[0]
    rivals = [Influence(model, points, full), LinearDatamodel.fit(*bank)]
    if pool.newton:
        rivals.append(NewtonStep(model, points, full))
    print(f"{source}: fitted in {time.perf_counter() - began:.0f} s", flush=True)
    return StudyContext(
        truth,
        dataset_test_points(data),
        {"predictor": predictor, **{rival.name: rival for rival in rivals}},
        data.row_ids,
    )


def spread(values: list[float | None], digits: int) -> str:
    """Mean ± standard deviation of several studies, or the one value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    around = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{around}"


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def by_method(tables: list[Any], **chosen: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each method, one a study."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in tables:
        for row in each.filter(**chosen).iter_rows(named=True):
            found.setdefault(row["method"], []).append(row)
    return found


def column(rows: list[dict[str, Any]], name: str, digits: int, *, scale: float = 1) -> str:
    return spread([None if row[name] is None else scale * row[name] for row in rows], digits)


def memorized(context: StudyContext, pool: Pool) -> list[str]:
    results = [
        memorization.run(
            memorization.MemorizationConfig(subsets=pool.subsets, strongest=0, seed=seed), context
        )
        for seed in range(pool.seeds)
    ]
    lines: list[str] = []
    for form in ("probability", "correct"):
        found = by_method([result.tables["methods"] for result in results], form=form)
        first = next(iter(found.values()))
        lines += [
            (
                f"Memorization by {form}, {pool.subsets} subsets of 0.7 N, n = {pool.seeds}. Ceiling: "
                f"Pearson {column(first, 'ceiling', 4)}, top tenth {column(first, 'top_ceiling', 3)}, "
                f"influence on test rows {column(first, 'influence_ceiling', 3)}; retraining took "
                f"{spread([result.metrics['truth_seconds'] for result in results], 2)} s."
            ),
            "",
            *table(
                [
                    *("method", "Pearson, other subsets", "of the ceiling [0.98]"),
                    *("top tenth, of the ceiling [0.98]", "same subsets", "influence", "s"),
                ],
                [
                    [
                        method,
                        column(rows, "different", 4),
                        column(rows, "of_ceiling", 4),
                        column(rows, "top_of_ceiling", 3),
                        column(rows, "same", 4),
                        column(rows, "influence_different", 3),
                        column(rows, "seconds", 2),
                    ]
                    for method, rows in found.items()
                ],
            ),
        ]
    return lines


def calibrated(context: StudyContext, pool: Pool) -> list[str]:
    results = [
        calibration.run(
            calibration.CalibrationConfig(
                resamples=pool.resamples, seed=seed, tables=0 if seed else pool.tables
            ),
            context,
        )
        for seed in range(pool.seeds)
    ]
    truths = [result.metrics["refit_bootstrap"]["nll"] for result in results]
    found = by_method([result.tables["refits"] for result in results])
    for rows in found.values():
        for row, true in zip(rows, truths, strict=True):
            row["gap"] = row["nll"] / true - 1
    quality = by_method([result.tables["summary"] for result in results])
    lines = [
        (
            f"Bootstrap of {pool.resamples} resamples against retraining on the same resamples, "
            f"{len(context.test_points.labels)} test rows, n = {pool.seeds}; retraining took "
            f"{spread([result.metrics['truth_seconds'] for result in results], 2)} s."
        ),
        "",
        *table(
            [
                *("method", "std ratio, median [within 5%]", "5% to 95%", "ratios within 5%"),
                *("parameters' std ratio", "endpoint error, median [0.01]", "95%"),
                *("NLL gap, % [0.5]", "s"),
            ],
            [
                [
                    method,
                    column(rows, "std_ratio", 3),
                    f"{column(rows, 'std_ratio_low', 2)} to {column(rows, 'std_ratio_high', 2)}",
                    column(rows, "within", 2),
                    column(rows, "parameter_ratio", 3),
                    column(rows, "endpoint_error", 5),
                    column(rows, "endpoint_error_95", 4),
                    column(rows, "gap", 3, scale=100),
                    column(rows, "seconds", 2),
                ]
                for method, rows in found.items()
            ],
        ),
        "Quality on test rows (chance: what a calibrated model would show on so many rows).",
        "",
        *table(
            [
                "probabilities",
                "NLL",
                "Brier",
                "ECE, equal width (chance)",
                "ECE, equal mass (chance)",
            ],
            [
                [
                    method,
                    column(rows, "nll", 4),
                    column(rows, "brier", 4),
                    f"{column(rows, 'ece_width', 3)} ({column(rows, 'noise_width', 3)})",
                    f"{column(rows, 'ece_mass', 3)} ({column(rows, 'noise_mass', 3)})",
                ]
                for method, rows in quality.items()
            ],
        ),
    ]
    return [*lines, *covered_lines(results[0].tables["coverage"].to_dicts(), "the full-data model")]


def covered_lines(rows: list[dict[str, Any]], truth: str) -> list[str]:
    if not rows:
        return []
    return [
        (
            f"Share of 90% intervals that hold the truth, {rows[0]['tables']} tables drawn from {truth} "
            "(95% band over tables)."
        ),
        "",
        *table(
            ["method", "probabilities", "parameters"],
            [
                [
                    row["method"],
                    *(
                        f"{row[part]:.3f} ({row[f'{part}_low']:.3f} to {row[f'{part}_high']:.3f})"
                        for part in ("probabilities", "parameters")
                    ),
                ]
                for row in rows
            ],
        ),
    ]


def attributed(context: StudyContext, pool: Pool) -> list[str]:
    methods = ("predictor", "predictor_refined", "influence", "newton_step")
    result = attribution.run(
        attribution.AttributionConfig(explained=pool.explained, methods=methods), context
    )
    rows = result.tables["methods"].to_dicts()
    lines = [
        (
            f"What each row adds to each parameter, against exact leave-one-out: Spearman over "
            f"{context.pool} rows for each of {len(result.tables['parameters'])} parameters."
        ),
        "",
        *table(
            ["method", "median [0.95]", "5% to 95%", "parameters of 0.95 or more", "s"],
            [
                [
                    row["method"],
                    f"{row['spearman']:.4f}",
                    f"{row['spearman_low']:.3f} to {row['spearman_high']:.3f}",
                    f"{100 * row['above']:.1f}%",
                    f"{row['seconds']:.2f}",
                ]
                for row in rows
            ],
        ),
    ]
    flips = result.tables["flip_methods"].to_dicts()
    if not flips:
        return lines
    return [
        *lines,
        (
            f"Smallest sets found whose removal flips a prediction, {pool.explained} random test rows, "
            f"each retrained once; sizes over the {flips[0]['common']} rows that every method flipped "
            "with confirmation."
        ),
        "",
        *table(
            ["method", "found", "confirmed", "rows removed, mean", "s"],
            [
                [
                    row["method"],
                    f"{row['found']} of {row['rows']}",
                    f"{row['confirmed']} of {row['found']}"
                    + (f" ({100 * row['confirmed'] / row['found']:.0f}%)" if row["found"] else ""),
                    "-" if row["size"] is None else f"{row['size']:.1f}",
                    f"{row['seconds']:.1f}",
                ]
                for row in flips
            ],
        ),
    ]


def pool_part(source: str) -> list[str]:
    pool = POOLS[source]
    context = context_of(source)
    lines: list[str] = []
    for part in (memorized, calibrated, attributed):
        lines += part(context, pool)
        print(f"{source}: {part.__name__}", flush=True)
    points, features = context.points.features.shape
    title = f"### {source}, {points} x {features}, {pool.family}, {pool.fit:,} subsets to fit"
    return [title, "", machine(), "", *lines]


def speed_part() -> list[str]:
    """Draw, predict and summarise 10,000 resamples of spam on 500 test rows."""
    context = context_of("spam")
    predictor = context.refits["predictor"]
    assert isinstance(predictor, Predictor)
    rows: list[list[str]] = []
    for name, refit in (
        ("predictor", predictor),
        ("refine 0.5 (default)", Refined(predictor, 0.5)),
        ("exact retraining", context.truth),
    ):
        seconds: list[float] = []
        for repeat in range(6):
            began = time.perf_counter()
            models = resampled_models(
                refit,
                resamples=10_000,
                points=context.pool,
                generator=np.random.default_rng(repeat),
            )
            predictive(context.model, models, context.test_points)
            seconds.append(time.perf_counter() - began)
        later = sorted(seconds[1:])  # the first warms up
        rows.append([name, f"{later[2]:.2f} ({later[0]:.2f} to {later[-1]:.2f})"])
    heads = ["models by", "seconds, median of 5 (lowest to highest) [predicted: 5]"]
    title = "### 10,000 bootstrap resamples of spam, 500 test rows: mean, spread and 90% interval"
    return [title, "", machine(), "", *table(heads, rows)]


def coverage_part() -> list[str]:
    """A predictor fitted to every table that is drawn, as its user would."""
    draws = np.random.default_rng(0)
    known = KnownModel(
        target_model("logistic", C=10.0),
        torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0, 0.3], dtype=torch.float64),
        torch.tensor(draws.normal(size=(200, 5))),
        torch.tensor(draws.normal(size=(100, 5))),
        2,
    )
    latest: dict[str, Any] = {}

    def predictor_of(model: TargetModel, points: Points) -> Predictor:
        latest["predictor"] = fitted(model, points, subsets_of(1000))[0]
        return latest["predictor"]

    found = simulated_coverage(
        known,
        tables=16,
        resamples=400,
        generator=draws,
        refits_of={
            "retraining": Retraining,
            "predictor": predictor_of,
            "predictor_refined": lambda _model, _points: Refined(latest["predictor"], 0.5),
        },
    )
    rows = coverage_table(found).to_dicts()
    title = "### Coverage where the truth is known, logistic, 200 x 5, weak penalty (C = 10)"
    lines = covered_lines(rows, "known parameters, a predictor fitted to each")
    return [title, "", machine(), "", *lines]


def machine() -> str:
    return (
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), load "
        f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}, Python {platform.python_version()}."
    )


def written(lines: list[str]) -> None:
    """Put the part, whose first line is its heading, in the place of the pool's last."""
    title = lines[0].removeprefix("### ")
    introduction = (
        "`python -m tests.benchmarks.uncertainty spam digits mnist speed coverage`; default settings, "
        "standardised\nfeatures; n studies with other seeds, mean ± standard deviation. Goals in "
        "brackets."
    )
    pool = title.split(",")[0]
    write_part(SECTION, title, lines[2:], introduction=introduction, replaces=pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=[*POOLS, "speed", "coverage"])
    given = parser.parse_args()
    for part in given.parts:
        if part == "speed":
            lines = speed_part()
        elif part == "coverage":
            lines = coverage_part()
        else:
            lines = pool_part(part)
        print("\n".join(lines), flush=True)
        written(lines)


if __name__ == "__main__":
    main()
