"""Sending requests: to a URL, or to the embedded gateway's socket."""

from __future__ import annotations

from typing import TypeVar

import httpx
from pydantic import BaseModel

from sandcell import _requests
from sandcell._async._threads import in_thread
from sandcell._requests import ApiRequest, ChannelTarget
from sandcell.embedded import ensure, socket_path
from sandcell.errors import GatewayUnreachable, RequestTimeout
from sandcell.settings import ClientSettings

M = TypeVar("M", bound=BaseModel)

EMBEDDED_URL = "http://localhost"
"""Stands for the socket; nothing is resolved."""
ATTEMPTS = 3
"""How often a gateway is looked for that may just be stopping."""
KEEPALIVE_SECONDS = 4.0
"""Idle connections are dropped before the gateway does, after 5 s."""


class AsyncTransport:
    """One gateway, wherever it is."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self.url = settings.url
        self._headers: dict[str, str] = {}
        self._socket = None if settings.url else socket_path(settings)
        if settings.url and settings.token is not None:
            # The embedded gateway knows its peers; the token is nobody else's business.
            self._headers = _requests.authorization(settings.token.get_secret_value())
        self._http = httpx.AsyncClient(
            base_url=settings.url or EMBEDDED_URL,
            headers=self._headers,
            transport=httpx.AsyncHTTPTransport(
                uds=str(self._socket) if self._socket else None,
                limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            ),
        )

    @property
    def remote(self) -> bool:
        """Whether the gateway has a URL; otherwise it is the embedded one."""
        return self.url is not None

    async def aclose(self) -> None:
        """Release the connections. Harmless when done before."""
        await self._http.aclose()

    async def ensure(self) -> None:
        """Start the embedded gateway unless it runs. Raises `EmbeddedStartError`."""
        if not self.remote:
            await in_thread(ensure, self._settings)

    async def send(self, model: type[M], request: ApiRequest) -> M:
        """Send and parse. Raises a `SandcellError`."""
        response = await self._deliver(request)
        return _requests.parse(model, response.status_code, response.headers, response.content)

    async def _deliver(self, request: ApiRequest) -> httpx.Response:
        failure: httpx.HTTPError | None = None
        for _ in range(1 if self.remote else ATTEMPTS):
            await self.ensure()
            try:
                return await self._try(request)
            except httpx.TimeoutException as error:
                raise RequestTimeout(
                    f"no answer from {self._place} to {request.method} {request.path}",
                    hint="Try again, or raise SANDCELL_REQUEST_TIMEOUT.",
                ) from error
            except httpx.HTTPError as error:
                # An embedded gateway that just stops drops what it has not begun to
                # answer, so it may be sent again, to the next one.
                failure = error
        raise GatewayUnreachable(
            f"cannot reach {self._place}: {failure or 'unknown'}",
            hint="Does it run? Is SANDCELL_URL right?" if self.remote else "Run `sandcell doctor`.",
        ) from failure

    async def _try(self, request: ApiRequest) -> httpx.Response:
        timeout = httpx.Timeout(
            self._settings.request_timeout + request.patience,
            connect=self._settings.connect_timeout,
        )
        return await self._http.request(
            request.method,
            request.path,
            json=request.body,
            headers=request.headers,
            timeout=timeout,
        )

    async def channel_target(self, path: str) -> ChannelTarget:
        """Where a channel is opened; the embedded gateway is started if need be."""
        await self.ensure()
        url = _requests.websocket_url(self.url or EMBEDDED_URL) + path
        return ChannelTarget(url, dict(self._headers), self._socket)

    @property
    def _place(self) -> str:
        return f"the gateway at {self.url}" if self.remote else "the embedded gateway"
