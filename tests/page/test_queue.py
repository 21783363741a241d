"""The queue of the page: one computation after another, and an answer for each that fails."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from modelpred.errors import InvalidInput
from modelpred.page import app
from modelpred.page.app import Queue
from modelpred.page.messages import Edit


class Request:
    """A request of a page that waits for the answer, or has gone on."""

    def __init__(self, *, gone=False):
        self.gone = gone

    async def is_disconnected(self):
        """Whether the page has gone on."""
        await asyncio.sleep(0)  # the others ask meanwhile
        return self.gone


def raising(error):
    def compute():
        raise error

    return compute


@pytest.mark.parametrize(
    ("compute", "status", "told"),
    [
        (raising(InvalidInput("no such row")), 400, "no such row"),
        (lambda: Edit.model_validate({"table": "t", "weights": {"p": -1}}), 422, "weights.p: "),
        (raising(RuntimeError("training did not converge")), 409, "training did not converge"),
        (raising(KeyError("a secret")), 500, "the terminal says why"),
    ],
)
def test_a_computation_that_fails_is_answered_and_the_next_one_runs(compute, status, told, caplog):
    async def ask():
        queue = Queue()
        with pytest.raises(HTTPException) as refused:
            await queue.run(Request(), compute)
        return refused.value, await queue.run(Request(), lambda: 7), queue.waiting

    error, following, waiting = asyncio.run(ask())
    assert error.status_code == status
    assert told in error.detail
    assert "secret" not in error.detail
    assert ("a secret" in caplog.text) == (status == 500)
    assert (following, waiting) == (7, 0)


@settings(max_examples=30)
@given(gone=st.lists(st.booleans(), min_size=1, max_size=8), most=st.integers(1, 8))
def test_requests_are_computed_in_order_or_dropped_or_told_to_wait(gone, most):
    computed, at_once = [], []
    busy = threading.Lock()

    def compute(number):
        at_once.append(busy.acquire(blocking=False))
        computed.append(number)
        busy.release()
        return number

    async def ask():
        queue = Queue()
        asked = (
            queue.run(Request(gone=left), lambda number=number: compute(number))
            for number, left in enumerate(gone)
        )
        return await asyncio.gather(*asked, return_exceptions=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "MOST_WAITING", most)
        answers = asyncio.run(ask())
    expected = [
        503 if number >= most else 499 if left else number for number, left in enumerate(gone)
    ]
    assert [getattr(each, "status_code", each) for each in answers] == expected
    assert computed == [number for number in expected if number < len(gone)]
    assert all(at_once)
