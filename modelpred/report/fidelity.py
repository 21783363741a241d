"""Accuracy of the predictor and of the other methods: the headline of the page, and its tables.

The sentences follow from the numbers. One method is called more accurate than another only if the
95% intervals of their mean errors do not overlap. This is conservative, since both methods are
evaluated on the same subsets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import polars as pl

from modelpred.report.blocks import Block, Cell, Column, Figure, Table, Text
from modelpred.report.canvas import curve_keys
from modelpred.report.figures import fidelity_against_time
from modelpred.report.frontier import HEADS, SPEED_UP, Standing, standings
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import (
    EXACT_METHODS,
    design_words,
    in_order,
    is_other,
    look,
    predictor_rows,
    rows_by_method,
)
from modelpred.report.words import (
    count,
    microseconds,
    number,
    percent,
    percent_interval,
    timing_words,
)
from modelpred.targets.own_code import is_import_path

_ORDER = ("uniform", "prefix", "deletion", "addition", "bootstrap", "leave_one_out")


@dataclass(frozen=True)
class Verdict:
    """Errors of the predictor and of the most accurate other method, on one design."""

    design: str
    subsets: int
    predictor: Mapping[str, Any]
    other: Mapping[str, Any]
    other_method: str
    left_out: int = 0

    @property
    def outcome(self) -> str:
        """`better`, `worse`, or `equal` if the intervals overlap."""
        if _end(self.predictor, "high") < _end(self.other, "low"):
            return "better"
        return "worse" if _end(self.predictor, "low") > _end(self.other, "high") else "equal"

    @property
    def ratio(self) -> float:
        """The larger error divided by the smaller one."""
        low, high = sorted((self.predictor["parameter_error"], self.other["parameter_error"]))
        return high / low if low > 0 else math.inf

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        other = inside(look(self.other_method).label)
        if self.outcome == "equal":
            return f"no significant difference: the intervals of ModelPred and {other} overlap"
        best, second = ("ModelPred", other) if self.outcome == "better" else (other, "ModelPred")
        return f"{best} is more accurate: its error is {number(self.ratio, 2)} times smaller than that of {second}"


def _end(row: Mapping[str, Any], side: str) -> float:
    end = row[f"parameter_error_{side}"]
    return row["parameter_error"] if end is None or not math.isfinite(end) else end


def designs(fidelity: pl.DataFrame) -> list[str]:
    """The designs of a fidelity table in a fixed order, unknown ones last."""
    present = fidelity["design"].unique().to_list()
    return sorted(
        present, key=lambda design: (_ORDER.index(design) if design in _ORDER else 9, design)
    )


def verdicts(fidelity: pl.DataFrame | None) -> list[Verdict]:
    """One comparison for each design that has both the plain predictor and another method."""
    comparisons: list[Verdict] = []
    for design in designs(fidelity) if fidelity is not None else []:
        rows = {
            row["method"]: row
            for row in fidelity.filter(pl.col("design") == design).iter_rows(named=True)  # pyright: ignore[reportOptionalMemberAccess]
        }
        others = [row for method, row in rows.items() if is_other(method)]
        if "predictor" not in rows or not others:
            continue
        best = min(others, key=lambda row: row["parameter_error"])
        predictor = rows["predictor"]
        subsets = int(predictor["subsets"])
        left_out = _left_out(predictor)
        comparisons.append(Verdict(design, subsets, predictor, best, best["method"], left_out))
    return comparisons


def _left_out(row: Mapping[str, Any]) -> int:
    return int(row.get("left_out") or 0)


def headline(inputs: ReportInputs) -> str:
    """A sentence with the error of the predictor and of the best other method."""
    comparisons = verdicts(inputs.fidelity)
    if not comparisons:
        return "No held-out comparison was made in this run."
    first = comparisons[0]
    interval = percent_interval(
        first.predictor["parameter_error_low"], first.predictor["parameter_error_high"]
    )
    # A target of the user's own is known by its outputs (targets/known_outputs.py).
    known = is_import_path(str(inputs.section("targets").get("model")))
    what = "outputs, for the training and test rows," if known else "parameters"
    return (
        f"ModelPred predicts the {what} of retrained models with a mean relative error of "
        f"{percent(first.predictor['parameter_error'])} ({count(first.subsets)} held-out subsets, "
        f"{design_words(first.design)}; 95% interval {interval}). The best other method, "
        f"{inside(look(first.other_method).label)}, has an error of "
        f"{percent(first.other['parameter_error'])}."
        + (
            " What this page calls errors of parameters are errors of these outputs."
            if known
            else ""
        )
    )


def inside(label: str) -> str:
    """A method's label inside a sentence."""
    return label if label.startswith("ModelPred") else label[:1].lower() + label[1:]


