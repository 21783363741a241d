"""Runs the page: until Ctrl-C for the command, in a thread for a notebook."""

import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelpred.api import ModelPred
from modelpred.errors import InvalidInput
from modelpred.extras import optional_imports
from modelpred.page.app import application
from modelpred.page.scores import studies_of
from modelpred.page.subject import Subject
from modelpred.wording import Printed

with optional_imports():
    import uvicorn

HOST = "127.0.0.1"
MOST_CONNECTIONS = 128
START_SECONDS = 30


@dataclass(frozen=True, repr=False)
class Page(Printed):
    """A page that runs in a thread; `stop` ends it.

    Attributes:
        address: to open in a browser on this machine.
    """

    address: str
    _server: uvicorn.Server
    _thread: threading.Thread

    def stop(self) -> None:
        """End the server."""
        self._server.should_exit = True
        self._thread.join(START_SECONDS)

    def __str__(self) -> str:
        """The address."""
        return f"{self.address} (stop() ends it)"


def explore(mp: ModelPred, *, name: str = "", port: int = 0, engine: str = "auto") -> Page:
    """Show a fitted ModelPred on a page, from a thread of this process.

    Args:
        mp: the fit.
        name: shown as the title; by default the name of the table.
        port: to listen on, on 127.0.0.1; 0: any free one.
        engine: of the models of edits: auto, exact or predicted.

    Raises:
        InvalidInput: it is not fitted, or the port is in use.
    """
    subject = Subject(mp, name or mp.fitted.dataset.name, engine=engine)
    listening = _listening(port)
    server = _server(subject)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="explore", daemon=True
    )
    thread.start()
    until = time.monotonic() + START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    return Page(_address(listening), server, thread)


def serve_folder(
    folder: Path, *, port: int, engine: str, opened: bool, say: Callable[[str], None]
) -> None:
    """Serve the page of a folder until Ctrl-C.

    Args:
        folder: of a saved ModelPred, or a project with artifacts/.
        port: to listen on.
        engine: of the models of edits: auto, exact or predicted.
        opened: whether to open a browser.
        say: prints a line.

    Raises:
        InvalidInput: the folder holds neither, or the port is in use.
    """
    listening = _listening(port)
    mp = ModelPred.load(folder)
    subject = Subject(mp, _name(mp, folder), str(folder), studies_of(folder), engine)
    address = _address(listening)
    listening.listen()  # from here on a browser may connect: it waits until the server answers
    say(f"What if? {subject.name}: {address} (Ctrl-C ends it)")
    if opened:
        webbrowser.open(address)
    _server(subject).run(sockets=[listening])


def _name(mp: ModelPred, folder: Path) -> str:
    name = mp.fitted.dataset.name
    return folder.resolve().name if name == "notebook" else name


def _server(subject: Subject) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            application(subject),
            log_level="warning",
            server_header=False,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
    )


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise InvalidInput(
            f"port {port} of {HOST} cannot be used ({error.strerror}); choose another port"
        ) from error
    return listening


def _address(listening: socket.socket) -> str:
    return f"http://{HOST}:{listening.getsockname()[1]}/"
