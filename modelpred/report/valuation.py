"""What each row is worth: the section that shows the rows themselves beside their values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from modelpred.dataset import Dataset
from modelpred.dataset.deviation import distances
from modelpred.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Table,
    Text,
    microseconds,
    number,
    number_interval,
    percent,
    plain,
)
from modelpred.report.figures import predicted_against_exact_values, ranked_values
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import in_order, is_ours, look
from modelpred.studies.utility import StudyResult

_TELLING = 5  # how many cells of a row are shown beside its value
_WIDEST = 80  # rows of more cells than this are not listed in full


def valuation_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The most and least valuable rows with their cells, and how far the values can be trusted."""
    values = result.tables["values"].with_columns(pl.col("row_id").cast(pl.String))
    ordered = values.sort("value", descending=True)
    rows = min(inputs.config.rows, ordered.height // 2 or 1)
    best, worst = ordered.head(rows), ordered.tail(rows).reverse()
    words = agreement(result)
    return [
        Text(words, finding=True),
        value_table(inputs.dataset, best, f"The {rows} most valuable rows"),
        value_table(inputs.dataset, worst, f"The {rows} least valuable rows"),
        Text(
            f"A value is the mean {_gain(inputs)} when the row joins a random part of the pool, so "
            "a negative one says that the row did harm on average. Cells are the original ones: up "
            "to five that lie more than one standard deviation from the pool's mean, farthest "
            "first."
        ),
        _figure(values, words),
        *_groups(inputs, result),
        *_methods(result),
        *full_rows(inputs.dataset, best, worst),
    ]


def _gain(inputs: ReportInputs) -> str:
    config = inputs.params.get("valuation")
    utility = config.get("utility") if isinstance(config, Mapping) else "loss"
    return {
        "accuracy": "rise of the test accuracy",
        "squared_error": "fall of the mean squared error on test rows",
    }.get(str(utility), "fall of the mean test loss")


def _groups(inputs: ReportInputs, result: StudyResult) -> list[Table]:
    """Values of groups of rows, the most valuable first, where a column was named."""
    if "groups" not in result.tables:
        return []
    rows = result.tables["groups"].sort("rank").head(4 * inputs.config.rows)
    body = [
        [
            Cell(plain(row["group"])),
            Cell(plain(row["rows"])),
            _value_cell(row["value"], row["standard_error"]),
            _value_cell(row["true_value"], row["true_standard_error"]),
        ]
        for row in rows.iter_rows(named=True)
    ]
    heads = ("Group", "Rows", "Value", "Exact value")
    return [
        Table(
            "Groups of rows that join together",
            [Column(head, numeric=head != "Group") for head in heads],
            body,
            note="± one standard error; a value without one was enumerated over all subsets.",
        )
    ]


def _figure(values: pl.DataFrame, words: str) -> Figure:
    ranked = ranked_values("ranked", "All rows by rank", values)
    band = "The values of all rows by rank, with two standard errors each way."
    if values["true_value"].null_count():
        return Figure(band, [ranked])
    scatter = predicted_against_exact_values("values", "Predicted against exact", values, words)
    return Figure(
        "Left: value from predicted models against that from exactly retrained models on other "
        "random orders; bars are one standard error, the line is where both agree. Right: "
        f"{band[:1].lower()}{band[1:]}",
        [scatter, ranked],
    )


def agreement(result: StudyResult) -> str:
    """How well the values agree with the truth, and the truth with itself, in one sentence."""
    metrics = result.metrics
    if metrics.get("spearman") is None:
        return "No exact values were computed in this run, so the values stand unchecked."
    interval = number_interval(metrics["spearman_low"], metrics["spearman_high"])
    words = (
        f"Predicted values rank the rows as exact retraining does with Spearman "
        f"{number(metrics['spearman'])} (95% interval {interval})"
    )
    if metrics.get("truth_reliability") is not None:
        words += (
            "; the exact values' own split-half reliability, the ceiling for any method, is "
            f"{number(metrics['truth_reliability'])}"
        )
    return (
        f"{words}. Of the most valuable tenth of rows {number(100 * metrics['top_overlap'], 2)}% are "
        f"the same, of the least valuable {number(100 * metrics['bottom_overlap'], 2)}%."
    )


def _methods(result: StudyResult) -> list[Table]:
    """Agreement with the exact values and seconds, for the predictor and every rival."""
    table, metrics = result.tables["methods"], result.metrics
    found = {row["method"]: row for row in table.iter_rows(named=True)}
    order = in_order(list(found))
    columns = ("spearman", "top_overlap", "bottom_overlap")
    best = {name: table[name].max() for name in columns}
    rows: list[list[Cell]] = []
    for method in order:
        row = found[method]
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
            [Cell("Exact retraining", "the truth"), reliability, overlap, Cell(""), seconds]
        )
    heads = ("Spearman with exact values", "Same top tenth", "Same bottom tenth", "Time for all")
    return [
        Table(
            f"Values by every method, {plain(metrics.get('permutations'))} random orders each",
            [Column("Method", numeric=False), *map(Column, heads)],
            rows,
            note="The time is that of valuing all rows once the method is there.",
            ours=frozenset(index for index, method in enumerate(order) if is_ours(method)),
        )
    ]


