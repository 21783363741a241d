"""The section on memorized rows."""

from __future__ import annotations

from typing import Any

import polars as pl

from modelpred.report.blocks import Block, Cell, Column, Folded, Table, Text, columns_of
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import look, predictor_rows, rows_by_method
from modelpred.report.valuation import row_cells
from modelpred.report.words import (
    count,
    microseconds,
    models_used,
    number,
    number_interval,
    percent,
)
from modelpred.studies.results import StudyResult

_SOFT = {"probability": "the probability of its label", "loss": "minus its loss"}


def memorization_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The most memorized rows, the strongest influences, and the agreement with retraining."""
    metrics = result.metrics
    rows = result.tables["rows"].sort("rank").head(inputs.config.rows)
    what = _SOFT[metrics["soft"]]
    return [
        _row_table(inputs, rows, what),
        Text(
            f"Memorization of a row: the increase of the accuracy on this row, or of {what}, if the "
            f"row is in the training subset (mean over {count(metrics['subsets'])} random subsets of "
            f"{percent(metrics['share'], 2)} of the training rows). Near zero, the other rows suffice to "
            "predict it. A high value points to an outlier, a rare case or a wrong label."
        ),
        *_influence_table(inputs, result.tables["influences"]),
        Folded(
            "How far to trust these numbers: retraining and other methods",
            [Text(_agreement(metrics), finding=True), _method_table(result)],
        ),
    ]


def _agreement(metrics: dict[str, Any]) -> str:
    return (
        f"The correlation of memorization by {models_used(metrics)} models with that of retrained models on "
        f"other subsets is {number(metrics['different'])} (Pearson). A method without error would reach "
        f"about {number(metrics['ceiling'])}, the correlation between two sets of retrained models."
    )


def _row_table(inputs: ReportInputs, rows: pl.DataFrame, what: str) -> Table:
    cells_of = row_cells(inputs, rows["row_id"].to_list())
    body = [
        [
            name,
            label,
            Cell(
                number(row["memorization"]),
                number_interval(row["memorization_low"], row["memorization_high"]),
            ),
            Cell(number(row["soft"]), number_interval(row["soft_low"], row["soft_high"])),
            Cell(number(row["true_soft"])),
            cells,
        ]
        for row, (name, label, cells) in zip(rows.iter_rows(named=True), cells_of, strict=True)
    ]
    heads = ("By accuracy", f"By {what}", "The same, retrained")
    return Table(
        f"The {len(body)} most memorized rows",
        [
            Column("Row", numeric=False),
            Column(inputs.dataset.label_name, numeric=False),
            *map(Column, heads),
            Column("Unusual cells", numeric=False),
        ],
        body,
        stacked=True,
        note="Intervals are 95%, over subsets.",
    )


def _influence_table(inputs: ReportInputs, influences: pl.DataFrame) -> list[Table]:
    """The strongest influences of training rows on test rows."""
    rows = influences.head(inputs.config.rows)
    body = [
        [
            Cell(f"Row {row['row_id']}"),
            Cell(f"Row {inputs.dataset.test_row_ids[row['test_row']]}"),
            Cell(number(row["influence"]), number_interval(row["low"], row["high"])),
            Cell(number(row["true_influence"])),
        ]
        for row in rows.iter_rows(named=True)
    ]
    heads = ("Training row", "Test row", "Influence", "The same, retrained")
    columns = [Column(head, numeric=head in heads[2:]) for head in heads]
    caption = "The strongest influences of a training row on a test row"
    return [Table(caption, columns, body)] if body else []


def _method_table(result: StudyResult) -> Table:
    soft = result.tables["methods"].filter(pl.col("form") == result.metrics["soft"])
    by_method = rows_by_method(soft)
    columns = ("same", "different", "top_different", "influence_different")
    best = {name: soft[name].max() for name in columns}
    rows = [
        [
            Cell(look(method).label),
            *(Cell(number(row[name]), best=row[name] == best[name]) for name in columns),
            Cell(microseconds(1e6 * row["seconds"])),
        ]
        for method, row in by_method.items()
    ]
    ceiling = next(iter(by_method.values()))
    limits = ("ceiling", "top_ceiling", "influence_ceiling")
    rows.append(
        [
            Cell("Exact retraining", "the reference"),
            Cell("1"),
            *(Cell(number(ceiling[name])) for name in limits),
            Cell(microseconds(1e6 * result.metrics["truth_seconds"])),
        ]
    )
    heads = ("Same subsets", "Other subsets", "Same top tenth, other subsets", "Influence on tests")
    return Table(
        "Correlation of memorization with retraining, by method",
        columns_of("Method", *heads, "Time for all"),
        rows,
        note="Pearson correlation with retraining on the same or on other subsets. Influence on "
        "tests: over all pairs of a training and a test row, on other subsets.",
        highlighted=predictor_rows(by_method),
    )
