# Generated from _async by scripts/unasync.py; change it there.
"""Sending requests: to a URL, or to the embedded gateway's socket."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx
from pydantic import BaseModel

from sandcell import _answers, _requests, connection
from sandcell._sync._threads import in_thread, pause, pieces
from sandcell._files import written_aside
from sandcell._requests import ApiRequest, ChannelTarget
from sandcell.embedded import ensure, socket_path
from sandcell.errors import GatewayUnreachable, RateLimitError, RequestTimeout
from sandcell.settings import ClientSettings

M = TypeVar("M", bound=BaseModel)

EMBEDDED_URL = "http://localhost"
"""Stands for the socket; nothing is resolved."""
ATTEMPTS = 3
"""How often a request is sent whose connection fails."""
PAUSE = 0.5
"""Seconds before a request is sent again to a remote gateway; doubled each time."""
MAX_RETRY_AFTER = 30.0
"""Most seconds that are waited when the gateway says that there were too many requests."""
SILENCE = 45.0
"""Seconds after which a stream that says nothing is broken: the gateway does every 15."""
KEEPALIVE_SECONDS = 4.0
"""Idle connections are dropped before the gateway does, after 5 s."""


class Transport:
    """One gateway, wherever it is."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self.url = settings.url
        self._headers: dict[str, str] = {}
        self._socket = None if settings.url else socket_path(settings)
        if settings.url and settings.token is not None:
            # The embedded gateway knows its peers; the token is nobody else's business.
            self._headers = _requests.authorization(settings.token.get_secret_value())
        self._tls, self._proxy = connection.ssl_context(settings), connection.proxy(settings)
        self._http = httpx.Client(
            base_url=settings.url or EMBEDDED_URL,
            headers=self._headers,
            transport=httpx.HTTPTransport(
                uds=str(self._socket) if self._socket else None,
                # Reading the certificates takes longer than a request to the embedded gateway.
                verify=self._tls or False,
                proxy=self._proxy,
                limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            ),
        )

    @property
    def remote(self) -> bool:
        """Whether the gateway has a URL; otherwise it is the embedded one."""
        return self.url is not None

    def close(self) -> None:
        """Release the connections. Harmless when done before."""
        self._http.close()

    def ensure(self) -> None:
        """Start the embedded gateway unless it runs. Raises `EmbeddedStartError`."""
        if not self.remote:
            in_thread(ensure, self._settings)

    def send(self, model: type[M], request: ApiRequest) -> M:
        """Send and parse. Raises a `SandcellError`."""
        response = self._answer(request)
        return _answers.parse(model, response.status_code, response.headers, response.content)

    def content(self, request: ApiRequest) -> bytes:
        """The body of an answer. Raises a `SandcellError`."""
        return (self._answer(request)).content

    def _answer(self, request: ApiRequest) -> httpx.Response:
        """The answer, which is no error."""
        tried = 0
        while True:
            response = self._deliver(request)
            if response.is_success:
                return response
            tried += 1
            self._refused(request, response, response.content, tried)

    def _refused(
        self, request: ApiRequest, response: httpx.Response, body: bytes, tried: int
    ) -> None:
        """Raises the answer's error, or waits if there is room for the request soon."""
        try:
            _answers.check(response.status_code, response.headers, body)
        except RateLimitError as error:
            after = error.retry_after
            is_last = not request.safe or tried >= ATTEMPTS
            if is_last or after is None or after > MAX_RETRY_AFTER:
                raise
            pause(after)

    def upload(self, model: type[M], request: ApiRequest, source: Path) -> M:
        """Stream a file as a request's body, and parse the answer.

        Raises a `SandcellError`, or `OSError` when the file cannot be read.
        """
        self.ensure()
        with source.open("rb") as file:
            headers = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
            try:
                response = self._http.request(
                    request.method,
                    request.path,
                    content=pieces(file),
                    headers={**request.headers, **headers},
                    timeout=self._timeout(request),
                )
            except httpx.TimeoutException as error:
                raise self._too_late(request) from error
            except httpx.HTTPError as error:
                raise self._broken_off(error) from error
        return _answers.parse(model, response.status_code, response.headers, response.content)

    def download(self, request: ApiRequest, target: Path) -> None:
        """Stream the answer to a file, which appears whole or not at all.

        Raises a `SandcellError`, or `OSError` when the file cannot be written.
        """
        self.ensure()
        with written_aside(target) as file:
            try:
                self._stream(request, file)
            except httpx.TimeoutException as error:
                raise self._too_late(request) from error
            except httpx.HTTPError as error:
                raise self._broken_off(error) from error

    def _stream(self, request: ApiRequest, file: BinaryIO) -> None:
        with self._opened(request, self._timeout(request)) as response:
            for piece in response.iter_raw():
                file.write(piece)

    @contextmanager
    def _opened(
        self, request: ApiRequest, timeout: httpx.Timeout
    ) -> Generator[httpx.Response]:
        """An answer that is streamed, and no error."""
        tried = 0
        while True:
            with self._http.stream(
                request.method,
                request.path,
                json=request.body,
                headers=request.headers,
                timeout=timeout,
            ) as response:
                if response.is_success:
                    yield response
                    return
                body = response.read()
            tried += 1
            self._refused(request, response, body, tried)

    def lines(self, request: ApiRequest) -> Generator[bytes]:
        """The lines of a streamed answer.

        Raises a `SandcellError`: `GatewayUnreachable` when the stream breaks off, or says
        nothing for `SILENCE` seconds.
        """
        self.ensure()
        timeout = httpx.Timeout(SILENCE, connect=self._settings.connect_timeout)
        cut = _answers.Lines()
        try:
            with self._opened(request, timeout) as response:
                for piece in response.iter_raw():
                    for line in cut.feed(piece):
                        yield line
        except httpx.HTTPError as error:
            raise self._broken_off(error) from error

    def _deliver(self, request: ApiRequest) -> httpx.Response:
        failure: httpx.HTTPError | None = None
        for attempt in range(1 if self.remote and not request.repeatable else ATTEMPTS):
            if self.remote and attempt:
                pause(PAUSE * 2 ** (attempt - 1))
            self.ensure()
            try:
                return self._try(request)
            except httpx.TimeoutException as error:
                raise self._too_late(request) from error
            except httpx.HTTPError as error:
                # An embedded gateway that just stops drops what it has not begun to
                # answer; one that was killed may have done it, which harms only where
                # it is not harmless to do it twice: there the request has a key.
                failure = error
        raise self._unreachable(failure) from failure

    def _unreachable(self, failure: httpx.HTTPError | None) -> GatewayUnreachable:
        hint = "Does it run? Is SANDCELL_URL right?" if self.remote else "Run `sandcell doctor`."
        if "CERTIFICATE_VERIFY_FAILED" in str(failure):
            hint = "If it has a certificate of your own, name its file in SANDCELL_CA_BUNDLE."
        error = GatewayUnreachable(f"cannot reach {self._place}: {failure or 'unknown'}", hint=hint)
        error.may_be_done = not isinstance(failure, httpx.ConnectError)
        return error

    def _broken_off(self, failure: httpx.HTTPError) -> GatewayUnreachable:
        """Of what was on its way."""
        if isinstance(failure, httpx.ConnectError):
            return self._unreachable(failure)
        return GatewayUnreachable(
            f"the line to {self._place} broke off: {failure!r}",
            hint="Try again; its log says more.",
        )

    def _too_late(self, request: ApiRequest) -> RequestTimeout:
        return RequestTimeout(
            f"no answer from {self._place} to {request.method} {request.path}",
            hint="Try again, or raise SANDCELL_REQUEST_TIMEOUT.",
        )

    def _timeout(self, request: ApiRequest) -> httpx.Timeout:
        return httpx.Timeout(
            self._settings.request_timeout + request.patience,
            connect=self._settings.connect_timeout,
        )

    def _try(self, request: ApiRequest) -> httpx.Response:
        return self._http.request(
            request.method,
            request.path,
            json=request.body,
            content=request.content,
            headers=request.headers,
            timeout=self._timeout(request),
        )

    def channel_target(self, path: str) -> ChannelTarget:
        """Where a channel is opened; the embedded gateway is started if need be."""
        self.ensure()
        url = _requests.websocket_url(self.url or EMBEDDED_URL) + path
        return ChannelTarget(url, dict(self._headers), self._socket, self._tls, self._proxy)

    @property
    def _place(self) -> str:
        return f"the gateway at {self.url}" if self.remote else "the embedded gateway"
