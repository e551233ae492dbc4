"""Clients' channels: replay from the journal, then live, without a seam.

A client's sender walks the journal from the number it asked for. One that keeps
up is served from memory, one that lags from the disk; neither holds up the kernel
or the other clients, and the memory of a slow one is its socket's write limit and
what the journal gives at once (`READ_BYTES`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Record, Tombstone
from sandcell_wire import control, frames
from sandcell_wire.messages import MessageError

DROPPED = "dropped from the journal"
ACK_DELAY = 0.1
"""Seconds after which a request is acknowledged."""
DRAIN_TIMEOUT = 2.0
"""Seconds for a client to take its last messages when the session closes."""
MAX_CLIENTS = 256
"""Most channels open at once."""


class Intake(Protocol):
    """Where a client's frames go."""

    def hello(self) -> list[control.Control]:
        """What a new channel is told first."""
        ...

    def open_requests(self, client: str) -> list[str]:
        """The ids of the client's requests that have not ended."""
        ...

    def from_client(self, client: str, seen: int, frame: bytes) -> str:
        """Take one frame; its message's id. Raises `MessageError` or `FrameError`."""
        ...

    def heard(self, client: str, seen: int) -> None:
        """A client says that it has everything up to this number."""
        ...

    def left(self) -> None:
        """A channel has ended."""
        ...


