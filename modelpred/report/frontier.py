"""Who is on the frontier of error against time, and how much faster is the predictor at equal error?

A method is on the frontier where no other answers with at most its error in at most its time, one
of the two strictly less. Retraining, whose error is that of its tolerance, is always there unless
something is as exact and faster.

*At equal error.* The curve of the predictor starts at the pure prediction and goes on with Newton
steps. Its cheapest point with at most the error of a rival answers what the rival answers; the
rival's time over its time is how many times faster that is. It is a lower bound where that point
has less error than the rival. The other way round, the fastest other method with at most the error
of the pure prediction, in most cases retraining, is compared with the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from modelpred.report.blocks import number, percent
from modelpred.report.methods import design_words, is_ours, is_rival, look

Row = Mapping[str, Any]
GOAL = 5.0  # times faster at equal error: what the method should reach


@dataclass(frozen=True)
class Standing:
    """The frontier of one design.

    Attributes:
        design: how its subsets were drawn.
        frontier: names of the methods on it, the fastest first.
        rival: the rival with the least error, retraining not counted; None if there is none.
        answer: the predictor's cheapest setting with at most that error; None if none has.
        equal: the fastest other method, retraining too, with at most the error of the pure
            prediction; None if none has.
    """

    design: str
    frontier: tuple[str, ...]
    rival: Row | None
    answer: Row | None
    prediction: Row | None
    equal: Row | None

    @property
    def speedup(self) -> float:
        """Time of the rival over that of the answer; nan without one of them."""
        return _ratio(self.rival, self.answer)

    @property
    def gain(self) -> float:
        """Time of the fastest other method that is as good as the prediction over its time."""
        return _ratio(self.equal, self.prediction)

    @property
    def ours(self) -> bool:
        """Whether some setting of the predictor is on the frontier."""
        return any(is_ours(method) for method in self.frontier)

    @property
    def sentence(self) -> str:
        """The standing in words, whoever is ahead."""
        words = "; ".join(look(method).label for method in self.frontier)
        text = f"{design_words(self.design).capitalize()}: on the frontier are {words}."
        if self.rival is None:
            return text
        rival = f"{look(self.rival['method']).label} ({percent(self.rival['parameter_error'])})"
        if self.answer is None:
            return f"{text} No setting of ModelPred reaches the error of the best rival, {rival}."
        answer = f"{look(self.answer['method']).label} ({percent(self.answer['parameter_error'])})"
        text = (
            f"{text} With at most the error of the best rival, {rival}, {answer} is "
            f"{_times(self.speedup)} it."
        )
        if self.equal is None:
            return f"{text} Nobody else reaches the error of the pure prediction."
        return (
            f"{text} The fastest other method with at most the error of the pure prediction is "
            f"{look(self.equal['method']).label}: the prediction is {_times(self.gain)} it."
        )


def standings(fidelity: pl.DataFrame) -> list[Standing]:
    """The frontier of each design of a fidelity table, in its order.

    Args:
        fidelity: columns method, design, parameter_error and microseconds.
    """
    found: list[Standing] = []
    for design in fidelity["design"].unique(maintain_order=True):
        rows = fidelity.filter(pl.col("design") == design).to_dicts()
        known = [row for row in rows if _known(row)]
        rivals = [row for row in known if is_rival(row["method"])]
        best = min(rivals, key=lambda row: row["parameter_error"], default=None)
        ours = [row for row in known if is_ours(row["method"])]
        others = [row for row in known if not is_ours(row["method"])]
        pure = next((row for row in ours if row["method"] == "predictor"), None)
        found.append(
            Standing(
                design,
                frontier(known),
                rival=best,
                answer=_cheapest(ours, error=best["parameter_error"]) if best else None,
                prediction=pure,
                equal=_cheapest(others, error=pure["parameter_error"]) if pure else None,
            )
        )
    return found


def frontier(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the methods that no other beats in both error and time, the fastest first."""
    kept: list[str] = []
    least = math.inf
    for row in sorted(rows, key=lambda row: (row["microseconds"], row["parameter_error"])):
        if row["parameter_error"] < least:
            kept.append(row["method"])
            least = row["parameter_error"]
    return tuple(kept)


def _cheapest(rows: Sequence[Row], *, error: float) -> Row | None:
    enough = [row for row in rows if row["parameter_error"] <= error]
    return min(enough, key=lambda row: row["microseconds"], default=None)


def _ratio(slower: Row | None, faster: Row | None) -> float:
    if slower is None or faster is None:
        return math.nan
    return slower["microseconds"] / faster["microseconds"]


def _times(ratio: float) -> str:
    if ratio >= 1:
        return f"{number(ratio, 2)} times as fast as"
    return f"{number(1 / ratio, 2)} times slower than"


def _known(row: Row) -> bool:
    return all(
        row[column] is not None and math.isfinite(row[column])
        for column in ("parameter_error", "microseconds")
    )
