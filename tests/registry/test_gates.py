"""A version passes only what it shows: every gate, by the unlucky end of an interval, and missing evidence is none."""

import math

import polars as pl
import pytest

from modelpred.metrics import Interval
from modelpred.registry import (
    Calibration,
    Contest,
    Evidence,
    calibration_of,
    held_out_errors,
    judge,
)
from tests.registry.evidence import GATES, GOOD, POOR, errors


def allowed(high: str) -> str:
    return (
        "on held-out uniform subsets the predictor's mean relative parameter error may be as high as "
        f"{high} (upper end of its 95% interval), gates.parameter_error allows 0.2"
    )


def beaten(high: str, low: str) -> str:
    return (
        "on held-out uniform subsets the predictor is not surely better than influence: its mean "
        f"relative parameter error may be as high as {high}, that of influence as low as {low} (ends "
        "of 95% intervals), gates.beats wants the first below the second"
    )


def missing(design: str) -> str:
    return (
        f"on held-out {design} subsets the predictor has no finite parameter error; ask for some in "
        f"subsets.test.{design}, and see in the report which of its answers failed"
    )


def calibrated(high: str) -> str:
    return (
        f"the log loss of the predicted bootstrap may be as much as {high} above that of retrained "
        "models (upper end of the 95% interval), gates.calibration allows 0.05"
    )


def without(method: str, measure: str) -> dict[str, dict[str, dict[str, float]]]:
    metrics = {name: {"uniform": dict(told["uniform"])} for name, told in GOOD.items()}
    del metrics[method]["uniform"][measure]
    return metrics


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        pytest.param(
            {"predictor": errors(0.1, 0.21), "influence": errors(0.3, 0.4)},
            [allowed("0.21")],
            id="the upper end is what counts",
        ),
        pytest.param(
            {"predictor": errors(0.1, 0.15), "influence": errors(0.14, 0.2)},
            [beaten("0.15", "0.14")],
            id="intervals overlap",
        ),
        pytest.param(
            {"predictor": errors(0.1, 0.15)},
            [
                (
                    "on held-out uniform subsets the method influence, which gates.beats names, has no finite "
                    "parameter error to compare to"
                )
            ],
            id="a rival is missing",
        ),
        pytest.param(
            {"influence": errors(0.1, 0.15)},
            [missing("uniform")],
            id="the predictor is missing",
        ),
        pytest.param(
            without("predictor", "parameter_error_high"),
            [missing("uniform")],
            id="no interval",
        ),
        pytest.param(
            {"predictor": errors(0.1, math.nan), "influence": errors(0.3, 0.4)},
            [missing("uniform")],
            id="not a number",
        ),
        pytest.param(
            POOR,
            [
                allowed("0.5"),
                beaten("0.5", "0.3"),
            ],
            id="every reason is told",
        ),
    ],
)
def test_a_predictor_fails_the_gates_for_each_reason(metrics, told):
    assert judge(Evidence(metrics), GATES) == (False, tuple(told))


def few(share):
    return (
        f"only {share} of the held-out uniform subsets have a trained model to compare with, the others "
        "lack a class or did not converge, gates.trained_share asks for 90.0%"
    )


def counted(trained, left_out):
    counts = {"subsets": float(trained), "left_out": float(left_out)}
    return {name: {"uniform": told["uniform"] | counts} for name, told in GOOD.items()}


@pytest.mark.parametrize(
    ("trained", "left_out", "reason"),
    [(90, 10, None), (89, 11, few("89.0%")), (500, 500, few("50.0%")), (1, 0, None)],
)
def test_too_few_trained_subsets_are_a_reason(trained, left_out, reason):
    evidence = Evidence(counted(trained, left_out))
    told = (reason,) if reason else ()
    assert judge(evidence, GATES) == (not told, told)
    assert judge(evidence, GATES.model_copy(update={"trained_share": None})) == (True, ())
    assert (evidence.digest(GATES) == Evidence(counted(90, 10)).digest(GATES)) == (trained == 90)


