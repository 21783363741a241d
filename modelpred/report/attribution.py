"""Attribution: the section on which rows are responsible for a coefficient and for a prediction."""

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
from modelpred.studies.utility import StudyResult

_LISTED = 3  # responsible rows shown for each coefficient


def attribution_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Responsible rows of the largest coefficients, agreement with leaving one out, and flips."""
    return [
        Text(_agreement(result), finding=True),
        _responsible_table(inputs, result),
        Text(
            "A row's share in a coefficient is by how much the coefficient is predicted to fall "
            "when the row is removed. Its derivative by the row's weight, by automatic "
            "differentiation through the predictor, says the same to first order and without "
            "asking for each row; the table below judges both."
        ),
        _method_table(result),
        *_flip_blocks(inputs, result),
    ]


def _agreement(result: StudyResult) -> str:
    metrics = result.metrics
    influence = metrics["methods"].get("influence", {}).get("spearman")
    beside = f"; influence functions reach {number(influence)}" if influence is not None else ""
    refined = metrics["methods"].get("predictor_refined", {}).get("spearman")
    if refined is not None:
        beside += f", predicting each removal with some Newton steps {number(refined)}"
    return (
        "Which rows move a coefficient, and how, the predictor's derivatives rank as leaving out "
        f"each row and retraining does, with a Spearman correlation of {number(metrics['spearman'])} "
        f"(median over coefficients{beside}); {percent(metrics['above'])} of the coefficients reach "
        "0.95."
    )


def _coefficient(row: dict[str, Any]) -> str:
    return f"{row['feature']} ({row['class']})" if row["class"] else row["feature"]


def _responsible_table(inputs: ReportInputs, result: StudyResult) -> Table:
    parameters = result.tables["parameters"].filter(pl.col("feature") != "intercept")
    largest = parameters.sort(pl.col("value").abs(), descending=True).head(inputs.config.rows)
    responsible = result.tables["responsible"]
    body: list[list[Cell]] = []
    for row in largest.iter_rows(named=True):
        own = responsible.filter(pl.col("parameter") == row["parameter"]).head(_LISTED)
        shares = [
            Cell(
                f"Row {each['row_id']}",
                f"{number(each['removal'], 2)}; left out {number(each['exact'], 2)}",
            )
            for each in own.iter_rows(named=True)
        ]
        shares += [Cell("")] * (_LISTED - len(shares))
        body.append([Cell(_coefficient(row)), Cell(number(row["value"])), *shares])
    return Table(
        f"The {len(body)} largest coefficients and the rows most responsible for them",
        [
            Column("Coefficient", numeric=False),
            Column("Value"),
            *(Column(f"{place}. row", numeric=False) for place in range(1, _LISTED + 1)),
        ],
        body,
        stacked=True,
        note="Below each row its share in the coefficient, predicted, and the change when it is "
        "left out and the model is retrained.",
    )


def _method_table(result: StudyResult) -> Table:
    found = {row["method"]: row for row in result.tables["methods"].iter_rows(named=True)}
    order = in_order(list(found))
    highest = max((row["spearman"] for row in found.values() if row["spearman"]), default=None)
    rows = [
        [
            Cell(look(method).label),
            Cell(
                number(row["spearman"]),
                number_interval(row["spearman_low"], row["spearman_high"]),
                row["spearman"] == highest,
            ),
            Cell(percent(row["above"])),
            Cell(microseconds(1e6 * row["seconds"])),
        ]
        for method, row in ((method, found[method]) for method in order)
    ]
    return Table(
        "Responsible rows by every method, beside leaving each out and retraining",
        [
            Column("Method", numeric=False),
            Column("Spearman, median"),
            Column("Coefficients of 0.95 or more"),
            Column("Time for all"),
        ],
        rows,
        note="Spearman over rows for each coefficient; below it the 5% and 95% quantiles over "
        "coefficients. ModelPred: the derivatives of the refined answer; unrefined: of the prediction "
        "alone; removals, refined: by predicting each removal, without and with Newton steps.",
        ours=_ours(order),
    )


def _ours(methods: list[str]) -> frozenset[int]:
    return frozenset(index for index, method in enumerate(methods) if is_ours(method))


def _flip_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """The smallest sets found whose removal flips a prediction; nothing for a regression."""
    methods = {row["method"]: row for row in result.tables["flip_methods"].iter_rows(named=True)}
    if not methods:
        return []
    order = in_order(list(methods))
    rows = [
        [
            Cell(look(method).label),
            Cell(f"{count(row['found'])} of {count(row['rows'])}"),
            Cell(f"{count(row['confirmed'])} of {count(row['found'])}"),
            Cell(number(row["size"])),
            Cell(microseconds(1e6 * row["seconds"])),
        ]
        for method, row in ((method, methods[method]) for method in order)
    ]
    common = next(iter(methods.values()))["common"]
    summary = Table(
        "Rows whose removal flips a prediction",
        [
            Column("Method", numeric=False),
            Column("Flips found"),
            Column("Confirmed by retraining"),
            Column("Rows removed, mean"),
            Column("Time for all"),
        ],
        rows,
        note="Sets of rows are predicted jointly, and each found is retrained once. Rows removed: "
        f"over the {count(common)} test rows that every method flipped with confirmation.",
        ours=_ours(order),
    )
    return [summary, *_flip_table(inputs, result, order[0])]


def _flip_table(inputs: ReportInputs, result: StudyResult, method: str) -> list[Table]:
    flips = result.tables["flips"].filter((pl.col("method") == method) & pl.col("found"))
    body = [
        [
            Cell(f"Row {inputs.dataset.test_row_ids[row['test_row']]}"),
            Cell(inputs.dataset.classes[row["predicted"]]),
            Cell(number(row["margin"])),
            Cell(count(row["size"])),
            Cell(number(row["predicted_margin"])),
            Cell(number(row["retrained_margin"])),
            Cell("yes" if row["confirmed"] else "no"),
            Cell(row["removed"]),
        ]
        for row in flips.sort("size").head(inputs.config.rows).iter_rows(named=True)
    ]
    heads = ("Test row", "Predicted", "Margin", "Rows removed", "Then, predicted")
    columns = [Column(head, numeric=head not in heads[:2]) for head in heads]
    columns += [Column("Then, retrained"), Column("Flips", numeric=False)]
    columns.append(Column("Which rows", numeric=False))
    caption = f"The predictions that rest on the fewest rows, by {look(method).label}"
    return [Table(caption, columns, body, folded=True)] if body else []
