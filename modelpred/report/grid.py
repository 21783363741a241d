"""Results of several tables and models: one table of all methods, and figures of error against time.

    grid.csv                     a row per table, model, design and method
    grid.md                      the same as a text, with frontiers and LDS
    frontier-<table>.svg         error against time per query, a panel per model and design

Designs are the held-out ones of the stage `predictor`, and the deletions and additions of the study
`edits`, whose intervals are over repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from modelpred.report.blocks import Panel
from modelpred.report.canvas import curve_keys, standalone
from modelpred.report.fidelity import designs
from modelpred.report.figures import fidelity_against_time
from modelpred.report.frontier import GOAL, HEADS, SPEED_UP, Standing, standings
from modelpred.report.methods import EXACT_METHODS, design_words, in_order, look
from modelpred.report.words import microseconds, number, percent, percent_interval

REMOVED, ADDED = "edits_deletion", "edits_addition"
FIGURED = ("uniform", "deletion", ADDED)
_ROW = {
    "source": pl.String, "model": pl.String, "points": pl.Int64, "features": pl.Int64,
    "design": pl.String, "method": pl.String, "subsets": pl.Int64,
    "parameter_error": pl.Float64, "parameter_error_low": pl.Float64,
    "parameter_error_high": pl.Float64, "test_loss_error": pl.Float64,
    "spearman_within_size": pl.Float64, "microseconds": pl.Float64, "frontier": pl.Boolean,
}  # fmt: skip


@dataclass(frozen=True)
class GridCell:
    """The results of one run.

    Attributes:
        source: name of the table.
        model: family of the target models.
        params: the run's params.
        dataset: its dataset.json.
        fidelity: its fidelity table.
        edits: metrics of its study `edits`.
        break_even: table of that study.
        lds: table of its study `lds`.
    """

    source: str
    model: str
    params: Mapping[str, Any]
    dataset: Mapping[str, Any]
    fidelity: pl.DataFrame
    edits: Mapping[str, Any]
    break_even: pl.DataFrame
    lds: pl.DataFrame

    @property
    def title(self) -> str:
        """Title of the cell."""
        return f"{self.source}, {self.model}"

    @property
    def features(self) -> int:
        """Number of features; the scaling has one constant for each."""
        return len(self.dataset["scaling"]["offset"])

    @property
    def facts(self) -> str:
        """Size of the data and number of subsets, in words."""
        fit = self.params["subsets"]["fit"]
        subsets = ", ".join(f"{number:,} {design}" for design, number in fit.items())
        scaling = self.dataset["scaling"]["name"]
        return (
            f"{self.dataset['points']} rows, {self.features} features "
            f"({scaling.replace('_', ' ')}); fitted to {subsets} subsets"
        )

    def table(self) -> pl.DataFrame:
        """Every design and method of the run, as in grid.csv."""
        held_out = [self.fidelity.filter(design=design) for design in designs(self.fidelity)]
        rows = [*pl.concat(held_out).to_dicts(), *_edits_rows(self.edits)]
        table = pl.DataFrame(
            [
                {name: row.get(name) for name in _ROW}
                | {
                    "source": self.source,
                    "model": self.model,
                    "points": self.dataset["points"],
                    "features": self.features,
                }
                for row in rows
            ],
            schema=_ROW,
        )
        on = {standing.design: standing.frontier for standing in standings(table)}
        flags = [
            method in on[design] for design, method in table.select("design", "method").iter_rows()
        ]
        return table.with_columns(pl.Series("frontier", flags))


def _edits_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The edits study's summaries in the form of the fidelity table.

    The metrics of a study also have keys that are no methods, such as `failed`.
    """
    rows: list[dict[str, Any]] = []
    for design, summaries in ((REMOVED, metrics), (ADDED, metrics.get("addition", {}))):
        subsets = summaries.get("retraining", {}).get("subsets")
        for method, summary in summaries.items():
            if isinstance(summary, Mapping) and "microseconds" in summary:
                rows.append({"design": design, "method": method, "subsets": subsets, **summary})
                if method in EXACT_METHODS:
                    rows[-1].setdefault("parameter_error", 0.0)
    return rows


