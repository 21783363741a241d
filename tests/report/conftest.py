"""A run's results, generated: of the shape and about the size that real ones have."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from modelpred.dataset import Dataset, DatasetConfig, Encoding, prepare
from modelpred.report import ReportInputs
from modelpred.studies.results import StudyResult

METHODS = {
    # method: (error on uniform subsets, microseconds)
    "predictor": (0.049, 21.0),
    "full_model": (0.82, 0.02),
    "influence": (0.393, 8.0),
    "rescaled_influence": (0.31, 9.1),
    "newton_step": (0.168, 37.0),
    "linear_datamodel": (0.214, 3.1),
}
DESIGNS = {"uniform": 1.0, "deletion": 0.45, "bootstrap": 0.7}


def fidelity() -> pl.DataFrame:
    rows = []
    for design, easier in DESIGNS.items():
        for method, (error, microseconds) in METHODS.items():
            mean = error * easier
            rows.append(
                {
                    "method": method,
                    "design": design,
                    "subsets": 500,
                    "parameter_error": mean,
                    "parameter_error_low": 0.96 * mean,
                    "parameter_error_high": 1.04 * mean,
                    "parameter_error_median": 0.9 * mean,
                    "test_loss_error": 0.3 * mean,
                    "spearman_within_size": 1 - mean if method != "full_model" else float("nan"),
                    "microseconds": microseconds,
                }
            )
    return pl.DataFrame(rows)


def edits(generator: np.random.Generator, points: int) -> StudyResult:
    sizes = np.linspace(points // 2, points, 12).astype(int)
    rows = []
    for method, (error, _) in METHODS.items():
        for size in sizes:
            mean = error * (1.05 - size / points) * generator.uniform(0.9, 1.1)
            if size == points and method != "predictor":
                mean = 1e-8  # exact without a deletion, up to rounding
            rows.append(
                {
                    "method": method,
                    "size": int(size),
                    "parameter_error": mean,
                    "low": 0.85 * mean,
                    "high": 1.15 * mean,
                    "test_loss_error": 0.3 * mean,
                    "test_loss_error_low": 0.2 * mean,
                    "test_loss_error_high": 0.4 * mean,
                    "spearman": max(0.0, 1 - mean),
                }
            )
    size = np.repeat(sizes, 20)
    true = 0.25 + 30 / size + generator.normal(0, 0.03, len(size))
    truth = pl.DataFrame(
        {
            "size": size,
            "true_loss": true,
            "predicted_loss": true + generator.normal(0, 0.005, len(size)),
            "parameter_error": generator.uniform(0.01, 0.05, len(size)),
        }
    )
    metrics = {
        method: {
            f"{name}{end}": value * factor
            for name, value in (
                ("parameter_error", error),
                ("test_loss_error", 0.3 * error),
                ("spearman_within_size", 1 - error),
            )
            for end, factor in (("", 1.0), ("_low", 0.95), ("_high", 1.05))
        }
        | {"microseconds": microseconds}
        for method, (error, microseconds) in METHODS.items()
    }
    metrics["full_model"]["spearman_within_size"] = None
    metrics["retraining"] = {"microseconds": 160.0, "subsets": len(size), "not_converged": 1}
    return StudyResult(metrics, {"edits": pl.DataFrame(rows), "predicted_against_true": truth})


def valuation(generator: np.random.Generator, dataset: Dataset) -> StudyResult:
    points = len(dataset.row_ids)
    true = 1e-3 * generator.standard_t(4, points) + 5e-4
    value = true + generator.normal(0, 1.2e-4, points)
    rank = np.empty(points, dtype=np.int64)
    rank[np.argsort(-value)] = np.arange(1, points + 1)
    values = pl.DataFrame(
        {
            "row_id": dataset.row_ids,
            "value": value,
            "standard_error": np.full(points, 1.3e-4),
            "rank": rank,
            "true_value": true,
            "true_standard_error": np.full(points, 1.2e-4),
        }
    )
    methods = pl.DataFrame(
        [
            {
                "method": method,
                "spearman": 1 - error / 2,
                "spearman_low": 1 - 0.6 * error,
                "spearman_high": 1 - 0.4 * error,
                "top_overlap": 1 - error,
                "bottom_overlap": 1 - error,
                "seconds": microseconds * 0.03,
            }
            for method, (error, microseconds) in METHODS.items()
        ]
    )
    metrics = {
        "permutations": 100,
        **methods.row(0, named=True),
        "truth_reliability": 0.981,
        "truth_seconds": 5.1,
    }
    return StudyResult(metrics, {"values": values, "methods": methods})


def calibration(generator: np.random.Generator) -> StudyResult:
    sharpness = {"full_model": 0.12, "predicted_bootstrap": 0.03, "refit_bootstrap": 0.025}
    bins, summary = [], []
    for method, gap in sharpness.items():
        for index in range(8, 15):
            confidence = (index + 0.5) / 15
            accuracy = min(1.0, confidence - gap + generator.normal(0, 0.02))
            bins.append(
                {
                    "method": method,
                    "bin": index,
                    "confidence": confidence,
                    "accuracy": accuracy,
                    "accuracy_low": accuracy - 0.05,
                    "accuracy_high": min(1.0, accuracy + 0.05),
                    "count": 20 + 30 * (index - 8),
                }
            )
        summary.append(
            {
                "method": method,
                "nll": 0.25 + gap,
                "brier": 0.14 + gap / 2,
                "ece_width": gap,
                "ece_mass": 0.9 * gap,
                "noise_width": 0.02,
                "noise_mass": 0.018,
            }
        )
    refits = [
        {
            "method": method,
            "nll": 0.28 + error,
            "std_ratio": None if method == "full_model" else 1 - error / 2,
            "std_ratio_low": None if method == "full_model" else 1 - error,
            "std_ratio_high": None if method == "full_model" else 1.1,
            "within": None if method == "full_model" else 1 - error,
            "endpoint_error": error / 10,
            "endpoint_error_95": error / 3,
            "seconds": microseconds * 5e-4,
        }
        for method, (error, microseconds) in METHODS.items()
    ]
    spread = {"low": 0.4, "high": 0.9, "true_low": 0.38, "true_high": 0.91}
    parameters = [{"class": "", "feature": "word_freq_money", "before": 0.66, **spread}]
    coverage = [
        {
            "method": method,
            "tables": 10,
            "probabilities": 0.84,
            "probabilities_low": 0.8,
            "probabilities_high": 0.88,
            "parameters": 0.79,
            "parameters_low": 0.75,
            "parameters_high": 0.83,
        }
        for method in ("retraining", "predictor_refined")
    ]
    tables = {"reliability": bins, "summary": summary, "refits": refits}
    tables |= {"parameters": parameters, "coverage": coverage}
    metrics = {"resamples": 500, "truth_seconds": 0.4}
    return StudyResult(metrics, {name: pl.DataFrame(rows) for name, rows in tables.items()})


def history() -> pl.DataFrame:
    epoch = np.arange(1, 41)
    return pl.DataFrame(
        {
            "epoch": epoch,
            "loss": 0.9 * np.exp(-epoch / 9) + 0.02,
            "validation_error": 0.4 * np.exp(-epoch / 8) + 0.05,
            "seconds": 0.6 * epoch,
        }
    )


@pytest.fixture(scope="session")
def example() -> ReportInputs:
    """A whole run on spam."""
    generator = np.random.default_rng(0)
    dataset = prepare(DatasetConfig(source="spam"))
    return ReportInputs(
        params={
            "dataset": {"source": "spam", "points": "auto", "seed": 0},
            "subsets": {"fit": {"uniform": 4000, "bootstrap": 1000}, "block": 250},
            "targets": {"model": "logistic", "C": 1.0},
            "report": {"rows": 10},
        },
        dataset=dataset,
        fidelity=fidelity(),
        history=history(),
        studies={
            "edits": edits(generator, len(dataset.row_ids)),
            "valuation": valuation(generator, dataset),
            "calibration": calibration(generator),
        },
        targets_metrics={"subsets": 6500, "converged": 6500, "seconds": 4.2},
        predictor_metrics={"seconds": 24.0, "parameters": 401_234},
        lineage={
            "fingerprints": {"dataset": dataset.fingerprint, "predictor": "ab" * 32},
            "versions": {"modelpred": "0.1.0", "torch": "2.13.0"},
            "seconds": {"targets": 4.2, "predictor": 24.0},
        },
    )


@pytest.fixture
def nasty(example: ReportInputs) -> Callable[[str], ReportInputs]:
    """The example with a feature, a class, the data set and its label named by the given text."""

    def make(name: str) -> ReportInputs:
        dataset = example.dataset
        first = dataset.column_names[0]
        renamed = dataset.encoding.columns[0].model_copy(update={"name": name})
        rows = dataset.rows.rename({first: name}).with_columns(
            pl.lit(name).alias(dataset.label_name)
        )
        changed = replace(
            dataset,
            name=name,
            encoding=Encoding(columns=(renamed, *dataset.encoding.columns[1:])),
            classes=(name, *dataset.classes[1:]),
            rows=rows.rename({dataset.label_name: name + "!"}),
            label_name=name + "!",
        )
        return replace(example, dataset=changed)

    return make