def _short(design: str) -> str:
    return {"uniform": "random subsets", "deletion": "deletions"}.get(design, design_words(design))


def verdict_table(inputs: ReportInputs) -> Table | None:
    """One row for each design: the predictor, the best other method, and the comparison."""
    comparisons = verdicts(inputs.fidelity)
    if not comparisons:
        return None
    titles = ("Held-out subsets", "ModelPred", "Best other method", "Comparison", "Time per query")
    rows = [
        (
            Cell(
                design_words(verdict.design).capitalize(),
                _judged(verdict.subsets, verdict.left_out),
            ),
            _error_cell(verdict.predictor, best=verdict.outcome == "better"),
            _error_cell(
                verdict.other,
                best=verdict.outcome == "worse",
                prefix=look(verdict.other_method).label + ", ",
            ),
            Cell(verdict.sentence[:1].upper() + verdict.sentence[1:]),
            Cell(
                microseconds(verdict.predictor["microseconds"]),
                f"other method: {microseconds(verdict.other['microseconds'])}",
            ),
        )
        for verdict in comparisons
    ]
    return Table(
        "Relative parameter error: mean over held-out subsets and its 95% interval",
        [Column(title, numeric=title not in (titles[0], titles[3])) for title in titles],
        rows,
        stacked=True,
    )


def _judged(subsets: int, left_out: int) -> str:
    """The number of subsets behind a figure, and of those without a trained model to compare with."""
    return f"n = {count(subsets)}" + (f", {count(left_out)} left out" if left_out else "")


def _error_cell(row: Mapping[str, Any], *, best: bool, prefix: str = "") -> Cell:
    interval = percent_interval(row["parameter_error_low"], row["parameter_error_high"])
    return Cell(percent(row["parameter_error"]), prefix + interval, best)


def fidelity_blocks(inputs: ReportInputs) -> list[Block]:
    """Errors with intervals, rank correlations and times of every method on every design."""
    if inputs.fidelity is None or inputs.fidelity.is_empty():
        return [Text("No held-out comparison was made in this run.")]
    fidelity = inputs.fidelity
    tables = [_design_table(inputs, design) for design in designs(fidelity)]
    panels = [
        fidelity_against_time(
            f"time-{design}", design_words(design).capitalize(), fidelity.filter(design=design)
        )
        for design in designs(fidelity)
    ]
    figure = Figure(
        "Error against time per query, one panel for each kind of held-out subset. Both axes are "
        "logarithmic; lower left is better. Bars are 95% intervals of the mean. Numbers on the curve "
        "count correction (Newton) steps after the prediction. Vertical lines are exact retraining. "
        "Times do not include training the models and fitting the predictor.",
        panels,
        curve_keys(in_order(fidelity["method"].unique(maintain_order=True).to_list())),
    )
    speeds = Table(
        "ModelPred and the other methods at equal error",
        [Column(head, numeric=head.startswith("Speed")) for head in HEADS],
        [[Cell(text) for text in standing.cells] for standing in _standings(fidelity)],
        note=SPEED_UP,
        stacked=True,
    )
    return [_better_figures(fidelity), figure, speeds, *tables]


def _standings(fidelity: pl.DataFrame) -> list[Standing]:
    ordered = [fidelity.filter(pl.col("design") == design) for design in designs(fidelity)]
    return standings(pl.concat(ordered))


