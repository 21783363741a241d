"""One function per study, from its tables to a section; a new study adds a function and a name.

A study that was skipped or is missing gets a section that says why, and one without a function
of its own shows its metrics, so nothing that was computed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from modelpred.report.blocks import (
    Cell,
    Column,
    Figure,
    Section,
    Table,
    Text,
    count,
    microseconds,
    number,
    number_interval,
    percent,
    percent_interval,
    plain,
)
from modelpred.report.canvas import keys
from modelpred.report.figures import (
    error_by_size,
    predicted_against_true,
    reliability,
    size_classes,
)
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import in_order, is_ours, look
from modelpred.report.values import valuation_section
from modelpred.studies.utility import StudyResult


def edits_section(inputs: ReportInputs, result: StudyResult) -> Section:
    """Deletions: predicted against true test loss, and the errors by number of rows kept."""
    edits, truth = result.tables["edits"], result.tables["predicted_against_true"]
    methods = in_order(edits["method"].unique(maintain_order=True).to_list())
    _, sizes = size_classes(truth["size"].to_numpy())
    words = _loss_words(truth)
    scatter = Figure(
        f"Each point is one subset of {inputs.dataset.name}: {words} The line is where predicted "
        "and retrained model have the same test loss.",
        [predicted_against_true("loss", "Test loss, predicted against true", truth, words=words)],
        sizes,
    )
    lines = Figure(
        "Rows are removed at random and the model is predicted for what is left. Bands are 95% "
        "intervals over repeats, errors are on a logarithmic axis. Where nothing is removed, the "
        "rivals that start from the full-data model are exact and leave the axis.",
        [
            error_by_size("edits-parameters", "Parameter error", edits, column="parameter_error"),
            error_by_size("edits-loss", "Test-loss error", edits, column="test_loss_error"),
        ],
        keys(methods),
    )
    blocks = [_edits_table(result.metrics, methods), lines, scatter]
    return Section("edits", "Deletion: a model without these rows", blocks)


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


def calibration_section(_: ReportInputs, result: StudyResult) -> Section:
    """How far predicted probabilities are those observed: before and after averaging models."""
    bins, summary = result.tables["reliability"], result.tables["summary"]
    order = summary["method"].to_list()
    gaps = dict(summary.select("method", "ece_width").iter_rows())
    panels = [
        reliability(
            f"reliability-{method}",
            method,
            bins.filter(pl.col("method") == method),
            f"expected calibration error {number(gaps[method])} over "
            f"{count(float(bins.filter(pl.col('method') == method)['count'].sum()))} test rows",
        )
        for method in order
    ]
    figure = Figure(
        "Observed frequency against predicted probability on test rows, with 95% Wilson intervals "
        "of each bin; grey bars show how many rows a bin holds. On the line is calibrated.",
        panels,
    )
    table = Table(
        "Quality of the predicted probabilities on test rows, smaller is better",
        [
            Column("Method", numeric=False),
            *map(Column, ("Negative log-likelihood", "Brier score")),
            *map(Column, ("ECE, equal width", "ECE, equal mass")),
        ],
        _calibration_rows(summary),
        note="A calibration error is biased upwards on few rows: a perfectly calibrated model "
        "shows some, too.",
        ours=frozenset(index for index, method in enumerate(order) if is_ours(method)),
    )
    return Section(
        "calibration",
        "Calibration: how sure the model is, and how sure it should be",
        [*_calibration_words(summary), table, figure, *_metrics_table(result)],
    )


def _calibration_rows(summary: pl.DataFrame) -> list[list[Cell]]:
    columns = ("nll", "brier", "ece_width", "ece_mass")
    best = {column: summary[column].min() for column in columns}
    return [
        [
            Cell(look(row["method"]).label),
            *(Cell(number(row[column]), best=row[column] == best[column]) for column in columns),
        ]
        for row in summary.iter_rows(named=True)
    ]


def _calibration_words(summary: pl.DataFrame) -> list[Text]:
    scores = {row["method"]: row for row in summary.iter_rows(named=True)}
    if not {"full_model", "predicted_bootstrap"} <= scores.keys():
        return []
    before, after = scores["full_model"], scores["predicted_bootstrap"]
    way = "lowers" if after["nll"] < before["nll"] else "does not lower"
    text = (
        f"Averaging predicted models of bootstrap resamples {way} the negative log-likelihood: "
        f"{number(before['nll'])} before, {number(after['nll'])} after"
    )
    if "refit_bootstrap" in scores:
        text += (
            f"; retraining on the same resamples gives {number(scores['refit_bootstrap']['nll'])}"
        )
    return [Text(text + ".", finding=True)]


def _metrics_table(result: StudyResult) -> list[Table]:
    """The study's other numbers, folded."""
    rows = [[Cell(name), Cell(text)] for name, text in flat(result.metrics)]
    columns = [Column("Measured", numeric=False), Column("Value")]
    return [Table("All numbers of this study", columns, rows, folded=True)] if rows else []


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as names joined by dots and their values as text."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", plain(value)))
    return found


def other_section(name: str, result: StudyResult) -> Section:
    """The metrics of a study that has no section of its own."""
    title = name.replace("_", " ").capitalize()
    return Section(name, title, _metrics_table(result) or [Text("This study measured nothing.")])


Write = Callable[[ReportInputs, StudyResult], Section]
SECTIONS: Mapping[str, tuple[str, Write]] = {
    "edits": ("Deletion: a model without these rows", edits_section),
    "valuation": ("Values: what each row is worth", valuation_section),
    "calibration": ("Calibration", calibration_section),
}


def study_sections(inputs: ReportInputs) -> list[Section]:
    """The sections of all studies that are known here, were run or were skipped."""
    names = list(dict.fromkeys([*SECTIONS, *inputs.studies, *inputs.skipped]))
    sections: list[Section] = []
    for name in names:
        title, write = SECTIONS.get(name, (name.replace("_", " ").capitalize(), None))
        result = inputs.studies.get(name)
        if result is None:
            reason = inputs.skipped.get(name, "its results are not among the artifacts of this run")
            sections.append(Section(name, title, [Text(f"This study was not run: {reason}.")]))
        else:
            sections.append(write(inputs, result) if write else other_section(name, result))
    return sections
