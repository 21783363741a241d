"""Calibration: the section on how sure the model is, and how sure it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from modelpred.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Panel,
    Table,
    Text,
    count,
    microseconds,
    number,
    number_interval,
    percent,
    percent_interval,
)
from modelpred.report.figures import reliability
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import in_order, is_ours, look
from modelpred.studies.utility import StudyResult

_QUALITIES = {
    "nll": "Negative log-likelihood",
    "brier": "Brier score",
    "ece_width": "ECE, equal width",
    "ece_mass": "ECE, equal mass",
}


def calibration_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Before, after, and the same with retrained models; intervals, and how often they hold."""
    bins, summary = result.tables["reliability"], result.tables["summary"]
    figure = Figure(
        "How often the model was right against how sure it was (probability of its most likely "
        "class), with 95% Wilson intervals of each bin. Grey bars show how many test rows a bin "
        "holds. A calibrated model lies on the line.",
        [_panel(row, bins.filter(pl.col("method") == row["method"])) for row in _rows(summary)],
    )
    return [
        *_words(result),
        _summary_table(summary),
        figure,
        _spread_table(result),
        *_parameter_tables(inputs, result),
        *_coverage_tables(result),
    ]


def _rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return table.to_dicts()


def _panel(row: Mapping[str, Any], bins: pl.DataFrame) -> Panel:
    total = count(float(bins["count"].sum()))
    words = f"expected calibration error {number(row['ece_width'])} over {total} test rows"
    return reliability(f"reliability-{row['method']}", row["method"], bins, words)


def _words(result: StudyResult) -> list[Text]:
    """What averaging changed, and how near it came to retraining."""
    scores = {row["method"]: row["nll"] for row in _rows(result.tables["summary"])}
    before, after = scores.get("full_model"), scores.get("predicted_bootstrap")
    if before is None or after is None:
        return []
    way = "lowers" if after < before else "does not lower"
    text = (
        f"Averaging the predicted models of {count(result.metrics['resamples'])} bootstrap "
        f"resamples {way} the negative log-likelihood on test rows: {number(before, 4)} before, "
        f"{number(after, 4)} after; retrained models give {number(scores['refit_bootstrap'], 4)}."
    )
    return [Text(text, finding=True)]


def _summary_table(summary: pl.DataFrame) -> Table:
    best = {name: summary[name].min() for name in _QUALITIES}
    rows: list[list[Cell]] = []
    for row in _rows(summary):
        cells = [Cell(look(row["method"]).label)]
        for name in _QUALITIES:
            noise = row.get(name.replace("ece", "noise")) if name.startswith("ece") else None
            note = f"chance alone: {number(noise, 2)}" if noise is not None else ""
            digits = 3 if name.startswith("ece") else 4
            cells.append(Cell(number(row[name], digits), note, row[name] == best[name]))
        rows.append(cells)
    return Table(
        "Quality of the probabilities on test rows, smaller is better",
        [Column("Method", numeric=False), *map(Column, _QUALITIES.values())],
        rows,
        note="Chance alone: about the expected calibration error (ECE) that a perfectly calibrated "
        "model would show on so many rows. Temperature scaling needs labels: each half of the test "
        "rows is tempered by what the other half asks for. Laplace: models drawn around the "
        "full-data model by its Hessian.",
        ours=_ours(summary["method"].to_list()),
    )


def _ours(methods: list[str]) -> frozenset[int]:
    return frozenset(index for index, method in enumerate(methods) if is_ours(method))


def _ratio(value: float | None) -> str:
    return number(value) if value is None else f"{value:.2f}"


def _spread_table(result: StudyResult) -> Table:
    """Every method's bootstrap against retraining on the same resamples."""
    found = {row["method"]: row for row in _rows(result.tables["refits"])}
    order = in_order(list(found))
    nearest = min((row["endpoint_error"] for row in found.values()), default=None)
    lowest = min((row["nll"] for row in found.values()), default=None)
    rows = [
        [
            Cell(look(method).label),
            Cell(number(row["nll"], 4), best=row["nll"] == lowest),
            Cell(
                _ratio(row["std_ratio"]),
                f"{_ratio(row['std_ratio_low'])} to {_ratio(row['std_ratio_high'])}",
            ),
            Cell(percent(row["within"])),
            Cell(number(row["endpoint_error"], 2), best=row["endpoint_error"] == nearest),
            Cell(number(row["endpoint_error_95"], 2)),
            Cell(microseconds(1e6 * row["seconds"])),
        ]
        for method, row in ((method, found[method]) for method in order)
    ]
    heads = ("Log-likelihood, negative", "Spread over retrained", "Spreads within 5%")
    return Table(
        "The bootstrap by every method, beside retraining on the same resamples",
        [
            Column("Method", numeric=False),
            *map(Column, heads),
            *map(Column, ("Endpoint error, median", "Endpoint error, 95%", "Time for all")),
        ],
        rows,
        note="Spread: standard deviation over resamples of a test row's probability, median of its "
        "ratio to the retrained one with the 5% and 95% quantiles over rows; 1 is right. Endpoint "
        "error: distance in probability between the ends of predicted and retrained 90% intervals. "
        f"Retraining took {microseconds(1e6 * result.metrics['truth_seconds'])}.",
        ours=_ours(order),
    )


def _parameter_tables(inputs: ReportInputs, result: StudyResult) -> list[Table]:
    """How sure the largest coefficients are, predicted and retrained."""
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
        for row in _rows(largest)
    ]
    heads = ("All rows", "90% interval, predicted", "90% interval, retrained")
    return [
        Table(
            f"The {len(rows)} largest coefficients over bootstrap resamples",
            [
                Column("Coefficient", numeric=False),
                *map(Column, heads),
                Column("Holds zero", numeric=False),
            ],
            rows,
            folded=True,
            note="Resampling the rows changes a penalised coefficient by this much; the interval is "
            "around penalised coefficients.",
        )
    ]


def _coverage_tables(result: StudyResult) -> list[Table]:
    """How often the intervals hold the truth where that is known; nothing if it was not asked."""
    found = result.tables["coverage"]
    if found.is_empty():
        return []
    methods = in_order(found["method"].to_list())
    by_name = {row["method"]: row for row in _rows(found)}
    rows = [
        [
            Cell(look(method).label),
            *(
                Cell(
                    percent(by_name[method][part]),
                    percent_interval(
                        by_name[method][f"{part}_low"], by_name[method][f"{part}_high"]
                    ),
                )
                for part in ("probabilities", "parameters")
            ),
        ]
        for method in methods
    ]
    tables = count(found["tables"][0])
    return [
        Table(
            "How often 90% intervals hold the truth",
            [Column("Method", numeric=False), Column("Probabilities"), Column("Coefficients")],
            rows,
            note=f"The truth is known here: labels of {tables} tables were drawn from the full-data "
            "model, and each table was bootstrapped; below each share its 95% band over tables. "
            "Intervals of penalised models are around penalised models and hold the truth less "
            "often than 90%, retrained or predicted: what counts is how near the two are. The "
            "predictor was fitted to none of these tables, so that it is also asked for points that "
            "it never saw.",
            ours=_ours(methods),
        )
    ]
