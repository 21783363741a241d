"""Settings of all stages that let a run end in about a given time on this machine and table.

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

`valuation`, `labels` and `selection` retrain (engine: exact) where retraining takes no longer than a
prediction; E replaces P then. A study that predicts prepares the predictor first, and one that
compares the other methods prepares these.

TIMES says how many times as long a stage takes as this work, measured on 4,000 rows of 27 features: what
is timed is repeated, and methods are compared.

Each study has a share of the time. It gets the largest of its settings, from the default downwards,
that fit into its share and leave time for the least settings of the others. If the least settings of all
do not fit, studies are left out that the first screen of the report does not need.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpred.check.estimate import Estimate, Speeds, estimate, usual_epochs
from modelpred.engine import EngineName
from modelpred.studies.gain_sampling import ROUND
from modelpred.studies.greedy_selection import CONFIRMED, PAIRED
from modelpred.studies.held_out import PARTS, rounds_of
from modelpred.studies.sampler_choice import (
    EXACT_UP_TO,
    FEWEST,
    GAINS_COST,
    MOST_REGRESSED,
    PILOT,
    budget_of,
)
from modelpred.studies.selection import SelectionConfig
from modelpred.studies.valuation_methods import FOLDS
from modelpred.subsets import SubsetsConfig

FACTORS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)
# Parts of the time. What is left of one part goes to those after it.
SHARES = {
    "targets": 0.3,
    "valuation": 0.2,
    "labels": 0.1,
    "selection": 0.12,
    "calibration": 0.1,
    "edits": 0.04,
    "lds": 0.04,
    "memorization": 0.04,
    "attribution": 0.03,
}
ANSWERS = ("valuation", "labels", "selection", "calibration")  # what the first screen needs
ALWAYS = 6.0  # seconds: starting Python and the workers, figures and the page
EACH = 0.7  # seconds: reading what a study needs, and writing it
DERIVED = 0.2  # scale of the subsets for a predictor that is derived, not learned in epochs
LEAST_SCALE = 0.02
TIMED = 300  # predictions that a study times before its work
DEAR = 2.0  # times a prediction
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
DRAWING = 4e-8  # seconds for each row to draw a subset
PAIR_BYTES = 700  # of it, for each pair
PAIR = 4e-9  # seconds for each pair of rows and model of the study `memorization`, over all methods
TIMES = {"predictor": 1.5, "edits": 10.0, "lds": 1.0, "calibration": 3.0, "selection": 1.0}

Settings = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """Seconds of each unit of work, on the whole machine."""

    exact: float
    predicted: float
    plain: float  # a prediction without a Newton step
    refined: float  # and with one
    gains: float
    everything: float
    scored: float  # a prediction on one row
    refine: float  # Newton steps of a prediction in the study `valuation`
    engine: EngineName = "predicted"  # of the studies that can retrain
    prepared: float = 0.0  # before the first prediction of a study
    compared: float = 0.0  # before the first answer of the other methods
    optimum: bool = True  # whether the family has one


@dataclass(frozen=True)
class Plan:
    """Settings, and what they are expected to cost.

    Attributes:
        sections: of params.yaml that differ from the defaults.
        skipped: studies that would take too long.
        seconds: of each stage.
        subsets: number of subsets on which models are trained.
        disk: bytes.
        memory: largest bytes at one time.
    """

    sections: Mapping[str, Settings]
    skipped: tuple[str, ...]
    seconds: Mapping[str, float]
    subsets: int
    disk: float
    memory: float

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        return sum(self.seconds.values())


def plan(
    speeds: Speeds,
    *,
    points: int,
    tests: int,
    cores: int,
    seconds: float,
    slowdown: float = 1.0,
    memory: float = 0.0,
    optimum: bool = True,
) -> Plan:
    """The settings for so many seconds.

    Args:
        speeds: of a trial.
        points: number of training rows.
        tests: number of test rows.
        cores: how many train.
        seconds: how long the run may take.
        slowdown: seconds that pass in a second of processor time, because of other programs.
        memory: bytes that the stages up to the predictor take.
        optimum: whether the family has one.
    """
    usable = seconds / slowdown
    # A step costs more than a prediction by Newton directions, which is near enough without it.
    refine = 1.0 if speeds.predicting < DEAR * speeds.answering[0] else 0.0
    scored = speeds.judging + DRAWING * points
    exact = speeds.training / cores + speeds.judging
    plain = speeds.answering[0] + scored
    predicted = speeds.predicting + scored if refine else plain
    retrained = exact + DRAWING * points <= plain
    unit = Unit(
        exact=exact,
        predicted=exact if retrained else predicted,
        plain=exact if retrained else plain,
        refined=speeds.predicting + scored,
        engine="exact" if retrained else "predicted",
        prepared=speeds.preparing + TIMED * predicted,
        compared=speeds.compared,
        optimum=optimum,
        gains=speeds.gains,
        scored=speeds.judging / max(1, tests),
        refine=refine,
        everything=sum(speeds.answering) + len(speeds.answering) * speeds.judging,
    )
    left = max(0.0, usable - ALWAYS)
    subsets, until_fit = _subsets(speeds, points, cores, SHARES["targets"] * left)
    fewest = _stage_seconds(_subsets(speeds, points, cores, 0.0)[1])
    after_fit = left - max(SHARES["targets"] * left, sum(fewest.values()))
    least = {
        study: _chosen(study, 0.0, unit, points, tests)[1] for study in SHARES if study in LADDERS
    }
    skipped = _left_out(least, after_fit)
    stages = {"start": ALWAYS, **_stage_seconds(until_fit)}
    sections: dict[str, Settings] = {"subsets": {"scale": subsets.scale}}
    left -= sum(stages.values()) - ALWAYS
    shares = {study: SHARES[study] for study in least if study not in skipped}
    while shares:
        study = next(iter(shares))
        budget = max(0.0, left) * shares[study] / sum(shares.values())
        del shares[study]
        reserved = sum(least[other] for other in shares)
        sections[study], cost = _chosen(study, min(budget, left - reserved), unit, points, tests)
        stages[study] = cost
        left -= cost
    expected = {name: slowdown * cost for name, cost in stages.items()}
    if "memorization" in sections:
        memory += PAIR_BYTES * points * tests
    return Plan(sections, skipped, expected, subsets.drawn(points), until_fit.disk, memory)


def _stage_seconds(until_fit: Estimate) -> dict[str, float]:
    """Seconds of the stages up to the predictor."""
    return {
        name: TIMES.get(name, 1.0) * getattr(until_fit, name)
        for name in ("dataset", "subsets", "targets", "predictor")
    }


def _left_out(least: Mapping[str, float], seconds: float) -> tuple[str, ...]:
    """Studies to leave out, so that the smallest settings of the others fit.

    The order does not depend on the time: the dearest for its share goes first. So with more time no other
    study is left out.
    """
    left = dict(least)
    optional = sorted(set(least) - set(ANSWERS), key=lambda study: least[study] / SHARES[study])
    while optional and sum(left.values()) > seconds:
        del left[optional.pop()]
    return tuple(study for study in least if study not in left)


def _subsets(
    speeds: Speeds, points: int, cores: int, budget: float
) -> tuple[SubsetsConfig, Estimate]:
    """The most subsets whose training and fit end within the budget, the fewest that are of use else."""
    most = SubsetsConfig().drawn(points) / SubsetsConfig().total
    if not speeds.epoch:
        most = min(most, DERIVED)
    costs: list[tuple[SubsetsConfig, Estimate]] = []
    for factor in FACTORS:
        config = SubsetsConfig(scale=max(LEAST_SCALE, round(most * factor, 3)))
        drawn = config.for_points(points)
        costs.append(
            (config, estimate(speeds, drawn, cores=cores, epochs=usual_epochs(), starts=0.0))
        )
        found = costs[-1][1]
        if found.targets + TIMES["predictor"] * found.predictor <= budget:
            break
    return costs[-1]


def _chosen(
    study: str, budget: float, unit: Unit, points: int, tests: int
) -> tuple[Settings, float]:
    """The largest settings of the study within the budget and their seconds; else the smallest."""
    times = TIMES.get(study, 1.0)
    ladder = [
        (settings, times * cost + _before(settings, unit))
        for settings, cost in (LADDERS[study](factor, unit, points, tests) for factor in FACTORS)
    ]
    return next((rung for rung in ladder if rung[1] <= budget), ladder[-1])


def _before(settings: Settings, unit: Unit) -> float:
    """Seconds of a study before its work, and of writing its results."""
    predicts = settings.get("engine") != "exact"
    return EACH + predicts * unit.prepared + settings.get("rivals", True) * unit.compared


def _even(count: float, *, least: int) -> int:
    return max(least, 2 * round(count / 2))


def values_cost(
    orders: int, points: int, *, model: float, gains: float, banzhaf: bool = False
) -> float:
    """Seconds of semi-values with such a budget, as sampler_choice.py spends it.

    Args:
        orders: the budget in random orders.
        points: number of rows.
        model: seconds of the model of a subset and its score.
        gains: seconds of the gains of all rows by one model; 0 if there are none.
        banzhaf: whether they are Banzhaf values, which can use a model for all rows.
    """
    if points <= EXACT_UP_TO:
        return (1.0 if banzhaf else ORDER) * orders * points * model
    budget = budget_of(orders, points=points)
    # Evaluations of a round of each sampler that can be used, and the seconds of an evaluation.
    rounds = {"stratified": (2 * ORDER * points, model)}
    if gains:
        rounds["gains"] = (float(GAINS_COST * ROUND), gains / GAINS_COST)
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
    cost = methods * values_cost(orders, points, model=unit.predicted, gains=unit.gains)
    truth = values_cost(orders, points, model=unit.exact, gains=unit.gains)
    return settings, cost + compared * truth


def _methods_cost(orders: int, unit: Unit, points: int, tests: int) -> float:
    """Seconds of the values of all methods that the studies compare."""
    sampled = sum(
        values_cost(orders, points, model=unit.plain, gains=unit.gains, banzhaf=banzhaf)
        for banzhaf in (False, True)
    )
    alone = 2 * points * unit.plain + FOLDS * unit.exact
    return sampled + alone + _held_out_cost(unit, points) + NEIGHBOUR * points * tests


def _held_out_cost(unit: Unit, points: int) -> float:
    return rounds_of(points) * PARTS * (unit.plain + unit.scored * points)


def _labels(factor: float, unit: Unit, points: int, tests: int) -> tuple[Settings, float]:
    orders, compared = _even(50 * factor, least=2), factor > FACTORS[-1]
    cost = CALLS * _held_out_cost(unit, points)
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
        cost += values_cost(orders, points, model=unit.plain, gains=unit.gains)
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