def _better_figures(fidelity: pl.DataFrame) -> Text:
    """A sentence on the columns in which another method is better than the plain predictor."""
    columns = {
        "parameter_error": ("parameter error", 1.0),
        "test_loss_error": ("test-loss error", 1.0),
        "spearman_within_size": ("rank correlation within size", -1.0),
        "microseconds": ("time per query", 1.0),
    }
    lines: list[str] = []
    for column, (words, sign) in columns.items():
        where: dict[str, list[str]] = {}  # designs by the methods that are better on them
        for design in designs(fidelity):
            better = _better(fidelity.filter(design=design), column, sign)
            if better:
                where.setdefault(", ".join(better), []).append(design)
        for methods, kinds in where.items():
            every = len(kinds) == len(designs(fidelity))
            listed = "every kind of subset" if every else ", ".join(map(_short, kinds))
            lines.append(f"{words} on {listed} ({methods})")
    if not lines:
        return Text("No other method is better than ModelPred in any column of the tables below.")
    return Text(f"Other methods are better than ModelPred in: {'; '.join(lines)}.")


def _better(rows: pl.DataFrame, column: str, sign: float) -> list[str]:
    values = dict(rows.select("method", column).iter_rows())
    predictor = values.get("predictor")
    return [
        look(method).label
        for method, value in values.items()
        if is_other(method) and _is_better(value, predictor, sign)
    ]


def _is_better(value: float | None, predictor: float | None, sign: float) -> bool:
    if value is None or predictor is None or math.isnan(value):
        return False
    return math.isnan(predictor) or sign * value < sign * predictor


def _design_table(inputs: ReportInputs, design: str) -> Table:
    assert inputs.fidelity is not None
    rows = inputs.fidelity.filter(pl.col("design") == design)
    compared = rows.filter(~pl.col("method").is_in(EXACT_METHODS))
    best = {
        "parameter_error": compared["parameter_error"].min(),
        "test_loss_error": compared["test_loss_error"].min(),
        "spearman_within_size": compared["spearman_within_size"].drop_nans().max(),
    }
    body: list[tuple[Cell, ...]] = []
    by_method = rows_by_method(rows)
    for method, row in by_method.items():
        marks = {name: method not in EXACT_METHODS and row[name] == best[name] for name in best}
        body.append(
            (
                Cell(look(method).label),
                Cell(percent(row["parameter_error"]), best=marks["parameter_error"]),
                Cell(percent_interval(row["parameter_error_low"], row["parameter_error_high"])),
                Cell(percent(row["parameter_error_median"])),
                Cell(number(row["test_loss_error"]), best=marks["test_loss_error"]),
                Cell(number(row["spearman_within_size"]), best=marks["spearman_within_size"]),
                Cell(microseconds(row["microseconds"])),
            )
        )
    busy = "busy" in rows.columns and bool(rows["busy"].any())
    heads = (
        *("Parameter error", "95% interval", "Median", "Test-loss error"),
        *("Spearman within size", "Time per query"),
    )
    return Table(
        f"{design_words(design).capitalize()}: {count(rows['subsets'].max() or 0)} held-out subsets",  # pyright: ignore[reportArgumentType]
        [Column("Method", numeric=False), *(Column(head) for head in heads)],
        body,
        note=" ".join(
            filter(None, (_missing(rows), _seen(inputs, design), timing_words(busy=busy)))
        ),
        highlighted=predictor_rows(by_method),
    )


def _missing(rows: pl.DataFrame) -> str:
    left_out = max(map(_left_out, rows.iter_rows(named=True)), default=0)
    if not left_out:
        return ""
    verb = "is" if left_out == 1 else "are"
    return (
        f"{count(left_out)} more {verb} left out: a class is missing, or training did not converge."
    )


def _seen(inputs: ReportInputs, design: str) -> str:
    fit = inputs.section("subsets").get("fit")
    if not isinstance(fit, Mapping):
        return ""
    if not fit.get(design):
        return "The fit had no subsets of this kind."
    trained = inputs.targets_metrics.get("by_design")
    if not isinstance(trained, Mapping):
        return ""
    counts = cast("Mapping[str, Mapping[str, int]]", trained).get(f"fit-{design}", {})
    return (
        f"The predictor was fitted to {count(counts.get('subsets', 0))} other subsets of this kind."
    )