class Channel:
    """One client's WebSocket."""

    def __init__(
        self,
        socket: ServerConnection,
        journal: Journal,
        client: str,
        after: int,
        missed: control.Missed | None = None,
    ) -> None:
        self._socket = socket
        self._journal = journal
        self.client = client
        self._next = after + 1
        self._announced = missed
        self._batch: deque[Record | Tombstone] = deque()
        self._gap: tuple[int, int] | None = None
        self._control: deque[str] = deque()
        self._acks: list[str] = []
        self._acks_due = False
        self._open_due = True
        """Whether the client must learn which of its requests are open: it may have missed ends."""
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()

    def wake(self) -> None:
        """There is something new in the journal."""
        self._drained.clear()
        self._wake.set()

    def tell(self, message: control.Control) -> None:
        """Queue a control message."""
        self._control.append(control.dump(message))
        self.wake()

    def abandon(self) -> None:
        """End it at once, as a lost line ends: nobody is there to be told."""
        self._socket.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """Close once what is recorded is sent, or after `DRAIN_TIMEOUT`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self._drained.wait()
        await self._socket.close(code, reason)

    async def serve(self, intake: Intake) -> None:
        """Until the client leaves, or sends what breaks the protocol."""
        for message in intake.hello():
            self.tell(message)
        if self._announced is not None:
            self.tell(self._announced)
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(intake))
            try:
                await self._receive(intake)
            finally:
                sender.cancel()

    async def _receive(self, intake: Intake) -> None:
        try:
            async for data in self._socket:
                if isinstance(data, str):
                    self._hear(control.load(data), intake)
                    continue
                seen = frames.sequence_of(data)
                self._acknowledge(intake.from_client(self.client, seen, data))
        except (MessageError, frames.FrameError, control.ControlError) as error:
            await self._socket.close(control.Close.BAD_DATA, str(error)[:120])
        except ConnectionClosed:
            pass

    def _hear(self, message: dict[str, Any], intake: Intake) -> None:
        """What we do not know is of a newer client; there is none that we must know."""
        if message["type"] == "seen" and isinstance(message.get("seq"), int):
            intake.heard(self.client, message["seq"])

    def _acknowledge(self, msg_id: str) -> None:
        """Acknowledge soon: an answer to the request does it, too, and mostly comes first."""
        if not self._acks:
            asyncio.get_running_loop().call_later(ACK_DELAY, self._acks_are_due)
        self._acks.append(msg_id)

    def _acks_are_due(self) -> None:
        self._acks_due = True
        self.wake()

    async def _send(self, intake: Intake) -> None:
        try:
            while True:
                self._wake.clear()
                await self._send_control()
                await self._send_records()
                await self._send_open(intake)
                if not self._control and self._next > self._journal.newest:
                    self._drained.set()
                    await self._wake.wait()
        except ConnectionClosed:
            pass  # the receiver sees it too and ends the channel

    async def _send_control(self) -> None:
        if self._acks_due:
            msg_ids, self._acks, self._acks_due = self._acks, [], False
            await self._socket.send(control.dump(control.Ack(type="ack", msg_ids=msg_ids)))
        while self._control:
            await self._socket.send(self._control.popleft())

    async def _send_open(self, intake: Intake) -> None:
        # Asked and sent in one go: every end up to here has been sent.
        if self._open_due and not self._control and self._next > self._journal.newest:
            self._open_due = False
            msg_ids = intake.open_requests(self.client)
            await self._socket.send(control.dump(control.Open(type="open", msg_ids=msg_ids)))

    async def _send_records(self) -> None:
        while self._next <= self._journal.newest and not self._control:
            newest = self._journal.newest
            if not self._batch:
                await self._fetch()
            record = self._batch.popleft() if self._batch else None
            # None: nothing is left of all that was there when it was looked for.
            found = newest + 1 if record is None else record.seq
            if found > self._next:
                self._missed(self._next, found - 1)
            self._next = found if record is None else found + 1
            if record is None or not record.visible_to(self.client):
                continue
            if isinstance(record, Tombstone):
                self._missed(record.seq, record.seq)
                continue
            if self._gap:
                await self._send_gap()
            await self._socket.send(record.frame)
        if self._next > self._journal.newest:
            await self._send_gap()

    async def _fetch(self) -> None:
        """Take what comes next from memory, or wait for the disk without holding up others."""
        record = self._journal.recent(self._next)
        if record is not None:
            self._batch.append(record)
        else:
            self._batch.extend(await asyncio.to_thread(self._journal.read, self._next))

    def _missed(self, first: int, last: int) -> None:
        """These cannot be sent. Between two such the client has nothing to miss: one gap."""
        self._gap = (self._gap[0] if self._gap else first, last)
        self._open_due = True

    async def _send_gap(self) -> None:
        if self._gap:
            (first, last), self._gap = self._gap, None
            gap = control.Gap(type="gap", first=first, last=last, reason=DROPPED)
            await self._socket.send(control.dump(gap))


class Channels:
    """All open channels of the session."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: set[Channel] = set()

    @property
    def clients(self) -> frozenset[str]:
        """Who is connected."""
        return frozenset(channel.client for channel in self._open)

    async def close(self, code: int, reason: str) -> None:
        """End them all; each client has taken what was recorded, or gone, or had its time."""
        await asyncio.gather(*(channel.close(code, reason) for channel in list(self._open)))

    def wake(self) -> None:
        """The journal has grown."""
        for channel in self._open:
            channel.wake()

    def tell(self, message: control.Control, client: str | None = None) -> None:
        """Send a control message to one client, or to everybody."""
        for channel in self._open:
            if client in (None, channel.client):
                channel.tell(message)

    async def serve(
        self,
        socket: ServerConnection,
        client: str,
        after: int,
        intake: Intake,
        missed: control.Missed | None = None,
    ) -> None:
        """Serve one WebSocket until it ends; what it `missed` is told first."""
        # A client that comes again has lost its line, although nobody may have told us so.
        for earlier in [channel for channel in self._open if channel.client == client]:
            self._open.discard(earlier)
            earlier.abandon()
        if len(self._open) >= MAX_CLIENTS:
            await socket.close(
                control.Close.TRY_LATER, f"at most {MAX_CLIENTS} channels; close one first"
            )
            return
        channel = Channel(socket, self._journal, client, after, missed)
        self._open.add(channel)
        try:
            await channel.serve(intake)
        finally:
            self._open.discard(channel)
            intake.left()
