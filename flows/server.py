"""A Prefect server that lives exactly as long as the process that started it.

The starting process holds the writing end of a pipe. When it ends, in whatever way, the kernel closes
the pipe and the server exits. When the server ends first, the starting process exits with a message,
because everything that it started waits for the server.

The API asks for a password (basic authentication), which is generated once and stored in a file that
only this user can read: other users of the machine can reach 127.0.0.1, too.

    .modelpred/prefect/password      mode 0600
    .modelpred/prefect/server.log    output of the last server
"""

import contextlib
import functools
import os
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from flows.runtime import OWNER, this_process
from modelpred.errors import InvalidInput

COMMAND = "from flows.server import main; main()"  # -m would import the module twice
START_SECONDS = 120.0  # a new database on a busy machine; 3 to 7 s are usual
SILENT_SECONDS = 60.0  # a server of the user's may be started anew meanwhile
POLL_SECONDS = 2.0
CLOSE_SECONDS = 10.0  # a hanging connection must not keep the server alive


@contextmanager
def prefect_api(*, schedules: bool = False) -> Generator[str]:
    """Give the URL of the Prefect API for the block: PREFECT_API_URL, or a server started for it.

    Args:
        schedules: also run the services that create scheduled runs.

    Raises:
        InvalidInput: the server does not start; the message is its last line of output.
    """
    from prefect.logging.handlers import APILogHandler  # noqa: PLC0415
    from prefect.settings import (  # noqa: PLC0415 - the server starts while Prefect is imported
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        temporary_settings,
    )

    if (url := os.environ.get("PREFECT_API_URL")) is not None:
        _watch(url)
        yield url
        return
    login = f"modelpred:{password(Path(os.environ['PREFECT_HOME']))}"
    with _server(login, schedules=schedules) as url:
        added = {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": login, OWNER: this_process()}
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)  # for the processes that are started in the block
        try:
            with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: login}):
                yield url
        finally:
            APILogHandler().flush()  # records that are sent later find no server
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


@functools.cache
def _watch(url: str) -> None:
    """Start the thread that ends this process without its API; one for each, however many flows use it."""
    threading.Thread(target=_exit_without, args=(url,), daemon=True).start()


def password(folder: Path) -> str:
    """The password of this project's servers, generated at the first call.

    Raises:
        InvalidInput: the file belongs to, or can be read by, another user, or the folder is another user's.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise InvalidInput(f"{folder} belongs to another user; move it away and run again")
    folder.chmod(found.st_mode & 0o777 & ~0o022)  # else others could replace Prefect's database
    path = folder / "password"
    with tempfile.NamedTemporaryFile("w", dir=folder) as file:  # mode 0600
        file.write(secrets.token_urlsafe(32))
        file.flush()
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)  # appears whole, and only where there is none
    found = path.lstat()
    private = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
    content = path.read_text() if private and found.st_uid == os.getuid() else ""
    if not content:
        raise InvalidInput(f"{path} is not a private file of this user; remove it and run again")
    return content


@contextmanager
def _server(login: str, *, schedules: bool) -> Generator[str]:
    home = Path(os.environ["PREFECT_HOME"])
    log = home / "server.log"
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        # Without a loopback device listening succeeds, but nothing can connect.
        socket.create_connection(listener.getsockname(), timeout=5).close()
    except OSError as error:
        raise InvalidInput(
            f"Prefect needs to listen on 127.0.0.1, which fails ({error.strerror}); allow it, or set "
            "PREFECT_API_URL to a server that is reachable"
        ) from error
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    watched, held = os.pipe()
    with listener, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(listener.fileno()), str(watched), str(schedules)],
            pass_fds=[listener.fileno(), watched],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Settings of a flow run that this process may be part of must not reach the server.
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT__")},
                "PREFECT_SERVER_API_AUTH_STRING": login,
            },
            start_new_session=True,  # Ctrl-C ends this process, which then stops the server
        )
    os.close(watched)
    stopping = threading.Event()
    try:
        _wait_until_healthy(url, process, log)
        threading.Thread(target=_exit_with, args=(process, stopping, log), daemon=True).start()
        yield url
    finally:
        stopping.set()
        os.close(held)
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    lines = log.read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it did not answer")
    raise InvalidInput(f"the Prefect server did not start: {last[:300]}; all of its output: {log}")


def _exit_with(process: "subprocess.Popen[bytes]", stopping: threading.Event, log: Path) -> None:
    process.wait()
    if not stopping.is_set():
        sys.stderr.write(f"the Prefect server has ended, see {log}; run again{os.linesep}")
        sys.stderr.flush()
        os._exit(1)


def _exit_without(url: str) -> None:
    """End this process once nothing has listened at `url` for SILENT_SECONDS: Prefect would go on trying."""
    where = urllib.parse.urlsplit(url)
    port = where.port or (443 if where.scheme == "https" else 80)
    heard = time.monotonic()
    while time.monotonic() - heard < SILENT_SECONDS:
        time.sleep(POLL_SECONDS)
        with contextlib.suppress(OSError):
            socket.create_connection((where.hostname or "", port), timeout=POLL_SECONDS).close()
            heard = time.monotonic()
    sys.stderr.write(
        f"the Prefect server at {url} has not answered for {SILENT_SECONDS:g} s; start it, and run again"
        f"{os.linesep}"
    )
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """The server's process; arguments: descriptors of the socket and the pipe, and `schedules`."""
    descriptor, watched, schedules = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
    leaving = threading.Event()

    def watch() -> None:
        os.read(watched, 1)  # returns when the starting process has ended
        leaving.set()
        time.sleep(CLOSE_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    # Imported here: the watch must already run during these seconds.
    import uvicorn  # noqa: PLC0415
    from prefect.server.api.server import create_app  # noqa: PLC0415

    application = create_app(ephemeral=not schedules, final=True)
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="on"))

    def close() -> None:
        leaving.wait()
        server.should_exit = True

    threading.Thread(target=close, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])
