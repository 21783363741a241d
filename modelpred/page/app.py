"""The FastAPI application of the page.

    GET  /                    the page; /static/NAME its parts
    GET  /api/table           what is in the training table; /api/columns/N one column
    GET  /api/scores/NAME     a score of every row, computed in the background
    POST /api/answer          the model of an edit beside the model of all rows
    POST /api/bound           how far a predicted model is at most from retraining
    POST /api/retrain         as answer, by exact retraining
    POST /api/explain         the rows that matter for a prediction
    POST /api/paste           pasted CSV as rows to add, or as an edit
    POST /api/export          files of an edit and of its model

The state is in the page: every request carries the whole edit. Requests are computed one after another, and one
that the page has aborted is dropped before it is computed.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any, TypeVar

from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.extras import optional_imports
from modelpred.page import answers, tables
from modelpred.page.explaining import explained
from modelpred.page.exports import exported
from modelpred.page.guard import Guard, refusal
from modelpred.page.messages import Asked, ExplainAsked, ExportAsked, PasteAsked
from modelpred.page.pasted import read_pasted
from modelpred.page.scores import Scores
from modelpred.page.subject import Subject

with optional_imports():
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

SMALLEST_BODY_LIMIT = 2 * 2**20
BYTES_A_ROW = 64  # of an edit, beside the row's id
MOST_WAITING = 64
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

Found = TypeVar("Found")
log = logging.getLogger(__name__)


def static_files() -> dict[str, tuple[str, bytes]]:
    """Media type and content of every file of the page, by name; read once."""
    folder = files("modelpred.page") / "static"
    found = {path.name: path for path in folder.iterdir()}
    return {
        name: (kind, path.read_bytes())
        for name, path in found.items()
        for ending, kind in KINDS.items()
        if name.endswith(ending)
    }


def application(subject: Subject) -> FastAPI:
    """The ASGI application that shows a fitted ModelPred."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ids = sum(len(row_id.encode()) for row_id in subject.mp.row_ids)
    app.add_middleware(
        Guard,
        largest_body=max(SMALLEST_BODY_LIMIT, 2 * ids + BYTES_A_ROW * len(subject.mp.row_ids)),
    )
    _add_errors(app)
    _add_files(app)
    queue = Queue()

    @app.get("/api/table")
    async def _(request: Request) -> Response:
        return await queue.json(request, lambda: tables.description(subject))

    @app.get("/api/columns/{place}")
    async def _(request: Request, place: int) -> Response:
        kind, content = await queue.run(request, lambda: tables.column(subject, place))
        return Response(content, media_type=kind)

    @app.post("/api/answer")
    async def _(request: Request, asked: Asked) -> Response:
        return await queue.json(request, lambda: answers.answer(subject, asked.edit))

    @app.post("/api/bound")
    async def _(request: Request, asked: Asked) -> Response:
        return await queue.json(request, lambda: answers.bound(subject, asked.edit))

    @app.post("/api/retrain")
    async def _(request: Request, asked: Asked) -> Response:
        return await queue.json(request, lambda: answers.answer(subject, asked.edit, exact=True))

    _add_others(app, subject, queue)
    return app


def _add_others(app: FastAPI, subject: Subject, queue: "Queue") -> None:
    # Explanations may take many seconds, so that nothing else waits for them.
    slow, found = Queue(), Scores(subject)

    @app.get("/api/scores/{name}")
    async def _(request: Request, name: str) -> Response:
        return await queue.json(request, lambda: found.get(name))

    @app.post("/api/explain")
    async def _(request: Request, asked: ExplainAsked) -> Response:
        return await slow.json(request, lambda: explained(subject, asked))

    @app.post("/api/paste")
    async def _(request: Request, asked: PasteAsked) -> Response:
        return await queue.json(
            request, lambda: read_pasted(subject, asked.csv, labelled=asked.labelled)
        )

    @app.post("/api/export")
    async def _(request: Request, asked: ExportAsked) -> Response:
        return await queue.json(request, lambda: exported(subject, asked))


class Queue:
    """Computes one request after another; drops those that nobody waits for."""

    def __init__(self) -> None:
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def json(self, request: Request, compute: Callable[[], Any]) -> Response:
        """The result of a computation as JSON."""
        found = await self.run(request, lambda: json.dumps(compute(), allow_nan=False))
        return Response(found, media_type="application/json")

    async def run(self, request: Request, compute: Callable[[], Found]) -> Found:
        """The result of a computation.

        Raises:
            HTTPException: there is none, and why.
        """
        if self.waiting >= MOST_WAITING:
            raise HTTPException(503, "too many requests wait; try again in a moment")
        self.waiting += 1
        try:
            async with self.turn:
                if await request.is_disconnected():
                    raise HTTPException(499, "the page has gone on")
                return await self._computed(compute)
        finally:
            self.waiting -= 1

    async def _computed(self, compute: Callable[[], Found]) -> Found:
        try:
            return await asyncio.get_running_loop().run_in_executor(self.worker, compute)
        except InvalidInput as error:
            raise HTTPException(400, str(error)) from error
        except ValidationError as error:  # pasted text that makes a larger edit than is read
            raise HTTPException(422, first_of(error.errors())) from error
        except RuntimeError as error:  # training did not converge
            raise HTTPException(409, str(error)) from error
        except Exception as error:
            log.exception("a request was not answered")
            raise HTTPException(500, "this cannot be answered; the terminal says why") from error


def first_of(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first error of a message that pydantic refuses, with its place."""
    place = ".".join(str(part) for part in errors[0]["loc"] if part != "body")[:100]
    return f"{place or 'the request'}: {errors[0]['msg']}"


def _add_files(app: FastAPI) -> None:
    content = static_files()

    def file(name: str) -> Response:
        if name not in content:
            return refusal(404, "there is no such file")
        kind, found = content[name]
        return Response(found, media_type=kind)

    @app.get("/")
    async def _() -> Response:
        return file("index.html")

    @app.get("/static/{name}")
    async def _(name: str) -> Response:
        return file(name)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> Response:
        return refusal(422, first_of(error.errors()))

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> Response:
        return refusal(error.status_code, str(error.detail))
