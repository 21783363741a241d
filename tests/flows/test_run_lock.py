"""One run at a time, also when the one that holds the lock is killed."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.run_lock import AlreadyRunning, run_lock
from modelpred.errors import InvalidInput

HOLD = """
import sys
from pathlib import Path
from flows.run_lock import run_lock
with run_lock("pipeline", path=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

LEAVE_A_COMMAND = """
import subprocess, sys
from pathlib import Path
from flows.run_lock import run_lock
with run_lock("pipeline", path=Path(sys.argv[1])) as descriptor:
    subprocess.Popen(["sleep", "2"], pass_fds=[descriptor], stdout=subprocess.DEVNULL)
    print("left", flush=True)
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
        pytest.raises(
            AlreadyRunning, match=rf"pipeline \(process {holder.pid}, since .* UTC\); nothing"
        ),
        run_lock("pipeline", path=lock),
    ):
        pass


def test_a_killed_run_leaves_no_lock(lock, holder):
    holder.kill()
    holder.wait()
    with run_lock("pipeline", path=lock):
        pass


def test_another_kind_is_waited_for(lock, holder):
    waited_for = threading.Event()
    begun = threading.Event()

    def run():
        with run_lock("evaluation", path=lock, waiting=lambda _: waited_for.set()):
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert waited_for.wait(10)
    assert not begun.is_set()
    holder.kill()
    thread.join(10)
    assert begun.is_set()


def test_the_lock_is_held_until_the_commands_of_a_killed_run_have_ended(lock, holder):
    holder.kill()
    holder.wait()
    with run_lock("pipeline", path=lock) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
    with pytest.raises(AlreadyRunning), run_lock("pipeline", path=lock):
        pass
    child.communicate()
    with run_lock("pipeline", path=lock):
        pass


def test_a_new_run_waits_while_a_killed_one_is_ending(lock):
    """The recorded process is gone, but a command of it still holds the descriptor for a moment."""
    run = subprocess.Popen(
        [sys.executable, "-c", LEAVE_A_COMMAND, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "left\n"
    run.communicate()
    with run_lock("pipeline", path=lock):
        pass


def test_a_folder_in_place_of_the_lock_is_one_line(lock):
    lock.mkdir(parents=True)
    with pytest.raises(InvalidInput, match="not an ordinary file"), run_lock("pipeline", path=lock):
        pass
