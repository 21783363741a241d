"""Progress: the time left, bars within bars, and loops that report to the open bar."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpred import progress
from modelpred.progress import TimeLeft, open_progress, progress_bar, silent, tracked

seconds = st.floats(0.01, 1e4)


@given(
    st.lists(
        st.tuples(st.integers(1, 40), seconds, st.integers(0, 39)),
        min_size=1,
        max_size=4,
        unique_by=lambda part: part[0],
    ),
    st.floats(0, 0.9),  # at the end, a piece is late
)
def test_at_a_constant_speed_the_time_left_is_that_of_the_part(parts, late):
    now = [0.0]
    left = TimeLeft(None, lambda: now[0])
    for total, each, done in parts:
        began = now[0]
        assert left.seconds() is None or left.seconds() >= 0
        for piece in range(min(done, total) + 1):
            now[0] = began + piece * each
            left.report(piece, total)
        if not min(done, total):
            continue
        remaining = (total - min(done, total)) * each
        assert left.seconds() == pytest.approx(remaining, abs=1e-6 * now[0])
        now[0] += late * remaining
        assert left.seconds() == pytest.approx((1 - late) * remaining, abs=1e-6 * now[0])


@given(seconds, seconds, st.integers(1, 5))
def test_before_the_first_piece_the_expected_time_counts(expected, passed, total):
    now = [3.0]
    left = TimeLeft(expected, lambda: now[0])
    left.report(0, total)
    now[0] += passed
    if passed > expected:
        assert left.seconds() is None  # unknown, not zero
        assert left.words() == progress.UNKNOWN
    else:
        assert left.seconds() == pytest.approx(expected - passed, abs=1e-9)
    now[0] += passed
    left.report(1, total + 1)  # a piece that takes longer than the one before moves the end
    now[0] += 4 * passed * (total + 1)
    assert left.seconds() > 0


def test_a_loop_reports_to_the_open_bar_and_inner_bars_are_that_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(tracked("ab", "alone")) == ["a", "b"]
    assert capsys.readouterr().err == ""
    with progress_bar("outer") as outer:
        with progress_bar("inner") as inner:
            assert inner is outer is open_progress()
            assert list(tracked("abc", "letters")) == ["a", "b", "c"]
        with progress_bar("hidden", shown=False) as hidden:
            assert hidden is open_progress() is silent
        assert open_progress() is outer
    assert open_progress() is silent
    shown = capsys.readouterr().err
    assert "letters" in shown
    assert "inner" not in shown
