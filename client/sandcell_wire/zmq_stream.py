"""A ZMQ socket in an asyncio loop, read by its file descriptor.

`zmq.asyncio` makes a future for every message; reading the descriptor and
draining the socket costs a third of that and keeps messages in order.
The descriptor is edge-triggered (zmq_getsockopt(3), ZMQ_FD): after every send
and every partial drain the socket must be looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from sandcell_wire.messages import Buffer

log = logging.getLogger(__name__)

MAX_BATCH = 64
"""Most messages taken in one turn of the loop, so that other sockets get theirs."""
COPY_THRESHOLD = 64 * 1024
"""Parts from this size are sent without a copy."""

# Numbers: arithmetic with enum members costs more than the calls that it is for.
_LAST = int(zmq.DONTWAIT)
_MORE = int(zmq.DONTWAIT) | int(zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)
_WRITABLE = int(zmq.POLLOUT)


class ZmqStream:
    """Calls `receive` with the frames of each message, in order. Owns the socket."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        receive: Callable[[list[bytes]], None],
        writable: Callable[[], None] | None = None,
    ) -> None:
        self._socket = socket
        self._receive = receive
        self._writable = writable
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._scheduled: asyncio.Handle | None = None
        self._paused = False
        self._full = False
        self._loop.add_reader(self._fd, self._drain)
        self._look_again()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Queue one message. Never blocks: the socket's send mark is 0, or its peer is gone.

        When the peer is gone the message is, too; who supervises the peer tells of it.
        """
        self.try_send(frames)

    def try_send(self, frames: Sequence[Buffer]) -> bool:
        """Queue one message if there is room; otherwise `writable` is called when there may be."""
        try:
            self._send(frames)
        except zmq.Again:
            self._full = True
            return False
        finally:
            self._look_again()
        return True

    def _send(self, frames: Sequence[Buffer]) -> None:
        send, last = self._socket.send, len(frames) - 1
        for index, frame in enumerate(frames):
            flags = _MORE if index < last else _LAST
            send(frame, flags, copy=len(frame) < COPY_THRESHOLD)

    def pause(self) -> None:
        """Stop reading; the socket's own marks then hold the sender back."""
        self._paused = True

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        self._look_again()

    def _events(self) -> int:
        return int(self._socket.getsockopt(zmq.EVENTS))

    def _look_again(self) -> None:
        """Come back in the loop's next turn if there is something to do.

        Asking the socket is much cheaper than a turn of the loop for nothing.
        """
        if self._scheduled is None and not self._socket.closed:
            events = self._events()
            readable = events & _READABLE and not self._paused
            if readable or (self._full and events & _WRITABLE):
                self._scheduled = self._loop.call_soon(self._again)

    def _again(self) -> None:
        self._scheduled = None
        self._drain()

    def _drain(self) -> None:
        socket: Any = self._socket
        if self._full and not socket.closed and self._events() & _WRITABLE:
            self._full = False
            if self._writable is not None:
                self._writable()
        for _ in range(MAX_BATCH):
            if socket.closed or self._paused or not self._events() & _READABLE:
                return
            self._take(socket.recv_multipart(_LAST))
        self._look_again()

    def _take(self, frames: list[bytes]) -> None:
        """Hand one message on. What fails with it must not end the reading: nothing would tell
        the edge-triggered descriptor that more is there.
        """
        try:
            self._receive(frames)
        except Exception:
            log.exception("a message was dropped: its receiver failed")

    def close(self, linger: int = 0) -> None:
        """Close the socket; `linger` milliseconds for what is queued. Harmless when closed."""
        if self._socket.closed:
            return
        self._loop.remove_reader(self._fd)
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._socket.close(linger)
