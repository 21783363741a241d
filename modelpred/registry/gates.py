"""What makes a new version the champion: the gates, and the evidence that they check.

    trained share       few of the held-out subsets lack a trained model to compare with
    held-out error      the upper end of its 95% interval is below a bound
    rivals              that end is below the lower end of each rival's interval
    calibration         the excess of its bootstrap's log loss over that of retrained models, the mean over
                        test rows of log p_retrained - log p_predicted, has its upper end below a bound
    champion            its errors are not above those of the present champion on the same held-out subsets of
                        the same data: the 95% interval of the paired differences is not above zero

Missing evidence that a gate needs is a reason to refuse. Only where two
versions cannot be compared, because they answer different questions (another family, another C, other features), is the
champion no bar; a tag then says so.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from modelpred.metrics import Interval, mean_interval, relative_errors
from modelpred.predictor import Predictor
from modelpred.refits import Rival
from modelpred.subsets import Design
from modelpred.targets.bank import Bank

METHOD = "predictor"
UNJUDGED = ("busy",)  # of the fidelity table: says how times were measured, not how good they are
LEAST_PROBABILITY = 1e-12  # keeps the log loss of a row finite

# method -> design -> measure -> value, as in `fidelity`.
HeldOut = Mapping[str, Mapping[str, Mapping[str, float]]]


class GatesConfig(BaseModel):
    """What a new version must show to become champion (section `gates` of params.yaml).

    Attributes:
        designs: the kinds of held-out subsets whose errors count.
        trained_share: smallest share of the held-out subsets that have a trained model to compare with; the others
            lack a class or did not converge; None: any.
        parameter_error: largest mean relative error; None: any.
        beats: methods that must be worse on every one of the designs.
        calibration: largest excess of the bootstrap's log loss over that of retrained models; None: any, and no
            calibration study is needed.
        champion: whether it must not be worse than the present champion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    designs: tuple[Design, ...] = Field(default=("uniform",), min_length=1)
    trained_share: float | None = Field(default=0.9, gt=0, le=1)
    parameter_error: float | None = Field(default=0.25, gt=0)
    beats: tuple[Rival, ...] = ("full_model", "influence", "linear_datamodel")
    calibration: float | None = Field(default=0.05, gt=0)
    champion: bool = True


@dataclass(frozen=True)
class Calibration:
    """The calibration study's answer: the excess log loss, or why there is none to measure."""

    excess: Interval | None
    skipped: str = ""


@dataclass(frozen=True)
class Contest:
    """A new version beside the champion: its errors minus the champion's, by design, or why they do not compare."""

    champion: int
    differences: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    different: str = ""


@dataclass(frozen=True)
class Evidence:
    """Evidence on a version: held-out errors of all methods, calibration, and the comparison with the champion."""

    held_out: HeldOut
    calibration: Calibration | None = None
    contest: Contest | None = None

    def digest(self, gates: GatesConfig) -> str:
        """A hash of what the gates check of this version alone, without the comparison with the champion."""
        excess = self.calibration and self.calibration.excess
        evidence = {
            "gates": gates.model_dump(mode="json"),
            "held_out": [
                _measure(self.held_out, method, design, f"parameter_error_{end}")
                for design in gates.designs
                for method in (METHOD, *gates.beats)
                for end in ("low", "high")
            ],
            "trained_share": [_trained_share(self.held_out, design) for design in gates.designs],
            "calibration": excess.high if excess else self.calibration and self.calibration.skipped,
        }
        return hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).hexdigest()


