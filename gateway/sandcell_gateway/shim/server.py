"""The shim's WebSocket server: `/channels` for clients, `/control` for the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import struct
import sys
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.journal.records import base
from sandcell_gateway.shim.commands import CommandRefused
from sandcell_gateway.shim.files import Files
from sandcell_gateway.shim.operations import Operations, RequestError
from sandcell_gateway.shim.running import RunningCommand
from sandcell_gateway.shim.session import ShimSession
from sandcell_gateway.shim.spool import OUTPUT
from sandcell_wire import control
from sandcell_wire.codes import Code
from sandcell_wire.frames import MAX_FRAME_BYTES
from sandcell_wire.words import AFTER, EXPECTED, MISSED

log = logging.getLogger(__name__)

CLOSE_REFUSED = 1008
PATIENT = "head"
"""The request that may wait long, and is not waited for when the line has ended."""
CLOSE_TIMEOUT = 2.0
"""Seconds for a client to answer our close frame; one behind a dead line never does."""
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


async def _follow(
    connection: ServerConnection, running: RunningCommand, after: int, *, live: bool
) -> None:
    with contextlib.suppress(ConnectionClosed):
        async with aclosing(running.follow(after, live=live)) as output:
            async for part in output:
                if isinstance(part, int):
                    await connection.send(json.dumps({"lost": part}))
                else:
                    await connection.send(OUTPUT.pack(part.stream, part.end) + part.data)
        await connection.send(json.dumps({"command": running.command.as_json()}))


def peer_uid(connection: ServerConnection) -> int:
    """The uid at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    sock: socket.socket = connection.transport.get_extra_info("socket")
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(data)[1])


class ShimServer:
    """Routes WebSockets to the session."""

    def __init__(self, session: ShimSession) -> None:
        self._session = session
        self._files = Files(session.spec)
        self._operations = Operations(session)

    async def listen(self, sock: socket.socket) -> Server:
        """Serve on a bound, listening Unix socket."""
        return await unix_serve(
            self._handle,
            sock=sock,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            close_timeout=CLOSE_TIMEOUT,
            # A client that reads slowly answers no ping in time and is yet to be served.
            # Clients notice dead lines and come again, which ends the dead channel.
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
        elif url.path == "/files":
            self._session.pausing.resume_soon()
            await self._files.serve(connection)
        elif url.path == "/command":
            await self._command(connection, query)
        elif url.path == "/journal":
            await self._journal(connection, query)
        else:
            await connection.close(CLOSE_REFUSED, f"no such path: {url.path[:60]}")

    async def _channels(self, connection: ServerConnection, query: dict[str, str]) -> None:
        client, after = query.get("client", ""), query.get("after", "")
        newest = self._session.journal.newest
        if not client or len(client) > 64:
            await connection.close(CLOSE_REFUSED, "client must have 1 to 64 characters")
            return
        if not re.fullmatch(AFTER, after or "0"):
            await connection.close(
                CLOSE_REFUSED, f"after: expected {EXPECTED[AFTER]}, got {after[:20]!r}"
            )
            return
        missed: control.Missed | None = None
        start = newest
        if after == MISSED:
            missed = self._session.missed(client)
            start = missed["after"]
        elif after:
            start = min(int(after), newest)
            self._session.heard(client, start)
        await self._session.channels.serve(connection, client, start, self._session, missed)

    async def _journal(self, connection: ServerConnection, query: dict[str, str]) -> None:
        """Entries as they are stored, from record `first` to `last`, at the reader's pace."""
        seq, last = int(query.get("first", "1")), int(query.get("last", f"{sys.maxsize}"))
        journal = self._session.journal
        # What is dropped while a slow reader is at it must not look as if it were missing.
        view, (newest, chain) = journal.view(), journal.head()
        stop, end = min(last, newest) + 1, view[-1].end if view else 1
        with contextlib.suppress(ConnectionClosed):
            while seq < stop:
                data, seq = await asyncio.to_thread(journal.raw, seq, stop, view=view)
                if data:
                    await connection.send(data)
            if end < stop == newest + 1:  # the disk refused the newest ones
                await connection.send(base(newest, chain))

    async def _command(self, connection: ServerConnection, query: dict[str, str]) -> None:
        """A command's output from the position `after` on; then how it is."""
        try:
            running = self._session.commands.get(query.get("id", ""))
        except CommandRefused as error:
            await connection.close(CLOSE_REFUSED, str(error))
            return
        after, live = int(query.get("after", "0")), query.get("live") != "0"
        following = asyncio.ensure_future(_follow(connection, running, after, live=live))
        leaving = asyncio.ensure_future(connection.wait_closed())
        try:
            await asyncio.wait((following, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (following, leaving):
                task.cancel()
            await asyncio.gather(following, leaving, return_exceptions=True)

    async def _control(self, connection: ServerConnection) -> None:
        events: Events = asyncio.Queue(EVENT_QUEUE)

        def listen(event: dict[str, Any], prompt: bool) -> None:
            if events.full():
                events.get_nowait()  # a newer status makes an older one worthless
            events.put_nowait((event, prompt))

        listen({**self._session.life.event(), "event": "status"}, True)
        self._session.life.listeners.add(listen)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send_events(connection, events))
                await self._requests(connection, group)
                sender.cancel()
        finally:
            self._session.life.listeners.discard(listen)

    async def _send_events(self, connection: ServerConnection, events: Events) -> None:
        try:
            while True:
                await connection.send(json.dumps(await _next_event(events)))
        except ConnectionClosed:
            pass

    async def _requests(self, connection: ServerConnection, group: asyncio.TaskGroup) -> None:
        patient = set[asyncio.Task[None]]()
        try:
            async for text in connection:
                request = json.loads(text)
                task = group.create_task(self._answer(connection, request))
                if request.get("op") == PATIENT:
                    patient.add(task)
                    task.add_done_callback(patient.discard)
        except ConnectionClosed:
            pass
        finally:
            for task in patient:
                task.cancel()

    async def _answer(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request.get("id"), "ok": True}
        try:
            answer["result"] = await self._operations.do(
                str(request.get("op")), request.get("args") or {}
            )
        except (RequestError, CommandRefused) as error:
            answer |= {"ok": False, "code": error.code.value, "text": str(error)}
        except Exception as error:
            log.exception("control request failed")
            answer |= {"ok": False, "code": Code.INTERNAL_ERROR.value, "text": repr(error)}
        with contextlib.suppress(ConnectionClosed):
            await connection.send(json.dumps(answer))
        if request.get("op") == "close" and answer["ok"]:
            await connection.close()
