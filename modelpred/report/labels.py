"""Labels that look wrong: the section with the suspects, and how well planted ones are found."""

from __future__ import annotations

import polars as pl

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
)
from modelpred.report.canvas import keys
from modelpred.report.inputs import ReportInputs
from modelpred.report.lines import Line, line_panel
from modelpred.report.methods import look
from modelpred.report.valuation import told_rows
from modelpred.studies.utility import StudyResult


def labels_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The most suspicious rows with their cells; with planted labels, who finds how many."""
    suspects = _suspect_table(inputs, result)
    if not result.metrics["planted"]:
        words = (
            "No wrong labels were planted in this run, so the suspects stand unchecked; set "
            "dataset.flip to see how well they are found."
        )
        return [Text(words, finding=True), suspects]
    return [
        Text(_finding(result), finding=True),
        suspects,
        _detection_table(result),
        _recall_figure(result),
    ]


def _finding(result: StudyResult) -> str:
    """The best of ours beside the best rival, in one sentence."""
    metrics, table = result.metrics, result.tables["detection"]
    rivals = table.filter(~pl.col("ours"), pl.col("method") != "random")
    words = [
        f"{look(row['method']).label} has an AUROC of {number(row['auroc'])} (95% interval "
        f"{number_interval(row['auroc_low'], row['auroc_high'])}) and finds "
        f"{percent(row['recall'], 2)} among the lowest {percent(metrics['share'], 2)} of rows"
        for row in [*table.filter("ours").head(1).to_dicts(), *rivals.head(1).to_dicts()]
    ]
    start = f"Of {metrics['planted']} planted wrong labels, by the best of ours: "
    return start + "; by the best rival: ".join(words) + "."


def _suspect_table(inputs: ReportInputs, result: StudyResult) -> Table:
    by = result.metrics["best_of_ours"]
    rows = result.tables["suspects"].head(inputs.config.rows)
    told = told_rows(inputs.dataset, rows["row_id"].cast(pl.String).to_list())
    planted = {True: "planted", False: "as it came", None: "unknown"}
    body = [
        [name, label, Cell(number(row[by])), Cell(planted[row["mislabelled"]]), cells]
        for row, (name, label, cells) in zip(rows.iter_rows(named=True), told, strict=True)
    ]
    heads = ("Row of the table", inputs.dataset.label_name, look(by).label, "Label")
    return Table(
        f"The {len(body)} rows whose label looks most wrong",
        [
            *(Column(head, numeric=head == heads[2]) for head in heads),
            Column("What sets the row apart", numeric=False),
        ],
        body,
        stacked=True,
        note=f"Lowest {look(by).label.lower()} first. Held-out confidence is how sure models of a "
        "tenth to a fifth of the rows, without this one, are of its label, on average."
        if by == "held_out_confidence"
        else "",
    )


def _detection_table(result: StudyResult) -> Table:
    table = result.tables["detection"]
    best = {name: table[name].max() for name in ("auroc", "recall")}
    share = percent(result.metrics["share"], 2)
    return Table(
        "Finding the planted labels, by every method",
        [
            Column("Method", numeric=False),
            Column("AUROC"),
            Column(f"Found in the lowest {share}"),
            Column("Time"),
        ],
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
        note="With 95% intervals over rows.",
        ours=frozenset(index for index, ours in enumerate(table["ours"]) if ours),
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
    words = "How many of the planted labels are found when the most suspicious rows are inspected."
    return Figure(words, [panel], keys([line.method for line in lines]))
