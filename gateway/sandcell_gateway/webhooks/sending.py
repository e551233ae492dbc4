"""One attempt at a delivery: over TLS, to an address that was looked at before.

httpcore resolves no name here: the backend below does, once for each connection, and
connects to the very address that it found allowed. A name that means something else a
moment later leads nowhere else. Redirects and proxies are followed by nobody.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from ipaddress import ip_address
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpcore
import psutil
import structlog

from sandcell_gateway.clock import now
from sandcell_gateway.webhooks.addresses import Address, Allowed, literal, refusal
from sandcell_gateway.webhooks.schedule import Answer, retry_after
from sandcell_wire.words import webhook_host

ATTEMPT_TIMEOUT = 20.0
"""Seconds for a whole attempt, from the name to the end of the answer."""
MAX_ADDRESSES = 4
"""Most addresses of one host that an attempt tries."""
MAX_ANSWER = 16 << 10
"""Bytes of an answer's body that are read before the connection is closed: the content
matters to nobody, but some receivers take an early end for a failure."""
MAX_ERROR = 300
"""Most characters of an error that are kept."""

APP = "sandcell"
"""What the gateway calls itself."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host, the preferred one first. Raises `OSError` or `UnicodeError`."""

_log = structlog.get_logger(__name__)


class NoAddress(Exception):
    """The host has no address that a webhook may go to.

    Says the same of names that do not exist and of names that lead inside: who may
    start a job learns nothing of the gateway's network.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} has no public address; the gateway's operator can allow others with "
            "SANDCELL_WEBHOOK_HOSTS"
        )


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def own_addresses() -> frozenset[Address]:
    """The addresses of this machine's interfaces."""
    return frozenset(
        ip_address(address.address)
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    )


def direct() -> httpcore.AsyncNetworkBackend:
    """Connects to whatever it is told to."""
    # httpcore keeps a stand-in for machines without anyio, which confuses type checkers.
    return cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connections to addresses that were looked at."""

    def __init__(
        self,
        allowed: Allowed,
        resolve: Resolve = resolve,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._inner = inner or direct()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises `NoAddress` when none may be tried."""
        failure: Exception = NoAddress(host)
        for address in (await self._addresses(host, port))[:MAX_ADDRESSES]:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            _log.info("webhook's host not found", host=host, error=str(error))
            return []
        own = own_addresses()
        kept = [text for text in found if self._allowed.admits(host, ip_address(text), own)]
        if len(kept) < len(found):
            refused = sorted(set(found) - set(kept))
            _log.warning("webhook may not go there", host=host, addresses=refused)
        return kept


def tls_context(authorities: Path | None) -> ssl.SSLContext:
    """Trust of the public authorities, and of those in a file. Raises `OSError`."""
    context = httpcore.default_ssl_context()
    if authorities is not None:
        context.load_verify_locations(authorities)
    return context


class Sender:
    """Sends webhooks. Holds no connection between two attempts."""

    def __init__(
        self,
        allowed: Allowed,
        authorities: Path | None,
        *,
        timeout: float = ATTEMPT_TIMEOUT,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = allowed
        self._authorities = authorities
        self._timeout = timeout
        self._backend = backend or PinnedBackend(allowed)
        self._tls: ssl.SSLContext | None = None

    def refuses(self, url: str) -> str | None:
        """Why nothing can ever be sent there; None when that shows only on trying."""
        host = webhook_host(url)
        address, own = literal(host), own_addresses()
        if address is None or self._allowed.admits(host, address, own):
            return None
        return refusal(address, own)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One attempt, at most `timeout` seconds long. What goes wrong is in the answer."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(url, headers, body)
        except (TimeoutError, httpcore.TimeoutException):
            return Answer(error=f"no answer within {self._timeout:g} seconds")
        except NoAddress as error:
            return Answer(error=str(error))
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            what = str(error) or type(error).__name__
            return Answer(error=f"{webhook_host(url)}: {what}"[:MAX_ERROR])

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self._tls is None:
            # It reads some hundred certificates.
            self._tls = await asyncio.to_thread(tls_context, self._authorities)
        own = {"host": urlsplit(url).netloc, "content-type": "application/json", "user-agent": APP}
        sent = list((own | dict(headers)).items())
        async with (
            httpcore.AsyncConnectionPool(
                self._tls, max_connections=1, network_backend=self._backend
            ) as pool,
            pool.stream("POST", url, headers=sent, content=body) as response,
        ):
            await _drain(response)
            return _answer(response)


async def _drain(response: httpcore.Response) -> None:
    read = 0
    stream = cast("AsyncGenerator[bytes]", response.aiter_stream())
    async with aclosing(stream) as parts:
        async for part in parts:
            read += len(part)
            if read > MAX_ANSWER:
                break


def _answer(response: httpcore.Response) -> Answer:
    asked = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    return Answer(
        status=response.status,
        error=None if 200 <= response.status < 300 else f"answered {response.status}",
        retry_after=retry_after(asked.decode("ascii", "replace"), now()),
    )
