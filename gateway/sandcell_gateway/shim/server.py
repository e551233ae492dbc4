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
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.journal.records import Record, base
from sandcell_gateway.shim.executions import code_of
from sandcell_gateway.shim.files import Files
from sandcell_gateway.shim.session import ShimSession
from sandcell_wire import control
from sandcell_wire.codes import Code
from sandcell_wire.frames import MAX_FRAME_BYTES
from sandcell_wire.words import AFTER, EXPECTED, MISSED

log = logging.getLogger(__name__)

CLOSE_REFUSED = 1008
PATIENT = "head"
"""The request that may wait long, and is not waited for when the line has ended."""
MAX_PAGE = 500
"""Most executions listed at once."""
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
        self._files = Files(session.spec)

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
            await self._files.serve(connection)
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
            "executions": self._executions,
            "execute": self._execute,
            "wait": self._wait,
            "head": self._head,
            "heard": self._heard,
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

    async def _executions(self, args: dict[str, Any]) -> dict[str, Any]:
        found, total = self._session.executions.page(
            limit=min(int(args["limit"]), MAX_PAGE),
            offset=int(args.get("offset", 0)),
            detached=args.get("detached"),
            newest=bool(args.get("newest")),
        )
        entries = [execution.as_json() for execution in found]
        if args.get("code"):
            codes = await asyncio.to_thread(self._codes, [entry["first"] for entry in entries])
            entries = [{**entry, "code": code} for entry, code in zip(entries, codes, strict=True)]
        return {"executions": entries, "total": total}

    def _codes(self, numbers: list[int]) -> list[str]:
        """What these requests ask to run; empty where the journal has dropped it."""
        records = [self._session.journal.get(number) for number in numbers]
        return [code_of(record) if isinstance(record, Record) else "" for record in records]

    async def _execute(self, args: dict[str, Any]) -> dict[str, Any]:
        timeout = args.get("timeout")
        return self._session.execute(
            str(args["id"]),
            str(args["code"]),
            detached=bool(args.get("detached")),
            timeout=None if timeout is None else float(timeout),
        ).as_json()

    async def _wait(self, args: dict[str, Any]) -> dict[str, Any]:
        """How far one execution is, after at most `seconds`."""
        found = self._session.executions.get(str(args["id"]))
        if found is None:
            raise RequestError(Code.NOT_FOUND, f"there is no execution {args['id']}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(args.get("seconds", 0))):
                await self._session.wait(found)
        return found.as_json()

    async def _heard(self, args: dict[str, Any]) -> dict[str, Any]:
        """A client, that has no channel, has everything up to `seq`."""
        self._session.heard(str(args["client"]), int(args["seq"]))
        return {}

    async def _head(self, args: dict[str, Any]) -> dict[str, Any]:
        """Number and chain of the newest record, which is on the disk when this is answered.

        With `seconds` when the journal has grown by so much, or after so many seconds.
        """
        due = False
        if "seconds" in args:
            wanted = (int(args.get(name, 0)) for name in ("after", "executions", "bytes"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(float(args["seconds"])):
                    await self._session.growth.until(*wanted)
                    due = True
        journal = self._session.journal
        seq, chain = journal.head()
        await asyncio.to_thread(journal.sync)
        holes = await asyncio.to_thread(journal.holes, seq)
        return {"seq": seq, "chain": chain.hex(), "holes": holes, "due": due}

    async def _close(self, args: dict[str, Any]) -> dict[str, Any]:
        self._session.closed.set()
        await self._session.ended.wait()
        return {**self._session.event()}
