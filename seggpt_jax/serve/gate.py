"""What a request passes before its body is read: who asks, how much, and is there room.

Every refusal is `{"detail": "..."}` with a status, as all errors of the server are.
"""

import base64
import dataclasses
import hmac
import math
from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "::1")
_OPEN = ("/health",)  # without a token


@dataclasses.dataclass(frozen=True)
class Limits:
    """megabytes: of the body of a request. megapixels: of all pictures of a request.
    queue: requests that are worked on or wait. prompts: in one set. sets: of prompts
    that are kept."""

    megabytes: int = 64
    megapixels: int = 100
    queue: int = 32
    prompts: int = 32
    sets: int = 32

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"limit {name} = {value}: must be at least 1")


class Gate:
    """ASGI middleware that lets requests through.

    token: what they must carry, as `Authorization: Bearer TOKEN` or as the password of
    HTTP's basic authentication, which browsers ask for; empty on a machine's own
    address. pace: seconds until a place is free again, about.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, token: str, pace: Callable[[], float]
    ):
        self._app, self._limits, self._token, self._pace = app, limits, token, pace
        self._most = limits.megabytes * 1_000_000
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._drain(receive)
            return await refusal(scope, receive, send)
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        self._busy += 1
        try:
            await self._app(scope, self._counting(receive), send)
        finally:
            self._busy -= 1

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = urlsplit(f"//{headers.get('host', '')}")
        # Pages of other sites: they may know this address, and a browser sends them on.
        if not self._token and host.hostname not in LOCAL:
            return _answer(400, f"this server answers to {', '.join(LOCAL)} only")
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != host.netloc:
            return _answer(403, f"{origin} is another site")
        if self._token and scope["path"] not in _OPEN and not self._known(headers):
            return _answer(
                401, "no token, or a wrong one: send Authorization: Bearer TOKEN",
                {"WWW-Authenticate": 'Basic realm="seggpt"'},
            )  # fmt: skip
        if scope["method"] != "POST":
            return None
        if int(headers.get("content-length", 0)) > self._most:
            return _answer(413, self._too_long)
        if self._busy >= self._limits.queue:
            return _answer(
                429, f"{self._busy} requests are worked on or wait: ask again later",
                {"Retry-After": str(max(1, math.ceil(self._pace())))},
            )  # fmt: skip
        return None

    @property
    def _too_long(self) -> str:
        return f"the request is longer than {self._limits.megabytes} MB"

    def _known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given).decode().partition(":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._token.encode())

    def _counting(self, receive: Receive) -> Receive:
        """Ends a body without a length that is too long."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, self._too_long)
            return message

        return counted

    async def _drain(self, receive: Receive) -> None:
        """Takes what a client still sends: without it many see no answer."""
        size, more = 0, True
        while more and size <= self._most:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)


def _answer(
    status: int, text: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"detail": text}, status, headers)
