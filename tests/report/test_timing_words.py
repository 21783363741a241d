"""A report says how its times were measured, and warns of a machine that was busy."""

from modelpred.report.words import timing_words


def test_a_busy_machine_is_reported():

    assert timing_words(busy=False) == "Times are medians of repeats on this machine."
    assert "busy" in timing_words(busy=True)
