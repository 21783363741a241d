"""The frontier of error against time, and the speed of the predictor at equal error.

A method is on the frontier if no other method has at most its error and at most its time, one of the
two strictly less. Retraining has the error of its tolerance, so it is on the frontier unless another
method is as exact and faster.

*Speed at equal error.* The predictor has several settings: the plain prediction, and the prediction
after some Newton steps. The fastest setting with at most the error of the best other method is
compared with that method; the ratio of their times is the speed-up. It is a lower bound if the
setting has less error. Conversely, the plain prediction is compared with the fastest other method
that has at most its error, in most cases retraining.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from modelpred.report.methods import EXACT_METHODS, design_words, is_other, is_predictor, look
from modelpred.report.words import number, percent

Row = Mapping[str, Any]
GOAL = 5.0  # the speed-up at equal error that the method should reach
HEADS = (
    "Subsets",
    "Most accurate other method, without retraining",
    "Fastest setting of ModelPred with at most that error",
    "Speed-up",
    "Fastest other method with at most the error of the plain prediction",
    "Speed-up of the prediction",
)
SPEED_UP = "Speed-up: the time of the other method divided by that of ModelPred."


@dataclass(frozen=True)
class Standing:
    """The frontier of one design.

    Attributes:
        design: how its subsets were drawn.
        frontier: names of the methods on it, the fastest first.
        best_other: the other method with the least error, without retraining; None if there is none.
        setting: the fastest setting of the predictor with at most that error; None if there is none.
        prediction: the plain prediction; None if it was not measured.
        equal: the fastest other method, including retraining, with at most the error of the plain
            prediction; None if there is none.
    """

    design: str
    frontier: tuple[str, ...]
    best_other: Row | None
    setting: Row | None
    prediction: Row | None
    equal: Row | None

    @property
    def speedup(self) -> float:
        """Time of the best other method over that of the setting; nan without one of them."""
        return _ratio(self.best_other, self.setting)

    @property
    def gain(self) -> float:
        """Time of the fastest equally accurate other method over that of the plain prediction."""
        return _ratio(self.equal, self.prediction)

    @property
    def has_predictor(self) -> bool:
        """Whether some setting of the predictor is on the frontier."""
        return any(is_predictor(method) for method in self.frontier)

    @property
    def cells(self) -> tuple[str, ...]:
        """The comparisons at equal error, one text for each of `HEADS`."""
        return (
            design_words(self.design).capitalize(),
            _words(self.best_other),
            _words(self.setting),
            _factor(self.speedup),
            _words(self.equal),
            _factor(self.gain),
        )


def standings(fidelity: pl.DataFrame) -> list[Standing]:
    """The frontier of each design of a fidelity table, in the order of the table.

    Args:
        fidelity: columns method, design, parameter_error and microseconds.
    """
    frontiers: list[Standing] = []
    for design in fidelity["design"].unique(maintain_order=True):
        rows = fidelity.filter(pl.col("design") == design).to_dicts()
        known = [row for row in rows if _known(row)]
        compared = [row for row in known if is_other(row["method"])]
        best = min(compared, key=lambda row: row["parameter_error"], default=None)
        settings = [row for row in known if is_predictor(row["method"])]
        others = [row for row in known if not is_predictor(row["method"])]
        plain = next((row for row in settings if row["method"] == "predictor"), None)
        frontiers.append(
            Standing(
                design,
                frontier(known),
                best_other=best,
                setting=_fastest(settings, error=best["parameter_error"]) if best else None,
                prediction=plain,
                equal=_fastest(others, error=plain["parameter_error"]) if plain else None,
            )
        )
    return frontiers


def frontier(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the methods that no other beats in both error and time, the fastest first."""
    methods: list[str] = []
    least = math.inf
    for row in sorted(rows, key=lambda row: (row["microseconds"], row["parameter_error"])):
        if row["parameter_error"] < least:
            methods.append(row["method"])
            least = row["parameter_error"]
    return tuple(methods)


def _fastest(rows: Sequence[Row], *, error: float) -> Row | None:
    accurate = [row for row in rows if row["parameter_error"] <= error]
    return min(accurate, key=lambda row: row["microseconds"], default=None)


def _words(row: Row | None) -> str:
    if row is None:
        return "none"
    label = look(row["method"]).label
    if row["method"] in EXACT_METHODS:
        return label
    return f"{label} ({percent(row['parameter_error'])})"


def _ratio(slower: Row | None, faster: Row | None) -> float:
    if slower is None or faster is None:
        return math.nan
    return slower["microseconds"] / faster["microseconds"]


def _factor(ratio: float) -> str:
    return "" if math.isnan(ratio) else number(ratio, 2)


def _known(row: Row) -> bool:
    return all(
        row[column] is not None and math.isfinite(row[column])
        for column in ("parameter_error", "microseconds")
    )
