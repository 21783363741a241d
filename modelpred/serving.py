"""Serves a predictor over HTTP, with the address and the JSON of MLflow's scoring server.

    POST /invocations   {"inputs": [[1, 0, 1]], "params": {"refine": 1}}  ->  {"predictions": [[0.3, -1.2]]}
    GET  /ping          200 while the server answers; /health is the same

Whatever cannot be answered gets a 4xx and one line that says why, as {"error_code": ..., "message": ...}; never a
stack trace or a path of the server. A body's length is checked before it is read, and the number of subsets before a
tensor is made. Questions are answered one after another: torch uses the processor's cores for one.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from modelpred.errors import InvalidInput
from modelpred.extras import optional_imports
from modelpred.predictor import read_predictor
from modelpred.predictor.request_handler import (
    ALL_STAGES,
    REPUBLISH,
    SERVING_LIMITS,
    RequestHandler,
    read_test_points,
)
from modelpred.sealed import advice

with optional_imports():
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

LARGEST_BODY = 16 * 2**20
BODY_SECONDS = 60.0  # for a client to send its body
LONGEST_MESSAGE = 500
MOST_CONNECTIONS = 64  # further ones get a 503
KEYS = ("inputs", "params")
PARAMS = ("refine", "stages", "without")
CODES = {
    400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 408: "REQUEST_TIMEOUT",
    413: "BODY_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE", 500: "INTERNAL_ERROR",
}  # fmt: skip

log = logging.getLogger(__name__)


def application_of(folder: Path) -> Starlette:
    """The application of the predictor in a folder of the registry.

    Raises:
        InvalidInput: the folder holds none, or a damaged one.
    """
    with advice(REPUBLISH):
        predictor = read_predictor(folder)
        test_points = read_test_points(folder, predictor)
    return application(RequestHandler(predictor, test_points=test_points, limits=SERVING_LIMITS))


def application(answers: RequestHandler, *, largest_body: int = LARGEST_BODY) -> Starlette:
    """The ASGI application that answers over HTTP.

    Args:
        answers: what answers, with its limits on one question.
        largest_body: bytes of a request's body that are read.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="answers")

    async def answered(request: Request) -> Response:
        _check_head(request)
        body = await _body(request, largest=largest_body)
        loop = asyncio.get_running_loop()
        try:
            content = await loop.run_in_executor(worker, _answered, answers, body)
        except InvalidInput as error:
            return _refused(400, str(error))
        except Exception:
            log.exception("a question was not answered")
            return _refused(500, "this question cannot be answered; the server's log says why")
        return Response(content, media_type="application/json")

    async def invocations(request: Request) -> Response:
        try:
            return await answered(request)
        except asyncio.CancelledError:  # Ctrl-C while the request was read or computed
            return _refused(503, "the server was stopped")

    async def ping(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _refused(error.status_code, error.detail)

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/ping", ping),
            Route("/health", ping),
        ],
        exception_handlers={HTTPException: refused},
    )


def _refused(status: int, message: str) -> Response:
    said = " ".join(message.split())[:LONGEST_MESSAGE]
    answer = {"error_code": CODES.get(status, "ERROR"), "message": said}
    return Response(json.dumps(answer), status, media_type="application/json")


def _check_head(request: Request) -> None:
    """Refuse what would change the question if it were read: parameters in the address, another type or encoding."""
    if request.url.query:
        raise HTTPException(
            400, f"the address has parameters, {request.url.query[:80]!r}; put params in the body"
        )
    encoding = ", ".join(request.headers.getlist("content-encoding"))
    if encoding.strip().lower() not in ("", "identity"):
        raise HTTPException(415, f"the body is encoded ({encoding[:80]!r}); send it as it is")
    _check_type(", ".join(request.headers.getlist("content-type")))


def _check_type(content_type: str) -> None:
    kind, _, settings = content_type.partition(";")
    charset = settings.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise HTTPException(
            415, f"the content type is {content_type[:80]!r}; expected application/json in UTF-8"
        )


async def _body(request: Request, *, largest: int) -> bytes:
    """Read the body up to the allowed size."""
    too_large = HTTPException(413, f"a body may have at most {largest:,} bytes; send fewer subsets")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > len(str(largest)) + 3:
        raise too_large
    if int(announced) > largest:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > largest:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the body had come") from None
    return bytes(content)


# --- a body and its answer ---------------------------------------------------------------------


