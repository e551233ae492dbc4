"""The session's append-only record of every message, in segments on disk.

A record is a fixed head, the owner's client id, and the channel frame exactly as
clients receive it, so that a replay sends bytes from the disk unchanged. Numbers
start at 1 and have no holes. When the segments exceed `max_bytes` the oldest are
removed; `oldest` says what is left. A record that the disk refuses is delivered to
those who listen now, and is a gap for those who ask later.

Records survive the death of every process (they are in the page cache), not yet
the loss of power.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from sandcell_wire import frames
from sandcell_wire.messages import Message

MAX_BYTES = 256 << 20
"""Most bytes of all segments together."""
SEGMENT_BYTES = 16 << 20
"""A segment is closed once it is larger than this."""
RECENT_BYTES = 8 << 20
"""Newest records also kept in memory, for clients that keep up."""
SUFFIX = ".journal"

_HEAD = struct.Struct("<IQdBB")  # bytes after the head, number, unix time, kind, owner's length


class Kind(IntEnum):
    """Where a record came from."""

    REQUEST = 1
    """A client's message, written before it is sent to the kernel; not replayed to clients."""
    KERNEL = 2
    """A message of the kernel."""
    SHIM = 3
    """A message that the shim made in the kernel's place."""


@dataclass(slots=True, frozen=True)
class Record:
    """One journaled message."""

    seq: int
    time: float
    """Unix time in seconds at which it was recorded."""
    kind: Kind
    owner: str
    """The client that it is for (or came from); empty: every client."""
    frame: bytes

    def visible_to(self, client: str) -> bool:
        """Whether a channel of `client` carries this record."""
        return self.kind is not Kind.REQUEST and self.owner in ("", client)


class _Segment:
    """One file of consecutive records and where each begins."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.offsets: list[int] = []
        self.size = 0
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.first + len(self.offsets)

    def scan(self) -> None:
        """Rebuild the index from the file and cut off a torn last record."""
        length = os.fstat(self.fd).st_size
        while self.size + _HEAD.size <= length:
            body, seq, *_ = _HEAD.unpack(os.pread(self.fd, _HEAD.size, self.size))
            if seq != self.end or self.size + _HEAD.size + body > length:
                break
            self.offsets.append(self.size)
            self.size += _HEAD.size + body
        os.ftruncate(self.fd, self.size)

    def append(self, head: bytes, owner: bytes, frame: bytes) -> None:
        """Write one record whole or not at all. Raises `OSError`."""
        total = len(head) + len(owner) + len(frame)
        written = os.pwritev(self.fd, [head, owner, frame], self.size)
        while written < total:
            rest = (head + owner + frame)[written:]
            written += os.pwrite(self.fd, rest, self.size + written)
        self.offsets.append(self.size)
        self.size += total

    def read(self, seq: int) -> Record:
        """The record with this number."""
        offset = self.offsets[seq - self.first]
        index = seq - self.first + 1
        end = self.offsets[index] if index < len(self.offsets) else self.size
        data = os.pread(self.fd, end - offset, offset)
        _, number, when, kind, owner_length = _HEAD.unpack_from(data)
        start = _HEAD.size + owner_length
        return Record(number, when, Kind(kind), data[_HEAD.size : start].decode(), data[start:])

    def remove(self) -> None:
        """Delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the records stay."""
        os.close(self.fd)


class Journal:
    """Append and read records by number. A context manager; closing keeps the files."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._recent: deque[Record] = deque()
        self._recent_bytes = 0
        self._segments: list[_Segment] = []
        self.newest = 0
        """The number of the last record; 0 when there is none."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            segment = _Segment(path, int(path.stem))
            segment.scan()
            self._segments.append(segment)
            self.newest = max(self.newest, segment.end - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    @property
    def oldest(self) -> int:
        """The lowest number that can be read; `newest` + 1 when there is none."""
        first = self._segments[0].first if self._segments else self.newest + 1
        return min(first, self._recent[0].seq) if self._recent else first

    def append(self, message: Message, kind: Kind, owner: str = "") -> Record:
        """Number and store one message."""
        seq = self.newest + 1
        now = time.time()
        record = Record(seq, now, kind, owner, frames.encode(seq, message))
        self.newest = seq
        self._remember(record)
        owner_bytes = owner.encode()
        head = _HEAD.pack(
            len(owner_bytes) + len(record.frame), seq, now, int(kind), len(owner_bytes)
        )
        # After a failure the next record opens a new segment: numbers in a file stay consecutive.
        with contextlib.suppress(OSError):
            self._writable_segment(seq).append(head, owner_bytes, record.frame)
        self._drop_oldest()
        return record

    def get(self, seq: int) -> Record | None:
        """The record with this number, or None when it is gone."""
        if self._recent and seq >= self._recent[0].seq:
            index = seq - self._recent[0].seq
            return self._recent[index] if index < len(self._recent) else None
        at = bisect_right(self._segments, seq, key=lambda segment: segment.first) - 1
        if at < 0 or seq >= self._segments[at].end:
            return None
        return self._segments[at].read(seq)

    def scan(self) -> Iterator[Record]:
        """Every record that is left, oldest first."""
        for segment in self._segments:
            for seq in range(segment.first, segment.end):
                yield segment.read(seq)

    def _remember(self, record: Record) -> None:
        self._recent.append(record)
        self._recent_bytes += len(record.frame)
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft().frame)

    def _writable_segment(self, seq: int) -> _Segment:
        last = self._segments[-1] if self._segments else None
        if last is None or last.size > SEGMENT_BYTES or last.end != seq:
            last = _Segment(self._directory / f"{seq:020d}{SUFFIX}", seq)
            self._segments.append(last)
        return last

    def _drop_oldest(self) -> None:
        while len(self._segments) > 1 and (
            sum(segment.size for segment in self._segments) > self._max_bytes
        ):
            self._segments.pop(0).remove()
