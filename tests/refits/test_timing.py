"""Stopwatches: the median of repeats, as few of them as the time of an answer asks for."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.refits import timing

durations = st.lists(st.floats(1e-4, 3.0), min_size=9, max_size=9)


class Clock:
    """Time that passes by `seconds` of each call."""

    def __init__(self, seconds):
        self.now, self.seconds, self.calls = 0.0, list(seconds), 0

    def perf_counter(self):
        """The time."""
        return self.now

    def call(self):
        """How many calls there were; time passes."""
        self.now += self.seconds[self.calls]
        self.calls += 1
        return self.calls


def timed(seconds, timings):
    """What `timed_answer` says of calls that take so long, and the clock."""
    clock = Clock(seconds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", clock)
        answer, found = timing.timed_answer(clock.call, timings=timings)
    return answer, found, clock


@settings(max_examples=100, deadline=None)
@given(seconds=durations, timings=st.integers(0, 8))
def test_the_median_of_the_calls_after_the_first(seconds, timings):
    answer, found, clock = timed(seconds, timings)
    repeats = seconds[1 : clock.calls] or seconds[:1]
    assert answer == 1
    assert found == pytest.approx(statistics.median(repeats))
    assert clock.calls <= 1 + timings


@settings(max_examples=100, deadline=None)
@given(seconds=durations, timings=st.integers(1, 8))
def test_no_call_begins_once_the_calls_took_enough(seconds, timings):
    _, _, clock = timed(seconds, timings)
    assert clock.calls == 1 or sum(seconds[: clock.calls - 1]) < timing.ENOUGH
    assert clock.calls == 1 + timings or sum(seconds[: clock.calls]) >= timing.ENOUGH


@settings(max_examples=100, deadline=None)
@given(seconds=st.floats(1e-4, 1.0), timings=st.integers(1, 8))
def test_the_number_of_calls_is_known_beforehand(seconds, timings):
    share = timing.ENOUGH / seconds
    if abs(share - round(share)) < 1e-6:  # a sum of seconds may round to either side
        return
    _, _, clock = timed([seconds] * 9, timings)
    assert timing.calls_of(seconds, timings=timings) == clock.calls


def test_one_disturbed_call_of_three_changes_nothing():
    assert timed([0.01, 0.02, 0.19, 0.02], 3)[1] == pytest.approx(0.02)


@settings(max_examples=50, deadline=None)
@given(load=st.floats(0, 64), cores=st.integers(1, 64))
def test_a_machine_is_busy_above_its_cores(load, cores):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.os, "getloadavg", lambda: (load, 0.0, 0.0))
        patch.setattr(timing.os, "cpu_count", lambda: cores)
        assert timing.machine_busy() == (load > cores)
