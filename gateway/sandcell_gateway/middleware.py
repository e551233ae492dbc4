"""What every request passes: an id, the timing header, the checks of Host and Origin.

Pure ASGI, for HTTP and WebSockets alike. The log line has the path, never the query
string: it may carry a token.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
import uuid
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from sandcell_gateway.auth import PEER_UID
from sandcell_gateway.errors import BodyTooLarge, Refused
from sandcell_gateway.problems import answer_of, method_problem, response_of

REQUEST_ID = "request_id"
"""Key of the connection's state."""
ANY = "*"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
MAX_BODY_BYTES = 1 << 20
"""Most bytes of a request's body, but for files, which pass as a stream."""
_FILES = re.compile(r"/v1/sessions/[^/]+/files/")
_log = structlog.get_logger("sandcell_gateway.access")


class HostCheck:
    """Which Host and Origin headers are welcome on TCP.

    A web page can reach a loopback port: by its address, which its Origin header gives
    away, or by a name of its own that resolves to it, which the Host header does.
    """

    def __init__(self, bound: str, hosts: Iterable[str], origins: Iterable[str]) -> None:
        own = {"localhost", bound, socket.gethostname(), socket.getfqdn()}
        self._hosts = {name.lower() for name in (*own, *hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, headers: Headers, scheme: str) -> None:
        """Raises `Refused`."""
        host = headers.get("host", "").lower()
        if not self._welcome(host):
            raise Refused(
                f"this gateway does not go by the name {host[:100]!r}",
                "add it to SANDCELL_ALLOWED_HOSTS",
            )
        origin = headers.get("origin")
        if origin is None:
            return
        own = f"{scheme.replace('ws', 'http', 1)}://{host}"
        if origin.lower() not in {own, *self._origins}:
            raise Refused(
                f"pages of {origin[:100]!r} may not use this gateway",
                "add the origin to SANDCELL_ALLOWED_ORIGINS",
            )

    def _welcome(self, host: str) -> bool:
        if ANY in self._hosts:
            return True
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not name:
            return False
        if name in self._hosts:
            return True
        try:
            # An address cannot be made to point elsewhere.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, hosts: HostCheck) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        try:
            if scope["state"].get(PEER_UID) is None:
                self._hosts.check(Headers(scope=scope), scope["scheme"])
            await self._app(scope, exchange.limited(receive), exchange.send)
        except Exception as error:
            if exchange.started:
                raise
            await exchange.refuse(answer_of(error, exchange.request_id), receive)
        finally:
            exchange.log()


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = uuid.uuid4().hex
        self.started = False
        self._scope = scope
        self._send = send
        self._status = 0
        self._since = time.perf_counter()
        scope.setdefault("state", {})[REQUEST_ID] = self.request_id

    def limited(self, receive: Receive) -> Receive:
        """Receive at most `MAX_BODY_BYTES`. Raises `BodyTooLarge` at once if more are announced."""
        if self._scope["type"] != "http" or self._is_file():
            return receive
        announced = Headers(scope=self._scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
        got = 0

        async def receive_some() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > MAX_BODY_BYTES:
                raise BodyTooLarge(MAX_BODY_BYTES)
            return message

        return receive_some

    def _is_file(self) -> bool:
        """Whether the body is a file's content: the session's disk limit bounds that."""
        is_put = self._scope["method"] == "PUT"
        return is_put and _FILES.match(self._scope["path"]) is not None

    async def send(self, message: Message) -> None:
        """Pass on; headers are added to the first message."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.started = True
            self._status = message["status"]
            spent = 1000 * (time.perf_counter() - self._since)
            headers = MutableHeaders(scope=message)
            headers["Server-Timing"] = f"total;dur={spent:.2f}"
            headers["X-Request-ID"] = self.request_id
        elif kind == "websocket.accept":
            self.started = True
            self._status = 101
        await self._send(message)

    async def refuse(self, response: Response, receive: Receive) -> None:
        """Answer instead of the application."""
        if self._scope["type"] == "websocket":
            await deny(WebSocket(self._scope, receive, self.send), response)
        else:
            await response(self._scope, receive, self.send)

    def log(self) -> None:
        """One line about how it went."""
        _log.info(
            "request",
            request_id=self.request_id,
            method=self._scope.get("method", "WS"),
            path=self._scope["path"],
            status=self._status,
            ms=round(1000 * (time.perf_counter() - self._since), 1),
        )


async def deny(websocket: WebSocket, response: Response) -> None:
    """Refuse a WebSocket's handshake with an HTTP answer, so that the reason is readable."""
    if websocket.client_state.name == "CONNECTING":
        await websocket.receive()
    await websocket.send_denial_response(response)


async def no_such_method(request: Request, error: Exception) -> Response:
    """Exception handler for 405: names all methods of the path, which several routes may share."""
    allowed = ", ".join(method for method in METHODS if _offers(request, method))
    detail = f"this path does not offer {request.method}; it offers {allowed}"
    problem = method_problem(detail, getattr(request.state, REQUEST_ID, ""))
    return response_of(problem, {"Allow": allowed})


def _offers(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def handle(connection: Any, error: Exception) -> Response:
    """Exception handler of the application for everything in `problems.TABLE`."""
    response = answer_of(error, getattr(connection.state, REQUEST_ID, ""))
    if isinstance(connection, WebSocket):
        await deny(cast(WebSocket, connection), response)
    return response