def test_counts_that_are_missing_are_no_pass():
    passes, reasons = judge(Evidence(without("predictor", "left_out")), GATES)
    assert not passes
    assert "is not known, and gates.trained_share asks for 90.0%, run dvc repro" in reasons[0]
    assert ";" not in reasons[0]


def test_a_predictor_passes_when_every_design_does():
    assert judge(Evidence(GOOD), GATES) == (True, ())
    both = GATES.model_copy(update={"designs": ("uniform", "deletion")})
    assert judge(Evidence(GOOD), both) == (
        False,
        (missing("deletion"),),
    )


CALIBRATED = GATES.model_copy(update={"calibration": 0.05})
ABOVE = "on the same held-out uniform subsets the parameter error is"
HIGHER = "(95% interval) higher than that of champion version 3"
COMPARED = GATES.model_copy(update={"champion": True})


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (
            None,
            (
                "the calibration study has not run for this predictor, and gates.calibration asks for it; run "
                "dvc repro, then publish again"
            ),
        ),
        (
            Calibration(Interval(0.04, 0.01, 0.07, 100)),
            calibrated("0.07"),
        ),
        (
            Calibration(Interval(0.0, -math.inf, math.inf, 1)),
            calibrated("inf"),
        ),
        (Calibration(Interval(0.01, -0.01, 0.03, 100)), None),
        (Calibration(None, "ridge has no probabilities"), None),
    ],
)
def test_calibration_counts_by_the_upper_end_of_its_excess(calibration, reason):
    told = (reason,) if reason else ()
    assert judge(Evidence(GOOD, calibration), CALIBRATED) == (not told, told)


@pytest.mark.parametrize(
    ("contest", "reason"),
    [
        (None, None),  # the first version has nobody to beat
        (Contest(3, {"uniform": Interval(0.01, -0.01, 0.03, 50)}), None),
        (Contest(3, different="it is a svm model"), None),
        (
            Contest(3, {"uniform": Interval(0.02, 0.01, 0.03, 50)}),
            f"{ABOVE} 0.01 to 0.03 {HIGHER}",
        ),
        (Contest(3), "no held-out uniform subsets to compare with champion version 3"),
        (
            Contest(3, {"uniform": Interval(math.inf, math.nan, math.nan, 50)}),
            (
                "on held-out uniform subsets an answer of this version or of champion version 3 is not "
                "finite, so they do not compare"
            ),
        ),
    ],
)
def test_a_version_that_is_worse_than_the_champion_beyond_the_interval_fails(contest, reason):
    told = (reason,) if reason else ()
    assert judge(Evidence(GOOD, contest=contest), COMPARED) == (not told, told)


def test_the_excess_log_loss_is_paired_over_test_rows():
    table = pl.DataFrame({"mean": [0.5, 0.25, 0.5], "true_mean": [0.5, 0.5, 1.0]})
    excess = calibration_of(table).excess
    assert excess is not None
    assert excess.mean == pytest.approx(2 * math.log(2) / 3)
    assert excess.n == 3
    assert calibration_of(table, skipped="no probabilities").excess is None


def test_what_the_judgement_follows_from_is_told_apart_and_times_are_not():
    first = Evidence(GOOD).digest(GATES)
    slower = {
        name: {"uniform": told["uniform"] | {"microseconds": 3.0}} for name, told in GOOD.items()
    }
    assert Evidence(slower).digest(GATES) == first
    assert Evidence(POOR).digest(GATES) != first
    assert Evidence(GOOD, Calibration(None, "none")).digest(GATES) != first
    assert Evidence(GOOD).digest(CALIBRATED) != first


def test_the_fidelity_table_becomes_nested_metrics():
    table = pl.DataFrame(
        {
            "method": ["predictor", "influence"],
            "design": ["uniform", "uniform"],
            "parameter_error_low": [0.1, 0.3],
            "parameter_error_high": [0.12, None],
        }
    )
    assert held_out_errors(table) == {
        "predictor": {"uniform": {"parameter_error_low": 0.1, "parameter_error_high": 0.12}},
        "influence": {"uniform": {"parameter_error_low": 0.3}},
    }
