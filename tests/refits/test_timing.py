"""Stopwatches: a quick answer is warmed up and repeated, a slow one is timed as it is."""

import pytest

from modelpred.refits import timing


class Clock:
    """Time that passes by `seconds` of each call."""

    def __init__(self, *seconds):
        self.now, self.seconds, self.calls = 0.0, list(seconds), 0

    def perf_counter(self):
        """The time."""
        return self.now

    def call(self):
        """How many calls there were; time passes."""
        self.now += self.seconds[self.calls]
        self.calls += 1
        return self.calls


@pytest.mark.parametrize(
    ("seconds", "expected"), [((1.9, 0.7, 0.5, 0.6), (1, 0.5)), ((2.5, 0.1, 0.1), (1, 2.5))]
)
def test_the_fastest_after_a_first_call_unless_that_is_long(monkeypatch, seconds, expected):
    clock = Clock(*seconds)
    monkeypatch.setattr(timing, "time", clock)
    answer, found = timing.timed_answer(clock.call, timings=3)
    assert (answer, found) == (expected[0], pytest.approx(expected[1]))
