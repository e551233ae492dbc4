"""The standard streams of a process that the agent started with pipes. Never waits.

Nothing is lost when whoever reads dies: what was given last is kept until somebody asks for
what comes after it, and a process whose output nobody fetches waits in its `write`.

Standard library only, as `agent.py`, which is the only one to use it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os

TYPE_CHECKING = False  # importing typing takes time, too
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

PIECE = 256 << 10
"""Most bytes of one piece, either way."""


class Output:
    """The reading end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.reply: Callable[[Json], None] | None = None
        """Answers who waits for more."""
        self._at = 0
        self._kept = b""
        self._ended = False

    def has_ended(self) -> bool:
        """Whether nothing more comes; then the descriptor is closed."""
        return self._ended

    def fetch(self, at: int) -> bool:
        """Have the piece that begins at byte `at`; False while there is none yet.

        Raises `ValueError` when that was given long ago, or is still to come.
        """
        if at == self._at + len(self._kept):
            self._at, self._kept = at, b""
        elif at != self._at:
            raise ValueError(f"at: {at} is neither {self._at} nor {self._at + len(self._kept)}")
        if self._kept or self._ended:
            return True
        try:
            self._kept = os.read(self.descriptor, PIECE)
        except BlockingIOError:
            return False
        if not self._kept:
            self._ended = True
            os.close(self.descriptor)
        return True

    def look(self) -> None:
        """Have what is there, if there is something now."""
        self.fetch(self._at)

    def discard(self) -> None:
        """Throw away what is there."""
        self.fetch(self._at + len(self._kept))

    def answer(self) -> Json:
        """What was fetched: a piece, the end, or nothing."""
        data = base64.b64encode(self._kept).decode()
        return {"at": self._at, "data": data, "ended": self._ended and not self._kept}


class Input:
    """The writing end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.reply: Callable[[Json], None] | None = None
        """Answers who waits until all is written."""
        self._at = 0
        self._pending = bytearray()
        self._ending = False
        self._closed = False

    def is_closed(self) -> bool:
        """Whether the process gets nothing more."""
        return self._closed

    def add(self, at: int | None, encoded: str, *, end: bool) -> None:
        """More, in base64, whose first byte is the stream's number `at`; None is the next.

        What was had before is not taken twice. Raises `ValueError`.
        """
        at = self._at if at is None else at
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError(f"data: not base64: {error}") from None
        if at > self._at:
            raise ValueError(f"at: {at} leaves out what comes after {self._at}")
        if len(data) + len(self._pending) > PIECE:
            raise ValueError(f"data: more than {PIECE} bytes would wait")
        fresh = data[self._at - at :]
        self._at += len(fresh)
        if not self._closed:
            self._pending += fresh
            self._ending |= end

    def flush(self) -> bool:
        """Write what the pipe takes; whether nothing waits any more."""
        if not self._closed:
            try:
                while self._pending:
                    del self._pending[: os.write(self.descriptor, self._pending)]
            except BlockingIOError:
                return False
            except OSError:  # the process has closed its end
                self._ending = True
            if self._ending:
                self.close()
        return True

    def close(self) -> None:
        """The process gets no more."""
        if not self._closed:
            self._closed = True
            self._pending.clear()
            with contextlib.suppress(OSError):
                os.close(self.descriptor)

    def answer(self) -> Json:
        """How far it is."""
        return {"at": self._at, "closed": self._closed}
