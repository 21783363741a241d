"""Settings of all stages that let a run end in about a given time on this machine and table.

The work of each study is counted in study_costs.py. `valuation`, `labels` and `selection` retrain (engine: exact) where retraining takes no longer than a
prediction. A study that predicts prepares the predictor first, and one that
compares the other methods prepares these.

TIMES says how many times as long a stage takes as this work, measured on 4,000 rows of 27 features: what
is timed is repeated, and methods are compared.

Each study has a share of the time. It gets the largest of its settings, from the default downwards,
that fit into its share and leave time for the least settings of the others. If the least settings of all
do not fit, studies are left out that the first screen of the report does not need.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from modelpred.check.estimate import Estimate, Speeds, estimate, usual_epochs
from modelpred.check.study_costs import FACTORS, LADDERS, Settings, Unit
from modelpred.studies import ANSWERS
from modelpred.subsets import SubsetsConfig

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
ALWAYS = 6.0  # seconds: starting Python and the workers, figures and the page
EACH = 0.7  # seconds: reading what a study needs, and writing it
DERIVED = 0.2  # scale of the subsets for a predictor that is derived, not learned in epochs
LEAST_SCALE = 0.02
TIMED = 300  # predictions that a study times before its work
DEAR = 2.0  # a Newton step is left out if it takes so many times as long as a prediction
DRAWING = 4e-8  # seconds for each row to draw a subset
PAIR_BYTES = 700  # memory of the study `memorization` for each pair of training and test row
TIMES = {"predictor": 1.5, "edits": 10.0, "lds": 1.0, "calibration": 3.0, "selection": 1.0}


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
        gains_count=speeds.gains_count,
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
    return next((choice for choice in ladder if choice[1] <= budget), ladder[-1])


def _before(settings: Settings, unit: Unit) -> float:
    """Seconds of a study before its work, and of writing its results."""
    predicts = settings.get("engine") != "exact"
    return EACH + predicts * unit.prepared + settings.get("rivals", True) * unit.compared
