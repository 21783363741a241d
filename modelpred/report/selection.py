"""The section on selections of rows, and the test loss of models trained on them."""

from __future__ import annotations

import polars as pl

from modelpred.report.blocks import Block, Cell, Figure, Folded, Table, Text, columns_of
from modelpred.report.canvas import keys
from modelpred.report.inputs import ReportInputs
from modelpred.report.lines import Line, line_panel
from modelpred.report.methods import look
from modelpred.report.words import (
    count,
    microseconds,
    number,
    number_interval,
    percent,
)
from modelpred.studies.results import StudyResult

# More lines than these hide each other; the table has all.
_DRAWN = (
    *("greedy", "shapley", "held_out_confidence", "self_confidence", "knn_shapley"),
    *("leave_one_out", "random"),
)
_ORDERS = {
    "most_valuable": "Most valuable rows selected first",
    "least_valuable": "Least valuable rows selected first",
}


def selection_blocks(_: ReportInputs, result: StudyResult) -> list[Block]:
    """All methods at one size, and curves over all sizes."""
    metrics = result.metrics
    return [
        Text(_finding(result), finding=True),
        _curves(result),
        Text(
            f"Methods selected rows with {count(metrics['validation_rows'])} test rows as validation "
            f"rows. Models retrained on the selected rows were scored on the other "
            f"{count(metrics['test_rows'])} test rows. This protocol is this project's own."
        ),
        Folded("All methods that select rows", [_method_table(result), _area_table(result)]),
    ]


def _finding(result: StudyResult) -> str:
    metrics = result.metrics
    by_method = metrics["methods"]
    best, how = by_method.get("greedy"), "greedily selected"
    if best is None:
        best, how = by_method["shapley"], "those of the highest value"
    words = (
        f"With {percent(metrics['share'], 2)} of the rows ({metrics['rows']}), {how}, the "
        f"retrained model has a test loss of {number(best['loss'])}. "
        f"With all rows it is {number(by_method['all_rows']['loss'])}, with as many random rows "
        f"{number(by_method['random']['loss'])}"
    )
    if metrics.get("best_rival") is None:
        return f"{words}."
    other = metrics["best_rival"]
    lead = number_interval(metrics["lead_low"], metrics["lead_high"])
    return (
        f"{words}. The best other method, {look(other).label.lower()}, has "
        f"{number(by_method[other]['loss'])}: {number(metrics['lead'])} more (95% interval {lead})."
    )


def _method_table(result: StudyResult) -> Table:
    table = result.tables["methods"]
    best = {"loss": table["loss"].min(), "accuracy": table["accuracy"].max()}
    return Table(
        f"Methods that select {result.metrics['rows']} rows, best first",
        columns_of("Method", "Rows", "Test loss", "Test accuracy", "Time to select"),
        [
            [
                Cell(look(row["method"]).label),
                Cell(count(row["rows"])),
                Cell(
                    number(row["loss"]),
                    number_interval(row["low"], row["high"]),
                    row["loss"] is not None and row["loss"] == best["loss"],
                ),
                Cell(
                    percent(row["accuracy"]),
                    best=row["accuracy"] is not None and row["accuracy"] == best["accuracy"],
                ),
                Cell(microseconds(None if row["seconds"] is None else 1e6 * row["seconds"])),
            ]
            for row in table.iter_rows(named=True)
        ],
        note="Intervals are 95%, over test rows; for random selections, they contain 90% of the "
        "draws. The time of greedy selections is that of all sizes of the curves together.",
        highlighted=frozenset(index for index, ours in enumerate(table["ours"]) if ours),
    )


def _curves(result: StudyResult) -> Figure:
    table = result.tables["curves"].drop_nulls("loss")
    drawn = [name for name in _DRAWN if name in set(table["method"])]
    panels = [
        line_panel(
            f"curves-{order.split('_')[0]}",
            title,
            [_line(table, method, order) for method in drawn if _shown(table, method, order)],
            x_label="share of rows selected",
            y_label="test loss",
        )
        for order, title in _ORDERS.items()
    ]
    return Figure(
        "Test loss of retrained models by the share of rows selected. The band contains 90% of the "
        "random selections.",
        panels,
        keys(drawn),
    )


def _shown(table: pl.DataFrame, method: str, order: str) -> bool:
    """Whether the panel of that order has a line of the method; both have the random order."""
    rows = table.filter(pl.col("method") == method)
    return method == "random" or order in set(rows["order"])


def _line(table: pl.DataFrame, method: str, order: str) -> Line:
    rows = table.filter(pl.col("method") == method)
    if method == "random":
        band = rows["low"].to_list(), rows["high"].to_list()
        return Line(method, rows["share"].to_list(), rows["loss"].to_list(), band)
    rows = rows.filter(pl.col("order") == order)
    return Line(method, rows["share"].to_list(), rows["loss"].to_list())


def _area_table(result: StudyResult) -> Table:
    areas = result.tables["areas"].filter(pl.col("method") != "random")
    rows: list[list[Cell]] = []
    for method in areas["method"].unique(maintain_order=True):
        cells = [Cell(look(method).label)]
        for order in _ORDERS:
            matching = areas.filter(pl.col("method") == method, pl.col("order") == order).to_dicts()
            row = matching[0] if matching else {"gain": None, "low": None, "high": None}
            cells.append(Cell(number(row["gain"]), number_interval(row["low"], row["high"])))
        rows.append(cells)
    return Table(
        "Test loss of the random order minus test loss of the method, mean over all shares",
        columns_of("Method", *_ORDERS.values()),
        rows,
        note="Intervals are 95%, over test rows. If the least valuable rows are selected first, good "
        "values give a larger loss than the random order, so a negative number.",
    )
