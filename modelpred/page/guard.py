"""Refuses requests that do not come from the page itself, and bodies that are too large.

The server listens on loopback, but any page that a browser shows can send requests there. So the Host must be
a name of this machine (which stops DNS rebinding), the Origin must be the page's own, a POST must be JSON, and a
body is never read beyond a limit of size and time. Every answer carries a policy that lets the page load nothing
from elsewhere.
"""

import asyncio
import contextlib
import json
from typing import final
from urllib.parse import urlsplit

from modelpred.extras import optional_imports

with optional_imports():
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
LONGEST_MESSAGE = 500
BODY_SECONDS = 30.0  # for the page to send a body


def refusal(status: int, message: str) -> Response:
    """The answer to a request that is refused: a 4xx or 5xx with one line."""
    line = " ".join(message.split())[:LONGEST_MESSAGE]
    return Response(json.dumps({"message": line}), status, media_type="application/json")


@final
class Guard:
    """Middleware that checks where a request comes from and how large its body is."""

    def __init__(self, app: ASGIApp, *, largest_body: int) -> None:
        self.app = app
        self.largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refused(scope)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        try:
            await self.app(scope, self._limited(receive), answer)
        except asyncio.CancelledError:  # Ctrl-C while the request was read or computed
            with contextlib.suppress(RuntimeError):  # the answer has begun
                await refusal(503, "the server was stopped")(scope, receive, answer)

    def _refused(self, scope: Scope) -> Response | None:
        """Why the request is not answered; None if it is."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name_of(host) not in LOOPBACK:
            return refusal(403, "this server answers only to 127.0.0.1 and localhost")
        own = (None, f"http://{host}")
        if headers.get("origin") not in own or (
            scope["path"].startswith("/api/")
            and headers.get("sec-fetch-site") not in (None, "same-origin", "none")
        ):
            return refusal(403, "this request comes from another page")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return refusal(415, "expected a body of application/json")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or len(length) > 15 or int(length) > self.largest_body:
                return refusal(413, self._too_large)
        return None

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self.largest_body:,} bytes; name fewer rows"

    def _limited(self, receive: Receive) -> Receive:
        read, whole = 0, False
        until = asyncio.get_running_loop().time() + BODY_SECONDS

        async def limited() -> Message:
            nonlocal read, whole
            if whole:  # what follows tells only that the page has gone
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                late = f"the request did not come within {BODY_SECONDS:g} s"
                raise HTTPException(408, late) from None
            read += len(message.get("body", b""))
            if read > self.largest_body:
                raise HTTPException(413, self._too_large)
            whole = not message.get("more_body", False)
            return message

        return limited


def _name_of(host: str) -> str:
    """The name in a Host header, without the port; empty for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
