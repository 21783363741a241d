"""The frontier of error against time."""

import math

import polars as pl
import pytest

from modelpred.report.frontier import GOAL, frontier, standings


def table(*rows, design="uniform"):
    return pl.DataFrame(
        [
            {"method": m, "design": design, "parameter_error": e, "microseconds": t}
            for m, e, t in rows
        ]
    )


EVERYBODY = (
    ("full_model", 0.8, 0.1),
    ("influence", 0.4, 2.0),
    ("newton_step", 0.2, 40.0),
    ("predictor", 0.05, 10.0),
    ("predictor_refine_1", 0.01, 30.0),
    ("predictor_refine_2", 0.012, 50.0),
    ("retraining", 1e-9, 300.0),
)


def test_the_frontier_is_what_no_other_beats_in_both():
    rows = table(*EVERYBODY).to_dicts()
    expected = {
        row["method"]
        for row in rows
        if not any(
            other["parameter_error"] <= row["parameter_error"]
            and other["microseconds"] <= row["microseconds"]
            and other is not row
            for other in rows
        )
    }
    found = frontier(rows)
    assert set(found) == expected
    assert found == ("full_model", "influence", "predictor", "predictor_refine_1", "retraining")


def test_speed_at_equal_error_is_that_of_the_cheapest_setting_that_is_as_good():
    (standing,) = standings(table(*EVERYBODY))
    methods = (standing.best_other["method"], standing.setting["method"])
    assert methods == ("newton_step", "predictor")
    assert standing.equal["method"] == "retraining"
    assert standing.gain == pytest.approx(30)
    assert standing.speedup == pytest.approx(4)
    assert standing.has_predictor
    assert standing.cells == (
        "Random subsets of any size",
        "One Newton step (20.0%)",
        "ModelPred (5.00%)",
        "4.0",
        "Exact retraining",
        "30",
    )


def test_a_refined_prediction_is_compared_if_the_plain_one_is_worse():
    (standing,) = standings(
        table(
            ("newton_step", 0.03, 15.0),
            ("predictor", 0.05, 10.0),
            ("predictor_refine_1", 0.01, 30.0),
        )
    )
    assert standing.setting["method"] == "predictor_refine_1"
    assert standing.speedup == pytest.approx(0.5)
    assert standing.cells[2:4] == ("ModelPred, 1 correction step (1.00%)", "0.50")
    assert standing.speedup < GOAL


def test_a_design_may_have_no_setting_that_is_accurate_enough():
    (standing,) = standings(table(("newton_step", 0.01, 5.0), ("predictor", 0.05, 10.0)))
    assert not standing.has_predictor
    assert math.isnan(standing.speedup)
    assert standing.cells[1:4] == ("One Newton step (1.00%)", "none", "")


def test_designs_are_separate_and_missing_numbers_are_left_out():
    both = pl.concat(
        [
            table(("influence", 0.4, 2.0), ("predictor", None, 1.0)),
            table(("predictor", 0.1, 1.0), design="deletion"),
        ]
    )
    first, second = standings(both)
    assert first.frontier == ("influence",)
    assert (second.design, second.best_other) == ("deletion", None)
    assert second.cells == (
        "Deletions of up to half of the rows",
        *("none", "none", "", "none", ""),
    )
