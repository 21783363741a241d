"""Files and folders that other programs, killed runs or other users left: one line each, or mended."""

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import runtime, server, stale_runs
from modelpred import errors
from modelpred.errors import InvalidInput

PATHS = (".modelpred", ".modelpred/prefect", ".modelpred/dvc", ".modelpred/prefect/server.log")
KINDS = ("file", "folder", "link", "nothing")


def obstruct(path: Path, kind: str) -> None:
    if os.path.lexists(path) or not path.parent.is_dir():
        return
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path.parent / "nowhere")


@given(st.lists(st.sampled_from(KINDS), min_size=len(PATHS), max_size=len(PATHS)))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_in_the_way_ends_in_one_line(tmp_path_factory, kinds):
    place = tmp_path_factory.mktemp("project")
    for path, kind in zip(PATHS, kinds, strict=True):
        obstruct(place / path, kind)
    home = place / ".modelpred" / "prefect"
    message = None
    try:
        with runtime.one_line_errors("targets"):
            runtime.keep_private(place / ".modelpred" / "dvc")
            server.password(home)
            (home / "server.log").open("wb").close()
    except SystemExit as ended:
        message = str(ended.code)
    if message is None:
        assert (home / "password").stat().st_mode & 0o777 == 0o600
    else:
        assert len(message.splitlines()) == 1
        assert ".modelpred" in message


@pytest.mark.parametrize("number", sorted(errors.OBSTRUCTIONS | errors.REFUSALS))
def test_errors_of_the_disk_name_the_path(number):
    message = errors.refusal(OSError(number, os.strerror(number), "artifacts/targets"))
    assert message is not None
    assert "artifacts/targets" in message
    assert os.strerror(number) in message


def test_other_errors_stay_errors():
    assert errors.refusal(OSError(errno.EBADF, "bad")) is None
    assert errors.refusal(FileExistsError("of the program, without a path")) is None


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o700])
def test_the_state_of_dvc_is_closed(tmp_path, mode):
    folder = tmp_path / ".modelpred" / "dvc"
    folder.mkdir(parents=True)
    for each in (folder, folder.parent):
        each.chmod(mode)
    runtime.keep_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.parent.stat().st_mode & 0o022


def test_a_plain_import_survives_a_file_in_the_way_and_no_proxy_is_asked(tmp_path):
    (tmp_path / ".modelpred").touch()
    (tmp_path / "params.yaml").touch()
    code = "import flows, urllib.request as r; print(r.proxy_bypass('127.0.0.1'), r.proxy_bypass('x.org'))"
    for hosts in ({}, {"NO_PROXY": "x.org"}, {"no_proxy": "x.org", "NO_PROXY": "y.org"}):
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in ("no_proxy", "http_proxy")
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment | hosts | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        ours, others = (word in ("True", "1") for word in done.stdout.split())
        assert ours
        assert others == bool(hosts)


@pytest.fixture(scope="module")
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


@given(
    writers=st.lists(st.sampled_from(["running", "younger", "gone"]), max_size=3),
    readers=st.lists(st.sampled_from(["running", "younger", "gone"]), max_size=3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_record_of_dvc_stays_only_if_one_of_its_processes_runs(
    tmp_path_factory, sleeper, writers, readers
):
    """A process that began an hour after the record was written has the number of another one."""
    folder = tmp_path_factory.mktemp("dvc")
    gone = 2**22 + 1  # above the largest number of a process
    numbers = {"running": os.getpid(), "younger": sleeper, "gone": gone}
    young = "younger" in writers + readers
    record = {
        "write": {
            f"w{at}": {"pid": numbers[kind], "cmd": "dvc"} for at, kind in enumerate(writers)
        },
        "read": {
            f"r{at}": [{"pid": numbers[kind], "cmd": "dvc"}] for at, kind in enumerate(readers)
        },
    }
    (folder / "rwlock").write_text(json.dumps(record))
    written = time.time() - (3600 if young else 0)
    os.utime(folder / "rwlock", (written, written))
    stale_runs.remove_stale_locks(folder)
    runs = "running" in writers + readers and not young  # an hour ago this process did not run
    assert (folder / "rwlock").exists() == runs


@given(st.binary(max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_unreadable_record_of_dvc_goes_unless_dvc_is_writing_it(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("dvc")
    (folder / "rwlock").write_bytes(content)
    with (folder / "rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        stale_runs.remove_stale_locks(folder)
        assert (folder / "rwlock").exists()
    stale_runs.remove_stale_locks(folder)
    assert not (folder / "rwlock").exists()


def test_a_server_that_went_away_ends_the_process_that_waits_for_it():
    code = (
        "import flows, threading, time; from flows import server;"
        "server.SILENT_SECONDS = 1; server.POLL_SECONDS = 0.1;"
        "server._exit_without('http://127.0.0.1:9/api')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("the Prefect server at http://127.0.0.1:9/api has not answered")


def test_dvcs_own_error_is_the_message_where_no_stage_failed():
    from flows.pipeline import own_message  # noqa: PLC0415

    lines = [
        "Running stage 'x':",
        "ERROR: unexpected error - [Errno 28] No space left on device",
        "",
    ]
    lines += ["Having any troubles? Hit us up at https://dvc.org/support"]
    assert own_message(lines) == lines[1]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_inputs_that_others_could_plant_are_refused(tmp_path, monkeypatch, mode):
    from modelpred.targets import remote  # noqa: PLC0415

    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path))
    digest = hashlib.sha256(b"").hexdigest()  # of a folder without files
    planted = tmp_path / f"modelpred-inputs-{os.getuid()}" / digest
    planted.mkdir(parents=True)
    planted.parent.chmod(mode)
    with pytest.raises(InvalidInput, match="not a private folder of this user"):
        remote.fetched(f"memory://inputs/{digest}")
    planted.parent.chmod(0o700)
    assert remote.fetched(f"memory://inputs/{digest}") == planted
    tmp_path.chmod(0o1777)  # as /tmp: others cannot rename what is not theirs
    assert remote.fetched(f"memory://inputs/{digest}") == planted
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidInput, match="other users can replace"):
        remote.fetched(f"memory://inputs/{digest}")
