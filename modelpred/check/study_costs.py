"""Seconds of each study with given settings, from the seconds of units of work.

A stage's work is counted in four units, whose seconds a trial measures (trial.py):

    E   models that are trained exactly, to the tolerance
    P   predictions of the predictor that are scored on the test rows, with the drawing of their subset
    G   models that give gains of all rows at once (row_gains.py), in families that have them
    A   subsets that every method answers: the predictor with its early stops and refinements, the
        other methods, and retraining from two starts

With n training rows and m test rows, the studies do this much (tests/check/test_plan.py compares it
with what they do):

    valuation      the values of rows, by the predictor, and by each other method and retraining if
                   `rivals` is set; without a predicted model where gains of all rows serve (G)
    labels         P: held-out confidence; with `rivals` Shapley and Banzhaf values, 2 n
    selection      values; E: sizes (methods + random); with `rivals` also P: as labels, and E: GREEDY,
                   or for a family without an optimum P: a search backwards and swaps of each size
    calibration    A: resamples; E: tables resamples
    edits          A: sizes repeats, for deletions and for additions
    lds            A: subsets and n
    memorization   A: subsets; E: 2 subsets; and sums over all pairs of a training and a test row
    attribution    A: n, twice
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelpred.engine import EngineName
from modelpred.studies.gain_sampling import ROUND
from modelpred.studies.greedy_selection import CONFIRMED, PAIRED
from modelpred.studies.held_out import PARTS, rounds_of
from modelpred.studies.row_gains import cost_of_gains
from modelpred.studies.sampler_choice import PILOT, budget_of
from modelpred.studies.samplers import EXACT_UP_TO, FEWEST, MOST_REGRESSED
from modelpred.studies.selection import SelectionConfig
from modelpred.studies.valuation_methods import FOLDS

OTHER_METHODS = 5
COMPARED = 18  # curves of methods in the study `selection`
LIGHT_COMPARED = 3  # without `rivals`
STEP, WIDE_STEP = 0.05, 0.19  # distance between the shares of `selection`; both include 0.95
CALLS = 2  # of held-out confidence in the study `labels`
GREEDY = 80  # trained models of the greedy selections (gradient_selection.py)
EXPANSION = 10  # Newton steps in the time of the effects of all rows
ORDER = 1.7  # models for each row and random order
LEAST_COMPARED = 0.05  # smallest factor with which `selection` compares all methods
NEIGHBOUR = 1.5e-7  # seconds for each pair of rows to sort neighbours
PAIR = 4e-9  # seconds for each pair of rows and model of the study `memorization`, over all methods
FACTORS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)

COUNTED = cost_of_gains(1)

Settings = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """Seconds of each unit of work, on the whole machine."""

    exact: float
    predicted: float
    plain: float  # a prediction without a Newton step
    refined: float  # and with one
    gains: float  # see `Speeds`
    everything: float
    scored: float  # a prediction on one row
    refine: float  # Newton steps of a prediction in the study `valuation`
    engine: EngineName = "predicted"  # of the studies that can retrain
    prepared: float = 0.0  # before the first prediction of a study
    compared: float = 0.0  # before the first answer of the other methods
    optimum: bool = True  # whether the family has one
    gains_count: int = COUNTED  # see `Speeds`

    def values_cost(
        self, orders: int, points: int, *, model: float, banzhaf: bool = False
    ) -> float:
        """Seconds of the values of rows; arguments as of the function `values_cost`."""
        return values_cost(
            orders, points, model=model, gains=self.gains, gains_count=self.gains_count,
            banzhaf=banzhaf,
        )  # fmt: skip


def _even(count: float, *, least: int) -> int:
    return max(least, 2 * round(count / 2))


def values_cost(
    orders: int,
    points: int,
    *,
    model: float,
    gains: float,
    gains_count: int = COUNTED,
    banzhaf: bool = False,
) -> float:
    """Seconds of semi-values with such a budget, as sampler_choice.py spends it.

    Args:
        orders: the budget in random orders.
        points: number of rows.
        model: seconds of the model of a subset and its score.
        gains: see `Speeds`; 0 if they cannot be used.
        gains_count: see `Speeds`.
        banzhaf: whether they are Banzhaf values, which can use a model for all rows.
    """
    if points <= EXACT_UP_TO:
        return (1.0 if banzhaf else ORDER) * orders * points * model
    budget = budget_of(orders, points=points)
    # Evaluations of a round of each sampler that can be used, and the seconds of an evaluation.
    rounds = {"stratified": (2 * ORDER * points, model)}
    if gains:
        rounds["gains"] = (float(gains_count * ROUND), gains)
    if points <= MOST_REGRESSED:
        rounds["regression"] = (2.0 * points, model)
    if banzhaf:
        rounds["reuse"] = (1.0 * points, model)
    affordable = [each for each in rounds.values() if PILOT * FEWEST * each[0] <= 2 * budget]
    if not affordable:
        cost, seconds = min(rounds.values())
        return max(FEWEST * cost, budget) * seconds
    return budget * max(seconds for _, seconds in affordable)


def _valuation(factor: float, unit: Unit, points: int, _: int) -> tuple[Settings, float]:
    orders, compared = _even(100 * factor, least=4), factor >= 0.5
    settings = {
        "permutations": orders,
        "truth_permutations": orders if compared else 0,
        "rivals": compared,
        "refine": unit.refine,
        "engine": unit.engine,
    }
    methods = 1 + OTHER_METHODS * (compared and points <= EXACT_UP_TO)
    cost = methods * unit.values_cost(orders, points, model=unit.predicted)
    truth = unit.values_cost(orders, points, model=unit.exact)
    return settings, cost + compared * truth


def _methods_cost(orders: int, unit: Unit, points: int, tests: int) -> float:
    """Seconds of the values of all methods that the studies compare."""
    sampled = sum(
        unit.values_cost(orders, points, model=unit.plain, banzhaf=banzhaf)
        for banzhaf in (False, True)
    )
    alone = 2 * points * unit.plain + FOLDS * unit.exact
    return (
        sampled
        + alone
        + held_out_cost(points, model=unit.plain, scored=unit.scored)
        + NEIGHBOUR * points * tests
    )


def held_out_cost(points: int, *, model: float, scored: float) -> float:
    """Seconds of held-out confidence in the labels of so many rows.

    Args:
        points: number of rows.
        model: seconds of the model of a part.
        scored: seconds to score it on one row.
    """
    return rounds_of(points) * PARTS * (model + scored * points)


def _labels(factor: float, unit: Unit, points: int, tests: int) -> tuple[Settings, float]:
    orders, compared = _even(50 * factor, least=2), factor > FACTORS[-1]
    cost = CALLS * held_out_cost(points, model=unit.plain, scored=unit.scored)
    if compared:
        cost += _methods_cost(orders, unit, points, tests)
    return {"permutations": orders, "rivals": compared, "engine": unit.engine}, cost


def greedy_cost(unit: Unit, points: int, *, sizes: int) -> float:
    """Seconds of the greedy selections of all sizes."""
    if unit.optimum:
        return GREEDY * (unit.exact + EXPANSION * unit.refined)
    usual = SelectionConfig()
    # After a model without each of the r rows that remain, one in `stride` of them is removed, fewer
    # before each size; r falls from n to 0.
    searched = (usual.stride + sizes / 2) * points
    swapped = sizes * usual.swaps * (points + PAIRED**2)
    return (searched + swapped) * unit.plain + sizes * usual.swaps * CONFIRMED * unit.exact


def _selection(factor: float, unit: Unit, points: int, tests: int) -> tuple[Settings, float]:
    orders, random = _even(50 * factor, least=2), max(4, round(20 * factor))
    compared = factor >= LEAST_COMPARED
    step = WIDE_STEP if factor == FACTORS[-1] else STEP
    methods = COMPARED if compared else LIGHT_COMPARED
    cost = int(1 / step) * (methods + random) * unit.exact
    if compared:
        cost += _methods_cost(orders, unit, points, tests)
        cost += greedy_cost(unit, points, sizes=int(1 / step))
    else:
        cost += unit.values_cost(orders, points, model=unit.plain)
    settings = {
        "permutations": orders,
        "random": random,
        "rivals": compared,
        "step": step,
        "engine": unit.engine,
    }
    return settings, cost


def _calibration(factor: float, unit: Unit, _: int, __: int) -> tuple[Settings, float]:
    resamples, tables = max(50, round(500 * factor)), round(10 * factor)
    cost = resamples * (unit.everything + (1 + tables) * unit.exact)
    return {"resamples": resamples, "tables": tables}, cost


def _edits(factor: float, unit: Unit, points: int, tests: int) -> tuple[Settings, float]:
    sizes, repeats = max(4, round(30 * factor)), max(2, round(10 * factor))
    step = max(1, points // (2 * sizes))
    added = min(145, tests // 2)
    settings = {"step": step, "repeats": repeats, "added": added if added >= step else 0}
    return settings, repeats * (sizes + settings["added"] // step) * unit.everything


def _lds(factor: float, unit: Unit, points: int, _: int) -> tuple[Settings, float]:
    subsets = max(50, round(500 * factor))
    return {"subsets": subsets}, (subsets + points) * unit.everything


def _memorization(factor: float, unit: Unit, points: int, tests: int) -> tuple[Settings, float]:
    subsets = max(100, round(1000 * factor))
    return {"subsets": subsets}, subsets * (
        unit.everything + 2 * unit.exact + 8 * PAIR * points * tests
    )


def _attribution(factor: float, unit: Unit, points: int, _: int) -> tuple[Settings, float]:
    explained = max(2, round(10 * factor))
    return {"explained": explained}, 2 * points * unit.everything


LADDERS: dict[str, Callable[[float, Unit, int, int], tuple[Settings, float]]] = {
    "valuation": _valuation,
    "labels": _labels,
    "selection": _selection,
    "calibration": _calibration,
    "edits": _edits,
    "lds": _lds,
    "memorization": _memorization,
    "attribution": _attribution,
}
