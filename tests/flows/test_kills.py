"""Whatever part of a recurring run is killed, the rest ends within seconds and the next run works."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.projects import small_project

PARAMS = {
    "dataset": {"source": "digits", "points": 250, "watch": "data"},
    "subsets": {
        "fit": {"uniform": 4000},
        "validation": {"uniform": 50},
        "test": {"uniform": 50},
        "block": 400,
    },
    "targets": {"model": "mlp", "steps": 400},
}
ENDING_SECONDS = 20  # on a busy machine; 1 to 2 s are usual
PARTS = {
    "pipeline": ("flows.pipeline",),
    "server": ("flows.server",),
    "dvc": ("dvc", "repro"),
    "stage": ("flows.targets",),
    "worker": ("modelpred.targets.worker",),
}
ALONE = [(part,) for part in PARTS]
PAIRS = list(itertools.combinations(PARTS, 2))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return small_project(
        tmp_path_factory.mktemp("kills"), PARAMS, stages=("dataset", "subsets", "targets")
    )


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(parts, marks=pytest.mark.e2e if parts == ("pipeline",) else pytest.mark.slow)
        for parts in (*ALONE, *PAIRS)
    ],
    ids="+".join,
)
def test_the_rest_ends_and_the_lock_is_free(project, parts):
    run = _start(project)
    whole = _processes_of_a_run_in_training(run)
    for part in parts:
        os.kill(whole[part], signal.SIGKILL)

    if parts == ("worker",):  # its block is tried again by a new worker, and the run goes on
        assert _until(lambda: _find(run, PARTS["worker"]) not in (None, whole["worker"]))
        os.kill(whole["pipeline"], signal.SIGKILL)
    run.wait(ENDING_SECONDS)
    assert _until(lambda: not any(map(_runs, whole.values()))), _left(whole)

    again = _start(project)
    assert _processes_of_a_run_in_training(again)
    again.kill()
    again.wait(ENDING_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["dvc", "server", "stage", "worker"])
def test_a_killed_command_takes_its_stages_along(project, other):
    run = _start(project, "-m", "modelpred.cli", "run", "--project", ".")
    whole = _processes_of_a_run_in_training(run) | {"pipeline": run.pid}
    for part in ("pipeline", other):
        os.kill(whole[part], signal.SIGKILL)
    run.wait(ENDING_SECONDS)
    assert _until(lambda: not any(map(_runs, whole.values()))), _left(whole)


def test_a_command_ends_with_the_process_that_started_it():
    starts = (
        "import subprocess; from modelpred.launching import ends_with_this_process as ends\n"
        "child = subprocess.Popen(ends(['sleep', '60'])); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert _until(lambda: psutil.Process(child).name() == "sleep")
        process.kill()
        assert _until(lambda: not _runs(child))


def _start(project, *words):
    owned = ("PREFECT_", "MLFLOW_", "MODELPRED_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(owned)}
    environment |= {
        "MODELPRED_DEVICES": "cpu:1",
        # A store of its own: nothing is trained already.
        "MODELPRED_STORE": str(project / "stores" / f"{time.monotonic_ns()}"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with (project / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *(words or ("-m", "flows.pipeline"))],
            cwd=project,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )


def _processes_of_a_run_in_training(run):
    """Process number of each part, once all of them are there."""
    try:
        assert _until(lambda: _find(run, PARTS["worker"]) or run.poll() is not None, seconds=240)
        assert run.poll() is None
    except AssertionError:
        run.kill()  # else it holds the lock that the next test waits for
        raise
    return {part: _find(run, words) for part, words in PARTS.items()}


def _find(run, words):
    """The process of the run's tree whose command holds these words."""
    try:
        top = psutil.Process(run.pid)
        for process in [top, *top.children(recursive=True)]:
            command = " ".join(process.cmdline())
            if all(word in command for word in words) and "execvp" not in command:
                return process.pid
    except psutil.Error:
        pass
    return None


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _left(whole):
    return [part for part, pid in whole.items() if _runs(pid)]


def _until(holds, *, seconds=ENDING_SECONDS):
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return found
