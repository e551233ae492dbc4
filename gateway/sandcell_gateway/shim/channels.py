"""Clients' channels: replay from the journal, then live, without a seam.

A client's sender walks the journal from the number it asked for. One that keeps
up is served from memory, one that lags from the disk; neither holds up the kernel
or the other clients, and the memory of a slow one is its socket's write limit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.shim.journal import Journal
from sandcell_wire import control, frames
from sandcell_wire.messages import MessageError

CLOSE_BAD_DATA = 1007
CLOSE_FINAL = 4404
"""The session is over; a client need not come back."""
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

    def from_client(self, client: str, seen: int, frame: bytes) -> str:
        """Take one frame; its message's id. Raises `MessageError` or `FrameError`."""
        ...


class Channel:
    """One client's WebSocket."""

    def __init__(self, socket: ServerConnection, journal: Journal, client: str, after: int) -> None:
        self._socket = socket
        self._journal = journal
        self._client = client
        self._next = after + 1
        self._control: deque[str] = deque()
        self._acks: list[str] = []
        self._acks_due = False
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
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send())
            try:
                await self._receive(intake)
            finally:
                sender.cancel()

    async def _receive(self, intake: Intake) -> None:
        try:
            async for data in self._socket:
                if isinstance(data, str):
                    continue  # control of newer clients; there is none that we must know
                seen = frames.sequence_of(data)
                self._acknowledge(intake.from_client(self._client, seen, data))
        except (MessageError, frames.FrameError) as error:
            await self._socket.close(CLOSE_BAD_DATA, str(error)[:120])
        except ConnectionClosed:
            pass

    def _acknowledge(self, msg_id: str) -> None:
        """Acknowledge soon: an answer to the request does it, too, and mostly comes first."""
        if not self._acks:
            asyncio.get_running_loop().call_later(ACK_DELAY, self._acks_are_due)
        self._acks.append(msg_id)

    def _acks_are_due(self) -> None:
        self._acks_due = True
        self.wake()

    async def _send(self) -> None:
        try:
            while True:
                self._wake.clear()
                await self._send_control()
                await self._send_records()
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

    async def _send_records(self) -> None:
        while self._next <= self._journal.newest and not self._control:
            seq = self._next
            record = self._journal.get(seq)
            if record is None:
                last = max(seq, self._journal.oldest - 1)
                self._next = last + 1
                gap = control.Gap(
                    type="gap", first=seq, last=last, reason="dropped from the journal"
                )
                await self._socket.send(control.dump(gap))
                continue
            self._next = seq + 1
            if record.visible_to(self._client):
                await self._socket.send(record.frame)


class Channels:
    """All open channels of the session."""

    async def close(self, code: int, reason: str) -> None:
        """End them all; each client has taken what was recorded, or gone, or had its time."""
        await asyncio.gather(*(channel.close(code, reason) for channel in list(self._open)))

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: set[Channel] = set()

    def wake(self) -> None:
        """The journal has grown."""
        for channel in self._open:
            channel.wake()

    def tell(self, message: control.Control) -> None:
        """Send a control message to everybody."""
        for channel in self._open:
            channel.tell(message)

    async def serve(
        self, socket: ServerConnection, client: str, after: int, intake: Intake
    ) -> None:
        """Serve one WebSocket until it ends."""
        if len(self._open) >= MAX_CLIENTS:
            await socket.close(1013, f"at most {MAX_CLIENTS} channels; close one first")
            return
        channel = Channel(socket, self._journal, client, after)
        self._open.add(channel)
        try:
            await channel.serve(intake)
        finally:
            self._open.discard(channel)
