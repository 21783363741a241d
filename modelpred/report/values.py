"""What each row is worth: the section that shows the rows themselves beside their values."""

from __future__ import annotations

import numpy as np
import polars as pl

from modelpred.dataset import Dataset
from modelpred.report.blocks import Cell, Column, Figure, Section, Table, Text, number, plain
from modelpred.report.figures import predicted_against_exact_values, ranked_values
from modelpred.report.inputs import ReportInputs
from modelpred.studies.utility import StudyResult

_TELLING = 5  # how many cells of a row are shown beside its value
_WIDEST = 80  # rows of more cells than this are not listed in full


def valuation_section(inputs: ReportInputs, result: StudyResult) -> Section:
    """The most and least valuable rows with their cells, and how far the values can be trusted."""
    values = result.tables["values"].with_columns(pl.col("row_id").cast(pl.String))
    ordered = values.sort("value", descending=True)
    rows = min(inputs.config.rows, ordered.height // 2 or 1)
    words = agreement(result)
    figure = Figure(
        "Left: Shapley value from predicted models against that from exactly retrained models on "
        "other random orders; bars are one standard error, the line is where both agree. Right: "
        "the values of all rows by rank, with two standard errors each way.",
        [
            predicted_against_exact_values("values", "Predicted against exact", values, words),
            ranked_values("ranked", "All rows by rank", values),
        ],
    )
    best, worst = ordered.head(rows), ordered.tail(rows).reverse()
    return Section(
        "valuation",
        "Values: what each row is worth",
        [
            Text(words, finding=True),
            value_table(inputs.dataset, best, f"The {rows} most valuable rows"),
            value_table(inputs.dataset, worst, f"The {rows} least valuable rows"),
            Text(
                "A value is the mean fall of the mean test loss when the row joins a random part of "
                "the pool, so a negative one says that the row did harm on average. Cells are "
                "the original ones: up to five that lie more than one standard deviation from the "
                "pool's mean, farthest first."
            ),
            figure,
            *full_rows(inputs.dataset, best, worst),
        ],
    )


def agreement(result: StudyResult) -> str:
    """How well the values agree with the truth, and the truth with itself, in one sentence."""
    values, metrics = result.tables["values"], result.metrics
    correlation = values.select(pl.corr("value", "true_value", method="spearman")).item()
    words = (
        f"The rows are ranked as exact retraining ranks them with Spearman {number(correlation)}"
    )
    ceiling, overlap = metrics.get("truth_reliability"), metrics.get("top_overlap")
    if isinstance(ceiling, float):
        words += (
            f"; the exact values' own split-half reliability, the ceiling for any method, is "
            f"{number(ceiling)}"
        )
    if isinstance(overlap, float):
        words += f". Of the most valuable tenth, {number(100 * overlap)}% are the same"
    return f"{words}."


def value_table(dataset: Dataset, values: pl.DataFrame, caption: str) -> Table:
    """Rows with their label, value, exact value and the cells that set them apart."""
    places = {row_id: place for place, row_id in enumerate(dataset.row_ids)}
    apart = _distances(dataset)
    body: list[list[Cell]] = []
    for row in values.iter_rows(named=True):
        place = places[row["row_id"]]
        cells = dataset.rows.row(place, named=True)
        telling = np.argsort(-apart[place], kind="stable")[:_TELLING]
        telling = telling[apart[place][telling] > 1]
        body.append(
            [
                Cell(f"Row {row['row_id']}"),
                Cell(plain(cells[dataset.label_name])),
                _value_cell(row["value"], row["standard_error"]),
                _value_cell(row["true_value"], row["true_standard_error"]),
                Cell(_cell_words(dataset, cells, telling)),
            ]
        )
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


def _value_cell(value: float, spread: float) -> Cell:
    """A value and its standard error with the decimals that the error allows."""
    places = max(0, 1 - int(np.floor(np.log10(spread)))) if spread > 0 else 5
    minus = f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")
    return Cell(minus, f"± {spread:.{places}f}")


def _cell_words(dataset: Dataset, cells: dict[str, object], telling: np.ndarray) -> str:
    names = [dataset.feature_names[index] for index in telling]
    return " · ".join(f"{name} {plain(cells[name])}" for name in names) or "nothing"


def _distances(dataset: Dataset) -> np.ndarray:
    """|cell - mean| / standard deviation of the pool, [points, features]; 0 in constant columns."""
    table = dataset.rows.select(dataset.feature_names).cast(pl.Float64).to_numpy()
    spread = table.std(axis=0)
    return np.abs(table - table.mean(axis=0)) / np.where(spread > 0, spread, np.inf)


def full_rows(dataset: Dataset, best: pl.DataFrame, worst: pl.DataFrame) -> list[Table]:
    """Every cell of the listed rows, folded; nothing for tables too wide to read."""
    if len(dataset.feature_names) > _WIDEST:
        return []
    places = {row_id: place for place, row_id in enumerate(dataset.row_ids)}
    names = (dataset.label_name, *dataset.feature_names)
    tables: list[Table] = []
    for which, chosen in (("most", best), ("least", worst)):
        ids = chosen["row_id"].to_list()
        rows = [dataset.rows.row(places[row_id], named=True) for row_id in ids]
        tables.append(
            Table(
                f"All cells of the {which} valuable rows",
                [Column("Column", numeric=False), *(Column(f"Row {row_id}") for row_id in ids)],
                [[Cell(name), *(Cell(plain(row[name])) for row in rows)] for name in names],
                folded=True,
            )
        )
    return tables
