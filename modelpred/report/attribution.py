"""The section on the rows that are responsible for coefficients and predictions."""

from __future__ import annotations

from typing import Any

import polars as pl

from modelpred.report.blocks import Block, Cell, Column, Folded, Table, Text, columns_of
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import in_order, look, predictor_rows, rows_by_method
from modelpred.report.words import count, microseconds, number, number_interval, percent
from modelpred.studies.results import StudyResult
from modelpred.wording import counted

_LISTED = 3  # responsible rows shown for each coefficient


def attribution_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Responsible rows of the largest coefficients, their agreement with retraining, and flips."""
    return [
        _responsible_table(inputs, result),
        *_flip_table(inputs, result),
        Folded(
            "How far to trust these rows: retraining and other methods",
            [
                Text(_agreement(result), finding=True),
                Text(
                    "The derivative of a coefficient by a row's weight is a first-order "
                    "approximation of the decrease when the row is removed. One automatic "
                    "differentiation through the predictor gives the derivatives for all rows. The "
                    "table compares derivatives and predicted removals with retraining."
                ),
                _method_table(result),
                *_flip_methods(result),
            ],
        ),
    ]


def _agreement(result: StudyResult) -> str:
    metrics = result.metrics
    influence = metrics["methods"].get("influence", {}).get("spearman")
    others = f"; influence functions: {number(influence)}" if influence is not None else ""
    refined = metrics["methods"].get("predictor_refined", {}).get("spearman")
    if refined is not None:
        others += f"; predicted removals with Newton steps: {number(refined)}"
    return (
        "The rank correlation between the predictor's derivatives and the effects of removing each "
        f"row and retraining is {number(metrics['spearman'])} (Spearman, median over "
        f"coefficients{others}). It is at least 0.95 for {percent(metrics['above'])} of the "
        "coefficients."
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
                f"{number(each['removal'], 2)}; retrained {number(each['exact'], 2)}",
            )
            for each in own.iter_rows(named=True)
        ]
        shares += [Cell("")] * (_LISTED - len(shares))
        body.append([Cell(_coefficient(row)), Cell(number(row["value"])), *shares])
    return Table(
        f"The {len(body)} largest coefficients and the rows that change them most",
        [
            Column("Coefficient", numeric=False),
            Column("Value"),
            *(Column(f"{rank}. row", numeric=False) for rank in range(1, _LISTED + 1)),
        ],
        body,
        stacked=True,
        note="Below each row: the decrease of the coefficient when the row is removed, predicted and "
        "retrained.",
    )


def _method_table(result: StudyResult) -> Table:
    by_method = rows_by_method(result.tables["methods"])
    highest = max((row["spearman"] for row in by_method.values() if row["spearman"]), default=None)
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
        for method, row in by_method.items()
    ]
    return Table(
        "Agreement of every method with removing each row and retraining",
        columns_of("Method", "Spearman, median", "Coefficients with 0.95 or more", "Time for all"),
        rows,
        note="Spearman: over rows, for each coefficient; the smaller numbers are the 5% and 95% "
        "quantiles over coefficients. ModelPred: derivatives of the prediction with correction steps (Newton steps). "
        "Without correction steps: derivatives of the plain prediction. Removals and with correction "
        "steps: predictions without each row, without and with these steps.",
        highlighted=predictor_rows(by_method),
    )


def _flip_methods(result: StudyResult) -> list[Table]:
    """Small sets of rows whose removal flips a prediction, by method; empty for a regression."""
    methods = rows_by_method(result.tables["flip_methods"])
    if not methods:
        return []
    rows = [
        [
            Cell(look(method).label),
            Cell(f"{count(row['found'])} of {count(row['rows'])}"),
            Cell(f"{count(row['confirmed'])} of {count(row['found'])}"),
            Cell(number(row["size"])),
            Cell(microseconds(1e6 * row["seconds"])),
        ]
        for method, row in methods.items()
    ]
    common = next(iter(methods.values()))["common"]
    mean = (
        f"Rows removed: mean over the {counted(common, 'test row')} with a confirmed flip by every method."
        if common
        else "No test row has a confirmed flip by every method, so no mean number of rows is shown."
    )
    return [
        Table(
            "Rows whose removal flips a prediction",
            columns_of(
                "Method",
                "Flips found",
                "Confirmed by retraining",
                "Rows removed, mean",
                "Time for all",
            ),
            rows,
            note="The effect of each set of rows is predicted, and then checked by retraining once. "
            + mean,
            highlighted=predictor_rows(methods),
        )
    ]


def _flip_table(inputs: ReportInputs, result: StudyResult) -> list[Table]:
    """Predictions that the fewest removed rows flip; empty for a regression."""
    if result.tables["flip_methods"].is_empty():
        return []
    method = in_order(result.tables["flip_methods"]["method"].to_list())[0]
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
    heads = ("Test row", "Predicted", "Margin", "Rows removed", "Margin after, predicted")
    columns = [Column(head, numeric=head not in heads[:2]) for head in heads]
    columns += [Column("Margin after, retrained"), Column("Flips", numeric=False)]
    columns.append(Column("Removed rows", numeric=False))
    caption = "Test rows whose predicted class changes when a few training rows are removed"
    note = "Margin: the score of the predicted class above that of the next one."
    return [Table(caption, columns, body, note=note, folded=True)] if body else []
