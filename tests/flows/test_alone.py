"""One run at a time, also when the one that holds the lock is killed."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.alone import UnderWay, alone

HOLD = """
import sys
from pathlib import Path
from flows.alone import alone
with alone("pipeline", path=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / ".modelpred" / "run.lock"


@pytest.fixture
def holder(lock):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_of_a_kind_ends_at_once_and_names_the_first(lock, holder):
    with (
        pytest.raises(UnderWay, match=rf"pipeline \(process {holder.pid}, since .* UTC\); nothing"),
        alone("pipeline", path=lock),
    ):
        pass


def test_a_killed_run_leaves_no_lock(lock, holder):
    holder.kill()
    holder.wait()
    with alone("pipeline", path=lock):
        pass


def test_another_kind_is_waited_for(lock, holder):
    waited_for = threading.Event()
    begun = threading.Event()

    def run():
        with alone("evaluation", path=lock, waiting=lambda _: waited_for.set()):
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert waited_for.wait(10)
    assert not begun.is_set()
    holder.kill()
    thread.join(10)
    assert begun.is_set()


def test_what_a_killed_run_started_still_counts(lock, holder):
    """The descriptor that is handed down holds the lock as long as the command runs."""
    holder.kill()
    holder.wait()
    with alone("pipeline", path=lock) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
    with pytest.raises(UnderWay), alone("pipeline", path=lock):
        pass
    child.communicate()
    with alone("pipeline", path=lock):
        pass
