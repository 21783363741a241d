"""The section on values of rows, with the rows themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import polars as pl

from modelpred.dataset import Dataset
from modelpred.dataset.grouping import suggestion
from modelpred.report.blocks import Block, Cell, Column, Figure, Folded, Table, Text, columns_of
from modelpred.report.figures import drawn_words, predicted_against_exact_values, ranked_values
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import look, predictor_rows, rows_by_method
from modelpred.report.words import (
    microseconds,
    models_used,
    number,
    number_interval,
    percent,
    plain,
)
from modelpred.studies.results import StudyResult

_SHOWN = 5  # number of cells of a row that are shown with its value
_WIDEST = 80  # rows with more cells are not listed in full


def valuation_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The most and least valuable rows with their cells, and the agreement with exact values."""
    values = result.tables["values"].with_columns(pl.col("row_id").cast(pl.String))
    ordered = values.sort("value", descending=True)
    rows = min(inputs.config.rows, ordered.height // 2 or 1)
    best, worst = ordered.head(rows), ordered.tail(rows).reverse()
    words = agreement(result)
    return [
        *_groups(inputs, result),
        value_table(inputs, best, f"The {rows} most valuable rows"),
        value_table(inputs, worst, f"The {rows} least valuable rows"),
        Text(
            f"The value of a row is the {_gain(inputs)} when the row is added to a random subset of "
            "the other training rows, on average. If a value is negative, the model is better without "
            "the row, on average. Unusual cells are up to five cells that deviate by more than one "
            "standard deviation from the mean of the training rows."
        ),
        Figure(
            "The values of all rows by rank, ± two standard errors.",
            [ranked_values("ranked", "All rows by rank", values)],
        ),
        *full_rows(inputs, best, worst),
        Folded(
            "How far to trust these values: exact values and other methods",
            [Text(words, finding=True), *_scatter(values, words), *_methods(result)],
        ),
    ]


def _utility(inputs: ReportInputs) -> str:
    return str(inputs.section("valuation").get("utility", "loss"))


def _gain(inputs: ReportInputs) -> str:
    return {
        "accuracy": "increase of the test accuracy",
        "squared_error": "decrease of the mean squared error on test rows",
    }.get(_utility(inputs), "decrease of the test loss")


def signed(inputs: ReportInputs) -> str:
    """What a value means, as the start of a sentence."""
    return {
        "accuracy": "A value of +0.01 raises the share of right predictions by one percentage point",
        "squared_error": "A positive value lowers the mean squared error on test rows by that amount",
    }.get(_utility(inputs), "A positive value lowers the test loss by that amount")


def _groups(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Values of groups of rows, the most valuable first; or which column could be used as groups."""
    if "groups" not in result.tables:
        dataset = inputs.dataset
        names = [
            name for name in dataset.rows.columns if name not in ("row_id", dataset.label_name)
        ]
        found = suggestion(dataset.rows, names)
        return (
            [Text(f"{found}: set valuation.group in params.yaml.", finding=True)] if found else []
        )
    rows = result.tables["groups"].sort("rank").head(4 * inputs.config.rows)
    exact = rows["true_value"].null_count() < rows.height
    body = [
        [
            Cell(plain(row["group"])),
            Cell(plain(row["rows"])),
            value_cell(row["value"], row["standard_error"]),
            *([value_cell(row["true_value"], row["true_standard_error"])] if exact else []),
        ]
        for row in rows.iter_rows(named=True)
    ]
    heads = ("Group", "Rows", "Value", *(["Exact value"] if exact else []))
    return [
        Table(
            "Values of groups of rows",
            [Column(head, numeric=head != "Group") for head in heads],
            body,
            note="± one standard error. A value without one was computed from all subsets.",
        )
    ]


def _scatter(values: pl.DataFrame, words: str) -> list[Figure]:
    if values["true_value"].null_count():
        return []
    scatter = predicted_against_exact_values("values", "Predicted against exact", values, words)
    return [
        Figure(
            "Values from predicted models against values from retrained models on other random "
            "permutations. Bars are one standard error; on the line, both are equal."
            f"{drawn_words(values)}",
            [scatter],
        )
    ]


def agreement(result: StudyResult) -> str:
    """The agreement of the values with exact values, in words."""
    metrics = result.metrics
    if metrics.get("spearman") is None:
        return "No exact values were computed in this run, so the values were not checked."
    interval = number_interval(metrics["spearman_low"], metrics["spearman_high"])
    words = (
        f"The rank correlation of values by {models_used(metrics)} models with exact values on other "
        f"random permutations is {number(metrics['spearman'])} (Spearman, 95% interval {interval})"
    )
    if metrics.get("truth_reliability") is not None:
        words += (
            f"; a method without error would reach about {number(metrics['truth_reliability'])}, "
            "the split-half reliability of the exact values"
        )
    return (
        f"{words}. {number(100 * metrics['top_overlap'], 2)}% of the most valuable tenth of rows and "
        f"{number(100 * metrics['bottom_overlap'], 2)}% of the least valuable tenth are the same."
    )


def _methods(result: StudyResult) -> list[Table]:
    """Agreement with the exact values, and time, of every method."""
    table, metrics = result.tables["methods"], result.metrics
    by_method = rows_by_method(table)
    columns = ("spearman", "top_overlap", "bottom_overlap")
    best = {name: table[name].max() for name in columns}
    rows: list[list[Cell]] = []
    for method, row in by_method.items():
        marks = [row[name] is not None and row[name] == best[name] for name in columns]
        interval = number_interval(row["spearman_low"], row["spearman_high"])
        rows.append(
            [
                Cell(look(method).label),
                Cell(number(row["spearman"]), interval, marks[0]),
                Cell(percent(row["top_overlap"], 2), best=marks[1]),
                Cell(percent(row["bottom_overlap"], 2), best=marks[2]),
                Cell(microseconds(1e6 * row["seconds"])),
            ]
        )
    if metrics.get("truth_seconds") is not None:
        reliability = Cell(number(metrics["truth_reliability"]), "split-half reliability")
        seconds = Cell(microseconds(1e6 * metrics["truth_seconds"]))
        halves = metrics.get("truth_top_overlap")
        overlap = Cell("") if halves is None else Cell(percent(halves, 2), "between its halves")
        rows.append(
            [Cell("Exact retraining", "the reference"), reliability, overlap, Cell(""), seconds]
        )
    heads = ("Spearman with exact values", "Same top tenth", "Same bottom tenth", "Time for all")
    return [
        Table(
            f"Values by every method, {plain(metrics.get('permutations'))} random permutations each",
            columns_of("Method", *heads),
            rows,
            note="Time: to value all rows, without the preparation of the method.",
            highlighted=predictor_rows(by_method),
        )
    ]


def value_table(inputs: ReportInputs, values: pl.DataFrame, caption: str) -> Table:
    """Rows with their label, value, exact value if any is known, and most unusual cells."""
    rows = row_cells(inputs, values["row_id"].to_list())
    exact = values["true_value"].null_count() < values.height
    body: list[list[Cell]] = []
    for row, (name, label, cells) in zip(values.iter_rows(named=True), rows, strict=True):
        value = value_cell(row["value"], row["standard_error"])
        true = [value_cell(row["true_value"], row["true_standard_error"])] if exact else []
        body.append([name, label, value, *true, cells])
    heads = (
        "Row",
        inputs.dataset.label_name,
        "Value",
        *(["Exact value"] if exact else []),
        "Unusual cells",
    )
    return Table(
        caption,
        [Column(head, numeric=head in heads[2:-1]) for head in heads],
        body,
        stacked=True,
        note="± one standard error over random permutations.",
    )


def row_cells(inputs: ReportInputs, row_ids: Iterable[str]) -> list[tuple[Cell, Cell, Cell]]:
    """Id, label and most unusual cells of each row."""
    dataset, deviations = inputs.dataset, inputs.deviations
    rows: list[tuple[Cell, Cell, Cell]] = []
    for row_id in row_ids:
        position = inputs.positions[row_id]
        cells = dataset.rows.row(position, named=True)
        unusual = np.argsort(-deviations[position], kind="stable")[:_SHOWN]
        unusual = unusual[deviations[position][unusual] > 1]
        words = _cell_words(dataset, cells, unusual)
        rows.append((Cell(f"Row {row_id}"), Cell(plain(cells[dataset.label_name])), Cell(words)))
    return rows


def row_words(label: Cell, unusual: Cell) -> str:
    """A row's label and its most unusual cells, as a phrase."""
    return f"labelled {label.text}" + (
        f"; unusual: {unusual.text}" if unusual.text != "none" else ""
    )


def value_cell(value: float | None, spread: float | None) -> Cell:
    """A value and its standard error, with decimals according to the error, at most three digits."""
    if value is None:
        return Cell(number(value))
    if spread is None or spread <= 0:
        return Cell(number(value))
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    text = f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    if value and decimals + math.floor(math.log10(abs(value))) > 2:
        text = number(value)
    return Cell(text, f"± {spread:.{decimals}f}")


def _cell_words(dataset: Dataset, cells: dict[str, object], unusual: np.ndarray) -> str:
    names = [dataset.column_names[index] for index in unusual]
    space = "\N{NO-BREAK SPACE}"
    return " · ".join(f"{name}{space}{_cell_text(cells[name])}" for name in names) or "none"


def _cell_text(cell: object) -> str:
    return "missing" if cell is None else plain(cell)


def full_rows(inputs: ReportInputs, best: pl.DataFrame, worst: pl.DataFrame) -> list[Table]:
    """All cells of the listed rows, folded; empty for tables that are too wide to read."""
    dataset = inputs.dataset
    if len(dataset.column_names) > _WIDEST:
        return []
    names = (dataset.label_name, *dataset.column_names)
    tables: list[Table] = []
    for which, chosen in (("most", best), ("least", worst)):
        ids = chosen["row_id"].to_list()
        rows = [dataset.rows.row(inputs.positions[row_id], named=True) for row_id in ids]
        tables.append(
            Table(
                f"All cells of the {which} valuable rows",
                [Column("Column", numeric=False), *(Column(f"Row {row_id}") for row_id in ids)],
                [[Cell(name), *(Cell(_cell_text(row[name])) for row in rows)] for name in names],
                folded=True,
            )
        )
    return tables
