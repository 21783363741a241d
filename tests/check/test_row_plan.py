"""Plans of `suspects` and `values` keep to their time, with the most orders and rows that fit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred.check.project import FEWER, LEAST_ROWS
from modelpred.check.row_plan import (
    ORDERS,
    WRITING,
    Measured,
    largest_plan,
    suspects_cost,
    value_cost,
)
from tests.check.test_plan import speeds


def measured(points, **changes):
    found = speeds(**{"training": 1e-3, "judging": 1e-4, **changes})

    def at(rows):
        return replace(
            found, training=found.training * rows / points, gains=found.gains * rows / points
        )

    return Measured(at, points, max(1, points // 4), 1.0)


@given(
    points=st.integers(20, 100_000),
    each=st.floats(1e-9, 1e-2),
    times=st.tuples(st.floats(0, 600), st.floats(0, 60), st.floats(1, 8)),
    orders=st.none() | st.integers(1, 20).map(lambda half: 2 * half),
    fixed_rows=st.booleans(),
)
def test_the_most_orders_and_then_the_most_rows_that_fit(points, each, times, orders, fixed_rows):
    seconds, spent, slowdown = times

    def cost(number, rows):
        return each * number * rows

    table = replace(measured(points), slowdown=slowdown)
    plan = largest_plan(
        cost, table, spent=spent, seconds=seconds, orders=orders, fixed_rows=fixed_rows
    )

    def time_of(number, share):
        return spent + slowdown * (WRITING + cost(number, round(share * points)))

    assert plan.seconds == pytest.approx(time_of(plan.orders, plan.share))
    tried = ORDERS if orders is None else (orders,)
    assert plan.orders in tried
    if plan.share == 1:  # every larger number of orders takes too long
        assert all(time_of(more, 1) > seconds for more in tried if more > plan.orders)
        smallest = plan.orders == tried[-1]
        assert plan.seconds <= seconds or (smallest and (fixed_rows or FEWER * points < LEAST_ROWS))
        return
    assert not fixed_rows
    assert plan.orders == tried[-1]
    assert time_of(plan.orders, plan.share / FEWER) > seconds
    assert plan.share * points >= LEAST_ROWS
    assert plan.seconds <= seconds or plan.share * FEWER * points < LEAST_ROWS


@given(points=st.integers(300, 100_000), more=st.floats(1, 10), gains=st.sampled_from([0.0, 1e-3]))
def test_more_rows_slower_models_and_more_orders_never_take_less_time(points, more, gains):
    table = measured(points, gains=gains)
    slower = measured(points, training=1e-3 * more, gains=gains * more)
    few = round(points / more)
    for cost, other in (
        (value_cost(table, groups=None), value_cost(slower, groups=None)),
        (value_cost(table, groups=5), value_cost(slower, groups=5)),
    ):
        assert cost(4, points) <= cost(20, points)
        assert cost(20, points) <= other(20, points)
    assert suspects_cost(table)(4, points) == suspects_cost(table)(20, points)
    assert suspects_cost(table)(4, points) <= suspects_cost(slower)(4, points)
    assert value_cost(table, groups=5)(20, few) <= value_cost(table, groups=5)(20, points)
