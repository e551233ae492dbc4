"""The one place that decides whether a request may go on: for every path, whoever adds one.

Pure ASGI, within `middleware.Edge`, which answers with what is raised here.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandcell_gateway.access.leases import Lease, Leases
from sandcell_gateway.access.limits import AccessLimits
from sandcell_gateway.auth import PEER_UID, PRINCIPAL, Authenticator, Principal, token_of
from sandcell_gateway.errors import MissingScope, TokenEnded, Unauthorized
from sandcell_gateway.middleware import REQUEST_ID
from sandcell_gateway.problems import answer_of, problem_of
from sandcell_wire.models import StreamFailed
from sandcell_wire.scopes import Scope as Right
from sandcell_wire.scopes import covers
from sandcell_wire.words import NDJSON

LEASE = "lease"
"""Key of the connection's state."""
PUBLIC = frozenset({"/health"})
"""Paths that need no token."""
_ADMIN = re.compile(r"/v1/tokens(/.*)?")
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
_NOBODY = "unknown"
"""The address of a connection that has none."""


def needed_right(kind: str, method: str, path: str) -> Right:
    """What a request needs: `kind` is ASGI's, `http` or `websocket`."""
    if _ADMIN.fullmatch(path):
        return Right.ADMIN
    looks = kind == "http" and method in _LOOKING
    return Right.READ if looks else Right.RUN


def lease_of(connection: HTTPConnection) -> Lease:
    """The lease that the guard has opened for this request."""
    lease: Lease = getattr(connection.state, LEASE)
    return lease


class Guard:
    """Asks who it is, counts, looks at the scope, and ends what outlasts its token."""

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, limits: AccessLimits, leases: Leases
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._limits = limits
        self._leases = leases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        principal = await self._who(HTTPConnection(scope))
        with self._leases.open(principal) as lease:
            needed = needed_right(scope["type"], scope.get("method", ""), scope["path"])
            if not covers(principal.scopes, needed):
                raise MissingScope(needed, principal.scopes)
            scope["state"] |= {PRINCIPAL: principal, LEASE: lease}
            if scope["type"] == "websocket":
                await self._app(scope, receive, send)
            else:
                await _Leased(lease, scope, receive, send).run(self._app)

    async def _who(self, connection: HTTPConnection) -> Principal:
        """Raises `Unauthorized`, `Refused` or `RateLimited`."""
        uid: int | None = getattr(connection.state, PEER_UID, None)
        if uid is not None:
            return self._authenticator.peer(uid)
        token = token_of(connection.headers)
        address = connection.client.host if connection.client else _NOBODY
        self._limits.check(address, token)
        try:
            principal = await self._authenticator.bearer(token)
        except TokenEnded:
            raise  # nobody guesses one that was valid
        except Unauthorized:
            self._limits.failed(address)
            raise
        self._limits.succeeded(token)
        self._limits.use(principal.credential)
        return principal


class _Leased:
    """An HTTP request and its answer, as long as the lease lasts."""

    def __init__(self, lease: Lease, scope: Scope, receive: Receive, send: Send) -> None:
        self._lease = lease
        self._scope = scope
        self._receive = receive
        self._send = send
        self._streams_lines = False
        self._started = False
        self._refused = False

    @property
    def _request_id(self) -> str:
        request_id: str = self._scope["state"][REQUEST_ID]
        return request_id

    async def run(self, app: ASGIApp) -> None:
        try:
            async with self._lease.held(armed=False):
                await app(self._scope, self.receive, self.send)
        except TokenEnded as error:
            if not self._started:
                raise
            if self._streams_lines:
                await self._last_line(error)
            # Other streams are left incomplete, and the server hangs up.

    async def receive(self) -> Message:
        """A piece of the body. Raises `TokenEnded`: what is uploaded is not taken to its end."""
        message = await self._receive()
        if message["type"] == "http.request" and (end := self._lease.end) is not None:
            raise end
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer, or a refusal in its place."""
        if self._refused:
            return
        if message["type"] == "http.response.start":
            end = self._lease.end
            if end is not None:
                self._refused = True
                await answer_of(end, self._request_id)(self._scope, self._receive, self._send)
                return
            self._started = True
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            self._streams_lines = kind.partition(";")[0] == NDJSON
        elif message.get("more_body", False):
            # The answer is a stream, which may be open for days.
            self._lease.arm()
        await self._send(message)

    async def _last_line(self, error: TokenEnded) -> None:
        problem = problem_of(error, self._request_id)
        line = StreamFailed(problem=problem).model_dump_json(exclude_none=True).encode() + b"\n"
        await self._send({"type": "http.response.body", "body": line, "more_body": False})
