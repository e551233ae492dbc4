"""How old records become small: output loses its body, what was asked and answered stays."""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Callable

from sandcell_gateway.journal.records import Damaged, Head, State, tombstone
from sandcell_gateway.journal.segments import Segment, Window, walk

log = logging.getLogger(__name__)

KEEP_BYTES = 64 << 10
"""Requests and replies of at most this many bytes keep their body in a compacted segment."""
SLICE = 128
"""Records copied at a time."""
PAUSE = 0.001
"""Seconds in between: the thread that writes waits for the interpreter's lock no longer
than one slice takes."""


def is_kept(head: Head) -> bool:
    """Whether a body stays: that of a small message which is from or for one client.

    Output is for all. So history keeps its code and how it ended.
    """
    return head.owner != "" and head.length <= KEEP_BYTES


class _Copy:
    """Entries gathered for the target's end."""

    def __init__(self, target: Segment) -> None:
        self._target = target
        self._parts: list[bytes] = []
        self._written = target.size
        self.at = target.size
        self.offsets = array("I")
        self.first = target.end if len(target) else 0

    @property
    def end(self) -> int:
        return self.first + len(self.offsets)

    def base(self, head: Head, raw: bytes) -> None:
        """Say where the next record continues, unless it follows the one before."""
        if self.end != head.seq + 1:
            self._parts.append(raw)
            self.at += len(raw)
        if self.first == 0:
            self.first = head.seq + 1

    def record(self, head: Head, raw: bytes, body: bytes) -> None:
        self.offsets.extend([self.at] * (head.seq - self.end + 1))
        self._parts += (raw, body)
        self.at += len(raw) + len(body)

    def flush(self) -> None:
        self._written = self._target.write([b"".join(self._parts)], self._written)
        self._parts.clear()

    def is_full_slice(self) -> bool:
        return len(self._parts) >= 2 * SLICE


def condense(
    source: Segment, target: Segment, pause: Callable[[], None] = lambda: time.sleep(PAUSE)
) -> Callable[[], None]:
    """Copy what stays of `source` behind the end of `target`, and sync it.

    Readers see nothing of it until the function that is returned is called; if it is not,
    `target` must be truncated. Raises `OSError`.
    """
    copy = _copy(source, target, pause)
    os.fdatasync(target.fd)

    def commit() -> None:
        target.extend(copy.first, copy.offsets, copy.at)
        target.synced = copy.at

    return commit


def _copy(source: Segment, target: Segment, pause: Callable[[], None]) -> _Copy:
    copy, window = _Copy(target), Window(source.fd, source.size)
    try:
        for at, head, body_at, end in walk(window, source.size):
            raw = window.cut(at, body_at)
            if head.state is State.BASE:
                copy.base(head, raw)
            elif head.state is State.STORED and is_kept(head):
                copy.record(head, raw, window.cut(body_at, end))
            else:
                copy.record(head, tombstone(raw), b"")
            if copy.is_full_slice():
                copy.flush()
                pause()
    except Damaged as error:
        log.warning("%s: what follows record %d is missing: %s", source.path.name, copy.end, error)
    copy.flush()
    return copy
