"""The section on calibration of the probabilities, and on intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from modelpred.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Folded,
    Panel,
    Table,
    Text,
    columns_of,
)
from modelpred.report.figures import reliability
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import look, predictor_rows, rows_by_method
from modelpred.report.words import (
    change,
    count,
    microseconds,
    number,
    number_interval,
    percent,
    percent_interval,
)
from modelpred.studies.results import StudyResult

_QUALITIES = {
    "nll": "Log loss",
    "brier": "Brier score",
    "ece_width": "ECE, equal width",
    "ece_mass": "ECE, equal mass",
}


def calibration_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Calibration before and after averaging, with predicted and retrained models, and intervals."""
    bins, summary = result.tables["reliability"], result.tables["summary"]
    figure = Figure(
        "Accuracy against confidence (probability of the most likely class), with 95% Wilson "
        "intervals of each bin. Grey bars show the number of test rows in a bin. The points of a "
        "calibrated model are on the line.",
        [_panel(row, bins.filter(method=row["method"])) for row in summary.to_dicts()],
    )
    return [
        *_words(result),
        figure,
        _summary_table(summary),
        *_parameter_tables(inputs, result),
        Folded(
            "How far to trust these intervals: simulated tables and retraining",
            [*_coverage_tables(result), _spread_table(result)],
        ),
    ]


def _panel(row: Mapping[str, Any], bins: pl.DataFrame) -> Panel:
    total = count(float(bins["count"].sum()))
    words = f"expected calibration error {number(row['ece_width'])} over {total} test rows"
    return reliability(f"reliability-{row['method']}", row["method"], bins, words)


def _words(result: StudyResult) -> list[Text]:
    """The log-likelihood before and after averaging, and with retrained models."""
    scores = dict(result.tables["summary"].select("method", "nll").iter_rows())
    before, after = scores.get("full_model"), scores.get("predicted_bootstrap")
    if before is None or after is None:
        return []
    text = (
        f"Averaging the predicted models of {count(result.metrics['resamples'])} bootstrap "
        f"resamples {change(before, after)} on test rows. With retrained models it is "
        f"{number(scores['refit_bootstrap'])}."
    )
    return [Text(text, finding=True)]


def _summary_table(summary: pl.DataFrame) -> Table:
    best = {name: summary[name].min() for name in _QUALITIES}
    rows: list[list[Cell]] = []
    for row in summary.iter_rows(named=True):
        cells = [Cell(look(row["method"]).label)]
        for name in _QUALITIES:
            noise = row.get(name.replace("ece", "noise")) if name.startswith("ece") else None
            note = f"expected by chance: {number(noise, 2)}" if noise is not None else ""
            cells.append(Cell(number(row[name]), note, row[name] == best[name]))
        rows.append(cells)
    return Table(
        "Quality of the probabilities on test rows (smaller is better)",
        [Column("Method", numeric=False), *map(Column, _QUALITIES.values())],
        rows,
        note="Expected by chance: about the expected calibration error (ECE) that a perfectly "
        "calibrated model would have on this number of rows. Temperature scaling needs labels: the "
        "temperature of each half of the test rows is fitted to the other half. Laplace: models "
        "drawn around the model of all rows by its Hessian.",
        highlighted=predictor_rows(summary["method"]),
    )


def _ratio(value: float | None) -> str:
    return number(value) if value is None else f"{value:.2f}"


def _spread_table(result: StudyResult) -> Table:
    """The bootstrap of every method, compared with retraining on the same resamples."""
    by_method = rows_by_method(result.tables["refits"])
    nearest = min((row["endpoint_error"] for row in by_method.values()), default=None)
    lowest = min((row["nll"] for row in by_method.values()), default=None)
    rows = [
        [
            Cell(look(method).label),
            Cell(number(row["nll"]), best=row["nll"] == lowest),
            Cell(
                _ratio(row["std_ratio"]),
                f"{_ratio(row['std_ratio_low'])} to {_ratio(row['std_ratio_high'])}",
            ),
            Cell(percent(row["within"])),
            Cell(number(row["endpoint_error"], 2), best=row["endpoint_error"] == nearest),
            Cell(number(row["endpoint_error_95"], 2)),
            Cell(microseconds(1e6 * row["seconds"])),
        ]
        for method, row in by_method.items()
    ]
    heads = ("Log loss", "Spread / retrained spread", "Spreads within 5%")
    return Table(
        "The bootstrap of every method, compared with retraining on the same resamples",
        columns_of(
            "Method", *heads, "Endpoint error, median", "Endpoint error, 95%", "Time for all"
        ),
        rows,
        note="Spread: standard deviation of a test row's probability over resamples. The table shows "
        "the median of its ratio to the spread of retrained models, with the 5% and 95% quantiles "
        "over rows; 1 is correct. Endpoint error: difference in probability between the ends of "
        "predicted and retrained 90% intervals. "
        f"Retraining took {microseconds(1e6 * result.metrics['truth_seconds'])}.",
        highlighted=predictor_rows(by_method),
    )


def _parameter_tables(inputs: ReportInputs, result: StudyResult) -> list[Table]:
    """Intervals of the largest coefficients, predicted and retrained."""
    parameters = result.tables["parameters"].filter(pl.col("feature") != "intercept")
    largest = parameters.sort(pl.col("before").abs(), descending=True).head(inputs.config.rows)
    rows = [
        [
            Cell(f"{row['feature']} ({row['class']})" if row["class"] else row["feature"]),
            Cell(number(row["before"])),
            Cell(number_interval(row["low"], row["high"])),
            Cell(number_interval(row["true_low"], row["true_high"])),
            Cell("yes" if row["low"] <= 0 <= row["high"] else "no"),
        ]
        for row in largest.iter_rows(named=True)
    ]
    heads = ("All rows", "90% interval, predicted", "90% interval, retrained")
    return [
        Table(
            f"The {len(rows)} largest coefficients over bootstrap resamples",
            [
                Column("Coefficient", numeric=False),
                *map(Column, heads),
                Column("Includes zero", numeric=False),
            ],
            rows,
            folded=True,
            note="The intervals show how resampling the rows changes the penalised coefficients. They "
            "do not correct the bias of the penalty.",
        )
    ]


def _coverage_tables(result: StudyResult) -> list[Table]:
    """Coverage of the intervals on simulated tables; empty if it was not measured."""
    coverage = result.tables["coverage"]
    if coverage.is_empty():
        return []
    by_method = rows_by_method(coverage)
    rows = [
        [
            Cell(look(method).label),
            *(
                Cell(percent(row[part]), percent_interval(row[f"{part}_low"], row[f"{part}_high"]))
                for part in ("probabilities", "parameters")
            ),
        ]
        for method, row in by_method.items()
    ]
    tables = count(coverage["tables"][0])
    return [
        Table(
            "Coverage of 90% intervals on simulated tables",
            columns_of("Method", "Probabilities", "Coefficients"),
            rows,
            note=f"Labels of {tables} tables were simulated from the model of all rows, so the true "
            "values are known. Each table was bootstrapped. The smaller numbers are 95% intervals "
            "over tables. Intervals of retrained models can also have a coverage below 90%, because "
            "penalised models are biased; compare predicted with retrained. “Any penalty, Laplace” averages "
            "over penalties and gives intervals for the true values. The predictor was not fitted "
            "to these tables.",
            highlighted=predictor_rows(by_method),
        )
    ]