def _answered(answers: RequestHandler, body: bytes) -> bytes:
    """The answer to a body, as JSON."""
    asked = _mapping(_parsed(body), "the body", known=KEYS)
    if "inputs" not in asked:
        raise InvalidInput("the body has no inputs; expected weights [subsets, rows]")
    params = _mapping(asked.get("params", {}), "params", known=PARAMS)
    refine = _number(params.get("refine", 0.0), "refine")
    stages = _whole(params.get("stages", ALL_STAGES), "stages")
    lists = _lists(params.get("without", {"rows": []}))
    weights = _weights(asked["inputs"], answers)
    limit = None if stages == ALL_STAGES else stages
    if lists:
        predictions = answers.without(weights, lists, refine=refine, stages=limit)
    else:
        predictions = answers.parameters(weights, refine=refine, stages=limit).tolist()
    return json.dumps({"predictions": predictions}, allow_nan=False).encode()


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body.decode(), parse_constant=_constant, object_pairs_hook=_pairs)
    except InvalidInput:
        raise
    except RecursionError:
        why = "is nested too deeply; inputs are a list of lists"
    except UnicodeDecodeError:
        why = "is not in UTF-8"
    except json.JSONDecodeError as error:
        why = f"is no JSON: {error}"
    except ValueError:  # Python reads no numbers of more than some thousand digits
        why = "holds a number with too many digits"
    raise InvalidInput(f"the body {why}")


def _constant(name: str) -> NoReturn:
    raise InvalidInput(f"the body holds {name}, which is no JSON; weights are finite numbers")


def _pairs(found: list[tuple[str, object]]) -> dict[str, object]:
    pairs = dict(found)
    if len(pairs) < len(found):
        raise InvalidInput("the body names a key twice in one object; name each once")
    return pairs


def _mapping(found: object, what: str, *, known: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise InvalidInput(f"{what} is {_kind(found)}; expected an object with {', '.join(known)}")
    unknown = [key for key in found if key not in known]
    if unknown:
        raise InvalidInput(f"{what} has an unknown {unknown[0][:80]!r}; known: {', '.join(known)}")
    return found


def _number(found: object, what: str) -> float:
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise InvalidInput(f"{what} is {_kind(found)}; expected a number")
    try:
        return float(found)
    except OverflowError:
        raise InvalidInput(f"{what} is too large") from None


def _whole(found: object, what: str) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise InvalidInput(f"{what} is {_kind(found)}; expected a whole number")
    if abs(found) >= 2**31:
        raise InvalidInput(f"{what} is too large")
    return found


def _lists(found: object) -> list[list[str]]:
    asked = _mapping(found, "without", known=("rows",))
    rows = asked.get("rows")
    if not isinstance(rows, list):
        raise InvalidInput(f"without.rows is {_kind(rows)}; expected lists of row names")
    for place, names in enumerate(rows):
        if not isinstance(names, list) or set(map(type, names)) - {str}:
            raise InvalidInput(
                f"entry {place} of without.rows is no list of texts; name rows as in "
                '[["3", "14"], ["7"]]'
            )
    return rows


def _weights(found: object, answers: RequestHandler) -> torch.Tensor:
    """Weights [subsets, points]; their number is checked before a tensor is made."""
    if not isinstance(found, list):
        raise InvalidInput(f"inputs is {_kind(found)}; expected weights [subsets, rows]")
    answers.check_size(len(found))
    for place, row in enumerate(found):
        if not isinstance(row, list) or len(row) != answers.points:
            raise InvalidInput(
                f"subset {place} of inputs is {_kind(row)}; expected {answers.points} numbers, "
                "one for each training row"
            )
        wrong = set(map(type, row)) - {int, float}
        if wrong:
            [first, *_] = [cell for cell in row if type(cell) in wrong]
            raise InvalidInput(f"subset {place} of inputs holds {_kind(first)}; expected numbers")
    try:
        table = np.array(found, dtype=np.float64).reshape(len(found), answers.points)
    except OverflowError:
        raise InvalidInput("inputs hold a number that is too large") from None
    return torch.from_numpy(table)


def _kind(found: object) -> str:
    """The type of a JSON value in words."""
    if isinstance(found, str):
        return f"the text {found[:40]!r}"
    if isinstance(found, list):
        return f"a list of {len(found)}"
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return "a number"
    return "an object" if isinstance(found, dict) else json.dumps(found)  # true, false, null
