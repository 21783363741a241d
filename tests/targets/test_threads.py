"""torch's number of threads, held per call whatever overlaps."""

import threading

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.targets import points_of, target_model
from modelpred.targets.scoring import largest_scored, score_blocks
from modelpred.targets.threads import SMALL_BYTES, thread_count, threads_for, torch_threads


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


@settings(max_examples=50, deadline=None)
@given(size=st.integers(0, 4 * SMALL_BYTES), threads=st.integers(1, 8))
def test_only_large_products_are_split(size, threads):
    with torch_threads(threads):
        with threads_for(size):
            assert torch.get_num_threads() == (1 if size <= SMALL_BYTES else threads)
        assert torch.get_num_threads() == threads


@settings(max_examples=25, deadline=None)
@given(
    subsets=st.integers(1, 3000),
    rows=st.integers(1, 400),
    classes=st.sampled_from([2, 3]),
    limit=st.sampled_from([2**12, 2**20, 2**26]),
)
def test_the_largest_scored_array_is_never_smaller_than_a_block(subsets, rows, classes, limit):
    model = target_model("logistic" if classes == 2 else "softmax", C=1.0)
    points = points_of(torch.zeros(rows, 3), torch.arange(rows) % classes, classes)
    size = model.parameter_count(3, classes)
    parameters = torch.zeros(subsets, size, dtype=torch.float64)
    largest = largest_scored(parameters, points, limit=limit)
    blocks = score_blocks(model, parameters, points, limit=limit)
    assert largest >= max(8 * block.numel() for block in blocks)


def test_what_reads_scores_has_the_threads_of_before():
    model = target_model("logistic", C=1.0)
    points = points_of(torch.zeros(5, 3), torch.arange(5) % 2, 2)
    with torch_threads(3):
        for _ in score_blocks(model, torch.zeros(4, 4).double(), points, limit=80):
            assert torch.get_num_threads() == 3
