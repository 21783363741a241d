"""How good the predictor is beside every rival: the first sentences of the page, and their proof.

The words are made from the numbers. A method is called ahead only where the two 95% intervals of
the mean do not overlap, which is careful, since both methods answer the same subsets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    percent,
    percent_interval,
    timing_words,
)
from modelpred.report.canvas import curve_keys
from modelpred.report.figures import fidelity_against_time
from modelpred.report.frontier import Standing, standings
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import TRUTHS, design_words, in_order, is_ours, is_rival, look

_ORDER = ("uniform", "prefix", "deletion", "addition", "bootstrap", "leave_one_out")


@dataclass(frozen=True)
class Verdict:
    """The predictor beside the rival with the smallest error, on one design."""

    design: str
    subsets: int
    ours: Mapping[str, Any]
    rival: Mapping[str, Any]
    rival_method: str

    @property
    def outcome(self) -> str:
        """`ahead`, `behind`, or `even` where the intervals overlap."""
        if _end(self.ours, "high") < _end(self.rival, "low"):
            return "ahead"
        return "behind" if _end(self.ours, "low") > _end(self.rival, "high") else "even"

    @property
    def ratio(self) -> float:
        """How many times smaller the smaller error is."""
        low, high = sorted((self.ours["parameter_error"], self.rival["parameter_error"]))
        return high / low if low > 0 else math.inf

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        rival = look(self.rival_method).label
        if self.outcome == "even":
            return f"no clear winner: the intervals of ModelPred and {rival} overlap"
        ratio = f"{number(self.ratio, 2)} times less error"
        winner, loser = ("ModelPred", rival) if self.outcome == "ahead" else (rival, "ModelPred")
        return f"{winner} is ahead: {ratio} than {loser}"


def _end(row: Mapping[str, Any], side: str) -> float:
    end = row[f"parameter_error_{side}"]
    return row["parameter_error"] if end is None or not math.isfinite(end) else end


def designs(fidelity: pl.DataFrame) -> list[str]:
    """The designs of a fidelity table in a fixed order, unknown ones last."""
    found = fidelity["design"].unique().to_list()
    return sorted(
        found, key=lambda design: (_ORDER.index(design) if design in _ORDER else 9, design)
    )


def verdicts(fidelity: pl.DataFrame | None) -> list[Verdict]:
    """A verdict per design that has both the plain predictor and a rival."""
    found: list[Verdict] = []
    for design in designs(fidelity) if fidelity is not None else []:
        rows = {
            row["method"]: row
            for row in fidelity.filter(pl.col("design") == design).iter_rows(named=True)  # pyright: ignore[reportOptionalMemberAccess]
        }
        rivals = [row for method, row in rows.items() if is_rival(method)]
        if "predictor" not in rows or not rivals:
            continue
        best = min(rivals, key=lambda row: row["parameter_error"])
        ours = rows["predictor"]
        found.append(Verdict(design, int(ours["subsets"]), ours, best, best["method"]))
    return found


def headline(inputs: ReportInputs) -> str:
    """The answer as a title."""
    found = verdicts(inputs.fidelity)
    if not found:
        return f"Predicted models of {inputs.dataset.name}: no held-out comparison was made"
    first = found[0]
    rival = look(first.rival_method).label
    return (
        f"On unseen {_short(first.design)} of {inputs.dataset.name}, predicted parameters are "
        f"{percent(first.ours['parameter_error'])} off; with the best rival, "
        f"{rival[:1].lower() + rival[1:]}, {percent(first.rival['parameter_error'])}"
    )


def _short(design: str) -> str:
    return {"uniform": "random subsets", "deletion": "deletions"}.get(design, design_words(design))


def verdict_table(inputs: ReportInputs) -> Table | None:
    """One row per design: the predictor, its best rival and who is ahead."""
    found = verdicts(inputs.fidelity)
    if not found:
        return None
    titles = ("Held-out subsets", "ModelPred", "Best rival", "Outcome", "Time per query")
    rows = [
        (
            Cell(design_words(verdict.design).capitalize(), f"n = {count(verdict.subsets)}"),
            _error_cell(verdict.ours, best=verdict.outcome == "ahead"),
            _error_cell(
                verdict.rival,
                best=verdict.outcome == "behind",
                prefix=look(verdict.rival_method).label + ", ",
            ),
            Cell(verdict.sentence[:1].upper() + verdict.sentence[1:]),
            Cell(
                microseconds(verdict.ours["microseconds"]),
                f"rival {microseconds(verdict.rival['microseconds'])}",
            ),
        )
        for verdict in found
    ]
    return Table(
        "Relative parameter error, mean and 95% interval over held-out subsets",
        [Column(title, numeric=title not in (titles[0], titles[3])) for title in titles],
        rows,
        stacked=True,
    )


def _error_cell(row: Mapping[str, Any], *, best: bool, prefix: str = "") -> Cell:
    interval = percent_interval(row["parameter_error_low"], row["parameter_error_high"])
    return Cell(percent(row["parameter_error"]), prefix + interval, best)


def fidelity_section(inputs: ReportInputs) -> Section:
    """Every method on every design: error with interval, rank correlation, time per query."""
    title = "Fidelity: predicted against retrained models"
    if inputs.fidelity is None or inputs.fidelity.is_empty():
        return Section("fidelity", title, [Text("No held-out comparison was made in this run.")])
    fidelity = inputs.fidelity
    tables = [_design_table(inputs, design) for design in designs(fidelity)]
    panels = [
        fidelity_against_time(
            f"time-{design}", design_words(design).capitalize(), fidelity.filter(design=design)
        )
        for design in designs(fidelity)
    ]
    figure = Figure(
        "Error against time per query on each kind of held-out subset; bars are 95% intervals of "
        "the mean, both axes are logarithmic, lower left is better. Numbers on the curve are Newton "
        "steps from the prediction; a vertical line is exact retraining. Time is that of answering "
        "alone: fitting and training the targets are listed under “What was run”.",
        panels,
        curve_keys(in_order(fidelity["method"].unique(maintain_order=True).to_list())),
    )
    frontiers = [Text(standing.sentence) for standing in _standings(fidelity)]
    return Section("fidelity", title, [_losses(fidelity), *tables, figure, *frontiers])


def _standings(fidelity: pl.DataFrame) -> list[Standing]:
    ordered = [fidelity.filter(pl.col("design") == design) for design in designs(fidelity)]
    return standings(pl.concat(ordered))


def _losses(fidelity: pl.DataFrame) -> Text:
    """Every figure of the tables where some rival is better than the plain predictor."""
    columns = {
        "parameter_error": ("parameter error", 1.0),
        "test_loss_error": ("test-loss error", 1.0),
        "spearman_within_size": ("rank correlation within size", -1.0),
        "microseconds": ("time per query", 1.0),
    }
    lines: list[str] = []
    for column, (words, sign) in columns.items():
        where: dict[str, list[str]] = {}  # the rivals that are better, as text -> designs
        for design in designs(fidelity):
            better = _better(fidelity.filter(design=design), column, sign)
            if better:
                where.setdefault(", ".join(better), []).append(design)
        for rivals, found in where.items():
            every = len(found) == len(designs(fidelity))
            kinds = "every kind of subset" if every else ", ".join(map(_short, found))
            lines.append(f"{words} on {kinds} ({rivals})")
    if not lines:
        return Text("No rival beats ModelPred in any column of the tables below.")
    return Text(f"Rivals have the better figure in {'; '.join(lines)}.")


def _better(rows: pl.DataFrame, column: str, sign: float) -> list[str]:
    values = dict(rows.select("method", column).iter_rows())
    ours = values.get("predictor")
    return [
        look(method).label
        for method, value in values.items()
        if is_rival(method) and _before(value, ours, sign)
    ]


def _before(theirs: float | None, ours: float | None, sign: float) -> bool:
    if theirs is None or ours is None or math.isnan(theirs):
        return False
    return math.isnan(ours) or sign * theirs < sign * ours


def _design_table(inputs: ReportInputs, design: str) -> Table:
    assert inputs.fidelity is not None
    rows = inputs.fidelity.filter(pl.col("design") == design)
    order = in_order(rows["method"].to_list())
    by_method = {row["method"]: row for row in rows.iter_rows(named=True)}
    rivals = rows.filter(pl.col("method").is_in([m for m in order if m not in TRUTHS]))
    best = {
        "parameter_error": rivals["parameter_error"].min(),
        "test_loss_error": rivals["test_loss_error"].min(),
        "spearman_within_size": rivals["spearman_within_size"].drop_nans().max(),
    }
    body: list[tuple[Cell, ...]] = []
    for method in order:
        row = by_method[method]
        marks = {name: method not in TRUTHS and row[name] == best[name] for name in best}
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
        note=f"{_seen(inputs, design)} {timing_words(busy=busy)}".strip(),
        ours=frozenset(index for index, method in enumerate(order) if is_ours(method)),
    )


def _seen(inputs: ReportInputs, design: str) -> str:
    subsets = inputs.params.get("subsets")
    fit = subsets.get("fit") if isinstance(subsets, Mapping) else None
    if not isinstance(fit, Mapping):
        return ""
    if fit.get(design):
        return f"The predictor was fitted to {count(fit[design])} other subsets of this kind."
    return "The predictor never saw this kind of subset in fitting."
