"""Plans keep to the time that they are given, and count the work of each study as the study does it."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.check.estimate import Speeds
from modelpred.check.plan import Plan, plan
from modelpred.check.project import FEWER, LEAST_ROWS, share_in_time
from modelpred.check.study_costs import LADDERS, OTHER_METHODS, Unit, greedy_cost
from modelpred.params import Params
from modelpred.refits import Retraining
from modelpred.studies import ANSWERS, STUDIES
from modelpred.studies.greedy_selection import backwards, no_quota, with_swaps
from modelpred.studies.selection import SelectionConfig
from modelpred.studies.utility import game_of
from tests.studies.conftest import POINTS, TEST, make_context
from tests.studies.small import run_small

OTHERS = ("influence", "newton_step")


def speeds(**changes):
    usual = Speeds(
        subsets=250, start=1.0, drawing=0.01, training=1e-4, preparing=0.5, epoch=1e-6,
        compared=0.5, answering=(1e-5,) * 12, predicting=2e-5, judging=1e-6,
        gains=0.0, shard_bytes=1000.0, subset_bytes=100.0,
    )  # fmt: skip
    return replace(usual, **changes)


@settings(max_examples=150, deadline=None)
@given(
    seconds_each=st.tuples(st.floats(1e-5, 3.0), st.floats(1e-6, 0.1)),
    rows=st.tuples(st.integers(10, 200_000), st.integers(1, 50_000)),
    minutes=st.floats(0.5, 60),
    slowdown=st.floats(1, 3),
)
def test_plans_are_valid_and_within_the_time_or_minimal(seconds_each, rows, minutes, slowdown):
    points, tests = rows
    measured = speeds(training=seconds_each[0], predicting=seconds_each[1])

    def planned(seconds):
        return plan(
            measured, points=points, tests=tests, cores=2, seconds=seconds, slowdown=slowdown
        )

    found, least = planned(60 * minutes), planned(0.0)

    params = Params.model_validate(
        {name: dict(section) for name, section in found.sections.items()}
    )
    assert params.subsets.drawn(points) == found.subsets
    assert {*found.skipped, *found.sections} - {"subsets"} == set(STUDIES)
    assert not {*found.skipped} & {*ANSWERS}
    limit = max(60 * minutes, least.total)
    # A study may take twice its share before it is left out.
    assert found.total <= 1.5 * limit
    assert found.total == pytest.approx(sum(found.seconds.values()))


@given(
    points=st.integers(300, 100_000),
    available=st.floats(1e6, 1e12),
    minutes=st.floats(0.5, 20),
    power=st.floats(0, 2),
)
def test_the_share_of_rows_is_the_largest_step_that_fits_time_and_memory(
    points, available, minutes, power
):
    def planned(rows, _):
        return Plan({}, (), {"all": 1e-3 * rows**power}, 1, disk=0.0, memory=1e5 * rows)

    def fits(share):
        found = planned(round(share * points), 1)
        return found.total <= 60 * minutes and found.memory <= available

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelpred.check.project.available_memory", lambda: int(available))
        share = share_in_time(planned, points=points, tests=points // 4, seconds=60 * minutes)
    steps = [FEWER**step for step in range(60) if step == 0 or FEWER**step * points >= LEAST_ROWS]
    assert any(share == pytest.approx(step) for step in steps)
    assert not any(fits(step) for step in steps if step > share * 1.01)
    assert fits(share) or share == pytest.approx(steps[-1])


@settings(max_examples=50, deadline=None)
@given(minutes=st.floats(0.5, 30), longer=st.floats(1, 10), training=st.floats(1e-5, 0.1))
@example(minutes=1.0, longer=1.0625, training=0.0703125)
def test_more_time_never_gives_less_of_what_the_first_screen_shows(minutes, longer, training):
    few, many = (
        plan(speeds(training=training), points=2000, tests=500, cores=2, seconds=60 * time)
        for time in (minutes, minutes * longer)
    )
    assert few.subsets <= many.subsets
    assert set(many.skipped) <= set(few.skipped)


def unit_of(exact, predicted, everything):
    """Seconds of each unit where a prediction takes as long with a Newton step as without."""
    return Unit(
        exact,
        predicted,
        predicted,
        refined=0.0,
        gains=0.0,
        everything=everything,
        scored=0.0,
        refine=0.0,
    )


@settings(max_examples=50, deadline=None)
@given(training=st.floats(1e-6, 0.1), answering=st.floats(1e-6, 0.1), step=st.floats(0, 0.1))
def test_studies_retrain_where_a_prediction_takes_longer(training, answering, step):
    measured = speeds(training=training, answering=(answering,) * 8, predicting=answering + step)
    found = plan(measured, points=500, tests=100, cores=1, seconds=180.0)

    engines = {found.sections[study]["engine"] for study in ("valuation", "labels", "selection")}
    # Drawing a subset takes 20 microseconds for 500 rows.
    near = abs(training - answering) < 1e-4
    assert near or engines == {"exact" if training < answering else "predicted"}
    without = replace(measured, preparing=0.0, compared=0.0)
    assert plan(without, points=500, tests=100, cores=1, seconds=1e9).total <= (
        plan(measured, points=500, tests=100, cores=1, seconds=1e9).total
    )


class Counted:
    """A refit that counts the subsets that it answers."""

    def __init__(self, refit, name):
        self.refit, self.name, self.subsets = refit, name, 0

    def __call__(self, weights):
        """Answer."""
        self.subsets += len(weights)
        return self.refit(weights)


class CountedRetraining(Retraining):
    """Retraining that counts its subsets; `subsets` is shared by copies."""

    subsets: list

    def train(self, weights, **options):
        """Train."""
        self.subsets.append(len(weights))
        return super().train(weights, **options)


@pytest.fixture
def counting():
    """A context whose subject, other methods and truth count, and the three counts."""
    plain = make_context("logistic", refits={})
    refits = {name: Counted(plain.truth, name) for name in ("predictor", *OTHERS)}
    truth = CountedRetraining(plain.model, plain.points, tolerance=1e-9)
    object.__setattr__(truth, "subsets", [])
    context = replace(make_context("logistic", refits=refits), truth=truth)
    return context, refits, truth


@pytest.mark.parametrize(
    "study", ["valuation", "labels", "selection", "calibration", "lds", "memorization"]
)
def test_the_work_of_a_study_is_counted_as_the_study_does_it(study, counting):
    context, refits, truth = counting
    exact, predicted, everything = (
        LADDERS[study](0.5, unit_of(*unit), POINTS, TEST)[1]
        for unit in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    )
    chosen, _ = LADDERS[study](0.5, unit_of(1.0, 1.0, 1.0), POINTS, TEST)
    run_small(study, context, **chosen)

    asked = refits["predictor"].subsets + sum(refits[name].subsets for name in OTHERS)
    if study == "valuation":  # which values the rows with every other method, too
        predicted *= (1 + len(OTHERS)) / (1 + OTHER_METHODS)
    told = predicted + (1 + len(OTHERS)) * everything
    # Within a factor of two; 30 rows are few, so that what each study does once shows.
    assert told / 2 <= asked <= 2 * told + 1000, (told, asked)
    if study == "calibration":  # simulated tables have a truth of their own
        exact = chosen["resamples"]
    # What every method answers is trained, too; of the methods that `selection` compares, half are here.
    assert exact / 3 <= sum(truth.subsets) <= 2 * (exact + everything) + 20, exact


def test_the_greedy_search_of_a_family_without_an_optimum_is_counted_as_it_searches(counting):
    context, refits, truth = counting
    subject, exact = (game_of(refit, context) for refit in (refits["predictor"], truth))
    quota, swaps, sizes = no_quota(POINTS), SelectionConfig().swaps, [6, 12, 18, 24]
    path = backwards(subject, sizes=sizes, quota=quota)
    for selected in path.values():
        with_swaps(subject, selected, swaps=swaps, quota=quota, confirm=exact)

    expected_predicted, expected_exact = (
        greedy_cost(replace(unit_of(*unit), optimum=False), POINTS, sizes=len(sizes))
        for unit in ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    )
    # The search ends when no swap is better, and few rows have few pairs.
    assert expected_predicted / 8 <= refits["predictor"].subsets <= 1.2 * expected_predicted
    assert 0 < sum(truth.subsets) <= 1.2 * expected_exact
