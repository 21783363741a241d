"""The section on labels that look wrong."""

from __future__ import annotations

import polars as pl

from modelpred.report.blocks import Block, Cell, Column, Figure, Folded, Table, Text, columns_of
from modelpred.report.canvas import keys
from modelpred.report.inputs import ReportInputs
from modelpred.report.lines import Line, line_panel
from modelpred.report.methods import look
from modelpred.report.suspects import judgement
from modelpred.report.valuation import row_cells
from modelpred.report.words import (
    microseconds,
    models_used,
    number,
    number_interval,
    percent,
)
from modelpred.studies.results import StudyResult


def labels_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The most suspicious rows with their cells; with planted labels, the recall of every method."""
    suspects = _suspect_table(inputs, result)
    number_wrong = _estimated(result)
    if not result.metrics["planted"]:
        words = (
            "No wrong labels were planted in this run, so the suspects were not checked. Set "
            "dataset.flip to plant some and measure how many are found."
        )
        return [*number_wrong, suspects, Text(words)]
    return [
        Text(_finding(result), finding=True),
        *number_wrong,
        suspects,
        Folded(
            "How well each method finds the planted labels",
            [_detection_table(result), _class_table(result), _recall_figure(result)],
        ),
    ]


def _estimated(result: StudyResult) -> list[Block]:
    """A sentence on how many labels are wrong; nothing for a regression."""
    wrong, low, high = (result.metrics[name] for name in ("wrong", "wrong_low", "wrong_high"))
    if wrong is None:
        return []
    rows = result.tables["suspects"].height
    return [
        Text(
            f"About {wrong:,.0f} of {rows:,} labels are wrong (95% interval {low:,.0f} to {high:,.0f}), "
            "as estimated from models that were not trained on the row."
        )
    ]


def _finding(result: StudyResult) -> str:
    """A sentence on the best method by the engine's models, and the best other method."""
    metrics, table = result.metrics, result.tables["detection"]
    others = table.filter(~pl.col("ours"), pl.col("method") != "random")
    words = [
        f"{look(row['method']).label} has an AUROC of {number(row['auroc'])} (95% interval "
        f"{number_interval(row['auroc_low'], row['auroc_high'])}) and finds "
        f"{percent(row['recall'], 2)} among the lowest {percent(metrics['share'], 2)} of rows"
        for row in [*table.filter("ours").head(1).to_dicts(), *others.head(1).to_dicts()]
    ]
    models = models_used(metrics)
    start = f"{metrics['planted']} wrong labels were planted. With {models} models, the best is: "
    return start + "; the best other method is: ".join(words) + "."


def _suspect_table(inputs: ReportInputs, result: StudyResult) -> Table:
    rows = result.tables["suspects"].head(inputs.config.rows)
    cells_of = row_cells(inputs, rows["row_id"].cast(pl.String).to_list())
    planted = {True: "planted", False: "original"}
    known = bool(result.metrics["planted"])
    body = [
        [
            name,
            label,
            Cell(judgement(row, label.text, inputs)),
            *([Cell(planted[row["mislabelled"]])] if known else []),
            cells,
        ]
        for row, (name, label, cells) in zip(rows.to_dicts(), cells_of, strict=True)
    ]
    heads = (
        *("Row", inputs.dataset.label_name, "Models trained without the row ..."),
        *(["Label"] if known else []),
        "Unusual cells",
    )
    return Table(
        f"The {len(body)} rows whose label looks most wrong",
        [Column(head, numeric=False) for head in heads],
        body,
        stacked=True,
        note="Each label is compared with models that were trained on random eighths of the rows, without "
        "the row.",
    )


def _detection_table(result: StudyResult) -> Table:
    table = result.tables["detection"]
    best = {name: table[name].max() for name in ("auroc", "recall")}
    share = percent(result.metrics["share"], 2)
    return Table(
        "Planted labels found by every method",
        columns_of("Method", "AUROC", f"Found among the lowest {share}", "Time"),
        [
            [
                Cell(look(row["method"]).label),
                Cell(
                    number(row["auroc"]),
                    number_interval(row["auroc_low"], row["auroc_high"]),
                    row["auroc"] == best["auroc"],
                ),
                Cell(percent(row["recall"], 2), best=row["recall"] == best["recall"]),
                Cell(microseconds(1e6 * row["seconds"])),
            ]
            for row in table.iter_rows(named=True)
        ],
        note="Intervals are 95%, over rows.",
        highlighted=frozenset(index for index, ours in enumerate(table["ours"]) if ours),
    )


def _class_table(result: StudyResult) -> Table:
    """The AUROC within each class."""
    table = result.tables["classes"]
    names = table["class"].unique(maintain_order=True).to_list()
    methods = result.tables["detection"]["method"].to_list()
    body: list[list[Cell]] = []
    for method in methods:
        cells = [Cell(look(method).label)]
        for name in names:
            (row,) = table.filter(pl.col("method") == method, pl.col("class") == name).to_dicts()
            interval = number_interval(row["auroc_low"], row["auroc_high"])
            cells.append(Cell(number(row["auroc"]), interval))
        body.append(cells)
    return Table(
        "AUROC among the rows of each label",
        [Column("Method", numeric=False), *(Column(name) for name in names)],
        body,
        note="How well a method orders rows with the same label.",
    )


def _recall_figure(result: StudyResult) -> Figure:
    table = result.tables["recall"]
    lines = [
        Line(str(name[0]), rows["inspected"].to_list(), rows["recall"].to_list())
        for name, rows in table.partition_by("method", as_dict=True).items()
    ]
    panel = line_panel(
        "recall",
        "Planted labels found",
        lines,
        x_label="share of rows inspected",
        y_label="share of planted labels found",
    )
    words = "Share of the planted labels among the most suspicious rows."
    return Figure(words, [panel], keys([line.method for line in lines]))
