"""The shim's WebSocket server: `/channels` for clients, `/control` for the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.shim.session import ShimSession
from sandcell_wire.codes import Code
from sandcell_wire.frames import MAX_FRAME_BYTES

log = logging.getLogger(__name__)

CLOSE_REFUSED = 1008
ACTIVITY_DELAY = 0.1
"""Seconds after which the gateway learns that a cell began or ended."""
EVENT_QUEUE = 1024
"""Most status events that wait for a slow gateway."""
_UCRED = struct.Struct("3i")


Events = asyncio.Queue[tuple[dict[str, Any], bool]]


async def _next_event(events: Events) -> dict[str, Any]:
    """The next status to tell; of cells that come and go quickly only the latest."""
    event, prompt = await events.get()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ACTIVITY_DELAY):
            while not prompt:
                event, prompt = await events.get()
    return event


class RequestError(Exception):
    """A control request that cannot be done; code and text go to the gateway."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(text)


def peer_uid(connection: ServerConnection) -> int:
    """The uid at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    sock: socket.socket = connection.transport.get_extra_info("socket")
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(data)[1])


class ShimServer:
    """Routes WebSockets to the session."""

    def __init__(self, session: ShimSession) -> None:
        self._session = session

    async def listen(self, sock: socket.socket) -> Server:
        """Serve on a bound, listening Unix socket."""
        return await unix_serve(
            self._handle,
            sock=sock,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            ping_interval=None,
        )

    async def _handle(self, connection: ServerConnection) -> None:
        if peer_uid(connection) not in (os.getuid(), 0):
            await connection.close(CLOSE_REFUSED, "another user's session")
            return
        assert connection.request is not None
        url = urlsplit(connection.request.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if url.path == "/control":
            await self._control(connection)
        elif url.path == "/channels":
            await self._channels(connection, query)
        else:
            await connection.close(CLOSE_REFUSED, f"no such path: {url.path[:60]}")

    async def _channels(self, connection: ServerConnection, query: dict[str, str]) -> None:
        client, after = query.get("client", ""), query.get("after", "")
        newest = self._session.journal.newest
        if not client or len(client) > 64:
            await connection.close(CLOSE_REFUSED, "client must have 1 to 64 characters")
            return
        if after and not after.isdecimal():
            await connection.close(CLOSE_REFUSED, f"after must be a number, got {after[:20]!r}")
            return
        start = min(int(after), newest) if after else newest
        await self._session.channels.serve(connection, client, start, self._session)

    async def _control(self, connection: ServerConnection) -> None:
        events: Events = asyncio.Queue(EVENT_QUEUE)

        def listen(event: dict[str, Any], prompt: bool) -> None:
            if events.full():
                events.get_nowait()  # a newer status makes an older one worthless
            events.put_nowait((event, prompt))

        listen({**self._session.event(), "event": "status"}, True)
        self._session.listeners.add(listen)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send_events(connection, events))
                await self._requests(connection, group)
                sender.cancel()
        finally:
            self._session.listeners.discard(listen)

    async def _send_events(self, connection: ServerConnection, events: Events) -> None:
        try:
            while True:
                await connection.send(json.dumps(await _next_event(events)))
        except ConnectionClosed:
            pass

    async def _requests(self, connection: ServerConnection, group: asyncio.TaskGroup) -> None:
        try:
            async for text in connection:
                request = json.loads(text)
                group.create_task(self._answer(connection, request))
        except ConnectionClosed:
            pass

    async def _answer(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request.get("id"), "ok": True}
        try:
            answer["result"] = await self._do(str(request.get("op")), request.get("args") or {})
        except RequestError as error:
            answer |= {"ok": False, "code": error.code.value, "text": str(error)}
        except Exception as error:
            log.exception("control request failed")
            answer |= {"ok": False, "code": Code.INTERNAL_ERROR.value, "text": repr(error)}
        with contextlib.suppress(ConnectionClosed):
            await connection.send(json.dumps(answer))
        if request.get("op") == "close" and answer["ok"]:
            await connection.close()

    async def _do(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        operations: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "info": self._info,
            "restart": self._restart,
            "interrupt": self._interrupt,
            "close": self._close,
        }
        if op not in operations:
            raise RequestError(
                Code.VALIDATION_ERROR, f"expected one of {', '.join(operations)}, got {op!r}"
            )
        return await operations[op](args)

    async def _info(self, args: dict[str, Any]) -> dict[str, Any]:
        return {**self._session.event(), "seq": self._session.journal.newest, "pid": os.getpid()}

    async def _restart(self, args: dict[str, Any]) -> dict[str, Any]:
        await self._session.restart(args.get("interpreter"))
        if self._session.reason is not None:
            raise RequestError(Code.OPERATION_FAILED, self._session.reason["text"])
        return {**self._session.event()}

    async def _interrupt(self, args: dict[str, Any]) -> dict[str, Any]:
        self._session.interrupt()
        return {}

    async def _close(self, args: dict[str, Any]) -> dict[str, Any]:
        self._session.closed.set()
        await self._session.ended.wait()
        return {**self._session.event()}
