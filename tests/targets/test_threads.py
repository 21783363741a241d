"""torch's number of threads, held per call whatever overlaps."""

import threading

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.targets.threads import thread_count, torch_threads


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    order=st.permutations(list(range(8))),
)
def test_overlapping_calls_leave_the_number_of_before(counts, order):
    """Calls of several threads begin and end in any order."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        calls = [_Call(count) for count in counts]
        inside = []
        for event in order:
            call = calls[event % len(calls)]
            if not call.begun:
                call.begin()
                inside.append(call)
            elif not call.ended:
                call.end()
            assert all(each.seen == each.count for each in inside)
        for call in calls:
            if call.begun and not call.ended:
                call.end()
        assert all(call.after == 3 for call in inside)
        assert torch.get_num_threads() == 3
        found = []
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert found == [3]
    finally:
        torch.set_num_threads(before)


class _Call:
    """A call of `torch_threads` in a thread of its own, stepped from outside."""

    def __init__(self, count):
        self.count, self.begun, self.ended = count, False, False
        self._leave, self._entered = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        with torch_threads(self.count):
            self.seen = thread_count()
            self._entered.set()
            self._leave.wait(10)
            self.seen = torch.get_num_threads()
        self.after = torch.get_num_threads()

    def begin(self):
        self.begun = True
        self._thread.start()
        self._entered.wait(10)

    def end(self):
        self._leave.set()
        self._thread.join(10)
        self.ended = True