def value_table(dataset: Dataset, values: pl.DataFrame, caption: str) -> Table:
    """Rows with their label, value, exact value and the cells that set them apart."""
    told = told_rows(dataset, values["row_id"].to_list())
    body: list[list[Cell]] = []
    for row, (name, label, cells) in zip(values.iter_rows(named=True), told, strict=True):
        value = _value_cell(row["value"], row["standard_error"])
        true = _value_cell(row["true_value"], row["true_standard_error"])
        body.append([name, label, value, true, cells])
    heads = (
        "Row of the table",
        dataset.label_name,
        "Value",
        "Exact value",
        "What sets the row apart",
    )
    return Table(
        caption,
        [Column(head, numeric=head in heads[2:4]) for head in heads],
        body,
        stacked=True,
        note="± one standard error over random orders.",
    )


def told_rows(dataset: Dataset, row_ids: list[str]) -> list[tuple[Cell, Cell, Cell]]:
    """Each row's name, its label, and the cells that set it apart from the pool."""
    places = {row_id: place for place, row_id in enumerate(dataset.row_ids)}
    apart = distances(dataset.rows, dataset.column_names)
    told: list[tuple[Cell, Cell, Cell]] = []
    for row_id in row_ids:
        place = places[row_id]
        cells = dataset.rows.row(place, named=True)
        telling = np.argsort(-apart[place], kind="stable")[:_TELLING]
        telling = telling[apart[place][telling] > 1]
        words = _cell_words(dataset, cells, telling)
        told.append((Cell(f"Row {row_id}"), Cell(plain(cells[dataset.label_name])), Cell(words)))
    return told


def _value_cell(value: float | None, spread: float | None) -> Cell:
    """A value and its standard error, with the decimals that the error allows."""
    if value is None:
        return Cell(number(value))
    if spread is None or spread <= 0:
        return Cell(number(value))
    places = max(0, 1 - math.floor(math.log10(spread)))
    text = f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")
    return Cell(text, f"± {spread:.{places}f}")


def _cell_words(dataset: Dataset, cells: dict[str, object], telling: np.ndarray) -> str:
    names = [dataset.column_names[index] for index in telling]
    return " · ".join(f"{name} {_told(cells[name])}" for name in names) or "nothing"


def _told(cell: object) -> str:
    return "missing" if cell is None else plain(cell)


def full_rows(dataset: Dataset, best: pl.DataFrame, worst: pl.DataFrame) -> list[Table]:
    """Every cell of the listed rows, folded; nothing for tables too wide to read."""
    if len(dataset.column_names) > _WIDEST:
        return []
    places = {row_id: place for place, row_id in enumerate(dataset.row_ids)}
    names = (dataset.label_name, *dataset.column_names)
    tables: list[Table] = []
    for which, chosen in (("most", best), ("least", worst)):
        ids = chosen["row_id"].to_list()
        rows = [dataset.rows.row(places[row_id], named=True) for row_id in ids]
        tables.append(
            Table(
                f"All cells of the {which} valuable rows",
                [Column("Column", numeric=False), *(Column(f"Row {row_id}") for row_id in ids)],
                [[Cell(name), *(Cell(_told(row[name])) for row in rows)] for name in names],
                folded=True,
            )
        )
    return tables
