"""Costs before a fit, timing of many models, and a preparation in parts."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelpred.engine import Plan, costs, learning, problem_of
from modelpred.engine.choice import WORTH
from modelpred.engine.costs import ENOUGH, FEWEST, MOST_TIMED, estimated_costs, seconds_a_model
from modelpred.engine.learning import Allowance, learning_rounds
from modelpred.engine.preparation import Bench
from modelpred.predictor import PredictorConfig
from modelpred.refits import silent
from modelpred.subsets import SubsetsConfig
from modelpred.targets import points_of, target_model

CLASSES = {"logistic": 2, "svm": 2, "softmax": 3}
ERRORS = st.floats(1e-4, 1.0)


@given(
    st.floats(0, 0.05), st.floats(1e-7, 0.2), st.integers(1, 10**6) | st.none(), st.integers(1, 200)
)
def test_timing_is_an_upper_bound_and_is_near_where_it_matters(fixed, each, models, points):
    """A call that takes a fixed part and so many seconds for each model."""
    enough = WORTH / models if models else 0.0
    timed = 0.0

    def seconds(_, weights):
        nonlocal timed
        timed += fixed + each * len(weights)
        return fixed + each * len(weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "_seconds", seconds)
        patch.setattr(costs, "timed_subsets", lambda _, count: range(count))
        found = seconds_a_model(lambda _: None, points, enough=enough)
    assert found >= each * (1 - 1e-9)
    if found > enough:  # many models: most of the fixed part is spread over them
        assert found <= max(3 * each, each + fixed / FEWEST / 8, each + fixed / MOST_TIMED)
    assert timed <= 3 * max(MOST_TIMED * each, 1.0) + 4 * fixed


def problem(family, rows):
    draws = np.random.default_rng(rows)
    labels = draws.integers(0, CLASSES[family], size=rows)
    points = points_of(draws.normal(size=(rows, 3)), labels, CLASSES[family])
    names = tuple(map(str, range(rows)))
    return problem_of(target_model(family), points, tolerance=1e-6, row_ids=names)


PROBLEMS = [problem(family, rows) for family in CLASSES for rows in (20, 300)]


@given(st.sampled_from(PROBLEMS), st.integers(500, 8000), st.floats(1e-6, 1e-2))
def test_directions_are_expected_to_cost_no_targets_whatever_the_size(task, targets, exact):
    def plan(count):
        drawn = SubsetsConfig(fit={"uniform": count}).for_points(len(task.points.labels))
        return Plan(drawn, PredictorConfig(), automatic=True)

    found = estimated_costs(task, plan(targets), exact)
    assert found == estimated_costs(task, plan(500), exact)
    judged = sum(plan(500).subsets.validation.values())
    assert judged >= 1
    assert found.preparation < 200 * exact + 5
    assert found.preparation > min(100, judged) * exact


TASK = PROBLEMS[0]
PLAN = Plan(SubsetsConfig(fit={"uniform": 8000}).for_points(20), PredictorConfig(), automatic=True)
FIRST = learning_rounds(TASK, PLAN, Bench(TASK, PLAN)).go_on(
    allowance=Allowance(0, 1.0, learned=False), progress=silent
)


class IdleBench(Bench):
    """Trains nothing more."""

    def first(self, count, role="fit"):
        """No subsets."""
        del count, role
        return []

    @property
    def targets(self):
        """Those of the first round."""
        return FIRST.targets


IDLE = IdleBench(TASK, PLAN)


@contextmanager
def errors_of_fits(errors):
    """Fits whose error is the next of their network."""

    def fitted(task, config, bank, *, start, progress):
        del task, bank, progress
        number = 0 if start is None else start.history[-1]["number"] + 1
        record = {"validation_error": errors[config.network][number], "number": number}
        return replace(FIRST.predictor, config=config, history=(record,))

    def error_of(predictor, _):
        return float(predictor.history[-1]["validation_error"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "fitted", fitted)
        patch.setattr(learning, "validation_error", error_of)
        patch.setattr(learning, "continued", lambda config, _: config)
        patch.setattr(learning, "warn_of_failures", lambda _: None)
        yield


def fresh():
    found = learning_rounds(TASK, PLAN, IDLE)
    assert [counts for _, counts in found.ahead] == [
        [0, 125, 250, 500, 1000], [500, 1000, 2000, 4000, 8000],
    ]  # fmt: skip
    return found


ALLOWANCES = st.builds(Allowance, st.integers(0, 10_000), ERRORS, learned=st.booleans())


@given(
    st.fixed_dictionaries(
        {name: st.lists(ERRORS, min_size=6, max_size=6) for name in ("newton", "anchored")}
    ),
    st.lists(ALLOWANCES, max_size=3),
)
def test_a_preparation_in_parts_ends_where_one_in_full_does(errors, allowances):
    with errors_of_fits(errors):
        full = fresh().go_on(progress=silent)
        parts = fresh()
        for allowance in allowances:
            before = len(parts.rounds)
            found = parts.go_on(allowance=allowance, progress=silent)
            assert parts.error == min(each.error for each in found.rounds)
            for number in range(max(1, before), len(found.rounds)):
                each, so_far = found.rounds[number], found.rounds[:number]
                assert each.targets <= allowance.targets
                assert min(each.error for each in so_far) > allowance.accuracy
                if not allowance.learned:
                    assert each.network == so_far[-1].network
        found = parts.go_on(progress=silent)
    assert [(each.network, each.targets) for each in found.rounds] == [
        (each.network, each.targets) for each in full.rounds
    ]
    assert found.predictor.history == full.predictor.history
    assert found.why == full.why
    assert not parts.ahead


def test_one_core_makes_between_a_hundred_million_and_a_hundred_trillion_operations_a_second():
    assert 1e8 < costs.products_a_second() < 1e14
    weights = costs.timed_subsets(10, 200)
    assert weights.dtype == torch.uint8
    assert 0.1 < float(weights.double().mean()) < 1
    assert ENOUGH < costs.LONG