def write_grid(cells: Sequence[GridCell], folder: Path) -> list[Path]:
    """Write the table, the Markdown page and the figures into the folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [cell.table() for cell in cells]
    written = [folder / "grid.csv", folder / "grid.md"]
    pl.concat(tables).write_csv(written[0])
    written[1].write_text(_page(cells, tables), encoding="utf-8")
    for source in dict.fromkeys(cell.source for cell in cells):
        panels = [
            panel
            for cell, table in zip(cells, tables, strict=True)
            if cell.source == source
            for panel in _panels(cell, table)
        ]
        path = folder / f"frontier-{source}.svg"
        methods = in_order(
            pl.concat(tables).filter(source=source)["method"].unique(maintain_order=True).to_list()
        )
        drawing = standalone(panels, columns=len(FIGURED), legend=curve_keys(methods))
        path.write_text(drawing, encoding="utf-8")
        written.append(path)
    return written


def _panels(cell: GridCell, table: pl.DataFrame) -> list[Panel]:
    """Error against time on each design that is drawn."""
    return [
        fidelity_against_time(
            f"{cell.source}-{cell.model}-{design}",
            f"{cell.title}: {design_words(design)}",
            table.filter(pl.col("design") == design),
        )
        for design in FIGURED
        if (table["design"] == design).any()
    ]


def _page(cells: Sequence[GridCell], tables: Sequence[pl.DataFrame]) -> str:
    parts = ["# Every method on every table and model", _goal(tables), SPEED_UP]
    for cell, table in zip(cells, tables, strict=True):
        parts += [
            f"## {cell.title}",
            cell.facts[:1].upper() + cell.facts[1:] + ".",
            _methods_table(cell, table),
            _speed_table(standings(table)),
            _break_even_line(cell.break_even),
        ]
    return "\n\n".join(parts) + "\n"


def _goal(tables: Sequence[pl.DataFrame]) -> str:
    """Number of designs in which the goal is met, and the designs in which it is not."""
    cells = [
        (table["source"][0], table["model"][0], standing)
        for table in tables
        for standing in standings(table)
    ]
    on = [standing for *_, standing in cells if standing.has_predictor]
    fast = [standing for *_, standing in cells if standing.speedup >= GOAL]
    unmatched = [s for *_, s in cells if s.equal is None or s.equal["method"] in EXACT_METHODS]
    gains = sorted(s.gain for *_, s in cells if s.equal is not None)
    off = _listed([(s, m, standing) for s, m, standing in cells if not standing.has_predictor])
    slower = _listed([(s, m, standing) for s, m, standing in cells if not standing.speedup >= 1])
    exceptions = f" (not in {off})" if off else ""
    text = (
        f"Some setting of ModelPred is on the frontier of error against time in {len(on)} of "
        f"{len(cells)} designs{exceptions}. At the error of the best other method, without "
        f"retraining, it is at least {GOAL:g} times as fast in {len(fast)} of {len(cells)}"
    )
    text = f"{text}, and slower or never as accurate in {slower}." if slower else f"{text}."
    if not gains:
        return text
    middle = gains[len(gains) // 2]
    return (
        f"{text} In {len(unmatched)} of {len(cells)} designs only exact retraining reaches the "
        f"error of the plain prediction. The prediction is {number(gains[0], 2)} to "
        f"{number(gains[-1], 2)} (median {number(middle, 2)}) times as fast as the fastest other "
        "method that reaches its error."
    )


def _listed(cells: Sequence[tuple[str, str, Standing]]) -> str:
    return "; ".join(f"{source} {model}, {standing.design}" for source, model, standing in cells)


def _methods_table(cell: GridCell, table: pl.DataFrame) -> str:
    """A row per method, a column per design, then times and the LDS."""
    drawn = table["design"].unique(maintain_order=True).to_list()
    rows = {(row["design"], row["method"]): row for row in table.iter_rows(named=True)}
    scores = {(row["method"], row["form"]): row for row in cell.lds.iter_rows(named=True)}
    heads = ["Method", *map(design_words, drawn), "µs a query", "LDS", "LDS, sum"]
    lines = [_line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
    for method in in_order(table["method"].unique(maintain_order=True).to_list()):
        cells = [_error(rows.get((design, method))) for design in drawn]
        time = rows.get((drawn[0], method)) or next(
            row for (_, name), row in rows.items() if name == method
        )
        lds = [_score(scores.get((method, form))) for form in ("direct", "additive")]
        lines.append(_line([look(method).label, *cells, microseconds(time["microseconds"]), *lds]))
    note = (
        "Mean relative parameter error with its 95% interval. Bold: no other method is both more "
        f"accurate and faster. Times are for {design_words(drawn[0])}."
    )
    return "\n".join(lines) + "\n\n" + note


def _speed_table(found: Sequence[Standing]) -> str:
    """ModelPred and the other methods at equal error, a row per design."""
    ends = ["---:" if head.startswith("Speed") else "---" for head in HEADS]
    return "\n".join(map(_line, [HEADS, ends, *(standing.cells for standing in found)]))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _error(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["method"] in EXACT_METHODS:
        return "exact"
    low, high = row["parameter_error_low"], row["parameter_error_high"]
    text = percent(row["parameter_error"])
    text = f"**{text}**" if row["frontier"] else text
    return text if low is None else f"{text} ({percent_interval(low, high)})"


def _score(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{number(row['lds'])} ± {number((row['high'] - row['low']) / 2, 2)}"


def _break_even_line(table: pl.DataFrame) -> str:
    parts: list[str] = []
    for row in table.iter_rows(named=True):
        queries = row["queries"]
        when = "never" if queries is None else f"after {queries:,} queries"
        parts.append(f"{look(row['way']).label} {when}")
    return f"Fitting and predicting becomes cheaper than: {'; '.join(parts)}."
