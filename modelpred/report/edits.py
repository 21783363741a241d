"""Deletions: the section on what happens to the model without some rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from modelpred.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Table,
    count,
    microseconds,
    number,
    number_interval,
    percent,
    percent_interval,
)
from modelpred.report.canvas import keys
from modelpred.report.figures import (
    error_by_size,
    gap_by_size,
    predicted_against_true,
    size_classes,
)
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import in_order, is_ours, look
from modelpred.studies.utility import StudyResult


def edits_blocks(inputs: ReportInputs, result: StudyResult) -> list[Block]:
    """Deletions: predicted against true test loss, and the errors by number of rows kept."""
    edits, truth = result.tables["edits"], result.tables["predicted_against_true"]
    methods = in_order(edits["method"].unique(maintain_order=True).to_list())
    _, sizes = size_classes(truth["size"].to_numpy())
    words = _loss_words(truth)
    scatter = Figure(
        f"Each point is one subset of {inputs.dataset.name}: {words} On the lines predicted "
        "and retrained model have the same test loss.",
        [
            predicted_against_true("loss", "Test loss, predicted against true", truth, words=words),
            gap_by_size("gap", "What is left: predicted minus true", truth),
        ],
        sizes,
    )
    lines = Figure(
        "Rows are removed at random and the model is predicted for what is left. Bands are 95% "
        "intervals over repeats, one that reaches the bottom includes zero; axes are logarithmic. Where nothing is removed, the "
        "rivals that start from the full-data model are exact and leave the axis.",
        [
            error_by_size("edits-parameters", "Parameter error", edits, column="parameter_error"),
            error_by_size("edits-loss", "Test-loss error", edits, column="test_loss_error"),
        ],
        keys(methods),
    )
    return [_edits_table(result.metrics, methods), lines, scatter]


def _loss_words(truth: pl.DataFrame) -> str:
    gap = (truth["predicted_loss"] - truth["true_loss"]).abs().to_numpy()
    correlation = truth.select(pl.corr("predicted_loss", "true_loss")).item()
    return (
        f"over {count(truth.height)} subsets the mean absolute gap is {number(gap.mean())}, "
        f"the largest {number(gap.max())}, the correlation {number(correlation)}."
    )


def _edits_table(metrics: Mapping[str, Any], methods: list[str]) -> Table:
    """The study's summary of each method, and what exact retraining of the same subsets cost."""
    columns = {
        "parameter_error": ("Parameter error", percent, percent_interval, min),
        "test_loss_error": ("Test-loss error", number, number_interval, min),
        "spearman_within_size": ("Spearman within size", number, number_interval, max),
    }
    rows: list[list[Cell]] = []
    for method in methods:
        summary = metrics[method]
        cells = [Cell(look(method).label)]
        for name, (_, write, interval, best) in columns.items():
            known = [metrics[m][name] for m in methods if metrics[m][name] is not None]
            value = summary[name]
            note = interval(summary[f"{name}_low"], summary[f"{name}_high"])
            mark = value is not None and value == best(known)
            cells.append(Cell(write(value), "" if value is None else note, mark))
        rows.append([*cells, Cell(microseconds(summary["microseconds"]))])
    exact = metrics.get("retraining", {})
    if "microseconds" in exact:
        blank = [Cell("") for _ in columns]
        label = Cell(look("retraining").label, "the truth, by this project's batched solver")
        rows.append([label, *blank, Cell(microseconds(exact["microseconds"]))])
    subsets, failed = exact.get("subsets"), exact.get("not_converged")
    left_out = f"; {count(failed)} that did not converge are left out" if failed else ""
    return Table(
        "Over all numbers of rows kept",
        [
            Column("Method", numeric=False),
            *(Column(title) for title, *_ in columns.values()),
            Column("Time per query"),
        ],
        rows,
        note=f"Means with 95% intervals, over {count(subsets)} retrained subsets{left_out}."
        if subsets
        else "",
        ours=frozenset(index for index, method in enumerate(methods) if is_ours(method)),
    )
