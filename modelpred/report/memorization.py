"""Memorization: the section on rows that the model knows only because it has seen them."""

from __future__ import annotations

from typing import Any

import polars as pl

from modelpred.report.blocks import (
    Block,
    Cell,
    Column,
    Table,
    Text,
    count,
    microseconds,
    number,
    number_interval,
    percent,
)
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import in_order, is_ours, look
from modelpred.report.valuation import told_rows
from modelpred.studies.utility import StudyResult

_SOFT = {"probability": "the probability of its label", "loss": "minus its loss"}


def memorization_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The most memorized rows, whom the strongest influences, and agreement with retraining."""
    metrics = result.metrics
    rows = result.tables["rows"].sort("rank").head(inputs.config.rows)
    what = _SOFT[metrics["soft"]]
    return [
        Text(_agreement(metrics), finding=True),
        _row_table(inputs, rows, what),
        Text(
            f"Memorization of a row is how much more often the model is right on it, or how much "
            f"higher {what} is, when the row is in the training subset than when it is not: means "
            f"over {count(metrics['subsets'])} random subsets of {percent(metrics['share'])} of "
            "the pool. Near zero: the other rows tell the same. High: an outlier, a rare case or "
            "a wrong label."
        ),
        *_influence_table(inputs, result.tables["influences"]),
        _method_table(result),
    ]


def _agreement(metrics: dict[str, Any]) -> str:
    return (
        f"With retraining on other subsets the predicted memorization correlates at "
        f"{number(metrics['different'])} (Pearson); retraining agrees with itself at "
        f"{number(metrics['ceiling'])}, which is the ceiling."
    )


def _row_table(inputs: ReportInputs, rows: pl.DataFrame, what: str) -> Table:
    told = told_rows(inputs.dataset, rows["row_id"].to_list())
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
        for row, (name, label, cells) in zip(rows.iter_rows(named=True), told, strict=True)
    ]
    heads = ("By right and wrong", f"By {what}", "The same, retrained")
    return Table(
        f"The {len(body)} most memorized rows",
        [
            Column("Row of the table", numeric=False),
            Column(inputs.dataset.label_name, numeric=False),
            *map(Column, heads),
            Column("What sets the row apart", numeric=False),
        ],
        body,
        stacked=True,
        note="With 95% intervals over subsets.",
    )


def _influence_table(inputs: ReportInputs, influences: pl.DataFrame) -> list[Table]:
    """The strongest influences on test rows."""
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
    found = {row["method"]: row for row in soft.iter_rows(named=True)}
    order = in_order(list(found))
    columns = ("same", "different", "top_different", "influence_different")
    best = {name: soft[name].max() for name in columns}
    rows = [
        [
            Cell(look(method).label),
            *(
                Cell(number(found[method][name]), best=found[method][name] == best[name])
                for name in columns
            ),
            Cell(microseconds(1e6 * found[method]["seconds"])),
        ]
        for method in order
    ]
    ceiling = next(iter(found.values()))
    limits = ("ceiling", "top_ceiling", "influence_ceiling")
    rows.append(
        [
            Cell("Exact retraining", "the ceiling"),
            Cell("1"),
            *(Cell(number(ceiling[name])) for name in limits),
            Cell(microseconds(1e6 * result.metrics["truth_seconds"])),
        ]
    )
    heads = ("Same subsets", "Other subsets", "Same top tenth, other subsets", "Influence on tests")
    return Table(
        "Memorization by every method, beside retraining",
        [Column("Method", numeric=False), *map(Column, heads), Column("Time for all")],
        rows,
        note="Pearson correlation with retraining on the same subsets and on others; influence on "
        "tests: over all pairs of a training and a test row, other subsets.",
        ours=frozenset(index for index, method in enumerate(order) if is_ours(method)),
    )
