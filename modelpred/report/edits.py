"""The section on deletions and additions of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from modelpred.report.blocks import Block, Cell, Figure, Table, Text, columns_of
from modelpred.report.canvas import keys
from modelpred.report.figures import (
    error_by_size,
    gap_by_size,
    predicted_against_true,
    size_classes,
)
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import EXACT_METHODS, by_size, in_order, look, predictor_rows
from modelpred.report.words import (
    count,
    microseconds,
    number,
    number_interval,
    percent,
    percent_interval,
    timing_words,
)
from modelpred.studies.results import StudyResult


def edits_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Errors by number of rows, predicted against true test loss, and break-even."""
    edits, truth = result.tables["edits"], result.tables["predicted_against_true"]
    methods = in_order(edits["method"].unique(maintain_order=True).to_list())
    _, sizes = size_classes(truth["size"].to_numpy())
    words = _loss_words(truth)
    scatter = Figure(
        f"Each point is one subset of {inputs.dataset.name}: {words} On the lines, the predicted "
        "and the retrained model have the same test loss.",
        [
            predicted_against_true("loss", "Test loss, predicted against true", truth, words=words),
            gap_by_size("gap", "Difference: predicted minus true", truth),
        ],
        sizes,
    )
    lines = Figure(
        "Rows are removed at random, and the model is predicted for the remaining rows. Bands are "
        "95% intervals over repeats; a band that reaches the bottom includes zero. Axes are "
        "logarithmic. With all rows, methods that start from the model of all rows have no error and "
        "are not shown.",
        [
            error_by_size("edits-parameters", "Parameter error", edits, column="parameter_error"),
            error_by_size("edits-loss", "Test-loss error", edits, column="test_loss_error"),
        ],
        keys(by_size(methods)),
    )
    removed = _edits_table("Deletions, mean over all sizes", result.metrics, methods)
    return [removed, lines, scatter, *_addition_blocks(result), *_break_even_blocks(result)]


def _addition_blocks(result: StudyResult) -> list[Block]:
    """The same for added rows, which were not in the fit of any method."""
    added = result.tables.get("additions", pl.DataFrame())
    if added.is_empty() or "addition" not in result.metrics:
        return [Text("No rows were added: `edits.added` is 0, or there are too few test rows.")]
    methods = in_order(added["method"].unique(maintain_order=True).to_list())
    lines = Figure(
        "Test rows, which no method was fitted to, are added to all training rows. Models are scored "
        "on the other test rows. The linear datamodel cannot use added rows.",
        [
            error_by_size(
                "additions-parameters", "Parameter error", added, column="parameter_error",
                what="number of rows",
            ),
            error_by_size(
                "additions-loss", "Test-loss error", added, column="test_loss_error",
                what="number of rows",
            ),
        ],
        keys(by_size(methods)),
    )  # fmt: skip
    title = "Additions, mean over all sizes"
    return [_edits_table(title, result.metrics["addition"], methods), lines]


def _break_even_blocks(result: StudyResult) -> list[Block]:
    """The number of queries after which predicting is cheaper than retraining."""
    table = result.tables.get("break_even", pl.DataFrame())
    if table.is_empty():
        return []
    rows = [
        [
            Cell(look(row["way"]).label),
            Cell(microseconds(row["retraining_microseconds"])),
            Cell(microseconds(row["predictor_microseconds"])),
            Cell("never" if row["queries"] is None else count(row["queries"])),
        ]
        for row in table.iter_rows(named=True)
    ]
    prepared = table["preparation_seconds"][0]
    spent = (
        f"Training the models and fitting the predictor took {number(prepared)} s. "
        if prepared is not None
        else ""
    )
    return [
        Table(
            "Break-even: number of queries after which predicting is cheaper than retraining",
            columns_of(
                "Retraining",
                "Time per query, retraining",
                "Time per query, ModelPred",
                "Queries until ModelPred is cheaper",
            ),
            rows,
            note=f"{spent}Queries are answered one at a time; in the last row, all at once by both. "
            f"{timing_words(busy=any(table['busy']) if 'busy' in table.columns else False)}",
        )
    ]


def _loss_words(truth: pl.DataFrame) -> str:
    gap = (truth["predicted_loss"] - truth["true_loss"]).abs().to_numpy()
    correlation = truth.select(pl.corr("predicted_loss", "true_loss")).item()
    return (
        f"over {count(truth.height)} subsets the mean absolute gap is {number(gap.mean())}, "
        f"the largest {number(gap.max())}, the correlation {number(correlation)}."
    )


def _edits_table(title: str, metrics: Mapping[str, Any], methods: list[str]) -> Table:
    """The errors of each method, and the time of exact retraining."""
    columns = {
        "parameter_error": ("Parameter error", percent, percent_interval, min),
        "test_loss_error": ("Test-loss error", number, number_interval, min),
        "spearman_within_size": ("Spearman within size", number, number_interval, max),
        "accuracy_error": ("Error of the accuracy", percent, percent_interval, min),
    }
    judged = [method for method in methods if method not in EXACT_METHODS]
    rows: list[list[Cell]] = []
    for method in methods:
        summary = metrics[method]
        cells = [Cell(look(method).label)]
        for name, (_, write, interval, best) in columns.items():
            known = [metrics[m][name] for m in judged if metrics[m].get(name) is not None]
            value = summary.get(name)
            note = interval(summary.get(f"{name}_low"), summary.get(f"{name}_high"))
            mark = value is not None and method in judged and value == best(known)
            cells.append(Cell(write(value), "" if value is None else note, mark))
        rows.append([*cells, Cell(microseconds(summary["microseconds"]))])
    exact = metrics.get("retraining", {})
    if "microseconds" in exact:
        blank = [Cell("") for _ in columns]
        label = Cell(look("retraining").label, "the reference, with this project's batched solver")
        rows.append([label, *blank, Cell(microseconds(exact["microseconds"]))])
    subsets, failed = exact.get("subsets"), exact.get("not_converged")
    left_out = f"; {count(failed)} that did not converge are excluded" if failed else ""
    return Table(
        title,
        columns_of("Method", *(title for title, *_ in columns.values()), "Time per query"),
        rows,
        note=f"Means with 95% intervals over repeats, {count(subsets)} retrained subsets{left_out}. "
        "Error of the accuracy: mean absolute difference between the test accuracies of the "
        "predicted and the retrained model. "
        + timing_words(busy=any(metrics[method].get("busy") for method in methods))
        if subsets
        else "",
        highlighted=predictor_rows(methods),
    )