def held_out_errors(fidelity: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The fidelity table as method -> design -> measure -> value."""
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for row in fidelity.iter_rows(named=True):
        method, design = row.pop("method"), row.pop("design")
        measures = {
            name: float(value)
            for name, value in row.items()
            if name not in UNJUDGED and value is not None
        }
        nested.setdefault(method, {})[design] = measures
    return nested


def calibration_of(predictions: pl.DataFrame, *, skipped: str = "") -> Calibration:
    """The excess log loss out of the calibration study's table of predictions.

    Args:
        predictions: a row per test row; `mean` is the predicted bootstrap's probability of its label, `true_mean` that
            of retrained models.
        skipped: why the study measured nothing, if it did not.
    """
    if skipped or not len(predictions):
        return Calibration(None, skipped or "no test rows")
    logs = [
        np.log(np.maximum(predictions[column].to_numpy(), LEAST_PROBABILITY))
        for column in ("true_mean", "mean")
    ]
    return Calibration(mean_interval(logs[0] - logs[1]))


def compare(
    candidate: Predictor,
    champion: Predictor,
    held_out: Bank,
    *,
    version: int,
    designs: Sequence[str],
) -> Contest:
    """The candidate's relative errors minus the champion's on the candidate's held-out subsets, paired.

    The champion answers for the candidate's rows: where the data grew, it is compared on the new version of them.
    """
    if different := _different(candidate, champion):
        return Contest(version, different=different)
    known = champion.for_points(candidate.points)
    usable = held_out.converged & ~held_out.degenerate
    differences: dict[str, Interval] = {}
    for design in designs:
        chosen = [
            row for row, name in enumerate(held_out.designs) if name == design and usable[row]
        ]
        if not chosen:
            continue
        weights, true = held_out.weights[chosen].double(), held_out.parameters[chosen]
        errors = [relative_errors(refit(weights), true) for refit in (candidate, known)]
        differences[design] = mean_interval(errors[0] - errors[1])
    return Contest(version, differences)


def _different(candidate: Predictor, champion: Predictor) -> str:
    """Why two predictors answer different questions; empty where they do not."""
    if candidate.model.name != champion.model.name:
        return f"it is a {champion.model.name} model"
    if candidate.model.settings != champion.model.settings:
        return f"its targets were trained with {champion.model.settings}"
    sizes = [
        (refit.points.features.shape[1], refit.points.classes) for refit in (candidate, champion)
    ]
    if sizes[0] != sizes[1]:
        return f"it has {sizes[1][0]} features and {sizes[1][1]} classes"
    return ""


def judge(evidence: Evidence, gates: GatesConfig) -> tuple[bool, tuple[str, ...]]:
    """Whether a version passes the gates, and every reason why it does not."""
    reasons = [
        *(
            reason
            for design in gates.designs
            for reason in _errors(evidence.held_out, gates, design)
        ),
        *_calibration(evidence.calibration, gates),
        *_champion(evidence.contest, gates),
    ]
    return not reasons, tuple(reasons)


def _errors(metrics: HeldOut, gates: GatesConfig, design: str) -> list[str]:
    high = _measure(metrics, METHOD, design, "parameter_error_high")
    if not math.isfinite(high):
        return [
            (
                f"on held-out {design} subsets the predictor has no finite parameter error; ask for some "
                f"in subsets.test.{design}, and see in the report which of its answers failed"
            )
        ]
    reasons = _trained(metrics, gates, design)
    if gates.parameter_error is not None and high > gates.parameter_error:
        reasons.append(
            f"on held-out {design} subsets the predictor's mean relative parameter error may be as "
            f"high as {high:.4g} (upper end of its 95% interval), gates.parameter_error allows "
            f"{gates.parameter_error:.4g}"
        )
    for rival in gates.beats:
        low = _measure(metrics, rival, design, "parameter_error_low")
        if not math.isfinite(low):
            reasons.append(
                f"on held-out {design} subsets the method {rival}, which gates.beats names, has no "
                "finite parameter error to compare to"
            )
        elif high >= low:
            reasons.append(
                f"on held-out {design} subsets the predictor is not surely better than {rival}: its "
                f"mean relative parameter error may be as high as {high:.4g}, that of {rival} as low "
                f"as {low:.4g} (ends of 95% intervals), gates.beats wants the first below the second"
            )
    return reasons


def _trained(metrics: HeldOut, gates: GatesConfig, design: str) -> list[str]:
    share = _trained_share(metrics, design)
    if gates.trained_share is None or share >= gates.trained_share:
        return []
    asks = f"gates.trained_share asks for {gates.trained_share:.1%}"
    if math.isnan(share):
        evidence = (
            f"how many held-out {design} subsets have no trained model is not known, and {asks}"
        )
        return [f"{evidence}, run dvc repro, then publish again"]
    evidence = (
        f"only {share:.1%} of the held-out {design} subsets have a trained model to compare with"
    )
    return [f"{evidence}, the others lack a class or did not converge, {asks}"]


def _trained_share(metrics: HeldOut, design: str) -> float:
    trained, left_out = (
        _measure(metrics, METHOD, design, measure) for measure in ("subsets", "left_out")
    )
    return trained / (trained + left_out) if trained + left_out else math.nan


def _calibration(calibration: Calibration | None, gates: GatesConfig) -> list[str]:
    if gates.calibration is None:
        return []
    if calibration is None:
        return [
            (
                "the calibration study has not run for this predictor, and gates.calibration asks for it; "
                "run dvc repro, then publish again"
            )
        ]
    if calibration.skipped:  # a family without probabilities has none
        return []
    high = calibration.excess.high if calibration.excess else math.nan
    if high <= gates.calibration:
        return []
    return [
        (
            f"the log loss of the predicted bootstrap may be as much as {high:.4g} above that of retrained "
            f"models (upper end of the 95% interval), gates.calibration allows {gates.calibration:.4g}"
        )
    ]


def _champion(contest: Contest | None, gates: GatesConfig) -> list[str]:
    if not gates.champion or contest is None or contest.different:
        return []
    reasons: list[str] = []
    for design in gates.designs:
        difference = contest.differences.get(design)
        if difference is None:
            reasons.append(
                f"no held-out {design} subsets to compare with champion version {contest.champion}"
            )
        elif not math.isfinite(difference.mean):
            reasons.append(
                f"on held-out {design} subsets an answer of this version or of champion version "
                f"{contest.champion} is not finite, so they do not compare"
            )
        elif difference.low > 0:
            reasons.append(
                f"on the same held-out {design} subsets the parameter error is {difference.low:.4g} to "
                f"{difference.high:.4g} (95% interval) higher than that of champion version "
                f"{contest.champion}"
            )
    return reasons


def _measure(metrics: HeldOut, method: str, design: str, measure: str) -> float:
    return float(metrics.get(method, {}).get(design, {}).get(measure, math.nan))
