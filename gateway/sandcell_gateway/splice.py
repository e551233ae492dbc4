"""A channel's bytes, moved between client and shim without looking into them.

After both WebSocket handshakes the two byte streams are the same protocol, so the
gateway copies them: masks, pings, pongs and closes pass end to end, and a frame
of any size needs no memory here beyond `BUFFER_BYTES` in each direction. Only the
lengths of the shim's frames are followed, to know where a close frame of our own fits.
"""

from __future__ import annotations

import asyncio
import struct
from typing import cast

BUFFER_BYTES = 1 << 20
"""Most bytes kept for a peer that does not read; then the other side is not read either."""
HANDSHAKE_BYTES = 16 * 1024
"""Most bytes of the shim's answer to the handshake."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the shim to answer the handshake."""

_FIN_CLOSE = 0x88
_KEY = "c2FuZGNlbGwtc3BsaWNlIQ=="  # any 16 bytes; the answer is checked by the shim's library


class SpliceError(Exception):
    """The shim did not accept the channel; the text says what it answered."""


def close_frame(code: int, reason: str) -> bytes:
    """A WebSocket close frame as a server sends it."""
    payload = struct.pack("!H", code) + reason.encode()[:120]
    return bytes((_FIN_CLOSE, len(payload))) + payload


class FrameWalker:
    """Follows unmasked frames of a byte stream, only to know where they end."""

    def __init__(self) -> None:
        self._rest = 0
        self._header: bytes = b""
        self.closed = False
        """A close frame went by."""

    @property
    def between_frames(self) -> bool:
        """The next byte begins a frame."""
        return not self._rest and not self._header

    def feed(self, data: bytes) -> None:
        """Move on by `data`."""
        size = len(data)
        if self._rest >= size and not self._header:
            self._rest -= size
            return
        position = self._rest
        if self._header:
            data = self._header + data
            size = len(data)
        while position < size:
            end = self._end_of_frame(data, position)
            if end is None:
                self._header, self._rest = data[position:], 0
                return
            position = end
        self._header, self._rest = b"", position - size

    def _end_of_frame(self, data: bytes, start: int) -> int | None:
        if len(data) - start < 2:
            return None
        if data[start] & 0x0F == 8:
            self.closed = True
        length = data[start + 1] & 0x7F
        if length < 126:
            return start + 2 + length
        extended = 2 if length == 126 else 8
        body = start + 2 + extended
        if len(data) < body:
            return None
        return body + int.from_bytes(data[start + 2 : body], "big")


class Upstream(asyncio.Protocol):
    """The stream to the shim. `ended` is set when either side is gone."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._answer: bytes = b""
        self._walker = FrameWalker()
        self._shim: asyncio.Transport | None = None
        self._client: asyncio.Transport | None = None
        self.ended = asyncio.Event()
        self.client_gone = False
        """The client's side ended first."""

    # The shim's side ---------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._shim = cast(asyncio.Transport, transport)
        self._shim.set_write_buffer_limits(high=BUFFER_BYTES)

    async def open(self, target: str) -> None:
        """Ask the shim for `target`. Raises `SpliceError`."""
        assert self._shim is not None
        self._shim.write(
            (
                f"GET {target} HTTP/1.1\r\nHost: shim\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {_KEY}\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n"
            ).encode("ascii")
        )
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await self._opened

    def data_received(self, data: bytes) -> None:
        if self._client is not None:
            self._walker.feed(data)
            self._client.write(data)
        elif self._opened.done():
            self._answer += data
        else:
            self._handshake(data)

    def _handshake(self, data: bytes) -> None:
        self._answer += data
        head, found, rest = self._answer.partition(b"\r\n\r\n")
        if not found:
            if len(self._answer) > HANDSHAKE_BYTES:
                self._fail(f"an answer of more than {HANDSHAKE_BYTES} bytes")
            return
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        if status.split(" ")[1:2] != ["101"]:
            self._fail(status)
            return
        assert self._shim is not None
        # Nothing of the shim is read until the client is there to get it.
        self._shim.pause_reading()
        self._answer = rest
        self._opened.set_result(None)

    def _fail(self, got: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(SpliceError(f"expected 101 from the shim, got: {got}"))
        if self._shim is not None:
            self._shim.abort()

    def pause_writing(self) -> None:
        if self._client is not None:
            self._client.pause_reading()

    def resume_writing(self) -> None:
        if self._client is not None and not self._client.is_closing():
            self._client.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection ended")
        self.ended.set()

    # The client's side -------------------------------------------------------

    def join(self, client: asyncio.Transport) -> None:
        """Begin to copy. The client's handshake must be complete."""
        assert self._shim is not None
        client.set_write_buffer_limits(high=BUFFER_BYTES)
        self._client = client
        rest, self._answer = self._answer, b""
        if rest:
            self._walker.feed(rest)
            client.write(rest)
        if not self._shim.is_closing():
            self._shim.resume_reading()

    def from_client(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._shim is not None and not self._shim.is_closing():
            self._shim.write(data)

    def client_paused(self) -> None:
        """The client does not read fast enough."""
        if self._shim is not None and not self._shim.is_closing():
            self._shim.pause_reading()

    def client_resumed(self) -> None:
        """The client's buffer has room again."""
        if self._shim is not None and not self._shim.is_closing():
            self._shim.resume_reading()

    def client_lost(self) -> None:
        """The client's connection ended."""
        self.client_gone = not self.ended.is_set()
        self.close()
        self.ended.set()

    def end_client(self, code: int, reason: str) -> None:
        """Close the client's side: with a close frame where one fits, else abruptly.

        Harmless when the shim has sent its own close frame or the client is gone.
        """
        if self._client is None or self._client.is_closing() or self._walker.closed:
            return
        if self._walker.between_frames:
            self._client.write(close_frame(code, reason))
        else:
            # In the middle of a frame nothing that we could send would be understood.
            self._client.abort()

    @property
    def shim_closed(self) -> bool:
        """The shim ended the channel with a close frame of its own."""
        return self._walker.closed

    def close(self) -> None:
        """Release the shim's side. Harmless when it is released."""
        if self._shim is not None and not self._shim.is_closing():
            self._shim.close()


async def connect(path: str, target: str) -> Upstream:
    """Open a channel at the shim's socket. Raises `SpliceError`, `OSError` or `TimeoutError`."""
    loop = asyncio.get_running_loop()
    _, upstream = await loop.create_unix_connection(Upstream, path)
    try:
        await upstream.open(target)
    except BaseException:
        upstream.close()
        raise
    return upstream
