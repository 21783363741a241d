"""Selection: the section on which rows to keep, and what their models are worth."""

from __future__ import annotations

import polars as pl

from modelpred.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Table,
    Text,
    count,
    microseconds,
    number,
    number_interval,
    percent,
)
from modelpred.report.canvas import keys
from modelpred.report.inputs import ReportInputs
from modelpred.report.lines import Line, line_panel
from modelpred.report.methods import look
from modelpred.studies.utility import StudyResult

# More lines than these hide each other; the table has all.
_DRAWN = (
    *("swapped", "shapley", "held_out_confidence", "self_confidence", "knn_shapley"),
    *("leave_one_out", "random"),
)
_ORDERS = {
    "most_valuable": "Most valuable rows kept first",
    "least_valuable": "Least valuable rows kept first",
}


def selection_blocks(_: ReportInputs, result: StudyResult) -> list[Block]:
    """Every way to choose at one size, and the curves over all sizes."""
    metrics = result.metrics
    return [
        Text(_finding(result), finding=True),
        _method_table(result),
        Text(
            f"Rows were chosen by {count(metrics['validation_rows'])} test rows and the models of "
            f"the chosen rows, retrained exactly, judged by {count(metrics['test_rows'])} others. "
            "The split and the ways to choose are this project's own protocol."
        ),
        _curves(result),
        _area_table(result),
    ]


def _finding(result: StudyResult) -> str:
    metrics = result.metrics
    found = metrics["methods"]
    words = (
        f"With {percent(metrics['share'], 2)} of the rows ({metrics['rows']}), chosen by predicted "
        f"models, the retrained model has a test loss of {number(found['swapped']['loss'])}; with "
        f"all rows it is {number(found['all_rows']['loss'])}, with random ones "
        f"{number(found['random']['loss'])}"
    )
    if metrics.get("best_rival") is None:
        return f"{words}."
    rival = metrics["best_rival"]
    lead = number_interval(metrics["lead_low"], metrics["lead_high"])
    return (
        f"{words}. The best rival, {look(rival).label.lower()}, has {number(found[rival]['loss'])}: "
        f"{number(metrics['lead'])} more (95% interval {lead})."
    )


def _method_table(result: StudyResult) -> Table:
    table = result.tables["methods"]
    best = {"loss": table["loss"].min(), "accuracy": table["accuracy"].max()}
    return Table(
        f"Ways to choose {result.metrics['rows']} rows, best first",
        [
            Column("Method", numeric=False),
            Column("Rows"),
            Column("Test loss"),
            Column("Test accuracy"),
            Column("Time to choose"),
        ],
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
        note="With 95% intervals over test rows; for random choices, nine in ten lie there. Greedy "
        "choices took the time given for all sizes of the curves together.",
        ours=frozenset(index for index, ours in enumerate(table["ours"]) if ours),
    )


def _curves(result: StudyResult) -> Figure:
    table = result.tables["curves"].drop_nulls("loss")
    drawn = [name for name in _DRAWN if name in set(table["method"])]
    panels = [
        line_panel(
            f"curves-{order.split('_')[0]}",
            title,
            [_line(table, method, order) for method in drawn if _shown(table, method, order)],
            x_label="share of rows kept",
            y_label="test loss",
        )
        for order, title in _ORDERS.items()
    ]
    return Figure(
        "Test loss of exactly retrained models by the share of rows kept; from right to left, what "
        "happens as rows are removed. The band holds nine in ten random choices.",
        panels,
        keys(drawn),
    )


def _shown(table: pl.DataFrame, method: str, order: str) -> bool:
    """Random order has no ends of its own and stands in both panels."""
    here = table.filter(pl.col("method") == method)
    return method == "random" or order in set(here["order"])


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
            found = areas.filter(pl.col("method") == method, pl.col("order") == order).to_dicts()
            row = found[0] if found else {"gain": None, "low": None, "high": None}
            cells.append(Cell(number(row["gain"]), number_interval(row["low"], row["high"])))
        rows.append(cells)
    return Table(
        "Mean fall of the test loss below that of random order, over all shares",
        [Column("Method", numeric=False), *(Column(title) for title in _ORDERS.values())],
        rows,
        note="With 95% intervals over test rows. Of the least valuable rows kept first, a loss "
        "above that of random order, a negative number, is what good values show.",
    )
