"""One Prefect server for all stages of a run, started by the first stage and gone after the last.

A temporary server for each stage would cost 7 to 12 seconds a stage. Here the first stage starts one
detached server and later stages find it by a small file. The server lives as long as one of its
*owners*: the `dvc` process that a stage runs under, or the stage itself when it is run by hand. It
looks for them twice a second, so it also goes when they are killed.

    .modelpred/server/lock            held while owners join and while the server decides to go
    .modelpred/server/address.json    {"url", "pid", "started"} of the server that runs now
    .modelpred/server/owners/         one empty file <pid>-<start time> for each owner
    .modelpred/server/log             what the server said

The listening socket is opened by the stage and handed down, so no two servers race for a port, and
a request that comes while the server still starts waits in the socket's queue.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

# MODELPRED_SERVER names another, for runs in folders of their own that share one server.
FOLDER = Path(os.environ.get("MODELPRED_SERVER") or ".modelpred/server")
COMMAND = "from flows.server import main; main()"  # -m would import the module twice
START_SECONDS = 120.0  # a new database on a busy machine; 3 to 7 s are usual
LOOK_SECONDS = 0.5
CLOSE_SECONDS = 10.0  # a hanging connection must not keep the process alive


@dataclass(frozen=True)
class Address:
    """Where a server listens, and which process it is."""

    url: str
    pid: int
    started: float

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _alive(self.pid, self.started)


def join(owner: psutil.Process, *, folder: Path = FOLDER, schedules: bool = False) -> Address:
    """The address of the running server, started now if there is none; it lives as long as `owner`.

    Args:
        owner: the process whose end releases the server.
        folder: where the server's files lie.
        schedules: also run the services that create scheduled runs.
    """
    (folder / "owners").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        (folder / "owners" / f"{owner.pid}-{owner.create_time():.2f}").touch()
        address = _read_address(folder)
        if address is None or not address.alive():
            address = _start(folder, schedules=schedules)
    return address


def wait_until_healthy(address: Address, *, seconds: float = START_SECONDS) -> bool:
    """Whether the server at `address` answers; False when it died or stayed silent."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and address.alive():
        try:
            with urllib.request.urlopen(f"{address.url}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    return False


def _start(folder: Path, *, schedules: bool) -> Address:
    with socket.socket() as listener, (folder / "log").open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port: int = listener.getsockname()[1]
        # Settings of a flow run that this process may be part of must not reach the server.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT__") and name != "PREFECT_API_URL"
        }
        services = ["--schedules"] if schedules else []
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(folder), str(listener.fileno()), *services],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C ends the stage; the server then records that end
        )
    started = psutil.Process(process.pid).create_time()
    address = Address(f"http://127.0.0.1:{port}/api", process.pid, started)
    process.returncode = 0  # it outlives this process on purpose: nobody waits for it
    unfinished = folder / "address.json.new"
    unfinished.write_text(json.dumps(asdict(address)))
    unfinished.replace(folder / "address.json")
    return address


def _read_address(folder: Path) -> Address | None:
    try:
        return Address(**json.loads((folder / "address.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _alive(pid: int, started: float) -> bool:
    # The start time tells a process from a later one with its number; clocks are adjusted, hence
    # the two seconds.
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file releases the lock


def _owned(folder: Path) -> bool:
    """Whether an owner still runs; forgets those that do not."""
    owned = False
    for owner in (folder / "owners").glob("*-*"):
        pid, started = owner.name.split("-")
        if _alive(int(pid), float(started)):
            owned = True
        else:
            owner.unlink(missing_ok=True)
    return owned


def _wait_for_owners_to_go(folder: Path) -> None:
    """Returns once no owner is left and no stage can find this server any more."""
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            with _locked(folder):
                if _owned(folder):
                    continue
                (folder / "address.json").unlink(missing_ok=True)
                return
        except FileNotFoundError:  # the whole folder was removed
            return


def _serve(folder: Path, descriptor: int, *, schedules: bool) -> None:
    leaving = threading.Event()

    def watch() -> None:
        _wait_for_owners_to_go(folder)
        leaving.set()
        time.sleep(CLOSE_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    # Imported here: the watch must already run while these seconds pass.
    import uvicorn  # noqa: PLC0415
    from prefect.server.api.server import create_app  # noqa: PLC0415

    if leaving.is_set():
        return
    application = create_app(ephemeral=not schedules, final=True)
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="on"))

    def close() -> None:
        leaving.wait()
        server.should_exit = True

    threading.Thread(target=close, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])


def main() -> None:
    """The server's process: folder, descriptor of the socket, and whether schedules create runs."""
    _serve(Path(sys.argv[1]), int(sys.argv[2]), schedules="--schedules" in sys.argv[3:])
