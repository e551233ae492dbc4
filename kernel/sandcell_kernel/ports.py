"""The five ZMQ sockets of a Jupyter kernel, as the connection file asks for them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from sandcell_wire.messages import Message, MessageError, Signer, make
from sandcell_wire.zmq_stream import ZmqStream

IOPUB_MARK = 10_000
"""Messages queued for one front end on iopub before reading from the session pauses."""
LINGER = 1000
"""Milliseconds for the last messages when the kernel ends."""


@dataclass(frozen=True)
class Connection:
    """A connection file (jupyter_client, "Connection files")."""

    transport: str
    ip: str
    key: bytes
    ports: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> Connection:
        """Load one. Raises `OSError`, or `ValueError` naming what is missing."""
        value: dict[str, Any] = json.loads(path.read_text())
        try:
            scheme = value.get("signature_scheme", "hmac-sha256")
            if scheme != "hmac-sha256":
                raise ValueError(f"signature_scheme must be hmac-sha256, got {scheme!r}")
            channels = ("shell", "iopub", "stdin", "control", "hb")
            ports = {channel: int(value[f"{channel}_port"]) for channel in channels}
            key = str(value["key"]).encode()
            return cls(str(value["transport"]), str(value["ip"]), key, ports)
        except KeyError as error:
            raise ValueError(f"connection file {path} has no {error}") from error

    def address(self, channel: str) -> str:
        """The ZMQ endpoint of a channel."""
        separator = "-" if self.transport == "ipc" else ":"
        return f"{self.transport}://{self.ip}{separator}{self.ports[channel]}"


class KernelPorts:
    """Bound sockets; front ends' messages go to `receive`. Close with `close`."""

    def __init__(
        self,
        connection: Connection,
        session: Callable[[], str],
        receive: Callable[[list[bytes], Message], None],
        drop: Callable[[str], None],
    ) -> None:
        self._session = session
        self._receive = receive
        self._drop = drop
        self._signer = Signer(connection.key)
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._streams: dict[str, ZmqStream] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._blocked: deque[Sequence[Any]] = deque()
        for channel in ("shell", "control", "stdin"):
            socket = self._bound(connection.address(channel), zmq.ROUTER)
            self._streams[channel] = ZmqStream(socket, partial(self._received, channel))
        self._iopub = self._bound(connection.address("iopub"), zmq.XPUB)
        self._streams["iopub"] = ZmqStream(self._iopub, self._subscribed, self._writable)
        heartbeat = self._bound(connection.address("hb"), zmq.ROUTER)
        self._streams["hb"] = ZmqStream(heartbeat, self._echo)

    def _bound(self, address: str, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, LINGER)
        socket.setsockopt(zmq.RCVHWM, 0)
        if kind == zmq.XPUB:
            # A full front end makes us wait; the default would drop its messages silently.
            socket.setsockopt(zmq.SNDHWM, IOPUB_MARK)
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        else:
            socket.setsockopt(zmq.SNDHWM, 0)
            # A front end that reconnects under its old identity takes it over.
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.bind(address)
        return socket

    def _echo(self, frames: list[bytes]) -> None:
        self._streams["hb"].send(frames)

    def _received(self, channel: str, frames: list[bytes]) -> None:
        try:
            identities, message = self._signer.unpack(channel, frames)
            self._receive(identities, message)
        except MessageError as error:
            self._drop(f"message on {channel}: {error}")

    def _subscribed(self, frames: list[bytes]) -> None:
        """Welcome a new subscriber (JEP 65), so that it knows when it misses nothing."""
        if frames[0][:1] == b"\x01":
            topic = frames[0][1:]
            welcome = make(
                "iopub",
                "iopub_welcome",
                {"subscription": topic.decode("utf-8", "replace")},
                session=self._session(),
            )
            self.publish(welcome, topic)

    def to_front(self, channel: str, identities: Sequence[bytes], message: Message) -> None:
        """Send to one front end."""
        self._streams[channel].send(self._signer.pack(message, identities))

    def publish(self, message: Message, topic: bytes = b"sandcell") -> None:
        """Send to all front ends; what has no room waits in order, see `room`."""
        frames = self._signer.pack(message, [topic])
        if self._blocked or not self._streams["iopub"].try_send(frames):
            self._blocked.append(frames)
            self._room.clear()

    def _writable(self) -> None:
        while self._blocked and self._streams["iopub"].try_send(self._blocked[0]):
            self._blocked.popleft()
        if not self._blocked:
            self._room.set()

    async def room(self) -> None:
        """Until front ends have taken what was published: who publishes much waits here."""
        await self._room.wait()

    def close(self) -> None:
        """Close the sockets; the last messages get `LINGER` milliseconds."""
        for stream in self._streams.values():
            stream.close(LINGER)
        self._context.term()
