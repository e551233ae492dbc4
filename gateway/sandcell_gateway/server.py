"""uvicorn, taught three things: who is at the other end of a Unix socket, to hand
a channel's raw transport over to `splice`, and to end without a signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from sandcell_gateway.auth import PEER_UID, peer_allowed
from sandcell_gateway.settings import SettingsError
from sandcell_gateway.splice import Upstream
from sandcell_wire.control import Close
from sandcell_wire.frames import MAX_FRAME_BYTES

BACKLOG = 512
"""Connections that may wait to be accepted."""
GRACEFUL_SECONDS = 5
"""How long running requests may take to end when the gateway stops."""
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds of silence, seconds between probes and their number (tcp(7)): after 30 s a client
that vanished is given up. Not TCP_USER_TIMEOUT, which would end clients that read slowly."""
SPLICE = "sandcell.splice"
"""The ASGI extension by which a handler hands its connection over."""

_UCRED = struct.Struct("3i")


def peer_uid(sock: Any) -> int | None:
    """The uid at the other end of a connected Unix socket; None on other sockets."""
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    # uvloop's sockets offer no getsockopt.
    with socket.socket(fileno=os.dup(sock.fileno())) as own:
        _, uid, _ = _UCRED.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


class Activity(ServerState):
    """What the server knows of its connections."""

    last_seen: float | None = None
    """When the newest connection came, by the monotonic clock."""


class PeerProtocol(HttpToolsProtocol):
    """HTTP that puts the peer's uid into the connection's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        cast(Activity, self.server_state).last_seen = time.monotonic()
        uid = peer_uid(transport.get_extra_info("socket"))
        self.app_state = {**self.app_state, PEER_UID: uid}
        super().connection_made(transport)
        if uid is not None and not peer_allowed(uid):
            transport.abort()


class SpliceProtocol(WebSocketsSansIOProtocol):
    """WebSocket handshakes; afterwards the bytes may go past the WebSocket library."""

    _upstream: Upstream | None = None

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast("dict[str, Any]", self.scope.get("extensions"))
            extensions[SPLICE] = self.splice

    def splice(self, upstream: Upstream) -> None:
        """From now on the connection's bytes are `upstream`'s. Call right after accepting."""
        self._upstream = upstream
        upstream.join(self.transport)
        if self.transport.is_closing():
            upstream.client_lost()

    def data_received(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.from_client(data)
        else:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._upstream is not None:
            self._upstream.client_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._upstream is not None:
            self._upstream.client_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._upstream is not None:
            self._upstream.client_lost()

    def shutdown(self) -> None:
        if self._upstream is None:
            super().shutdown()
            return
        self._upstream.end_client(Close.RESTART, "the gateway restarts")
        self.transport.close()


class Server(uvicorn.Server):
    """A server that says when it listens, and ends with exit code 0 on a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_started: Callable[[], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.server_state = self._activity = Activity()
        self._on_started, self._on_stopping = on_started, on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    @property
    def last_seen(self) -> float | None:
        """When a client was last seen to connect or be connected, by the monotonic clock."""
        if self._activity.connections:
            self._activity.last_seen = time.monotonic()
        return self._activity.last_seen


def make_server(app: Any, on_started: Callable[[], None] = lambda: None) -> Server:
    """A server for `app`; run it with `serve(sockets=[...])`."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=PeerProtocol,
        ws=SpliceProtocol,
        ws_max_size=MAX_FRAME_BYTES,
        # Pings pass end to end, between client and shim.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    return Server(config, on_started, app.state.stopping.set)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises `SettingsError` when the address can not be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted connections inherit it; asyncio alone would not set it on all.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):  # macOS has not all
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --port"
        ) from error
    return sock


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket with mode 0600.

    A dead socket file in the way is removed; raises `SettingsError` when somebody
    still listens on it, or when it is another kind of file.
    """
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SettingsError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    return sock


def _clear(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise SettingsError(f"{path} is in the way and is not a socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise SettingsError(f"another server listens on {path}")
